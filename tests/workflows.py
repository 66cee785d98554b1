"""The services of workflows on a fleet, and the rules of the template that bring events to them."""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import timedelta
from functools import cache, cached_property
from typing import Any

from mdmlib.errors import NotFoundError
from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
from mdmlib.services.apps import Apps
from mdmlib.services.blueprint_ade import BlueprintAde
from mdmlib.services.blueprint_jobs import BlueprintJobs
from mdmlib.services.blueprint_plans import KIND, BlueprintPlans
from mdmlib.services.blueprints import Blueprints
from mdmlib.services.builtin_plans import (
    BuiltinPlans,
    ListCertificates,
    LockDevice,
    ReplaceCertificateProfile,
    TakeInventory,
)
from mdmlib.services.device_attributes import DeviceAttributeStore
from mdmlib.services.escrow import Escrow
from mdmlib.services.filevault import AwaitRecoveryKey, FileVault, InstallFileVaultProfile, RotateRecoveryKey
from mdmlib.services.install_actions import (
    CreateAccounts,
    InstallApp,
    InstallProfile,
    RemoveApp,
    RemoveProfile,
    SendCommand,
)
from mdmlib.services.inventory import InventoryStore
from mdmlib.services.micromdm_users import MicroMDMUsers
from mdmlib.services.named_profiles import NamedProfiles
from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows
from mdmlib.services.plan_actions import Action, ListApps, ListProfiles, ReleaseDevice, Send
from mdmlib.services.plan_list import KnownPlan, PlanList
from mdmlib.services.plan_moves import PlanMoves
from mdmlib.services.plans import Plans
from mdmlib.services.stored_profiles import StoredProfiles
from mdmlib.services.workflow import Workflow
from mdmlib.services.workflow_events import WorkflowEvents
from mdmlib.services.workflow_queue import WorkflowQueue
from mdmlib.services.workflow_rules import WorkflowRules
from mdmlib.store.app_objects import AppObjects
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice
from tools.template_tables import read_template


class Works:
    """What moves the plans of a fleet's devices."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.ade_servers: dict[str, str] = {}
        self.ade_names: set[str] = set()
        """Of ADE profiles and servers that there are."""
        self.lists_read: list[str | None] = []
        self.bus_rules = BusRules(self.fleet.settings.stack_name)
        self.heard: list[dict[str, Any]] = []
        """Every event so far."""

    @cached_property
    def profiles(self) -> StoredProfiles:
        return StoredProfiles(sealer=self.fleet.sealer, payloads=self.fleet.payloads, now=self.fleet.clock)

    @cached_property
    def users(self) -> MicroMDMUsers:
        return MicroMDMUsers(
            enrollments=self.fleet.enrollments,
            sealer=self.fleet.sealer,
            now=self.fleet.clock,
            new_uuid=lambda: str(uuid.uuid4()),
        )

    @cached_property
    def attributes(self) -> DeviceAttributeStore:
        return DeviceAttributeStore(
            sealer=self.fleet.sealer,
            now=self.fleet.clock,
            on_change=lambda said: self.jobs.on_device_change(said),  # noqa: PLW0108 - made later
        )

    @cached_property
    def queue(self) -> WorkflowQueue:
        return self.fleet.workflow_queue

    @cached_property
    def actions(self) -> dict[str, Action]:
        return {
            "await_recovery_key": AwaitRecoveryKey(self.filevault, self.escrow, self.inventory),
            "create_accounts": CreateAccounts(self.users),
            "install_filevault_profile": InstallFileVaultProfile(self.filevault),
            "list_certificates": ListCertificates(),
            "lock_device": LockDevice(self.escrow),
            "replace_certificate_profile": ReplaceCertificateProfile(self.profiles, self.fleet.clock),
            "rotate_recovery_key": RotateRecoveryKey(self.filevault, self.escrow, self.inventory),
            "take_inventory": TakeInventory(self.inventory),
            "install_app": InstallApp(self.apps),
            "install_profile": InstallProfile(self.profiles),
            "list_apps": ListApps(),
            "list_profiles": ListProfiles(),
            "release": ReleaseDevice(),
            "remove_app": RemoveApp(),
            "remove_profile": RemoveProfile(),
            "send": Send(),
            "send_command": SendCommand(),
        }

    @cached_property
    def apps(self) -> Apps:
        bucket = self.fleet.settings.payload_bucket
        return Apps(
            objects=AppObjects(lambda: self.fleet.emulator.s3, bucket=bucket),
            workflow_queue=lambda: self.queue,
            settings=self.fleet.settings,
            now=self.fleet.clock,
            new_id=lambda: uuid.uuid4().hex,
            on_change=lambda name: self.jobs.on_app_change(name),  # noqa: PLW0108 - made later
        )

    @cached_property
    def escrow(self) -> Escrow:
        return Escrow(
            events=self.fleet.events,
            sealer=self.fleet.sealer,
            now=self.fleet.clock,
            new_event_id=self.fleet.new_event_id,
        )

    @cached_property
    def inventory(self) -> InventoryStore:
        return InventoryStore(sealer=self.fleet.sealer, now=self.fleet.clock)

    @cached_property
    def filevault(self) -> FileVault:
        return FileVault(sealer=self.fleet.sealer, settings=self.fleet.settings, now=self.fleet.clock)

    @cached_property
    def names(self) -> NamedProfiles:
        return NamedProfiles(profiles=self.profiles)

    @cached_property
    def builtin(self) -> BuiltinPlans:
        return BuiltinPlans(
            plans=self.plans,
            names=self.names,
            workflow_queue=lambda: self.queue,
            sealer=self.fleet.sealer,
            new_id=lambda: uuid.uuid4().hex,
        )

    @cached_property
    def nanocmd(self) -> NanoCMDWorkflows:
        return NanoCMDWorkflows(builtin=self.builtin, names=self.names)

    @cached_property
    def plans(self) -> Plans:
        return Plans(
            queue=self.fleet.queue,
            moves=PlanMoves(
                enqueue=self.fleet.enqueuer,
                events=self.fleet.events,
                workflow_queue=self.queue,
                actions=self.actions,
                sealer=self.fleet.sealer,
                command_life=self._command_life,
                now=self.fleet.clock,
                new_event_id=self.fleet.new_event_id,
            ),
            attributes=self.attributes,
            actions=self.actions,
            sealer=self.fleet.sealer,
            command_life=self._command_life,
            result_life=timedelta(days=self.fleet.settings.result_days),
            now=self.fleet.clock,
        )

    @property
    def _command_life(self) -> timedelta:
        return timedelta(days=self.fleet.settings.command_days)

    @cached_property
    def plan_list(self) -> PlanList:
        return PlanList(queue=self.fleet.queue, sealer=self.fleet.sealer)

    @cached_property
    def ade_rules(self) -> AdeAssignmentRules:
        return AdeAssignmentRules(
            profile_uuid=lambda server, profile: f"{profile} at {server}",
            check_profile=self._check_ade,
            check_server=self._check_ade,
            now=self.fleet.clock,
        )

    @cached_property
    def blueprint_ade(self) -> BlueprintAde:
        return BlueprintAde(
            rules=self.ade_rules,
            check_profile=self._check_ade,
            check_server=self._check_ade,
            read_list=self.lists_read.append,
        )

    def _check_ade(self, name: str) -> None:
        if name not in self.ade_names:
            raise NotFoundError(f"There is no {name}.")

    @cached_property
    def blueprints(self) -> Blueprints:
        return Blueprints(
            profiles=self.profiles,
            users=self.users,
            sealer=self.fleet.sealer,
            now=self.fleet.clock,
            has_app=self.apps.has_package,
            check_ade=self.blueprint_ade.check,
            tell_ade=self.blueprint_ade.tell,
        )

    @cached_property
    def blueprint_plans(self) -> BlueprintPlans:
        return BlueprintPlans(
            plans=self.plans,
            blueprints=self.blueprints,
            profiles=self.profiles,
            ade_server_of=lambda serial_number: self.ade_servers.get(serial_number or ""),
        )

    @cached_property
    def jobs(self) -> BlueprintJobs:
        return BlueprintJobs(
            plans=self.blueprint_plans,
            blueprints=self.blueprints,
            workflow_queue=self.queue,
            now=self.fleet.clock,
            new_id=lambda: uuid.uuid4().hex,
            ids_of_serial=self.fleet.enrollments.ids_of_serial,
            page=3,
        )

    @cached_property
    def workflow(self) -> Workflow:
        return Workflow(
            plans=self.plans,
            blueprint_plans=self.blueprint_plans,
            jobs=self.jobs,
            apps=self.apps,
            builtin=self.builtin,
            events=self.events,
            workflow_queue=self.queue,
            now=self.fleet.clock,
        )

    @cached_property
    def events(self) -> WorkflowEvents:
        return WorkflowEvents(
            workflows=self.nanocmd,
            rules=WorkflowRules(lambda: self.bus_rules, settings=self.fleet.settings),  # type: ignore[arg-type, return-value]
            wake=lambda enrollment_id: self.fleet.enqueuer.push([enrollment_id]),
            sealer=self.fleet.sealer,
            now=self.fleet.clock,
        )

    def work(self, *, times: int = 1) -> None:
        """Let everything happen that events and messages ask for by now, each so many times."""
        while messages := self.messages():
            for message in messages:
                for _ in range(times):
                    self.workflow.receive(message)

    def look_after(self, *, times: int = 1) -> int:
        """Let an hour's look find the plans that have not moved; return how many."""
        self.fleet.housekeeping.run("look_after_plans")
        found = [message for message in self.messages() if json.loads(message)["task"] != "resume"]
        for message in found:
            for _ in range(times):
                self.workflow.receive(message)
        self.work()
        return sum(json.loads(message)["task"] == "look" for message in found)

    def messages(self) -> list[str]:
        """Return what the function is to be given by now."""
        return [*self._of_events(), *self._of_queue()]

    def plan(self, device: FleetDevice, kind: str = KIND) -> KnownPlan:
        """Return a device's plan."""
        (plan,) = [plan for plan in self.plan_list.of_enrollment(str(device)) if plan.kind == kind]
        return plan

    def steps(self, device: FleetDevice, kind: str = KIND) -> dict[str, str]:
        """Return the states of the steps of a device's plan, by their titles."""
        return {step.title: step.state.value for step in self.plan(device, kind).document.steps}

    def topics(self, topic: str) -> list[dict[str, Any]]:
        """Return the events of a topic so far."""
        self.work()
        return [document for document in self.heard if document["topic"] == topic]

    def _of_events(self) -> list[str]:
        messages = []
        for document in self.fleet.bus.take():
            assert_conforms(document)
            self.heard.append(document)
            messages += [
                rule.message(document) for rule in rules() if self.bus_rules.has(rule) and rule.matches(document)
            ]
        return messages

    def _of_queue(self) -> list[str]:
        url, bodies = self.fleet.settings.workflow_queue_url, []
        while found := self.fleet.emulator.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in found:
                bodies.append(message["Body"])
                self.fleet.emulator.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return bodies


class BusRules:
    """Which rules of the template are enabled: EventBridge, as far as it can be asked for that."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._enabled: set[str] = set()

    def enable_rule(self, *, Name: str, EventBusName: str) -> None:  # noqa: N803 - as AWS has it
        assert EventBusName
        self._enabled.add(Name)

    def disable_rule(self, *, Name: str, EventBusName: str) -> None:  # noqa: N803 - as AWS has it
        assert EventBusName
        self._enabled.discard(Name)

    def has(self, rule: "Rule") -> bool:
        return rule.is_enabled or rule.name.replace("${AWS::StackName}", self._stack) in self._enabled

    def enabled(self) -> list[str]:
        return sorted(name.rpartition("-")[2] for name in self._enabled)


class Rule:
    """A rule of the template that brings events to the workflow queue, as EventBridge understands it."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self.name = str(properties["Name"])
        self.is_enabled = properties.get("State", "ENABLED") == "ENABLED"
        self._pattern = properties["EventPattern"]
        (target,) = properties["Targets"]
        self._paths = target["InputTransformer"]["InputPathsMap"]
        self._template = target["InputTransformer"]["InputTemplate"]

    def matches(self, document: Mapping[str, Any]) -> bool:
        event = {"source": "picomdm.mdm", "detail-type": document["topic"], "detail": document}
        return _matches(self._pattern, event)

    def message(self, document: Mapping[str, Any]) -> str:
        text: str = self._template
        for name, path in self._paths.items():
            value: Any = document
            for part in re.findall(r"\w+", path.removeprefix("$.detail.")):
                value = value[int(part) if part.isdigit() else part]
            text = text.replace(f"<{name}>", json.dumps(value))
        return text


@cache
def rules() -> list[Rule]:
    """Return the rules of the template whose target is the workflow queue."""
    found = [
        resource["Properties"]
        for resource in read_template()["Resources"].values()
        if resource["Type"] == "AWS::Events::Rule" and "WorkflowQueue" in str(resource["Properties"]["Targets"])
    ]
    assert len(found) == 5
    return [Rule(properties) for properties in found]


def _matches(pattern: Any, value: Any) -> bool:
    if isinstance(pattern, Mapping):
        return isinstance(value, Mapping) and all(_matches(each, value.get(name)) for name, each in pattern.items())
    return any(_matches_one(one, value) for one in pattern)


def _matches_one(one: Any, value: Any) -> bool:
    if not isinstance(one, Mapping):
        return bool(one == value)
    if "prefix" in one:
        return isinstance(value, str) and value.startswith(one["prefix"])
    return value is not None and value not in one["anything-but"]

"""What brings devices to what administrators want: plans and blueprints."""

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.blueprint_ade import BlueprintAde
    from mdmlib.services.blueprint_jobs import BlueprintJobs
    from mdmlib.services.blueprint_plans import BlueprintPlans
    from mdmlib.services.blueprints import Blueprints
    from mdmlib.services.builtin_plans import BuiltinPlans
    from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows
    from mdmlib.services.plan_actions import Action
    from mdmlib.services.plan_list import PlanList
    from mdmlib.services.plan_looks import PlanLooks
    from mdmlib.services.plan_moves import PlanMoves
    from mdmlib.services.plans import Plans
    from mdmlib.services.workflow import Workflow
    from mdmlib.services.workflow_events import WorkflowEvents
    from mdmlib.services.workflow_queue import WorkflowQueue


@cache
def workflow_queue() -> "WorkflowQueue":
    """Return the queue of workflows."""
    from mdmlib.services.workflow_queue import WorkflowQueue

    return WorkflowQueue(runtime.sqs_client, queue_url=runtime.settings().workflow_queue_url, now=runtime.now)


@cache
def plan_actions() -> "dict[str, Action]":
    """Return how the steps of plans are done."""
    from mdmlib.services.builtin_plans import ListCertificates, LockDevice, ReplaceCertificateProfile, TakeInventory
    from mdmlib.services.filevault import AwaitRecoveryKey, InstallFileVaultProfile, RotateRecoveryKey
    from mdmlib.services.install_actions import (
        CreateAccounts,
        InstallApp,
        InstallProfile,
        RemoveApp,
        RemoveProfile,
        SendCommand,
    )
    from mdmlib.services.plan_actions import ListApps, ListProfiles, ReleaseDevice, Send

    of_keys = runtime.filevault(), runtime.escrow(), runtime.inventory()
    return {
        "await_recovery_key": AwaitRecoveryKey(*of_keys),
        "create_accounts": CreateAccounts(runtime.micromdm_users()),
        "install_app": InstallApp(runtime.apps()),
        "install_filevault_profile": InstallFileVaultProfile(runtime.filevault()),
        "install_profile": InstallProfile(runtime.stored_profiles()),
        "list_apps": ListApps(),
        "list_certificates": ListCertificates(),
        "list_profiles": ListProfiles(),
        "lock_device": LockDevice(runtime.escrow()),
        "release": ReleaseDevice(),
        "remove_app": RemoveApp(),
        "remove_profile": RemoveProfile(),
        "replace_certificate_profile": ReplaceCertificateProfile(runtime.stored_profiles(), runtime.now),
        "rotate_recovery_key": RotateRecoveryKey(*of_keys),
        "send": Send(),
        "send_command": SendCommand(),
        "take_inventory": TakeInventory(runtime.inventory()),
    }


@cache
def plans() -> "Plans":
    """Return the plans of devices."""
    from mdmlib.services.plans import Plans

    return Plans(
        queue=runtime.command_queue(),
        moves=runtime.plan_moves(),
        attributes=runtime.device_attributes(),
        actions=runtime.plan_actions(),
        sealer=runtime.sealer(),
        command_life=timedelta(days=runtime.settings().command_days),
        result_life=timedelta(days=runtime.settings().result_days),
        now=runtime.now,
    )


@cache
def plan_moves() -> "PlanMoves":
    """Return what moves plans."""
    from mdmlib.services.plan_moves import PlanMoves

    return PlanMoves(
        enqueue=runtime.enqueue_service(),
        events=runtime.events(),
        workflow_queue=runtime.workflow_queue(),
        actions=runtime.plan_actions(),
        sealer=runtime.sealer(),
        command_life=timedelta(days=runtime.settings().command_days),
        now=runtime.now,
        new_event_id=runtime.new_event_id,
    )


@cache
def plan_list() -> "PlanList":
    """Return what tells of plans."""
    from mdmlib.services.plan_list import PlanList

    runtime.bind_tables()
    return PlanList(queue=runtime.command_queue(), sealer=runtime.sealer())


@cache
def plan_looks() -> "PlanLooks":
    """Return what has plans looked at that have not moved for long."""
    from mdmlib.services.plan_looks import PlanLooks

    runtime.bind_tables()
    return PlanLooks(workflow_queue=runtime.workflow_queue(), now=runtime.now)


@cache
def builtin_plans() -> "BuiltinPlans":
    """Return the plans that need no blueprint."""
    import uuid

    from mdmlib.services.builtin_plans import BuiltinPlans

    return BuiltinPlans(
        plans=runtime.plans(),
        names=runtime.named_profiles(),
        workflow_queue=runtime.workflow_queue,
        sealer=runtime.sealer(),
        new_id=lambda: uuid.uuid4().hex,
    )


@cache
def nanocmd_workflows() -> "NanoCMDWorkflows":
    """Return the plans by the names that NanoCMD gives them."""
    from mdmlib.services.nanocmd_workflows import NanoCMDWorkflows

    return NanoCMDWorkflows(builtin=runtime.builtin_plans(), names=runtime.named_profiles())


@cache
def workflow_events() -> "WorkflowEvents":
    """Return what begins by itself when something happens to a device, as NanoCMD has it."""
    from mdmlib.services.workflow_events import WorkflowEvents
    from mdmlib.services.workflow_rules import WorkflowRules

    return WorkflowEvents(
        workflows=runtime.nanocmd_workflows(),
        rules=WorkflowRules(runtime.events_client, settings=runtime.settings()),
        wake=lambda enrollment_id: runtime.enqueue_service().push([enrollment_id]),
        sealer=runtime.sealer(),
        now=runtime.now,
    )


@cache
def blueprints() -> "Blueprints":
    """Return the blueprints."""
    from mdmlib.services.blueprints import Blueprints

    return Blueprints(
        profiles=runtime.stored_profiles(),
        users=runtime.micromdm_users(),
        sealer=runtime.sealer(),
        now=runtime.now,
        has_app=lambda name: runtime.apps().has_package(name),
        check_ade=lambda content: runtime.blueprint_ade().check(content) if content.ade_profile is not None else None,
        tell_ade=lambda uuid_, content: runtime.blueprint_ade().tell(uuid_, content),
    )


@cache
def blueprint_ade() -> "BlueprintAde":
    """Return what gives devices the ADE profiles of their blueprints."""
    from mdmlib.services.blueprint_ade import BlueprintAde

    return BlueprintAde(
        rules=runtime.ade_assignment_rules(),
        check_profile=lambda profile: runtime.ade_profiles().get(profile),
        check_server=lambda server: runtime.ade_servers().get(server),
        read_list=lambda server: runtime.ade_syncs().nudge(server),
    )


def _ade_server_of(serial_number: str | None) -> str | None:
    """Return the server in whose list at Apple a device is."""
    from mdmlib.services.blueprint_ade import ade_server_of
    from mdmlib.store.ade_devices import AdeDeviceStore

    return ade_server_of(serial_number, runtime.ade_servers().names, AdeDeviceStore())


@cache
def blueprint_plans() -> "BlueprintPlans":
    """Return what brings devices to blueprints."""
    from mdmlib.services.blueprint_plans import BlueprintPlans

    return BlueprintPlans(
        plans=runtime.plans(),
        blueprints=runtime.blueprints(),
        profiles=runtime.stored_profiles(),
        ade_server_of=_ade_server_of,
    )


@cache
def blueprint_jobs() -> "BlueprintJobs":
    """Return the jobs that bring many devices to blueprints."""
    import uuid

    from mdmlib.services.blueprint_jobs import BlueprintJobs

    return BlueprintJobs(
        plans=runtime.blueprint_plans(),
        blueprints=runtime.blueprints(),
        workflow_queue=runtime.workflow_queue(),
        now=runtime.now,
        new_id=lambda: uuid.uuid4().hex,
        ids_of_serial=lambda serial_number: runtime.enrollments().ids_of_serial(serial_number),
    )


@cache
def workflow() -> "Workflow":
    """Return what moves plans on."""
    from mdmlib.services.workflow import Workflow

    return Workflow(
        plans=runtime.plans(),
        blueprint_plans=runtime.blueprint_plans(),
        jobs=runtime.blueprint_jobs(),
        apps=runtime.apps(),
        builtin=runtime.builtin_plans(),
        events=runtime.workflow_events(),
        workflow_queue=runtime.workflow_queue(),
        now=runtime.now,
    )

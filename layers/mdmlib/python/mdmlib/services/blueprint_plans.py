"""Bringing devices to their blueprints: which are a device's, and the steps that these come to."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.profile_variables import variables_of
from mdmlib.errors import ConflictError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.blueprint_content import app_name
from mdmlib.services.blueprints import Blueprints, KnownBlueprint
from mdmlib.services.install_actions import INSTALL_PROFILE, value_of
from mdmlib.services.plan_actions import PlannedDevice
from mdmlib.services.plan_document import MAX_STEPS, RELEASE, PlanDocument, Step, StepState
from mdmlib.services.plans import Plans, Situation
from mdmlib.store.at_once import at_once

if TYPE_CHECKING:
    from mdmlib.services.stored_profiles import StoredProfiles

KIND: Final = "blueprints"
TOO_MANY_STEPS: Final = "too_many_steps"

ENROLLMENT: Final = "enrollment"
CHANGE: Final = "change"
REQUEST: Final = "request"

# Accounts before anything else, and while the device says what it has; a device is released last.
_LOOK, _INSTALL, _REMOVE, _RELEASE = range(4)
_PROFILE, _APP, _COMMAND = "profile ", "app ", "command "


@dataclass(frozen=True)
class Wanted:
    """What devices are brought to."""

    names: Sequence[str] | None = None
    """Blueprints; None: all that are a device's by their conditions."""
    remove: bool = False
    """Take away what is in them no more."""
    again: bool = False
    """Send also what does not differ."""


@dataclass(frozen=True)
class Preview:
    """What would be done with a device."""

    enrollment_id: str
    blueprints: Sequence[str]
    steps: Sequence[str]
    problems: Sequence[str] = field(default=())


class BlueprintPlans:
    """Begins plans of the kind ``blueprints``."""

    def __init__(
        self,
        *,
        plans: Plans,
        blueprints: Blueprints,
        profiles: "StoredProfiles",
        ade_server_of: Callable[[str | None], str | None],
    ) -> None:
        self._plans = plans
        self._blueprints = blueprints
        self._profiles = profiles
        self._ade_server_of = ade_server_of

    def on_enrollment(self, enrollment_id: str, event_id: str) -> bool:
        """Begin the plan of a device that has just enrolled; say whether a blueprint is for it."""
        known = self.known()
        try:
            return self._plans.begin(
                enrollment_id,
                KIND,
                lambda situation: self._draft(situation, known, Wanted(), cause=ENROLLMENT),
                run=event_id,
                cause=ENROLLMENT,
            )
        except (ConflictError, NotFoundError) as error:
            # As a rule it has ended meanwhile, or enrolled anew: then that is told of by another event.
            log = logger.error if error.code == TOO_MANY_STEPS else logger.info
            log("No plan of blueprints begun", enrollment_id=enrollment_id, code=error.code, reason=error.message)
            return False

    def apply(
        self,
        enrollment_id: str,
        wanted: Wanted,
        *,
        run: str,
        cause: str,
        known: Mapping[str, KnownBlueprint] | None = None,
    ) -> bool:
        """Bring a device to blueprints; say whether one of them is for it. Raises as :meth:`Plans.begin` does."""
        everything = known if known is not None else self.known()
        return self._plans.begin(
            enrollment_id,
            KIND,
            lambda situation: self._draft(situation, everything, wanted, cause=cause),
            run=run,
            cause=cause,
        )

    def known(self) -> dict[str, KnownBlueprint]:
        """Return all blueprints, by name."""
        return {one.name: one for one in self._blueprints.list()}

    def preview(self, enrollment_ids: Sequence[str], wanted: Wanted) -> list[Preview]:
        """Say what would be done with devices, and why a part of it would fail. Nothing is done.

        Raises :class:`~mdmlib.errors.NotFoundError` and :class:`~mdmlib.errors.ConflictError` for one that takes no
        commands.
        """
        known = self.known()
        variables_of_profile = cache(self._variables_of)

        def preview(id_: str) -> Preview:
            return self._preview(self._plans.situation(id_, KIND), known, wanted, variables_of_profile)

        return at_once(preview, enrollment_ids)

    def may_suit(self, device: PlannedDevice, wanted: Wanted, known: Mapping[str, KnownBlueprint]) -> bool:
        """Say whether a device could have something to do with what is wanted, as far as its entry in a list tells."""
        asked = [known[name] for name in wanted.names if name in known] if wanted.names is not None else known.values()
        return wanted.remove or any(
            one.content.conditions.unmet(device, None) in {None, "tags", "ade_servers"} for one in asked
        )

    def _variables_of(self, identifier: str) -> frozenset[str]:
        return variables_of(self._profiles.get(identifier).mobileconfig or b"")

    def _preview(
        self,
        situation: Situation,
        known: Mapping[str, KnownBlueprint],
        wanted: Wanted,
        variables_of_profile: Callable[[str], frozenset[str]],
    ) -> Preview:
        document = self._draft(situation, known, wanted, cause=REQUEST)
        device = situation.device
        if document is None:
            return Preview(device.id, (), ())
        problems = []
        for step in document.steps:
            if step.action == INSTALL_PROFILE:
                problems += [
                    f"{step.title}: the device has no value for {{{{{name}}}}}."
                    for name in sorted(variables_of_profile(step.detail["identifier"]))
                    if not value_of(device, name)
                ]
        return Preview(device.id, document.blueprints, [step.title for step in document.steps], problems)

    def _draft(
        self, situation: Situation, known: Mapping[str, KnownBlueprint], wanted: Wanted, *, cause: str
    ) -> PlanDocument | None:
        """Return the plan for a device, or None: no blueprint is for it, and nothing has to be taken away."""
        device, former = situation.device, situation.former
        chosen = self._chosen(device, known, wanted, cause=cause)
        if former is not None and former.phase is not None:
            # What the former plan has not come to is not forgotten; what it has queued comes before our questions.
            chosen = [*(known[name] for name in former.blueprints if name in known), *chosen]
        names = list(dict.fromkeys(one.name for one in chosen))
        if not names and not (wanted.remove and former is not None and former.installed):
            return None
        ordered = self._blueprints.with_included(names, known)
        document = PlanDocument(blueprints=[one.name for one in ordered], again=wanted.again)
        installs = _installs(ordered)
        removals = _removals(former, installs, ordered, wanted) if wanted.remove and former is not None else []
        document.steps = [*_looks(ordered, installs, removals), *installs, *removals]
        document.steps.append(Step("let Setup Assistant go on", RELEASE, _RELEASE))
        if len(document.steps) > MAX_STEPS:
            raise ConflictError(
                f"The blueprints of the device come to more than {MAX_STEPS} steps.", code=TOO_MANY_STEPS
            )
        return document

    def _chosen(
        self, device: PlannedDevice, known: Mapping[str, KnownBlueprint], wanted: Wanted, *, cause: str
    ) -> list[KnownBlueprint]:
        """Return the blueprints that are for a device. Named by an administrator, they are, unless it is for many."""
        if wanted.names is not None and cause == REQUEST:
            return list(self._blueprints.with_included(wanted.names, known))
        asked = [known[name] for name in wanted.names if name in known] if wanted.names is not None else known.values()
        if cause == ENROLLMENT:
            asked = [one for one in asked if one.content.apply_on_enrollment]
        by_server = any(one.content.conditions.ade_servers for one in asked)
        ade_server = self._ade_server_of(device.record.serial_number) if by_server else None
        return [one for one in asked if one.content.conditions.unmet(device, ade_server) is None]


def _installs(ordered: Sequence[KnownBlueprint]) -> list[Step]:
    """Return the steps that bring things to a device; what several blueprints say is done once, for all of them."""
    found: dict[str, Step] = {}

    def add(blueprint: KnownBlueprint, name: str, action: str, detail: Mapping[str, Any]) -> None:
        step = found.setdefault(name, Step(name, action, _INSTALL, {**detail, "name": name, "blueprints": list[str]()}))
        step.detail["blueprints"].append(blueprint.name)

    for one in ordered:
        for identifier in one.content.profiles:
            add(one, f"{_PROFILE}{identifier}", INSTALL_PROFILE, {"identifier": identifier})
        for app in one.content.apps:
            add(one, f"{_APP}{app_name(app)}", "install_app", {"app": dict(app)})
        for command in one.content.commands:
            digest = hashlib.sha256(json.dumps(command, sort_keys=True).encode()).hexdigest()[:8]
            add(one, f"{_COMMAND}{command.get('request_type')} {digest}", "send_command", {"json": dict(command)})
    return list(found.values())


def _looks(ordered: Sequence[KnownBlueprint], installs: Sequence[Step], removals: Sequence[Step]) -> list[Step]:
    """Return the steps that come first: accounts, and the questions what is there already."""
    steps = []
    contents = [one.content for one in ordered]
    users = list(dict.fromkeys(user for content in contents for user in content.users))
    skip = any(content.skip_primary_setup_account_creation for content in contents)
    regular = any(content.set_primary_setup_account_as_regular_user for content in contents)
    if users or skip or regular:
        detail = {"users": users, "skip": skip, "regular": regular}
        steps.append(Step("create accounts", "create_accounts", _LOOK, detail))
    actions = {step.action for step in (*installs, *removals)}
    if actions & {INSTALL_PROFILE, "remove_profile"}:
        steps.append(Step("list profiles", "list_profiles", _LOOK))
    if actions & {"install_app", "remove_app"}:
        steps.append(Step("list apps", "list_apps", _LOOK))
    return steps


def _removals(
    former: PlanDocument, installs: Sequence[Step], ordered: Sequence[KnownBlueprint], wanted: Wanted
) -> list[Step]:
    """Return the steps that take away what plans have installed and no blueprint of the device says any more."""
    stays = {step.title for step in installs}
    ours = {one.name for one in ordered}
    # Of blueprints that were not looked at now, all stays; where all were, those that are missing are none of its any
    # more.
    if wanted.names is not None:
        stays |= {name for blueprint, items in former.installed.items() if blueprint not in ours for name in items}
    going = dict.fromkeys(name for items in former.installed.values() for name in items if name not in stays)
    steps = []
    for name in going:
        detail: dict[str, Any] = {"name": name}
        if name.startswith(_PROFILE):
            detail["identifier"] = name.removeprefix(_PROFILE)
            steps.append(Step(f"remove {name}", "remove_profile", _REMOVE, detail))
        elif name.startswith(_APP):
            bundle = (former.known(name) or {}).get("bundle_id")
            if bundle:
                steps.append(Step(f"remove {name}", "remove_app", _REMOVE, detail | {"bundle_id": bundle}))
            else:
                steps.append(
                    Step(
                        f"remove {name}",
                        "remove_app",
                        _REMOVE,
                        detail,
                        state=StepState.FAILED,
                        reason="It is not known what the app is called on the device.",
                    )
                )
    return steps

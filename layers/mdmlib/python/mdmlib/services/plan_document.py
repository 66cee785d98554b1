"""Plans as data: steps in their order, how far each has come and why, and what the device has told on the way.

Steps have phases. Those of one phase are queued together, in their order; the next phase begins when each of them is
over, well or not.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Final, Self

UUID_PREFIX: Final = "plan."
"""How the CommandUUIDs of plans begin: by that rules of the event bus find their results among all others."""

RELEASE: Final = "release"
"""Action of the step that lets Setup Assistant go on."""

MAX_STEPS: Final = 400


class StepState(StrEnum):
    """How far a step has come."""

    PENDING = "pending"
    """Its phase has not come yet."""
    QUEUED = "queued"
    """Its command waits for the device, which may be offline, or have answered NotNow."""
    WAITING = "waiting"
    """It is done again later: it failed, or its answer says that it is too early."""
    DONE = "done"
    UNNEEDED = "unneeded"
    """The device has it already, or it is not for this device."""
    FAILED = "failed"


_OVER: Final = frozenset({StepState.DONE, StepState.UNNEEDED, StepState.FAILED})


@dataclass
class Step:
    """One thing to be done. ``action`` names who knows how (:mod:`mdmlib.services.plan_actions`)."""

    title: str
    action: str
    phase: int = 0
    detail: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the action has to know; it may be secret."""
    state: StepState = StepState.PENDING
    reason: str | None = None
    """Why it failed, waits or is not needed, for people."""
    attempts: int = 0
    """How often its command was queued."""
    failures: int = 0
    """How often the device could not do it, or left it unanswered until its command's life was over."""
    command_uuid: str | None = None
    request_type: str | None = None
    not_before: int | None = None
    changed_at: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to be done."""
        return self.state in _OVER

    def become(self, state: StepState, *, at: int, reason: str | None = None, not_before: int | None = None) -> None:
        """Change the state."""
        self.state, self.reason, self.not_before, self.changed_at = state, reason, not_before, at


@dataclass
class PlanDocument:
    """A plan."""

    steps: list[Step] = field(default_factory=list)
    blueprints: list[str] = field(default_factory=list)
    """Those that it brings the device to."""
    again: bool = False
    """Send also what does not differ."""
    profiles: dict[str, str] | None = None
    """What the device has, as it said: PayloadUUIDs by PayloadIdentifier. None: it has not said."""
    apps: dict[str, str] | None = None
    """Versions by bundle identifier, in the same way."""
    installed: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    """What plans of this kind have installed in this enrollment: by blueprint, then by ``profile <identifier>`` or
    ``app <name>``; what it was, by which a change is seen. Next plans of the kind inherit it."""
    moved_by: str | None = None
    """The command whose result moved it last."""
    stored_profiles: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Profiles that were read for this move, by identifier; they are not written down."""

    @property
    def phase(self) -> int | None:
        """The phase that the plan is in; None: it is over."""
        return min((step.phase for step in self.steps if not step.is_over), default=None)

    @property
    def has_failed(self) -> bool:
        """Whether a step failed."""
        return any(step.state is StepState.FAILED for step in self.steps)

    def current(self) -> Iterator[tuple[int, Step]]:
        """Yield the steps of the phase that the plan is in, with their numbers."""
        phase = self.phase
        yield from ((number, step) for number, step in enumerate(self.steps) if step.phase == phase)

    def step_of(self, command_uuid: str) -> Step | None:
        """Return the step that queued a command last, or None: it was an earlier attempt, or another run."""
        return next((step for step in self.steps if step.command_uuid == command_uuid), None)

    def waits_behind(self, step: Step) -> bool:
        """Whether a step behind this one waits for the device, so that nothing can come next yet."""
        later = self.steps[self.steps.index(step) + 1 :]
        return any(one.state is StepState.QUEUED for one in later)

    def in_state(self, *states: StepState) -> list[Step]:
        """Return the steps in these states."""
        return [step for step in self.steps if step.state in states]

    def note_installed(self, blueprint: str, name: str, what: Mapping[str, str]) -> None:
        """Note that the device has what a blueprint says."""
        self.installed.setdefault(blueprint, {})[name] = dict(what)

    def known(self, name: str) -> dict[str, str] | None:
        """Return what was installed under a name, whichever blueprint said so."""
        return next((items[name] for items in self.installed.values() if name in items), None)

    def forget_installed(self, name: str) -> None:
        """Note that the device does not have it any more."""
        for items in self.installed.values():
            items.pop(name, None)

    def encode(self) -> bytes:
        """Write it down."""
        values = asdict(replace(self, stored_profiles={}))
        del values["stored_profiles"]
        return json.dumps(values, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, document: bytes) -> Self:
        """Read what :meth:`encode` wrote, of this release or of another."""
        values = json.loads(document)
        known, of_steps = ({one.name for one in fields(kind)} for kind in (cls, Step))
        steps = [
            Step(
                **{name: value for name, value in step.items() if name in of_steps}
                | {"state": StepState(step["state"])}
            )
            for step in values.pop("steps")
        ]
        return cls(steps=steps, **{name: value for name, value in values.items() if name in known})


def give_up_cleared(document: PlanDocument, *, at: int) -> None:
    """Send nothing more of a plan whose queue an administrator has cleared, but let Setup Assistant go on."""
    for step in document.in_state(StepState.QUEUED):
        step.become(StepState.FAILED, at=at, reason="An administrator cleared the queue that its command was in.")
    for step in document.in_state(StepState.PENDING, StepState.WAITING):
        if step.action != RELEASE:
            step.become(StepState.FAILED, at=at, reason="An administrator cleared the queue before its turn came.")


def kind_of(command_uuid: str) -> str | None:
    """Return the kind of plan that queued a command, or None: no plan did."""
    if not command_uuid.startswith(UUID_PREFIX):
        return None
    kind, dot, _ = command_uuid.removeprefix(UUID_PREFIX).partition(".")
    return kind if kind and dot else None

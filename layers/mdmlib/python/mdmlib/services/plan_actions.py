"""How the steps of plans are done: each action makes a command, and learns from the answer.

An action is asked when its step's phase has come, so it sees what the device has told by then. It is asked again when
a step is repeated, or when the message that had it asked comes twice: it changes nothing but the plan.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol

from mdmlib.services.device_attributes import Attributes
from mdmlib.services.plan_document import PlanDocument, Step
from mdmlib.store.tables import Enrollment

ONLY_APPS_OF_MACS_AND_PHONES: Final = frozenset({"macOS", "iOS", "tvOS"})


class Unneeded(Exception):  # noqa: N818 - it is no error: nothing has to be done
    """Nothing has to be sent for a step; the message says why."""


class Again(Exception):  # noqa: N818 - it is no error: the device is not that far
    """The answer says that it is too early; the step is repeated after so many seconds."""

    def __init__(self, reason: str, *, after: int) -> None:
        super().__init__(reason)
        self.after = after


class NotFulfilled(Exception):  # noqa: N818 - of the device's answer, no error of ours
    """The device acknowledged, but its answer says that the step failed; the message says why."""


@dataclass(frozen=True)
class PlannedDevice:
    """The device that a plan is for, with what administrators say of it."""

    record: Enrollment
    platform: str | None
    """As :class:`mdmlib.apple.command_target.Target` has it."""
    ask: Callable[[], Attributes] = field(default=lambda: Attributes(""), repr=False)
    """Reads what administrators say of it: most plans have no use for that."""

    @cached_property
    def attributes(self) -> Attributes:
        """What administrators say of it."""
        return self.ask()

    @property
    def id(self) -> str:
        """The enrollment's id."""
        return str(self.record.enrollment_id)


class Action(Protocol):
    """How one kind of step is done."""

    @property
    def at_once(self) -> bool:
        """Whether the answer is wanted outside of the plan; else it is learned with the last one of the phase."""

    def command(self, step: Step, plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return the command to send: its dictionary, with ``RequestType``.

        Raises :class:`Unneeded`, and any :class:`~mdmlib.errors.PicoMDMError` for why it cannot be done (but
        :class:`~mdmlib.errors.UnavailableError`, after which it is tried again).
        """

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:
        """Take what the device answered when it acknowledged. May come twice.

        Raises :class:`Again` and :class:`NotFulfilled`.
        """


class Send:
    """Sends a command as it is: ``{"command": {…}}``."""

    at_once = False

    def command(self, step: Step, _plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return it."""
        command: Mapping[str, Any] = step.detail["command"]
        return command

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:
        """Learn nothing."""


class ListProfiles(Send):
    """Asks which profiles are installed, so that only what differs is sent."""

    def command(self, _step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return ProfileList."""
        if plan.again:
            raise Unneeded("Everything is sent, whatever the device has.")
        return {"RequestType": "ProfileList"}

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Note the profiles and their UUIDs."""
        listed = answer.get("ProfileList")
        plan.profiles = {
            entry["PayloadIdentifier"]: entry["PayloadUUID"]
            for entry in (listed if isinstance(listed, list) else ())
            if isinstance(entry, Mapping)
            and isinstance(entry.get("PayloadIdentifier"), str)
            and isinstance(entry.get("PayloadUUID"), str)
        }


class ListApps(Send):
    """Asks which apps are installed."""

    def command(self, _step: Step, plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return InstalledApplicationList."""
        if plan.again:
            raise Unneeded("Everything is sent, whatever the device has.")
        if device.platform not in ONLY_APPS_OF_MACS_AND_PHONES:
            raise Unneeded("It has no apps that could be listed.")
        return {"RequestType": "InstalledApplicationList", "Items": ["Version", "ShortVersion"]}

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Note the apps and their versions."""
        listed = answer.get("InstalledApplicationList")
        plan.apps = {
            entry["Identifier"]: str(entry.get("ShortVersion") or entry.get("Version") or "")
            for entry in (listed if isinstance(listed, list) else ())
            if isinstance(entry, Mapping) and isinstance(entry.get("Identifier"), str)
        }


class ReleaseDevice(Send):
    """Lets Setup Assistant go on, where it waits for that."""

    def command(self, _step: Step, _plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return DeviceConfigured."""
        if not device.record.awaiting_configuration:
            raise Unneeded("Setup Assistant does not wait.")
        return {"RequestType": "DeviceConfigured"}

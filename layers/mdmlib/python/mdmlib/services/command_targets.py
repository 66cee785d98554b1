"""Whom a command is for: the enrollments as they are read, and why some of them cannot have it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from mdmlib.apple.command import Command
from mdmlib.apple.command_target import Target
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, PicoMDMError
from mdmlib.store.enrollments import EnrollmentHead, EnrollmentStore, is_live
from mdmlib.store.tables import Enrollment

MAX_TARGETS: Final = 10_000


@dataclass
class TargetOutcome:
    """What became of one enrollment. ``push_result`` is the ``apns-id`` under which it is woken."""

    queued: bool = False
    push_result: str | None = None
    push_error: str | None = None
    command_error: PicoMDMError | None = None


@dataclass
class EnqueueOutcome:
    """What became of a request, by enrollment id."""

    command_uuid: str | None
    request_type: str | None
    targets: dict[str, TargetOutcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Live:
    """A target as it was read, with its device for a user channel."""

    record: EnrollmentHead | Enrollment
    device: EnrollmentHead | Enrollment

    @property
    def target(self) -> Target:
        """What is known of it that bears on what it can do."""
        return target_of(self.record, self.device)


def target_of(record: Enrollment | EnrollmentHead, device: Enrollment | EnrollmentHead) -> Target:
    """Return what is known of an enrollment that bears on what it can do; a user channel is what its device is."""
    return _target(device.product_name or device.model, device.os_version, record.type, device.is_supervised)


@lru_cache(maxsize=256)
def _target(product: str | None, os_version: str | None, type_: str, is_supervised: bool | None) -> Target:  # noqa: FBT001 - as a key
    return Target.of(product, os_version, type_, is_supervised=is_supervised)


class CommandTargets:
    """Reads targets, and says which may receive commands."""

    def __init__(self, *, enrollments: EnrollmentStore) -> None:
        self._enrollments = enrollments

    def read(self, ids: Sequence[str]) -> tuple[EnqueueOutcome, dict[str, Live]]:
        """Read the targets strongly; those that may not receive commands get their error."""
        unique = list(dict.fromkeys(ids))
        if not unique:
            raise BadRequestError("Name at least one enrollment.", code="no_targets", field="udid")
        if len(unique) > MAX_TARGETS:
            raise BadRequestError(
                f"One request may name {MAX_TARGETS} enrollments; split it.", code="too_many_targets", field="udid"
            )
        outcome = EnqueueOutcome(None, None, {id_: TargetOutcome() for id_ in unique})
        records = self._enrollments.heads(unique)
        devices = records | self._devices_of(records)
        live = {}
        for id_ in unique:
            record = records.get(id_)
            device = devices.get(record.parent_id or id_) if record else None
            if record is None or record.state == "deleted":
                outcome.targets[id_].command_error = NotFoundError(
                    f"There is no enrollment {id_}: check the id with `picomdm enrollments list`.",
                    code="unknown_enrollment",
                    field="udid",
                )
            elif device is None or not is_live(record, device):
                outcome.targets[id_].command_error = ConflictError(
                    f"The enrollment {id_} has ended; its device has to enroll again first.",
                    code="enrollment_ended",
                    field="udid",
                )
            else:
                live[id_] = Live(record, device)
        return outcome, live

    def cleared_meanwhile(self, live: Mapping[str, Live], queued: Iterable[str]) -> list[str]:
        """Return the targets whose queues were cleared, or ended, between being read and being written."""
        queued = list(queued)
        ids = {id_: None for one in queued for id_ in (one, live[one].device.enrollment_id)}
        lives = self._enrollments.heads(ids, alive=True)

        def is_as_it_was(id_: str) -> bool:
            record, device = lives.get(id_), lives.get(live[id_].device.enrollment_id)
            return (
                record is not None
                and device is not None
                and record.generation == live[id_].record.generation
                and is_live(record, device)
            )

        return [id_ for id_ in queued if not is_as_it_was(id_)]

    def _devices_of(self, records: Mapping[str, EnrollmentHead]) -> dict[str, EnrollmentHead]:
        """Read the devices of those records that are of user channels."""
        parents = {record.parent_id for record in records.values() if record.parent_id} - set(records)
        return self._enrollments.heads(parents) if parents else {}


class Suitability:
    """Says which targets cannot do a command, as far as is known; asks the catalogue once for each kind of them."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._reasons: dict[Target, str | None] = {}

    def refusal(self, live: Live) -> PicoMDMError | None:
        """Return why the target is refused, or None."""
        target = live.target
        if target not in self._reasons:
            self._reasons[target] = unsuitable_for(self._command, target)
        reason = self._reasons[target]
        if reason is None:
            return None
        return ConflictError(f"{reason} Say `force` to send it all the same.", code="unsuitable_command", field="udid")


def unsuitable_for(command: Command, target: Target) -> str | None:
    """Say why a target cannot do a command, or return None. The catalogue is imported here, for who asks needs it."""
    from mdmlib.apple import plist  # noqa: PLC0415 - connect pays for the catalogue only when it has to ask
    from mdmlib.apple.suitability import PARTS, unsuitable  # noqa: PLC0415 - see above

    # The others are judged by their names: a profile of megabytes need not be read for that.
    content = plist.loads(command.body).get("Command") if command.request_type in PARTS else {}
    return unsuitable(command.request_type, content if isinstance(content, dict) else {}, target)

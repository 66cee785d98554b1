"""What Apple's list says of devices, taken over into what is kept of them here."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from mdmlib.observability import logger
from mdmlib.services.ade_assignment_rules import RuleSet
from mdmlib.services.ade_device_events import TOPICS, device_event
from mdmlib.services.ade_wanted_profiles import ASSIGNED, decide
from mdmlib.services.events import MDMEvent
from mdmlib.store.ade_devices import AdeDeviceStore
from mdmlib.store.tables import AdeDevice

_MAX_SERIAL: Final = 64
_MAX_RECORD: Final = 64 * 1024
_MAX_TEXT: Final = 256
ADDED, MODIFIED, DELETED = "added", "modified", "deleted"


@dataclass
class Taken:
    """What became of a page: the devices to write, and what is to be told of."""

    records: Sequence[Mapping[str, Any]]
    """What is of use of it, as Apple has said it."""
    devices: list[AdeDevice] = field(default_factory=list)
    events: list[MDMEvent] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class AdeDeviceRecords:
    """Takes pages over. Nothing is written here."""

    def __init__(self, *, devices: AdeDeviceStore) -> None:
        self._devices = devices

    def take(
        self,
        server: str,
        records: Iterable[Mapping[str, Any]],
        rules: RuleSet,
        *,
        is_sync: bool,
        fetch: int,
        at: datetime,
    ) -> Taken:
        """Return the devices of a page as they are from now on.

        Only a sync says what happened to a device; it may tell of one several times. In a second fetch (``fetch`` above
        1) a device that was not there before has been added. The first one tells of no device by itself: all are new.
        """
        usable = [record for record in records if _is_usable(record)]
        known = self._devices.get_many(server, [record["serial_number"] for record in usable])
        taken = Taken(records=usable)
        for record in usable:
            serial_number = record["serial_number"]
            device = known.get(serial_number)
            is_new = device is None or device.deleted_at is not None
            if device is None:
                device = known[serial_number] = self._devices.new(server, serial_number)
                device.first_seen_at = int(at.timestamp())
            if not is_sync and is_new:
                device.added_in = fetch
            # A page that is read again finds it stored, and has to tell of it all the same.
            is_new = is_new or (not is_sync and device.added_in == fetch)
            op_type = _op_type(record, is_new=is_new) if is_sync else (ADDED if is_new else None)
            _take_over(device, record, op_type if is_sync else None, fetch=fetch, at=at)
            decide(device, rules.wanted(device), at=at, anew=is_new or op_type == ADDED)
            if op_type and (is_sync or fetch > 1):
                taken.counts[op_type] += 1
                op_date = record.get("op_date") or record.get("device_assigned_date") or f"fetch {fetch}"
                taken.events.append(device_event(server, op_type, record, op_date=str(op_date), now=at))
        taken.devices = list({record["serial_number"]: known[record["serial_number"]] for record in usable}.values())
        return taken

    def look_again(
        self, server: str, devices: Sequence[AdeDevice], rules: RuleSet, *, fetch: int | None, at: datetime
    ) -> tuple[list[AdeDevice], list[MDMEvent]]:
        """Return those of the known devices that the rules want something else of than before, and what to tell.

        With ``fetch``, a device that this one did not tell of has left the list.
        """
        changed, events = [], []
        for device in devices:
            before = dict(device.attribute_values)
            if fetch is not None and device.deleted_at is None and int(device.fetched_in or 0) < fetch:
                device.deleted_at, device.deleted_in = int(at.timestamp()), fetch
            if fetch is not None and device.deleted_in == fetch:
                op_date = f"absent {fetch}"
                events.append(device_event(server, DELETED, device.record, op_date=op_date, now=at))
            decide(device, rules.wanted(device), at=at)
            if device.attribute_values != before:
                device.changed_at = int(at.timestamp())
                changed.append(device)
        return changed, events


def _is_usable(record: Mapping[str, Any]) -> bool:
    serial_number = record.get("serial_number") if isinstance(record, Mapping) else None
    is_one = isinstance(serial_number, str) and 0 < len(serial_number) <= _MAX_SERIAL and serial_number.isalnum()
    if is_one and len(json.dumps(record)) <= _MAX_RECORD:
        return True
    logger.warning("Apple's list has a device that is none")
    return False


def _op_type(record: Mapping[str, Any], *, is_new: bool) -> str:
    """Return what happened to a device. Apple has been seen to leave it away."""
    op_type = str(record.get("op_type") or "").lower()
    return op_type if op_type in TOPICS else (ADDED if is_new else MODIFIED)


def _take_over(device: AdeDevice, record: Mapping[str, Any], op_type: str | None, *, fetch: int, at: datetime) -> None:
    """Write into a device what Apple says of it. What is not said any more is not so any more."""
    is_deleted = op_type == DELETED
    # Of a device that has left, what it was is worth more than what Apple still says.
    device.record = {**(device.record or {}), **record} if is_deleted else dict(record)
    device.deleted_at = (device.deleted_at or int(at.timestamp())) if is_deleted else None
    device.deleted_in = None
    device.fetched_in = fetch
    device.changed_at = int(at.timestamp())
    for name in ("model", "device_family", "op_type", "op_date"):
        setattr(device, name, _text(device.record.get(name)))
    if not is_deleted and not _is_older_than_ours(device, record):
        device.profile_uuid = _text(record.get("profile_uuid"))
        device.profile_status = _text(record.get("profile_status"))


def _is_older_than_ours(device: AdeDevice, record: Mapping[str, Any]) -> bool:
    """Say whether a sync tells of what was before our assignment: it comes in the order in which things happened."""
    if device.assignment != ASSIGNED or device.assigned_at is None or record.get("op_date") is None:
        return False
    times = [_seconds(record.get(name)) for name in ("op_date", "profile_assign_time")]
    return all(time is None or time < device.assigned_at for time in times)


def _seconds(time: object) -> int | None:
    try:
        moment = datetime.fromisoformat(str(time)) if time else None
    except ValueError:
        return None
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _text(value: object) -> str | None:
    return value[:_MAX_TEXT] if isinstance(value, str) and value else None

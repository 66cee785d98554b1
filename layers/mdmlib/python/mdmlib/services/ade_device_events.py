"""Events that tell of Apple's lists of devices.

``dep.FetchDevices`` and ``dep.SyncDevices`` are NanoDEP's: what Apple answered, a page at a time. ``dep.DeviceAdded``,
``dep.DeviceModified`` and ``dep.DeviceDeleted`` tell of one device each. The id of each follows from what it tells of:
a page that is read and published again is the same events.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mdmlib.apple.event import RANDOM_BYTES, rfc3339nano, uuid7
from mdmlib.services.events import MAX_DETAIL_BYTES, MDMEvent

FETCH_TOPIC: Final = "dep.FetchDevices"
SYNC_TOPIC: Final = "dep.SyncDevices"
TOPICS: Final[Mapping[str, str]] = {
    "added": "dep.DeviceAdded",
    "modified": "dep.DeviceModified",
    "deleted": "dep.DeviceDeleted",
}

_AROUND: Final = 2_000
"""Bytes that a part of a page takes beside its devices: Apple's cursors have up to 1,000 characters."""


def page_events(
    topic: str,
    server: str,
    response: Mapping[str, Any],
    *,
    asked_with: str,
    asked_at: int,
    now: datetime,
) -> Iterator[MDMEvent]:
    """Yield the events of a page: as many parts as the bus' limit makes of it, none of a page without devices.

    ``asked_with`` is the cursor that Apple was asked with, ``asked_at`` when that was given (epoch seconds).
    """
    parts = list(_parts(response["devices"]))
    for number, devices in enumerate(parts, 1):
        unique = f"{topic} {server} {asked_with} {number}"
        more = {"part": number, "parts": len(parts)} if len(parts) > 1 else {}
        yield MDMEvent.from_document(
            {
                "topic": topic,
                "event_id": _event_id(unique, asked_at * 1000),
                "created_at": rfc3339nano(now),
                "device_response_event": {
                    "dep_name": server,
                    "device_response": {**response, "devices": devices},
                    **more,
                },
            }
        )


def device_event(server: str, op_type: str, record: Mapping[str, Any], *, op_date: str, now: datetime) -> MDMEvent:
    """Return the event of what happened to a device. ``op_date`` is Apple's, or tells as well when that was."""
    unique = f"{TOPICS[op_type]} {server} {record['serial_number']} {op_date}"
    return MDMEvent.from_document(
        {
            "topic": TOPICS[op_type],
            "event_id": _event_id(unique, _milliseconds(op_date)),
            "created_at": rfc3339nano(now),
            "dep_device_event": {
                "dep_name": server,
                "serial_number": record["serial_number"],
                "device": dict(record),
            },
        }
    )


def _parts(devices: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    size = _AROUND
    for device in devices:
        length = len(json.dumps(device)) + 1
        if part and size + length > MAX_DETAIL_BYTES:
            yield part
            part, size = [], _AROUND
        part.append(device)
        size += length
    if part:
        yield part


def _event_id(unique: str, milliseconds: int) -> str:
    return uuid7(milliseconds, hashlib.sha256(unique.encode()).digest()[:RANDOM_BYTES])


def _milliseconds(time: str) -> int:
    """Return Apple's time, or the beginning of time for what is none: the id must not depend on the clock."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return 0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))

"""Event documents: what the bus carries and webhooks receive.

The document is MicroMDM's, key for key and in its order, with additional keys inside the part that tells of the
message: NanoMDM's ``ids`` and ``token_update_tally``, and ours (``request_type``, ``serial_number``, ``error_chain``,
``enrollment_type``). They stand last, so that whatever reads MicroMDM's documents reads these.

JSON Schemas are in ``docs/events/``.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mdmlib.apple.checkin import CheckinMessage
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.enrollment_id import MAX_ID_LENGTH, EnrollmentID

CONNECT_TOPIC: Final = "mdm.Connect"

RANDOM_BYTES: Final = 10
"""How much randomness :func:`uuid7` takes."""


def topic_of(message: CheckinMessage | CommandReport) -> str:
    """Return the topic of a message's event: ``mdm.Connect``, or ``mdm.`` and the MessageType."""
    return CONNECT_TOPIC if isinstance(message, CommandReport) else f"mdm.{message.message_type}"


def mdm_event(
    message: CheckinMessage | CommandReport,
    *,
    event_id: str,
    created_at: datetime,
    url_params: Mapping[str, str] | None = None,
    token_update_tally: int | None = None,
    request_type: str | None = None,
    serial_number: str | None = None,
) -> dict[str, Any]:
    """Return the document of a message's event, with the whole body as ``raw_payload`` (base64).

    ``url_params`` is the query of the URL that the device called. ``token_update_tally`` counts the TokenUpdates since
    the enrollment began, this one included. ``request_type`` is that of the command reported on, if it is known.
    ``udid`` is the device's also for a user channel: there ``ids.id`` tells the channel.
    """
    document: dict[str, Any] = {
        "topic": topic_of(message),
        "event_id": event_id,
        "created_at": rfc3339nano(created_at),
    }
    part: dict[str, Any] = {}
    for key, name in (("UDID", "udid"), ("EnrollmentID", "enrollment_id")):
        value = message.fields.get(key)
        # Beside a UDID, the EnrollmentID is nobody's identity and nobody looked at it.
        if value and isinstance(value, str) and len(value) <= MAX_ID_LENGTH:
            part[name] = value
    if isinstance(message, CommandReport):
        part["status"] = message.status
        if message.command_uuid:
            part["command_uuid"] = message.command_uuid
        if url_params:
            part["url_params"] = dict(url_params)
        document["acknowledge_event"] = part
    else:
        part["url_params"] = dict(url_params) if url_params else None
        document["checkin_event"] = part
    part["raw_payload"] = b64encode(message.body).decode()
    part["ids"] = ids(message.enrollment_id)
    additions = {
        "token_update_tally": token_update_tally,
        "enrollment_type": message.enrollment_id.type.value,
        "serial_number": serial_number,
        "request_type": request_type,
        "error_chain": message.error_chain if isinstance(message, CommandReport) else None,
    }
    part.update({name: value for name, value in additions.items() if value is not None})
    return document


def ids(enrollment_id: EnrollmentID) -> dict[str, str]:
    """Return NanoMDM's ``ids``: ``id``, for a user channel its device's as ``parent_id``, and ``type``."""
    parent = {"parent_id": enrollment_id.parent} if enrollment_id.parent else {}
    return {"id": enrollment_id.value, **parent, "type": enrollment_id.type.value}


def webhook_body(document: Mapping[str, Any]) -> bytes:
    """Return the body that a webhook receives: indented by two spaces, UTF-8, as MicroMDM writes it."""
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def uuid7(now_ms: int, random: bytes) -> str:
    """Return a UUID (RFC 9562, version 7) of ``now_ms``, milliseconds since 1970, and 10 random bytes.

    As strings they sort by time, except within one millisecond.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"A UUID of version 7 takes {RANDOM_BYTES} random bytes.")
    value = bytearray(now_ms.to_bytes(6, "big") + random)
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    digits = value.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_time(uuid: str) -> datetime:
    """Return the time that a UUID of version 7 was made at, to the millisecond.

    An event that is published again under its id is created at the time of its id, so that both are the same to the
    byte.
    """
    return datetime.fromtimestamp(int(uuid[:8] + uuid[9:13], 16) / 1000, UTC)


def rfc3339nano(moment: datetime) -> str:
    """Write an aware datetime as Go's RFC3339Nano does, in UTC: without the fraction's trailing zeros."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if moment.microsecond else text) + "Z"

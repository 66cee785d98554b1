"""MicroMDM's database: what it knows of devices, as the messages that told it.

MicroMDM keeps no messages but a record for each device (a Protocol Buffer), so they are written anew from that.
"""

import plistlib
from collections.abc import Iterator
from typing import Any, Final

from picomdm.migration import Found, LeftBehind, Message, MigratedEnrollment
from picomdm.migration.bolt import BoltError, BoltFile

DEVICES: Final = "mdm.Devices"
CERTIFICATES: Final = "mdm.UDIDCertAuth"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIELDS: Final = {
    2: "UDID",
    3: "SerialNumber",
    4: "OSVersion",
    5: "BuildVersion",
    6: "ProductName",
    7: "IMEI",
    8: "MEID",
    15: "DeviceName",
    16: "Model",
    17: "ModelName",
}
"""What Authenticate says, by the number of its field in the record."""
_UDID, _SERIAL, _TOKEN, _PUSH_MAGIC, _UNLOCK_TOKEN, _ENROLLED, _AWAITING, _BOOTSTRAP_TOKEN = 2, 3, 9, 10, 12, 13, 14, 30
_SHA256_BYTES: Final = 32


def read_micromdm(database: bytes, *, topic: str) -> Iterator[Found]:
    """Yield the enrolled devices of a MicroMDM database, which does not know for which topic they enrolled.

    Raises :class:`~picomdm.migration.bolt.BoltError`.
    """
    file = BoltFile.decode(database)
    certificates = {
        key.decode(errors="replace"): value.hex()
        for key, value in file.bucket(CERTIFICATES)
        if len(value) == _SHA256_BYTES
    }
    for key, value in file.bucket(DEVICES):
        try:
            record = _decode(value)
        except BoltError as error:
            yield LeftBehind(key.decode(errors="replace"), str(error))
            continue
        yield _device(record, certificates, topic=topic)


def _device(record: dict[int, Any], certificates: dict[str, str], *, topic: str) -> Found:
    udid, serial_number = _text(record, _UDID), _text(record, _SERIAL)
    if not udid:
        return LeftBehind(serial_number or "?", "It is known from Apple's list alone and never enrolled.")
    if not record.get(_ENROLLED):
        return LeftBehind(udid, "It is not enrolled any more.")
    try:
        token, unlock_token = (bytes.fromhex(_text(record, field)) for field in (_TOKEN, _UNLOCK_TOKEN))
    except ValueError:
        return LeftBehind(udid, "Its tokens are not in hexadecimal digits.")
    if not token or not _text(record, _PUSH_MAGIC):
        return LeftBehind(udid, "It has no push token: it began to enroll and did not finish.")
    authenticate = {name: _text(record, number) for number, name in _FIELDS.items() if _text(record, number)}
    token_update: dict[str, Any] = {"Token": token, "PushMagic": _text(record, _PUSH_MAGIC)}
    if unlock_token:
        token_update["UnlockToken"] = unlock_token
    if record.get(_AWAITING):
        token_update["AwaitingConfiguration"] = True
    messages = [
        _message("Authenticate", udid, authenticate | {"Topic": topic}),
        _message("TokenUpdate", udid, token_update | {"Topic": topic}),
    ]
    if bootstrap_token := record.get(_BOOTSTRAP_TOKEN):
        messages.append(_message("SetBootstrapToken", udid, {"BootstrapToken": bootstrap_token}))
    return MigratedEnrollment(udid, messages, certificate_hash=certificates.get(udid))


def _message(message_type: str, udid: str, fields: dict[str, Any]) -> Message:
    return Message(message_type, plistlib.dumps({"MessageType": message_type, "UDID": udid, **fields}))


def _text(record: dict[int, Any], field: int) -> str:
    value = record.get(field, b"")
    text = value.decode(errors="replace") if isinstance(value, bytes) else ""
    # No property list takes control characters, and no device sends any.
    return "".join(character for character in text if character.isprintable())


def _decode(message: bytes) -> dict[int, Any]:
    """Return the fields of a Protocol Buffer by their numbers: numbers, and bytes for everything else."""
    fields: dict[int, Any] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            fields[number], at = _varint(message, at)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise BoltError("Its record cannot be read.")
        if at + size > len(message):
            raise BoltError("Its record cannot be read.")
        fields[number] = message[at : at + size]
        at += size
    return fields


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, at
    raise BoltError("Its record cannot be read.")

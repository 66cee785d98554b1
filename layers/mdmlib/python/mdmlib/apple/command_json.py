"""MicroMDM's JSON commands (``POST /v1/commands``), turned into the plists that devices understand.

The fields stand beside ``request_type``, flat; which there are says :mod:`mdmlib.apple.command_fields`. Keys are
matched whatever their case, for that is what clients of MicroMDM rely on. What Apple's schema does not have is refused,
unless it is told to be kept.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from mdmlib.apple import plist
from mdmlib.apple.command import MAX_COMMAND_UUID_LENGTH, MAX_REQUEST_TYPE_LENGTH, Command
from mdmlib.apple.command_catalogue import catalogue
from mdmlib.apple.command_fields import NETWORK_TETHER, fields_of
from mdmlib.apple.enrollment_id import MAX_ID_LENGTH
from mdmlib.apple.json_fields import Unknown, convert_fields, folded, invalid
from mdmlib.errors import BadRequestError, BodyTooLargeError

_LONGEST_UDID: Final = 2 * MAX_ID_LENGTH + 1
"""A user channel's: ``<device>:<user>``."""

_BESIDE: Final = frozenset({"command_uuid", "request_type", "udid"})


def _random_uuid() -> str:
    return str(uuid4())


def from_json(
    document: Mapping[str, Any],
    *,
    unknown: Unknown = Unknown.REFUSE,
    new_uuid: Callable[[], str] = _random_uuid,
) -> tuple[Command, dict[str, Any]]:
    """Return the command of a request for one enrollment, and the answer, as :func:`command_of` does.

    Raises :class:`~mdmlib.errors.BadRequestError` also for what :func:`udid_of` does.
    """
    converted = command_of(document, unknown=unknown, new_uuid=new_uuid)
    udid_of(document)
    return converted


def command_of(
    document: Mapping[str, Any],
    *,
    unknown: Unknown = Unknown.REFUSE,
    new_uuid: Callable[[], str] = _random_uuid,
) -> tuple[Command, dict[str, Any]]:
    """Return the command and the answer to the request: ``{"payload": {"command_uuid": …, "command": {…}}}``.

    ``new_uuid`` names a command that comes without a ``command_uuid``, or with a blank one. Raises
    :class:`~mdmlib.errors.BadRequestError` with the codes ``unknown_request_type``, ``missing_field``,
    ``unknown_field`` and ``invalid_field``; ``field`` is the JSON name, as in ``updates[0].install_action``. A command
    that is too large to be answered to a device is a :class:`~mdmlib.errors.BodyTooLargeError`.

    With ``unknown`` kept, keys and request types that Apple's schema does not have go out as they are spelt.
    """
    given = folded(document)
    request_type = given.get("request_type")
    if request_type is None:
        request_type = ""
    if not isinstance(request_type, str):
        raise invalid("request_type", "a string")
    if request_type in catalogue():
        fields = fields_of(request_type, unknown=unknown)
    elif unknown is Unknown.KEEP and _may_be_one(request_type):
        fields = (NETWORK_TETHER,)
    else:
        # MicroMDM's words; the rest of a message is for people and logs, so nothing long or invisible gets into it.
        shown = request_type[:MAX_REQUEST_TYPE_LENGTH] if request_type.isprintable() else "?"
        raise BadRequestError(f"mdm: unknown RequestType: {shown}", code="unknown_request_type", field="request_type")
    command_uuid = _command_uuid(given.get("command_uuid"), new_uuid)
    echo, value = convert_fields(document, fields, unknown=unknown, beside=_BESIDE)
    body = plist.dumps({"Command": {**value, "RequestType": request_type}, "CommandUUID": command_uuid})
    if len(body) > plist.MAX_BYTES:
        raise BodyTooLargeError("The command is larger than 4.4 MiB: no answer to a device holds it.")
    answer = {"payload": {"command_uuid": command_uuid, "command": {"request_type": request_type, **echo}}}
    return Command(command_uuid, request_type, body, is_named_by_us=not _is_named(given)), answer


def _may_be_one(request_type: str) -> bool:
    return bool(request_type.strip()) and len(request_type) <= MAX_REQUEST_TYPE_LENGTH and request_type.isprintable()


def udid_of(document: Mapping[str, Any]) -> str:
    """Return whom a request is for: despite its name, ``udid`` is the id of any enrollment.

    Raises :class:`~mdmlib.errors.BadRequestError` when there is none, or none that could be one.
    """
    udid = folded(document).get("udid")
    if udid is None or udid == "":
        raise BadRequestError("request must contain UDID of the device", code="missing_field", field="udid")
    # A '#' is in the keys of what is no enrollment.
    if not isinstance(udid, str) or len(udid) > _LONGEST_UDID or "#" in udid or not udid.isprintable():
        raise invalid("udid", "the id of an enrollment")
    return udid


def _is_named(given: Mapping[str, Any]) -> bool:
    value = given.get("command_uuid")
    return isinstance(value, str) and bool(value.strip())


def _command_uuid(value: object, new_uuid: Callable[[], str]) -> str:
    if value is None:
        return new_uuid()
    if not isinstance(value, str) or len(value) > MAX_COMMAND_UUID_LENGTH:
        raise invalid("command_uuid", f"a string of at most {MAX_COMMAND_UUID_LENGTH} characters")
    if not value.strip():
        return new_uuid()
    if not value.isprintable():
        raise invalid("command_uuid", "printable")
    return value

"""Check-in messages: how a device enrolls, keeps its tokens with the server, and leaves.

Apple's pages: each message under https://developer.apple.com/documentation/devicemanagement/check-in. Keys that are not
read here are in ``fields``, and everything is in ``body``, exact to the byte.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mdmlib.apple import plist
from mdmlib.apple.enrollment_id import EnrollmentID
from mdmlib.errors import BadRequestError, MalformedBodyError

MAID_SERVICE: Final = "com.apple.maid"
"""GetToken: proves to Apple that a device's server belongs to the organization of a Managed Apple Account."""

WATCH_PAIRING_SERVICE: Final = "com.apple.watch.pairing"
"""GetToken: proves to the server of an Apple Watch that it is paired with an enrolled iPhone."""

MAX_TEXT_LENGTH: Final = 512
"""Longer strings are refused: they become attributes of one item, some of them keys of an index."""

MAX_DATA_BYTES: Final = 64 * 1024
"""Larger tokens are refused: an unlock token has 1 to 3 KiB, an item of DynamoDB at most 400 KB."""

MAX_DIGEST_LENGTH: Final = 2_048
"""Of a DigestResponse, which has names, a nonce and a digest in it."""

MAX_TOKEN_PARAMETERS: Final = 32

_WATCH_PAIRING_PARAMETERS: Final = ("PhoneUDID", "SecurityToken", "WatchUDID")
# It becomes a part of a key and of a topic.
_MESSAGE_TYPE: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, kw_only=True)
class CheckinMessage:
    """What every check-in message has. ``message_type`` is Apple's ``MessageType``."""

    enrollment_id: EnrollmentID
    message_type: str
    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Authenticate(CheckinMessage):
    """A device begins to enroll, or enrolls anew. What describes it may be missing; what is missing is None."""

    topic: str
    serial_number: str | None = None
    model: str | None = None
    model_name: str | None = None
    product_name: str | None = None
    os_version: str | None = None
    build_version: str | None = None
    device_name: str | None = None
    imei: str | None = None
    meid: str | None = None


@dataclass(frozen=True, kw_only=True)
class TokenUpdate(CheckinMessage):
    """A device or a user channel can be pushed to from now on: the last step of an enrollment, and repeated later.

    None says that the message did not carry it, never that it ended: a stored unlock token outlives a TokenUpdate
    without one. The push token is of any length, for simulators have short ones.
    """

    topic: str
    push_magic: str = field(repr=False)
    push_token: bytes = field(repr=False)
    unlock_token: bytes | None = field(repr=False, default=None)
    awaiting_configuration: bool | None = None
    user_short_name: str | None = None
    user_long_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckOut(CheckinMessage):
    """The MDM profile was removed. Sent once, if at all: nobody repeats it when the answer is lost."""


@dataclass(frozen=True, kw_only=True)
class SetBootstrapToken(CheckinMessage):
    """A Mac leaves its bootstrap token with the server. An empty one asks to forget the token that is stored."""

    bootstrap_token: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class GetBootstrapToken(CheckinMessage):
    """A Mac asks for its bootstrap token."""


@dataclass(frozen=True, kw_only=True)
class UserAuthenticate(CheckinMessage):
    """A network user logs in on a Mac. Without ``digest_response`` it asks for a challenge, with one it answers it.

    Not every release tells who the user is beside the UserID, which is the GUID of a directory.
    """

    digest_response: str | None = field(repr=False, default=None)
    user_short_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class GetToken(CheckinMessage):
    """A device asks for a token of a service of Apple's. ``service_type`` is its ``TokenServiceType``."""

    service_type: str
    parameters: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ReturnToService(CheckinMessage):
    """A device that is lent from hand to hand asks whether to erase itself for the next person (iOS 26)."""


@dataclass(frozen=True, kw_only=True)
class DeclarativeManagement(CheckinMessage):
    """A device asks for declarations, or reports on them.

    ``endpoint`` is ``tokens``, ``declaration-items``, ``declaration/<kind>/<identifier>`` or ``status``; ``data`` is
    the JSON of a status report.
    """

    endpoint: str
    data: bytes = field(repr=False, default=b"")


@dataclass(frozen=True, kw_only=True)
class NewerMessage(CheckinMessage):
    """A message of a release of Apple's that is newer than this one of ours."""


def decode_checkin(body: bytes) -> CheckinMessage:
    """Decode a check-in message. One of a MessageType that is not known here is a :class:`NewerMessage`.

    Raises :class:`~mdmlib.errors.MalformedBodyError` when it is no plist, or when a key is missing or of the wrong
    type (``field`` names it), and :class:`~mdmlib.errors.BadRequestError` with the code ``unknown_message_type`` when
    the MessageType is nothing that Apple would call one.
    """
    fields = plist.loads(body)
    message_type = _required_text(fields, "MessageType")
    if not _MESSAGE_TYPE.fullmatch(message_type):
        raise BadRequestError("The MessageType is none.", code="unknown_message_type", field="MessageType")
    return _DECODERS.get(message_type, _newer)(
        fields,
        {
            "enrollment_id": EnrollmentID.from_message(fields),
            "message_type": message_type,
            "body": body,
            "fields": fields,
        },
    )


def _authenticate(fields: Mapping[str, Any], envelope: dict[str, Any]) -> Authenticate:
    return Authenticate(
        **envelope,
        topic=_required_text(fields, "Topic"),
        serial_number=_text(fields, "SerialNumber"),
        model=_text(fields, "Model"),
        model_name=_text(fields, "ModelName"),
        product_name=_text(fields, "ProductName"),
        os_version=_text(fields, "OSVersion"),
        build_version=_text(fields, "BuildVersion"),
        device_name=_text(fields, "DeviceName"),
        imei=_text(fields, "IMEI"),
        meid=_text(fields, "MEID"),
    )


def _token_update(fields: Mapping[str, Any], envelope: dict[str, Any]) -> TokenUpdate:
    push_token = _data(fields, "Token")
    if not push_token:
        raise MalformedBodyError("The message has no Token.", field="Token")
    awaiting_configuration = fields.get("AwaitingConfiguration")
    if not isinstance(awaiting_configuration, bool | None):
        raise MalformedBodyError("AwaitingConfiguration is no boolean.", field="AwaitingConfiguration")
    return TokenUpdate(
        **envelope,
        topic=_required_text(fields, "Topic"),
        push_magic=_required_text(fields, "PushMagic"),
        push_token=push_token,
        unlock_token=_data(fields, "UnlockToken"),
        awaiting_configuration=awaiting_configuration,
        user_short_name=_text(fields, "UserShortName"),
        user_long_name=_text(fields, "UserLongName"),
    )


def _check_out(_fields: Mapping[str, Any], envelope: dict[str, Any]) -> CheckOut:
    return CheckOut(**envelope)


def _set_bootstrap_token(fields: Mapping[str, Any], envelope: dict[str, Any]) -> SetBootstrapToken:
    return SetBootstrapToken(**envelope, bootstrap_token=_data(fields, "BootstrapToken") or b"")


def _get_bootstrap_token(_fields: Mapping[str, Any], envelope: dict[str, Any]) -> GetBootstrapToken:
    return GetBootstrapToken(**envelope)


def _user_authenticate(fields: Mapping[str, Any], envelope: dict[str, Any]) -> UserAuthenticate:
    return UserAuthenticate(
        **envelope,
        digest_response=_text(fields, "DigestResponse", longest=MAX_DIGEST_LENGTH),
        user_short_name=_text(fields, "UserShortName"),
    )


def _get_token(fields: Mapping[str, Any], envelope: dict[str, Any]) -> GetToken:
    parameters = fields.get("TokenParameters", {})
    if not isinstance(parameters, dict) or len(parameters) > MAX_TOKEN_PARAMETERS:
        raise MalformedBodyError("TokenParameters is no dictionary of strings.", field="TokenParameters")
    message = GetToken(
        **envelope,
        service_type=_required_text(fields, "TokenServiceType"),
        parameters={key: text for key in parameters if (text := _text(parameters, key))},
    )
    if message.service_type == WATCH_PAIRING_SERVICE:
        for key in _WATCH_PAIRING_PARAMETERS:
            _required_text(message.parameters, key)
    return message


def _return_to_service(_fields: Mapping[str, Any], envelope: dict[str, Any]) -> ReturnToService:
    return ReturnToService(**envelope)


def _declarative_management(fields: Mapping[str, Any], envelope: dict[str, Any]) -> DeclarativeManagement:
    data = fields.get("Data", b"")
    # As long as a body may be: a full status report of a device with many apps has hundreds of kilobytes.
    if not isinstance(data, bytes):
        raise MalformedBodyError("Data is no data.", field="Data")
    return DeclarativeManagement(**envelope, endpoint=_required_text(fields, "Endpoint"), data=data)


def _newer(_fields: Mapping[str, Any], envelope: dict[str, Any]) -> NewerMessage:
    return NewerMessage(**envelope)


_DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any], dict[str, Any]], CheckinMessage]]] = {
    "Authenticate": _authenticate,
    "TokenUpdate": _token_update,
    "CheckOut": _check_out,
    "SetBootstrapToken": _set_bootstrap_token,
    "GetBootstrapToken": _get_bootstrap_token,
    "UserAuthenticate": _user_authenticate,
    "GetToken": _get_token,
    "ReturnToService": _return_to_service,
    "DeclarativeManagement": _declarative_management,
}


def _required_text(fields: Mapping[str, Any], key: str) -> str:
    value = _text(fields, key)
    if value is None:
        raise MalformedBodyError(f"The message has no {key}.", field=key)
    return value


def _text(fields: Mapping[str, Any], key: str, *, longest: int = MAX_TEXT_LENGTH) -> str | None:
    """Return a string, or None for a missing or empty one: an empty string says as little and is no index's key."""
    value = fields.get(key)
    if not isinstance(value, str | None):
        raise MalformedBodyError(f"{key} is no string.", field=key)
    if value and len(value) > longest:
        raise MalformedBodyError(f"{key} is longer than {longest} characters.", field=key)
    return value or None


def _data(fields: Mapping[str, Any], key: str) -> bytes | None:
    value = fields.get(key)
    if not isinstance(value, bytes | None):
        raise MalformedBodyError(f"{key} is no data.", field=key)
    if value and len(value) > MAX_DATA_BYTES:
        raise MalformedBodyError(f"{key} is larger than {MAX_DATA_BYTES} bytes.", field=key)
    return value or None

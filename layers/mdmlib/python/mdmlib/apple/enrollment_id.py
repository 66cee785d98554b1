"""Who a message is from: the one identity that every key, log field and push target is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from mdmlib.errors import BadRequestError

SHARED_IPAD_USER_ID = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"
"""The UserID that every Shared iPad user has; there the UserShortName tells users apart."""

MAX_ID_LENGTH = 511
"""In bytes. Longer identifiers are refused: two of them and a colon have to fit a sort key (1,024 bytes)."""


class EnrollmentType(StrEnum):
    """What kind of enrollment it is; the values are those of NanoMDM's webhook (``ids.type``)."""

    DEVICE = "Device"
    USER = "User"
    USER_ENROLLMENT_DEVICE = "User Enrollment (Device)"
    USER_ENROLLMENT = "User Enrollment"
    SHARED_IPAD = "Shared iPad"

    @property
    def is_user_channel(self) -> bool:
        """Whether this is a user's channel beside the one of a device."""
        return self in {EnrollmentType.USER, EnrollmentType.USER_ENROLLMENT, EnrollmentType.SHARED_IPAD}


@dataclass(frozen=True)
class EnrollmentID:
    """An enrollment's identity: ``value`` is its string form everywhere.

    ``parent`` is the device's enrollment for a user channel, else None. User channels read ``<device>:<user>``, as
    NanoMDM writes them.
    """

    value: str
    type: EnrollmentType
    parent: str | None = None

    def __str__(self) -> str:
        return self.value

    @property
    def device(self) -> str:
        """The device channel's id: certificates are associated with it, user channels live and end with it."""
        return self.parent or self.value

    @classmethod
    def from_message(cls, message: Mapping[str, object]) -> Self:
        """Resolve the identity in a check-in message or command report.

        UDID is looked at first: a message with both UDID and EnrollmentID is a device's. Raises
        :class:`~mdmlib.errors.BadRequestError` when there is none, or one that could not be a key.
        """
        if udid := _device_identifier(message, "UDID"):
            user_id = _identifier(message, "UserID")
            if not user_id:
                return cls(udid, EnrollmentType.DEVICE)
            if user_id == SHARED_IPAD_USER_ID:
                short_name = _identifier(message, "UserShortName")
                if not short_name:
                    raise BadRequestError("A Shared iPad user's message needs a UserShortName.", field="UserShortName")
                return cls(f"{udid}:{short_name}", EnrollmentType.SHARED_IPAD, udid)
            return cls(f"{udid}:{user_id}", EnrollmentType.USER, udid)
        if enrollment_id := _device_identifier(message, "EnrollmentID"):
            if user_id := _identifier(message, "EnrollmentUserID"):
                return cls(f"{enrollment_id}:{user_id}", EnrollmentType.USER_ENROLLMENT, enrollment_id)
            return cls(enrollment_id, EnrollmentType.USER_ENROLLMENT_DEVICE)
        raise BadRequestError("The message names neither a UDID nor an EnrollmentID.", field="UDID")


def _device_identifier(message: Mapping[str, object], key: str) -> str | None:
    value = _identifier(message, key)
    # A device that could call itself "<device>:<user>" would be the user channel of another.
    if value and ":" in value:
        raise BadRequestError(f"{key} is no identifier.", field=key)
    return value


def _identifier(message: Mapping[str, object], key: str) -> str | None:
    value = message.get(key)
    if value is None or value == "":
        return None
    # '#' is what other kinds of partitions have in their keys (command#, cert#, outbox#): a device must not name one.
    if not isinstance(value, str) or not value.isprintable() or len(value.encode()) > MAX_ID_LENGTH or "#" in value:
        raise BadRequestError(f"{key} is no identifier.", field=key)
    return value

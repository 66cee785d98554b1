"""Who is let in: the certificate's role, whether the device is blocked, and the token of a network user."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

from mdmlib.apple.error_code import knows_unrecognized_device
from mdmlib.errors import BadRequestError, BlockedError, IdentityError
from mdmlib.services.associations import Associations
from mdmlib.services.checkin_message import Received
from mdmlib.services.device_identity import Role
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore, is_live
from mdmlib.store.tables import Enrollment

AUTH_TOKEN: Final = "AuthToken"  # noqa: S105 - Apple's name of the key


class Admission:
    """Lets check-in messages in, or raises what the device is told."""

    def __init__(self, enrollments: EnrollmentStore, associations: Associations) -> None:
        self._enrollments = enrollments
        self._associations = associations

    def enrolled(self, received: Received, *, leaving: bool = False) -> Enrollment:
        """Return the record of the enrollment that a message is from.

        Raises :class:`~mdmlib.errors.IdentityError` when the certificate is not its device's current one or the
        enrollment has ended, and :class:`~mdmlib.errors.BlockedError`. One who is ``leaving`` may have left already,
        and may leave blocked: it asks for nothing, and who blocked it wants to know.
        """
        device_id = received.device_id
        if received.id == device_id:
            record = device = self._enrollments.get(device_id)
        else:
            records = self._enrollments.get_many([received.id, device_id])
            record, device = records.get(received.id), records.get(device_id)
        device = self.device(received, device, leaving=leaving)
        if record is None:
            raise IdentityError("The user channel is not enrolled.", code="unknown_enrollment")
        check_auth_token(record, received.message.fields)
        if not leaving and not is_live(record, device):
            raise IdentityError("The user channel has ended with its device's enrollment.", code="enrollment_ended")
        return record

    def device(self, received: Received, device: Enrollment | None, *, leaving: bool = False) -> Enrollment:
        """Return the device's record if the certificate is its current one; raises as :meth:`enrolled` does."""
        device, role = self._associations.role(received.certificate, device, at=received.at)
        if role is not Role.CURRENT:
            raise IdentityError("A replaced certificate may only report results.", code="certificate_replaced")
        if leaving:
            return device
        refuse_blocked(device)
        if device.state not in LIVE_STATES:
            raise IdentityError("The enrollment has ended.", code="enrollment_ended")
        return device


def refuse_blocked(device: Enrollment, *, product: str | None = None, os_version: str | None = None) -> None:
    """Raise :class:`~mdmlib.errors.BlockedError` if an administrator has blocked the device.

    To be asked after the certificate is known to be the device's: the answer makes it un-enroll. ``product`` and
    ``os_version`` are what its message says of itself, when that is newer than its record.
    """
    if not device.blocked:
        return
    raise BlockedError(
        "An administrator has blocked the device.",
        knows_unrecognized_device=knows_unrecognized_device(
            product or device.product_name or device.model, os_version or device.os_version
        ),
    )


def check_auth_token(record: Enrollment, fields: Mapping[str, Any]) -> None:
    """Hold a message against the AuthToken that its user got when logging in, if there is one.

    From the login on a Mac puts it into every message of the user, to both URLs, until the next login. Raises
    :class:`~mdmlib.errors.IdentityError`.
    """
    if record.auth_token_hash and not is_auth_token(fields, record.auth_token_hash):
        raise IdentityError("The message's AuthToken is not the user's.", code="auth_token_wrong")


def is_auth_token(fields: Mapping[str, Any], expected_hash: str) -> bool:
    """Say whether a message carries the AuthToken of this hash."""
    token = fields.get(AUTH_TOKEN)
    return isinstance(token, str) and hmac.compare_digest(auth_token_hash(token), expected_hash)


def auth_token_hash(token: str) -> str:
    """Return the SHA-256 (hex) of an AuthToken."""
    return hashlib.sha256(token.encode()).hexdigest()


def device_channel_only(received: Received) -> None:
    """Raise :class:`~mdmlib.errors.BadRequestError` for a message that no user channel sends."""
    if received.message.enrollment_id.parent:
        raise BadRequestError(
            f"{received.message.message_type} is a message of the device channel.", code="device_channel_only"
        )

"""ReturnToService: a device that goes from hand to hand asks whether to erase itself for its next user (iOS 26).

Apple's page: https://developer.apple.com/documentation/devicemanagement/return-to-service. ``Enabled`` makes the device
erase itself, so it is off unless the deployment is set otherwise.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.stored_profile import payload_identifier
from mdmlib.errors import BadRequestError, MalformedBodyError, NotFoundError
from mdmlib.services.bootstrap_token import BOOTSTRAP_TOKEN
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import ResourceItem, ReturnToServiceProfile

COLLECTION: Final = "return_to_service"

PROFILES: Final = {"wifi": "WiFiProfileData", "mdm": "MDMProfileData"}
"""The profiles that a device may need to come back: to reach a network, and to enroll when ADE does not do it."""

MAX_PROFILE_BYTES: Final = 300 * 1024
"""An item of DynamoDB has at most 400 KB."""


class ReturnToServiceProfiles:
    """Keeps the profiles and answers devices."""

    def __init__(self, *, sealer: Sealer, settings: Settings, now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._enabled = settings.return_to_service == "on"
        self._now = now

    def put(self, name: str, profile: bytes) -> ReturnToServiceProfile:
        """Keep a profile, ``wifi`` or ``mdm``, in place of the one before.

        Raises :class:`~mdmlib.errors.BadRequestError`, also for what no device would install: it has erased itself by
        then, and cannot come back without it.
        """
        _check_name(name)
        if not 0 < len(profile) <= MAX_PROFILE_BYTES:
            raise BadRequestError(f"A profile has between 1 and {MAX_PROFILE_BYTES} bytes.", field="profile")
        try:
            payload_identifier(profile)
        except MalformedBodyError as error:
            raise BadRequestError(error.message, code=error.code, field="profile") from error
        item = ReturnToServiceProfile(
            COLLECTION,
            name,
            profile=self._sealer.seal(profile, place=_place(name)),
            uploaded_at=int(self._now().timestamp()),
        )
        item.save()
        return item

    def list(self) -> Sequence[ReturnToServiceProfile]:
        """Return the profiles that are kept."""
        found = ReturnToServiceProfile.query(COLLECTION, consistent_read=True)
        return [item for item in found if isinstance(item, ReturnToServiceProfile)]

    def delete(self, name: str) -> None:
        """Forget a profile. Raises :class:`~mdmlib.errors.NotFoundError`."""
        _check_name(name)
        try:
            item = ReturnToServiceProfile.get(COLLECTION, name, consistent_read=True)
        except DoesNotExist:
            raise NotFoundError(f"There is no {name} profile.", field="profile") from None
        item.delete()

    def response(self, bootstrap_token: bytes | None) -> dict[str, Any]:
        """Return the answer to a device that left this token with us, which it needs to keep its apps."""
        if not self._enabled:
            return {"ReturnToService": {"Enabled": False}}
        keys = [(COLLECTION, name) for name in PROFILES]
        profiles = {
            PROFILES[item.name]: self._sealer.open(item.profile, place=_place(item.name))
            for item in ResourceItem.batch_get(keys, consistent_read=True)
            if isinstance(item, ReturnToServiceProfile)
        }
        token = {BOOTSTRAP_TOKEN: bootstrap_token} if bootstrap_token else {}
        return {"ReturnToService": {"Enabled": True, **profiles, **token}}


def _check_name(name: str) -> None:
    if name not in PROFILES:
        raise BadRequestError(f"The profiles are {' and '.join(PROFILES)}.", field="profile")


def _place(name: str) -> str:
    return f"{COLLECTION}/{name}"

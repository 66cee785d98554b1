"""Enrollment links: an administrator makes one, whoever opens it gets an enrollment profile."""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DoesNotExist, UpdateError

from mdmlib.errors import ForbiddenError, NotFoundError
from mdmlib.services.ade_rules import serial_number_of
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import EnrollmentLink

if TYPE_CHECKING:
    from mdmlib.services.enrollment_profiles import EnrollmentProfiles
    from mdmlib.settings import Settings

_COLLECTION: Final = "enrollment_link"
_TOKEN_BYTES: Final = 32
_TOKEN_CHARACTERS: Final = 43
_ID_CHARACTERS: Final = 32

_KEEP_ENDED: Final = timedelta(days=90)
"""For how long a link that expired is still listed."""


class EnrollmentLinks:
    """Makes, lists and revokes links, and hands out the profiles behind them.

    A link's token is known to whoever was given its URL; we keep a part of its hash, the link's public id.
    """

    def __init__(
        self,
        *,
        profiles: "EnrollmentProfiles",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        self._profiles = profiles
        self._settings = settings
        self._now = now

    def create(
        self,
        *,
        topic: str | None = None,
        expires_in: timedelta,
        max_uses: int | None = None,
        serial_numbers: Iterable[str] = (),
        note: str | None = None,
    ) -> tuple[EnrollmentLink, str]:
        """Make a link and return it with its URL, which is told only now.

        ``topic`` may be left out while there is one push certificate. ``max_uses`` counts identities, not downloads.
        With ``serial_numbers`` only these devices can enroll by it; which one it is shows at its Authenticate.
        Raises :class:`~mdmlib.errors.BadRequestError`, and :class:`~mdmlib.errors.ConflictError` while no push
        certificate is there.
        """
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        now = self._now()
        expires_at = now + expires_in
        link = EnrollmentLink(
            _COLLECTION,
            _id(token),
            topic=self._profiles.topic(topic),
            created_at=int(now.timestamp()),
            expires_at=int(expires_at.timestamp()),
            max_uses=max_uses,
            serial_numbers=sorted({serial_number_of(each, name="serial_numbers") for each in serial_numbers}) or None,
            note=note,
            ttl=int((expires_at + _KEEP_ENDED).timestamp()),
        )
        link.save(condition=EnrollmentLink.name.does_not_exist())
        return link, f"{self._settings.device_url}/mdm/enroll/{token}"

    def list(self) -> list[EnrollmentLink]:
        """Return all links, the newest first, also those that are over."""
        return sorted(EnrollmentLink.query(_COLLECTION), key=lambda link: link.created_at, reverse=True)

    def revoke(self, link_id: str) -> None:
        """End a link at once: profiles that were downloaded and not yet installed are worth nothing any more.

        Revoking it again changes nothing. Raises :class:`~mdmlib.errors.NotFoundError`.
        """
        try:
            EnrollmentLink(_COLLECTION, link_id).update(
                [EnrollmentLink.revoked.set(True)],
                condition=EnrollmentLink.name.exists(),
            )
        except UpdateError as error:
            if not condition_failed(error):
                raise
            raise NotFoundError("There is no enrollment link of this id.", code="link_not_found") from None

    def profile(self, token: str) -> bytes:
        """Return a fresh enrollment profile (``.mobileconfig``), whose challenge is good for one identity.

        Raises :class:`~mdmlib.errors.NotFoundError` for an unknown link and :class:`~mdmlib.errors.ForbiddenError` for
        one that is over; which of the reasons it was is for the log, not for whoever asks.
        """
        link = self.usable(token)
        return self._profiles.make(topic=link.topic, link=link)

    def usable(self, token: str) -> EnrollmentLink:
        """Return the link of a token. Raises as :meth:`profile` does."""
        return self._usable(_id(token) if len(token) == _TOKEN_CHARACTERS else None)

    def still_usable(self, link_id: str) -> EnrollmentLink:
        """Return the link of a public id, for what began with its token. Raises as :meth:`profile` does."""
        return self._usable(link_id)

    def open_profile(self) -> bytes:
        """Return a profile to whoever asks, where the deployment was set to let everybody enroll.

        Raises :class:`~mdmlib.errors.ForbiddenError` elsewhere.
        """
        self.require_open()
        return self._profiles.make(topic=self._profiles.topic())

    def require_open(self) -> None:
        """Raise :class:`~mdmlib.errors.ForbiddenError` where enrollment needs a link."""
        if self._settings.enrollment_access != "open":
            raise ForbiddenError(
                "Enrollment needs a link here (the parameter EnrollmentAccess).", code="enrollment_not_open"
            )

    def _usable(self, link_id: str | None) -> EnrollmentLink:
        link = _stored(link_id) if link_id else None
        if link is None:
            raise NotFoundError("There is no such enrollment link.", code="link_not_found")
        now = self._now().timestamp()
        if link.revoked:
            raise ForbiddenError(f"The enrollment link {link.name} was revoked.", code="link_revoked")
        if now >= link.expires_at:
            raise ForbiddenError(f"The enrollment link {link.name} has expired.", code="link_expired")
        if link.max_uses is not None and link.uses >= link.max_uses:
            raise ForbiddenError(f"The enrollment link {link.name} is used up.", code="link_used_up")
        return link


def permits(link: EnrollmentLink, serial_number: str | None) -> bool:
    """Say whether a device of this serial number may enroll by a link: any, unless the link lists some."""
    return not link.serial_numbers or (serial_number or "").upper() in link.serial_numbers


def link_permits(link_id: str | None, serial_number: str | None) -> bool:
    """Say the same of a link's public id; one that is gone lists nobody."""
    link = _stored(link_id) if link_id else None
    return link is not None and permits(link, serial_number)


def _stored(link_id: str) -> EnrollmentLink | None:
    try:
        return EnrollmentLink.get(_COLLECTION, link_id, consistent_read=True)
    except DoesNotExist:
        return None


def _id(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:_ID_CHARACTERS]

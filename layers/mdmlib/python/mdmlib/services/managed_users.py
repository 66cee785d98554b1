"""Managed users: who may log in on a Mac as a network user, and how they prove who they are."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.digest import DigestResponse, password_digest
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import ManagedUser

COLLECTION: Final = "managed_user"

_MAX_NAME: Final = 255
_DIGEST: Final = re.compile(r"[0-9a-f]{32}")


class ManagedUsers:
    """The users, by short name. Of a password only its digest is kept, sealed."""

    def __init__(self, *, sealer: Sealer, settings: Settings, now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._realm = settings.user_realm
        self._now = now

    @property
    def realm(self) -> str:
        """What a challenge names, and a password's digest is made with."""
        return self._realm

    def put(
        self, name: str, *, password: str | None = None, digest: str | None = None, user_id: str | None = None
    ) -> ManagedUser:
        """Add a user, or replace one.

        ``digest`` is MD5 (hex) of ``<name>:<realm>:<password>``, for who has no password to give. With ``user_id`` the
        user may log in under that UserID only. Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        if not 0 < len(name.encode()) <= _MAX_NAME or not name.isprintable() or set(name) & set(':"\\'):
            raise BadRequestError(
                f"A user's short name has at most {_MAX_NAME} bytes, none of them a colon, quotation mark or "
                "backslash.",
                field="name",
            )
        if (password is None) == (digest is None):
            raise BadRequestError("A user has either a password or its digest.", field="password")
        if digest is None:
            digest = password_digest(name, self._realm, str(password))
        if not _DIGEST.fullmatch(digest.lower()):
            raise BadRequestError("A digest has 32 hex digits.", field="digest")
        user = ManagedUser(
            COLLECTION,
            name,
            digest=self._sealer.seal(digest.lower().encode(), place=_place(name)),
            realm=self._realm,
            user_id=user_id,
            created_at=int(self._now().timestamp()),
        )
        user.save()
        return user

    def list(self) -> Sequence[ManagedUser]:
        """Return all users, by name."""
        return [user for user in ManagedUser.query(COLLECTION, consistent_read=True) if isinstance(user, ManagedUser)]

    def delete(self, name: str) -> None:
        """Remove a user, who stays logged in until the next login. Raises NotFoundError."""
        user = self.find(name)
        if user is None:
            raise NotFoundError(f"There is no managed user {name!r}.", field="name")
        user.delete()

    def find(self, name: str) -> ManagedUser | None:
        """Return a user, or None."""
        if not 0 < len(name.encode()) <= _MAX_NAME:
            return None
        try:
            return ManagedUser.get(COLLECTION, name, consistent_read=True)
        except DoesNotExist:
            return None

    def prove(self, response: DigestResponse, *, user_id: str) -> bool:
        """Say whether who responded is the user of that name, and may log in under this UserID."""
        user = self.find(response.user)
        if user is None:
            return False
        if user.realm != self._realm:
            logger.warning("Managed user has a digest of another realm", realm=user.realm)
            return False
        if user.user_id is not None and user.user_id != user_id:
            return False
        digest = self._sealer.open(user.digest, place=_place(user.name)).decode()
        return response.realm == self._realm and response.answers(digest)


def _place(name: str) -> str:
    return f"{COLLECTION}/{name}"

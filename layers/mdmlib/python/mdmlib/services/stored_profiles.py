"""Stored profiles: what administrators keep here to install it on devices, by its PayloadIdentifier."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.stored_profile import payload_identifier
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import StoredProfile

COLLECTION: Final = "profile"

INLINE_BYTES: Final = 300 * 1024
"""A larger one lies in S3: an item of DynamoDB has at most 400 KB."""

MAX_BYTES: Final = 3 * 1024 * 1024
"""What comes in base64 in a body of 4.4 MiB, and goes out so."""

_LONGEST_KEY: Final = 1_024


@dataclass(frozen=True)
class Profile:
    """A stored profile, as it was uploaded."""

    identifier: str
    mobileconfig: bytes | None = field(repr=False)
    """None in a list that would be too long with it."""


class StoredProfiles:
    """The profiles of this deployment. Devices that have one keep it, whatever happens here."""

    def __init__(
        self,
        *,
        sealer: Sealer,
        payloads: PayloadStore,
        now: Callable[[], datetime],
        on_change: Callable[[str], None] = lambda _identifier: None,
    ) -> None:
        """``on_change`` is told the identifier of each profile that is stored."""
        self._on_change = on_change
        self._sealer = sealer
        self._payloads = payloads
        self._now = now

    def put(self, identifier: str, mobileconfig: bytes) -> None:
        """Store a profile in place of the one of its identifier.

        Raises :class:`~mdmlib.errors.BadRequestError` for a profile that is none, or has another PayloadIdentifier.
        """
        if not mobileconfig:
            raise BadRequestError("There is no profile.", code="missing_field", field="Mobileconfig")
        if len(mobileconfig) > MAX_BYTES:
            raise BadRequestError(
                f"A profile has at most {MAX_BYTES} bytes.", code="profile_too_large", field="Mobileconfig"
            )
        own = payload_identifier(mobileconfig)
        if own != identifier:
            raise BadRequestError(
                f"Identifier has to be the profile's PayloadIdentifier, which is {own}.",
                code="invalid_field",
                field="Identifier",
            )
        _check(identifier)
        item = StoredProfile(COLLECTION, identifier, size=len(mobileconfig), uploaded_at=int(self._now().timestamp()))
        if len(mobileconfig) > INLINE_BYTES:
            item.profile_ref = self._payloads.put(_object_key(identifier), mobileconfig)
        else:
            item.profile = self._sealer.seal(mobileconfig, place=_place(identifier))
        item.save()
        if item.profile_ref is None:
            self._drop_object(identifier)
        self._on_change(identifier)

    def get(self, identifier: str) -> Profile:
        """Return a profile. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return self._opened(_item(identifier))

    def get_many(self, identifiers: Iterable[str]) -> dict[str, bytes]:
        """Return profiles by identifier, read together: of these those that are there and do not lie in S3."""
        keys = [(COLLECTION, identifier) for identifier in identifiers if _may_be_a_key(identifier)]
        items = StoredProfile.batch_get(keys, consistent_read=True) if keys else ()
        return {
            item.name: self._sealer.open(item.profile, place=_place(item.name))
            for item in items
            if item.profile is not None
        }

    def list(self) -> Iterator[Profile]:
        """Yield all profiles, by identifier; what goes beyond the size of an answer without its content."""
        room = MAX_BYTES
        for item in StoredProfile.query(COLLECTION, consistent_read=True):
            room -= int(item.size)
            yield self._opened(item) if room >= 0 else Profile(item.name, None)

    def delete(self, identifiers: Iterable[str]) -> None:
        """Delete profiles; one that is not there is gone already."""
        for identifier in dict.fromkeys(identifiers):
            if _may_be_a_key(identifier):
                StoredProfile(COLLECTION, identifier).delete()
                self._drop_object(identifier)

    def _opened(self, item: StoredProfile) -> Profile:
        if item.profile_ref is not None:
            return Profile(item.name, self._payloads.get(item.profile_ref))
        return Profile(item.name, self._sealer.open(item.profile, place=_place(item.name)))

    def _drop_object(self, identifier: str) -> None:
        try:
            self._payloads.delete(_object_key(identifier))
        except (BotoCoreError, ClientError) as error:
            # Nothing refers to it any more; the next upload under this name takes its place.
            logger.warning("Profile's object not deleted", error=type(error).__name__)


def _item(identifier: str) -> StoredProfile:
    try:
        if _may_be_a_key(identifier):
            return StoredProfile.get(COLLECTION, identifier, consistent_read=True)
    except DoesNotExist:
        pass
    raise NotFoundError(f"There is no profile {identifier[:200]}.", code="profile_not_found", field="id")


def _check(identifier: str) -> None:
    if not _may_be_a_key(identifier):
        raise BadRequestError(
            f"An identifier has at most {_LONGEST_KEY} bytes.", code="invalid_field", field="Identifier"
        )


def _may_be_a_key(identifier: str) -> bool:
    return 0 < len(identifier.encode()) <= _LONGEST_KEY


def _object_key(identifier: str) -> str:
    return f"profiles/{hashlib.sha256(identifier.encode()).hexdigest()}"


def _place(identifier: str) -> str:
    return f"{COLLECTION}/{identifier}"

"""Users as MicroMDM's API knows them: accounts for Macs that are set up, and who is logged in on devices.

The former are what administrators store here, by their UUID. The latter are the user channels of devices: they are
listed, under a UUID that is always the same, and not changed.
"""

import dataclasses
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple import plist
from mdmlib.errors import BadRequestError, MalformedBodyError
from mdmlib.services.device_listing import listed_records
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import MicroMDMUser

COLLECTION: Final = "user"

_PASSWORD_HASH: Final = "SALTED-SHA512-PBKDF2"  # noqa: S105 - the name of a kind of hash
_NAMESPACE: Final = uuid.UUID("6d1f4f0b-6d1c-5c39-9c66-3a1d0f2d8a57")


@dataclass(frozen=True)
class User:
    """A user; the names of the fields are MicroMDM's."""

    uuid: str = ""
    udid: str = ""
    user_id: str = ""
    user_shortname: str = ""
    user_longname: str = ""
    auth_token: str = field(default="", repr=False)
    password_hash: bytes = field(default=b"", repr=False)
    """A plist with a dictionary ``SALTED-SHA512-PBKDF2``."""
    hidden: bool = False


class MicroMDMUsers:
    """The users of this deployment."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        sealer: Sealer,
        now: Callable[[], datetime],
        new_uuid: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._sealer = sealer
        self._now = now
        self._new_uuid = new_uuid

    def put(self, user: User) -> User:
        """Store a user, in place of the one of its UUID; one without is given one.

        Raises :class:`~mdmlib.errors.BadRequestError` for a UUID or a password hash that is none.
        """
        stored = dataclasses.replace(user, uuid=_canonical(user.uuid) if user.uuid else self._new_uuid())
        if stored.password_hash:
            _check_password_hash(stored.password_hash)
        document = {**dataclasses.asdict(stored), "password_hash": stored.password_hash.hex()}
        MicroMDMUser(
            COLLECTION,
            stored.uuid,
            document=self._sealer.seal(json.dumps(document).encode(), place=_place(stored.uuid)),
            changed_at=int(self._now().timestamp()),
        ).save()
        return stored

    def delete(self, uuids: Iterable[str]) -> None:
        """Forget users who are stored; one who is not there is gone already.

        Raises :class:`~mdmlib.errors.BadRequestError` for a UUID that is none, and forgets nobody then.
        """
        for uuid_ in {_canonical(each): None for each in uuids}:
            MicroMDMUser(COLLECTION, uuid_).delete()

    def list(self, *, user_ids: Collection[str] = (), udids: Collection[str] = ()) -> Iterator[User]:
        """Yield those who are stored, then those of user channels; with filters, of these user IDs and devices only."""
        for user in self._all():
            if (not user_ids or user.user_id in user_ids) and (not udids or user.udid in udids):
                yield user

    def find(self, uuid_: str) -> User | None:
        """Return a user who is stored, or None."""
        try:
            return self._opened(MicroMDMUser.get(COLLECTION, _canonical(uuid_), consistent_read=True))
        except (BadRequestError, DoesNotExist):
            return None

    def _opened(self, item: MicroMDMUser) -> User:
        document = json.loads(self._sealer.open(item.document, place=_place(item.name)))
        return User(**{**document, "password_hash": bytes.fromhex(document["password_hash"])})

    def _all(self) -> Iterator[User]:
        for item in MicroMDMUser.query(COLLECTION, consistent_read=True):
            yield self._opened(item)
        channels = [record.enrollment_id for record in listed_records() if record.parent_id]
        for id_, record in sorted(self._enrollments.get_many(channels).items()):
            yield User(
                uuid=str(uuid.uuid5(_NAMESPACE, id_)),
                udid=record.parent_id,
                user_id=id_.removeprefix(f"{record.parent_id}:"),
                user_shortname=record.user_short_name or "",
                user_longname=record.user_long_name or "",
            )


def _canonical(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise BadRequestError("uuid is no UUID.", code="invalid_field", field="uuid") from None


def _check_password_hash(password_hash: bytes) -> None:
    try:
        hashed = plist.loads(password_hash).get(_PASSWORD_HASH)
    except MalformedBodyError:
        hashed = None
    if not isinstance(hashed, dict):
        raise BadRequestError(
            f"password_hash has to be a property list with the dictionary {_PASSWORD_HASH}.",
            code="invalid_field",
            field="password_hash",
        )


def _place(name: str) -> str:
    return f"{COLLECTION}/{name}"

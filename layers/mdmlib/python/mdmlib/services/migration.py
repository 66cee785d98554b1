"""Migration: check-in messages of another server, which an administrator brings.

NanoMDM's ``nano2nano``, and whatever else replays what a server has stored, sends each enrollment's Authenticate, then
its TokenUpdate and its bootstrap token. They make an enrollment that can be pushed to at once. Who the device is shows
when it connects: by the certificate that it had on the other server, if that is told, else by any that comes first,
with ``RetroactiveAssociation`` on.

A device that has proven itself **here** has a life of its own, and nothing that is brought overwrites it, unless the
administrator says so. As long as it has not, messages may be brought again, and newer ones replace what is there.
Nothing is published: nothing has happened to the device.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mdmlib.apple.checkin import Authenticate, CheckinMessage, SetBootstrapToken, TokenUpdate, UserAuthenticate
from mdmlib.errors import BadRequestError, ConflictError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.associations import end_of_renewal
from mdmlib.services.bootstrap_token import BOOTSTRAP_TOKEN
from mdmlib.services.checkin_message import ATTEMPTS, kept_message, kept_secret
from mdmlib.services.device_enrollment import begun, same_life
from mdmlib.services.sweep import SweepQueue
from mdmlib.services.token_update import UNLOCK_TOKEN, completed
from mdmlib.store import tables
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment
from mdmlib.store.transactions import Check, ConditionsFailedError, Delete, Put, Update, Write, transact

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

_WARRANT: Final = b"\0migration"


class Migration:
    """Takes in messages without a certificate, on an administrator's word."""

    def __init__(
        self, *, enrollments: EnrollmentStore, sweeps: SweepQueue, sealer: Sealer, now: Callable[[], datetime]
    ) -> None:
        self._enrollments = enrollments
        self._sweeps = sweeps
        self._sealer = sealer
        self._now = now

    def take(self, message: CheckinMessage, *, overwrite: bool, certificate_hash: str | None = None) -> None:
        """Take one message in. The same one again changes nothing.

        ``certificate_hash``, with an Authenticate, is the SHA-256 (hex) of the certificate that the device has.

        Raises :class:`~mdmlib.errors.ConflictError` for an enrollment that lives here (``enrollment_live``) unless
        ``overwrite``, and for a message of an enrollment that no Authenticate was brought of (``enrollment_unknown``);
        :class:`~mdmlib.errors.BadRequestError` for a message that says nothing of an enrollment.
        """
        at = int(self._now().timestamp())
        for _ in range(ATTEMPTS):
            try:
                match message:
                    case Authenticate():
                        self._authenticate(message, at, overwrite=overwrite, certificate_hash=certificate_hash)
                    case TokenUpdate() if message.enrollment_id.parent:
                        self._user_token_update(message, at, overwrite=overwrite)
                    case TokenUpdate():
                        self._token_update(message, at, overwrite=overwrite)
                    case SetBootstrapToken():
                        self._bootstrap_token(message, at, overwrite=overwrite)
                    case UserAuthenticate():
                        # A login is over by the time that it is brought; the user's TokenUpdate says what came of it.
                        pass
                    case _:
                        raise BadRequestError(
                            f"{message.message_type} makes no enrollment.", code="message_not_migrated"
                        )
            except ConditionsFailedError:
                continue
            logger.info(
                "Message of another server taken in",
                message_type=message.message_type,
                enrollment_id=message.enrollment_id.value,
                overwrite=overwrite,
            )
            return
        raise UnavailableError("Other messages of the same enrollment kept coming first.")

    def _authenticate(self, message: Authenticate, at: int, *, overwrite: bool, certificate_hash: str | None) -> None:
        if message.enrollment_id.parent:
            raise BadRequestError("Authenticate is a message of the device channel.", code="device_channel_only")
        id_ = message.enrollment_id.value
        record = self._enrollments.get(id_)
        self._refuse_live(record, overwrite=overwrite)
        hash_ = _hash(message, certificate_hash or "")
        if record and record.identity is None and record.authenticate_hash == hash_ and _lives(record):
            return
        actions: list[Action] = [
            *begun(message, record, at=at),
            Enrollment.authenticate_hash.set(hash_),
            Enrollment.expected_identity.set(certificate_hash)
            if certificate_hash
            else Enrollment.expected_identity.remove(),
            Enrollment.authenticate_event_id.remove(),
            # Whose it was until now may not be whose it is on the other server.
            Enrollment.identity.remove(),
            Enrollment.identity_not_after.remove(),
            Enrollment.expiring_shard.remove(),
            Enrollment.previous_identity.remove(),
            Enrollment.previous_identity_until.remove(),
            Enrollment.link.remove(),
            *end_of_renewal(),
        ]
        transact(
            [
                Update("record", Enrollment(id_, tables.RECORD), actions, same_life(record)),
                Put("message", kept_message(message, self._sealer, at=at)),
                Delete("bootstrap token", tables.EnrollmentSecret(id_, tables.SECRET + BOOTSTRAP_TOKEN)),
            ]
        )
        if record:
            self._sweeps.request(id_, tables.next_generation(record.generation))

    def _token_update(self, message: TokenUpdate, at: int, *, overwrite: bool) -> None:
        record = self._begun(message, overwrite=overwrite)
        if record.token_update_hash == _hash(message):
            return
        unchanged = same_life(record) & (Enrollment.token_update_tally == record.token_update_tally)
        actions = [
            *completed(message, self._sealer, tally=int(record.token_update_tally) + 1, at=at),
            Enrollment.token_update_hash.set(_hash(message)),
            Enrollment.token_update_event_id.remove(),
        ]
        record_key = Enrollment(message.enrollment_id.value, tables.RECORD)
        transact([Update("record", record_key, actions, unchanged), *self._token_update_items(message, at)])

    def _user_token_update(self, message: TokenUpdate, at: int, *, overwrite: bool) -> None:
        id_, device_id = message.enrollment_id.value, message.enrollment_id.device
        device = self._begun(message, overwrite=overwrite)
        record = self._enrollments.get(id_)
        if record and record.token_update_hash == _hash(message) and record.device_epoch == device.epoch:
            return
        of_this_life = record is not None and record.device_epoch == device.epoch and _lives(record)
        tally = int(record.token_update_tally) + 1 if record and of_this_life else 1
        generation = tables.FIRST_GENERATION
        if record:
            generation = record.generation if of_this_life else tables.next_generation(record.generation)
        actions = [
            *completed(message, self._sealer, tally=tally, at=at),
            Enrollment.cls.set(Enrollment),
            Enrollment.type.set(message.enrollment_id.type.value),
            Enrollment.parent_id.set(device_id),
            Enrollment.listing_shard.set(tables.shard_of(id_)),
            Enrollment.device_epoch.set(device.epoch),
            Enrollment.generation.set(generation),
            Enrollment.token_update_hash.set(_hash(message)),
            Enrollment.token_update_event_id.remove(),
        ]
        unchanged = (
            (Enrollment.generation == record.generation) & (Enrollment.token_update_tally == record.token_update_tally)
            if record
            else Enrollment.item.does_not_exist()
        )
        transact(
            [
                Update("record", Enrollment(id_, tables.RECORD), actions, unchanged),
                Check("device", Enrollment(device_id, tables.RECORD), same_life(device)),
                *self._token_update_items(message, at),
            ]
        )
        if record and not of_this_life:
            self._sweeps.request(id_, generation)

    def _bootstrap_token(self, message: SetBootstrapToken, at: int, *, overwrite: bool) -> None:
        if message.enrollment_id.parent:
            raise BadRequestError("SetBootstrapToken is a message of the device channel.", code="device_channel_only")
        id_ = message.enrollment_id.value
        record = self._begun(message, overwrite=overwrite)
        secret = kept_secret(id_, BOOTSTRAP_TOKEN, message.bootstrap_token, self._sealer, at=at)
        transact(
            [
                Check("record", Enrollment(id_, tables.RECORD), same_life(record)),
                Put("secret", secret) if message.bootstrap_token else Delete("secret", secret),
            ]
        )

    def _begun(self, message: CheckinMessage, *, overwrite: bool) -> Enrollment:
        """Return the record of a message's device. Raises ConflictError as :meth:`take` says."""
        device = self._enrollments.get(message.enrollment_id.device)
        if device is None or not _lives(device):
            raise ConflictError("Bring the device's Authenticate first.", code="enrollment_unknown")
        self._refuse_live(device, overwrite=overwrite)
        return device

    def _refuse_live(self, device: Enrollment | None, *, overwrite: bool) -> None:
        if device is not None and device.identity is not None and _lives(device) and not overwrite:
            raise ConflictError(
                "The device is enrolled here; overwrite=1 takes the other server's word for it.", code="enrollment_live"
            )

    def _token_update_items(self, message: TokenUpdate, at: int) -> list[Write]:
        items: list[Write] = [Put("message", kept_message(message, self._sealer, at=at))]
        if message.unlock_token:
            secret = kept_secret(message.enrollment_id.value, UNLOCK_TOKEN, message.unlock_token, self._sealer, at=at)
            items.append(Put("unlock token", secret))
        return items


def _lives(record: Enrollment) -> bool:
    return record.state in LIVE_STATES


def _hash(message: CheckinMessage, certificate_hash: str = "") -> str:
    """Tell a message that is brought again from a new one, and from one that a device sent itself."""
    return hashlib.sha256(message.body + _WARRANT + certificate_hash.encode()).hexdigest()

"""Activation Locks that an organization puts on its own devices, through Apple, and ends again.

The bypass code is made and kept before Apple is asked: a lock whose answer is lost must not become one that nobody can
end. A device has one code, however often it is locked, until somebody says that it is of no use any more. Before it is
told to anybody, an event says to whom.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DoesNotExist, PutError

from mdmlib.apple.activation_lock import RAW_BYTES, BypassCode
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.ade_rules import serial_number_of
from mdmlib.services.escrow import check_reason, secret_revealed
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import ActivationLock, Enrollment

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

    from mdmlib.clients.escrow_key_unlock import UnlockAnswer
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock
    from mdmlib.services.events import EventPublisher
    from mdmlib.settings import Settings
    from mdmlib.store.enrollments import EnrollmentStore
    from mdmlib.store.sealing import Sealer

BYPASS_CODE: Final = "activation_lock_bypass_code"

_COLLECTION: Final = "activation_lock"
_LONGEST_MESSAGE: Final = 1_000
_SUCCESS: Final = "SUCCESS"
_OK: Final = 300


@dataclass(frozen=True, kw_only=True)
class LockInfo:
    """What is known of a device's lock."""

    serial_number: str
    bypass_code: str = field(repr=False)
    server: str
    status: str | None
    """Apple's word for what became of it when it was last asked to lock; None: its answer was lost."""
    locked_at: datetime | None
    unlocked_at: datetime | None


class ActivationLocks:
    """Locks devices and ends their locks."""

    def __init__(
        self,
        *,
        servers: "AdeServers",
        unlocking: "EscrowKeyUnlock",
        enrollments: "EnrollmentStore",
        events: "EventPublisher",
        sealer: "Sealer",
        settings: "Settings",
        now: Callable[[], datetime],
        random: Callable[[int], bytes],
        new_uuid: Callable[[], str],
        new_event_id: Callable[[], str],
    ) -> None:
        self._servers = servers
        self._unlocking = unlocking
        self._enrollments = enrollments
        self._events = events
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._random = random
        self._new_uuid = new_uuid
        self._new_event_id = new_event_id

    def lock(self, server: str, serial_number: str, *, lost_message: str | None, who: str) -> LockInfo:
        """Have Apple lock a device of a server; return its code and what became of it.

        Raises :class:`~mdmlib.errors.BadRequestError`, and as :class:`~mdmlib.clients.ade.AdeClient` does: the code is
        kept then, for Apple may have done it.
        """
        if lost_message is not None and len(lost_message) > _LONGEST_MESSAGE:
            raise BadRequestError(
                f"lost_message has at most {_LONGEST_MESSAGE} characters.", code="invalid_field", field="lost_message"
            )
        serial = serial_number_of(serial_number, name="serial_number")
        client = self._servers.client(server)
        item = self._kept(serial, server)
        code = self._code(item)
        status = client.lock(serial, escrow_key=code.escrow_key, lost_message=lost_message)
        logger.info("Apple asked to lock a device", server=server, serial_number=serial, status=status)
        changes: list[Action] = [ActivationLock.status.set(status), ActivationLock.server.set(server)]
        if status == _SUCCESS:
            changes += [ActivationLock.locked_at.set(int(self._now().timestamp())), ActivationLock.unlocked_at.remove()]
        item.update(changes, condition=ActivationLock.name.exists())
        return self._reveal(item, who=who, why=None)

    def get(self, serial_number: str, *, who: str, why: str | None) -> LockInfo:
        """Return a device's code, to ``who``.

        Raises :class:`~mdmlib.errors.NotFoundError`, and :class:`~mdmlib.errors.BadRequestError` for a reason that is
        none.
        """
        if why is not None:
            check_reason(why)
        return self._reveal(_item(serial_number_of(serial_number, name="serial_number")), who=who, why=why)

    def unlock(
        self,
        serial_number: str,
        *,
        bypass_code: str | None = None,
        topic: str | None = None,
        product_type: str | None = None,
    ) -> "UnlockAnswer":
        """Have Apple end a device's lock; return its answer, whatever its status.

        ``bypass_code`` is another one than is kept here: that of the device itself, which ends the lock of a person,
        and which a supervised device tells to ActivationLockBypassCode. What Apple wants to know of the device comes
        from its enrollment. Raises :class:`~mdmlib.errors.NotFoundError`, :class:`~mdmlib.errors.BadRequestError`
        (code ``missing_field``) where the device was never here, and :class:`~mdmlib.errors.UpstreamFailedError`.
        """
        serial = serial_number_of(serial_number, name="serial_number")
        item = None if bypass_code else _item(serial)
        record = self._record(serial)
        product = product_type or (record.product_name if record else None)
        if not product:
            raise BadRequestError(
                "The device never said here what it is: name its product_type, such as iPhone17,1.",
                code="missing_field",
                field="product_type",
            )
        known = {"imei": record.imei, "meid": record.meid} if record else {}
        parameters = {
            "serial": serial,
            "productType": str(product),
            "escrowKey": self._code(item).text if item else str(bypass_code),
            "orgName": self._settings.organization,
            "guid": self._new_uuid(),
            **{name: value for name, value in known.items() if value},
        }
        answer = self._unlocking.unlock(topic or (record.topic if record else None) or "", parameters)
        if item and answer.status < _OK:
            change = ActivationLock.unlocked_at.set(int(self._now().timestamp()))
            item.update([change], condition=ActivationLock.name.exists())
        return answer

    def forget(self, serial_number: str) -> None:
        """Forget a device's code: whoever locks it again makes another. One that is not there is no error."""
        ActivationLock(_COLLECTION, serial_number_of(serial_number, name="serial_number")).delete()

    def _kept(self, serial: str, server: str) -> ActivationLock:
        """Return the device's item, with a new code if there is none."""
        item = ActivationLock(
            _COLLECTION,
            serial,
            bypass_code=self._sealer.seal(self._random(RAW_BYTES), place=_place(serial)),
            server=server,
            created_at=int(self._now().timestamp()),
        )
        try:
            item.save(ActivationLock.name.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            return _item(serial)
        return item

    def _record(self, serial: str) -> Enrollment | None:
        """Return the record of the device, if it ever enrolled: the last one that did."""
        records = self._enrollments.get_many(self._enrollments.ids_of_serial(serial)).values()
        found = [each for each in records if each.parent_id is None]
        return max(found, key=lambda each: int(each.authenticated_at or 0), default=None)

    def _code(self, item: ActivationLock) -> BypassCode:
        return BypassCode(self._sealer.open(item.bypass_code, place=_place(item.name)))

    def _reveal(self, item: ActivationLock, *, who: str, why: str | None) -> LockInfo:
        """Publish who is told, and tell; raise :class:`~mdmlib.errors.UnavailableError` when it cannot be published."""
        record = self._record(item.name)
        self._events.publish(
            secret_revealed(
                item.name,
                BYPASS_CODE,
                enrollment_id=record.enrollment_id if record else None,
                who=who,
                why=why,
                event_id=self._new_event_id(),
                at=self._now(),
            )
        )
        return LockInfo(
            serial_number=item.name,
            bypass_code=self._code(item).text,
            server=item.server,
            status=item.status,
            locked_at=_time(item.locked_at),
            unlocked_at=_time(item.unlocked_at),
        )


def _item(serial: str) -> ActivationLock:
    try:
        return ActivationLock.get(_COLLECTION, serial, consistent_read=True)
    except DoesNotExist:
        raise NotFoundError(
            f"Nobody has locked the device {serial} from here.", code="activation_lock_not_found"
        ) from None


def _place(serial: str) -> str:
    return f"{_COLLECTION}/{serial}"


def _time(seconds: object) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(str(seconds)), UTC)

"""Escrow: recovery keys and PINs of devices, sealed. They outlive enrollments, and none is ever overwritten.

Whoever reads one says why, and an event says who did, before the value is told: without the event there is no value.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pynamodb.exceptions import PutError, PynamoDBException

from mdmlib.apple import event as documents
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import ESCROW_PARTITION, Enrollment, EscrowedSecret

REVEALED_TOPIC: Final = "mdm.SecretRevealed"

FILEVAULT_KEY: Final = "filevault_key"
LOCK_PIN: Final = "lock_pin"
KINDS: Final = (FILEVAULT_KEY, LOCK_PIN)

MAX_REASON: Final = 500
_LONGEST_OWNER: Final = 1_000


@dataclass(frozen=True)
class Revealed:
    """A secret that was read."""

    kind: str
    value: str = field(repr=False)
    escrowed_at: int
    event_id: str


class Escrow:
    """The escrowed secrets of devices."""

    def __init__(
        self,
        *,
        events: EventPublisher,
        sealer: Sealer,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        self._events = events
        self._sealer = sealer
        self._now = now
        self._new_event_id = new_event_id

    def put_once(self, record: Enrollment, kind: str, make: Callable[[], str], *, name: str) -> str:
        """Escrow a secret under a name that tells it from others of its kind; return it, or the one that is there.

        Whoever comes second with the same name gets what the first has made.
        """
        partition = f"{ESCROW_PARTITION}{owner_of(record)}"
        item = f"{kind}#{name}"
        value = make()
        escrowed = EscrowedSecret(
            partition,
            item,
            kind=kind,
            value=self._sealer.seal(value.encode(), place=f"{partition}/{item}"),
            owner_enrollment=record.enrollment_id,
            escrowed_at=int(self._now().timestamp()),
        )
        try:
            escrowed.save(EscrowedSecret.item.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            return self._open(EscrowedSecret.get(partition, item, consistent_read=True))
        logger.info("Secret escrowed", enrollment_id=record.enrollment_id, kind=kind)
        return value

    def list(self, owner: str) -> list[EscrowedSecret]:
        """Return what is escrowed of a device, the newest first. Raises :class:`~mdmlib.errors.NotFoundError`."""
        if not 0 < len(owner.encode()) <= _LONGEST_OWNER or "#" in owner:
            raise _nothing(owner)
        found = [
            item
            for item in EscrowedSecret.query(f"{ESCROW_PARTITION}{owner}", consistent_read=True)
            if isinstance(item, EscrowedSecret)
        ]
        if not found:
            raise _nothing(owner)
        return sorted(found, key=lambda item: -int(item.escrowed_at))

    def has(self, record: Enrollment, kind: str) -> bool:
        """Say whether a secret of a kind is escrowed."""
        try:
            return any(item.kind == kind for item in self.list(owner_of(record)))
        except NotFoundError:
            return False

    def reveal(self, owner: str, kind: str, *, who: str, why: str) -> Revealed:
        """Return the newest secret of a kind, once it is published who reads it and why.

        Raises :class:`~mdmlib.errors.NotFoundError`, and :class:`~mdmlib.errors.UnavailableError` when it cannot be
        published.
        """
        check_reason(why)
        if kind not in KINDS:
            raise BadRequestError(f"Escrowed are: {', '.join(KINDS)}.", code="invalid_field", field="kind")
        item = next((item for item in self.list(owner) if item.kind == kind), None)
        if item is None:
            raise NotFoundError(f"No {kind} of {owner} is escrowed.", code="nothing_escrowed")
        event_id, now = self._new_event_id(), self._now()
        self._events.publish(
            secret_revealed(
                owner, kind, enrollment_id=item.owner_enrollment, who=who, why=why, event_id=event_id, at=now
            )
        )
        value = self._open(item)
        try:
            item.update([EscrowedSecret.revealed_at.set(int(now.timestamp()))], EscrowedSecret.item.exists())
        except PynamoDBException as error:
            # The event is what counts.
            logger.warning("Reading of a secret not noted", error=type(error).__name__)
        return Revealed(kind, value, int(item.escrowed_at), event_id)

    def _open(self, item: EscrowedSecret) -> str:
        return self._sealer.open(item.value, place=f"{item.enrollment_id}/{item.item}").decode()


def owner_of(record: Enrollment) -> str:
    """Return what a device's secrets are filed under: its serial number, or where there is none its enrollment."""
    return str(record.serial_number or record.enrollment_id)


def _nothing(owner: str) -> NotFoundError:
    return NotFoundError(
        f"Nothing is escrowed of {owner[:200]}. A device is named by its serial number here, if it has one.",
        code="nothing_escrowed",
    )


def check_reason(why: str) -> None:
    """Raise :class:`~mdmlib.errors.BadRequestError` unless this says why somebody reads a secret."""
    if not why.strip() or len(why) > MAX_REASON or not why.isprintable():
        raise BadRequestError(f"Say why, in 1 to {MAX_REASON} characters.", code="missing_field", field="reason")


def secret_revealed(
    owner: str, kind: str, *, enrollment_id: str | None, who: str, why: str | None, event_id: str, at: datetime
) -> MDMEvent:
    """Return the event that is published before a secret of a device is told to somebody."""
    document = {
        "topic": REVEALED_TOPIC,
        "event_id": event_id,
        "created_at": documents.rfc3339nano(at),
        "escrow_event": {"owner": owner, "enrollment_id": enrollment_id, "kind": kind, "who": who, "why": why},
    }
    return MDMEvent.from_document(document)

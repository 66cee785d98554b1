"""Events on their way out: each message of a device, and much that PicoMDM does itself, becomes one on the bus.

An event is published after the state that it tells of was committed and before the device is answered. A caller that
gets :class:`~mdmlib.errors.UnavailableError` answers 503; the device comes back, and the event goes out again **under
the same id**. Everybody who reads the bus therefore has to expect an event twice.

What may not be read by everybody never travels in clear. In place of ``raw_payload`` an event's document then has

``raw_payload_sealed``  base64 of the body, sealed for ``event#<event id>``
``payload_ref``         the key ``events/<event id>`` of the payload bucket, where a large body lies, sealed too

and :mod:`mdmlib.services.webhook_delivery` puts the body back.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.exceptions import PynamoDBException

from mdmlib import metrics
from mdmlib.errors import UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.settings import Settings
from mdmlib.store.at_once import at_once
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import OUTBOX_PARTITION, OutboxEvent, shard_of

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_events.type_defs import PutEventsRequestEntryTypeDef
    from mypy_boto3_sqs import SQSClient

SOURCE: Final = "picomdm.mdm"
"""``source`` of every event on the bus; its ``detail-type`` is the topic."""

INLINE_BYTES: Final = 128 * 1024
"""A larger raw body lies in the payload bucket: in base64 it takes a third more of the bus' 256 KiB."""

_ENTRIES: Final = 10
"""Events of one PutEvents."""

MAX_DETAIL_BYTES: Final = 240 * 1024
"""Of the 256 KiB that the bus and the queues behind it take, this leaves room for what they put around a detail."""

MESSAGE_PARTS: Final = ("acknowledge_event", "checkin_event", "status_event")
"""Where a document tells of a device's message, or of what it had in it."""

_JSON: Final = json.JSONEncoder(separators=(",", ":"))

# Names (in lower case) of what a body must not show to everybody who may read the bus: keys of TokenUpdate,
# SetBootstrapToken, UserAuthenticate and GetToken, of the responses to SecurityInfo (FDE_PersonalRecoveryKeyCMS),
# RotateFileVaultKey, ActivationLockBypassCode, RequestUnlockToken, DeviceInformation (PushToken) and others, and of
# status reports (mdm.push-magic); AuthToken is in all messages of a network user.
# Too many are no harm: a sealed body reaches the customer's webhook as any other.
_SECRET_WORDS: Final = (
    b"unlocktoken",
    b"pushmagic",
    b"pushtoken",
    b"push-magic",
    b"push-token",
    b"authtoken",
    b"bootstraptoken",
    b"securitytoken",
    b"recoverykey",
    b"recovery key",
    b"privatekey",
    b"bypass",
    b"escrow",
    b"password",
    b"redemptioncode",
    b"digestresponse",
)


@dataclass(frozen=True, slots=True)
class MDMEvent:
    """An event as it goes to the bus, to the fallback queue, or to the outbox.

    ``detail`` is its JSON document, with ``topic``, ``event_id`` and ``created_at`` at the top; everything else here
    is a copy of what stands there.
    """

    event_id: str
    topic: str
    created_at: datetime
    detail: str = field(repr=False)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Make an event of a document that holds nothing secret; ``created_at`` in it is RFC 3339."""
        return cls(
            event_id=document["event_id"],
            topic=document["topic"],
            created_at=datetime.fromisoformat(document["created_at"]),
            detail=_JSON.encode(document),
        )

    @classmethod
    def from_detail(cls, detail: str) -> Self:
        """Read an event back from the fallback queue or the outbox; its detail stays as it is, byte for byte.

        Raises ``ValueError`` or ``KeyError`` when it is none.
        """
        document = json.loads(detail)
        return cls(
            event_id=document["event_id"],
            topic=document["topic"],
            created_at=datetime.fromisoformat(document["created_at"]),
            detail=detail,
        )


class EventPublisher:
    """Makes events of messages and brings them to the bus.

    The clients are asked for on first use: only PutEvents is needed as a rule.
    """

    def __init__(
        self,
        events_client: "Callable[[], EventBridgeClient]",
        sqs_client: "Callable[[], SQSClient]",
        *,
        payloads: PayloadStore,
        sealer: Sealer,
        settings: Settings,
    ) -> None:
        self._events = events_client
        self._sqs = sqs_client
        self._bus = settings.event_bus
        self._fallback_queue_url = settings.event_fallback_queue_url
        self._payloads = payloads
        self._sealer = sealer

    def prepare(self, document: Mapping[str, Any], raw: bytes, *, secret: bool = False) -> MDMEvent:
        """Make an event of a message's document (:mod:`mdmlib.apple.event`) and its body.

        ``raw_payload`` in the document's part (:data:`MESSAGE_PARTS`) is replaced, in its place, when the body holds a
        secret, is large, or is to be taken for ``secret`` whatever it holds. A large body is stored first, under a key
        that a repetition writes again.
        Raises :class:`~mdmlib.errors.UnavailableError` when that fails.
        """
        large = len(raw) > INLINE_BYTES
        if not large and not secret and not holds_secret(raw):
            event = MDMEvent.from_document(document)
            if len(event.detail) <= MAX_DETAIL_BYTES:
                return event
            large = True
        sealed_document = self._without_raw(document, raw, large=large)
        event = MDMEvent.from_document(sealed_document)
        if len(event.detail) > MAX_DETAIL_BYTES:
            # An error chain of that length is for no rule to match, and the body that it was read from has it too.
            event = MDMEvent.from_document(_edited(sealed_document, "error_chain", {}))
        return event

    def publish(self, event: MDMEvent) -> None:
        """Bring an event to the bus, or to the fallback queue, whose consumer brings it there.

        Raises :class:`~mdmlib.errors.UnavailableError` when neither takes it. An event that was taken may be taken
        again, here too: an answer that does not come within two seconds counts as a failure.
        """
        if self._put(event) or self._put(event):
            return
        try:
            self._sqs().send_message(QueueUrl=self._fallback_queue_url, MessageBody=event.detail)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("Neither the event bus nor its fallback queue takes an event.") from error
        _detoured("Event sent to the fallback queue", event)

    def publish_or_keep(self, event: MDMEvent) -> None:
        """Publish an event; when neither bus nor queue takes it, it is committed to the outbox, from where it goes.

        Raises :class:`~mdmlib.errors.UnavailableError` when DynamoDB does not take it either.
        """
        try:
            self.publish(event)
        except UnavailableError:
            try:
                outbox_item(event).save()
            except PynamoDBException as error:
                raise UnavailableError("Neither EventBridge nor SQS nor DynamoDB takes an event.") from error
            _detoured("Event kept in the outbox", event)

    def publish_all(self, events: Sequence[MDMEvent]) -> None:
        """Bring many events to the bus, ten a call and some calls at a time.

        Those that it does not take go the way of :meth:`publish`. Raises as that does.
        """
        refused = [event for some in at_once(self._put_some, list(_calls(events))) for event in some]
        for event in refused:
            self.publish(event)

    def publish_again(self, event: MDMEvent) -> None:
        """Bring an event that waits elsewhere (fallback queue, outbox) to the bus.

        Raises :class:`~mdmlib.errors.UnavailableError` when the bus does not take it: it has to go on waiting there.
        """
        if not self._put(event):
            raise UnavailableError("The event bus does not take an event.")

    def publish_outbox(self, item: OutboxEvent) -> bool:
        """Publish an event that was committed to the outbox, and take it out; say whether it is out.

        Never raises for a neighbour's fault: the event is committed, so the device can be answered, and housekeeping
        publishes what is left. One that was published but could not be deleted is published once more.
        """
        event = MDMEvent(
            event_id=item.item,
            topic=item.topic,
            created_at=datetime.fromtimestamp(item.created_at, UTC),
            detail=item.detail,
        )
        if not (self._put(event) or self._put(event)):
            _detoured("Event left in the outbox", event)
            return False
        try:
            item.delete()
        except PynamoDBException:
            logger.warning("Published event left in the outbox", event_id=event.event_id, topic=event.topic)
            return False
        return True

    def _put_some(self, events: Sequence[MDMEvent]) -> list[MDMEvent]:
        """Bring up to ten events to the bus; return those that it did not take."""
        try:
            answer = self._events().put_events(Entries=[self._entry(event) for event in events])
        except (BotoCoreError, ClientError) as error:
            logger.warning("Event bus unreachable", events=len(events), error=_reason(error))
            return list(events)
        return [event for event, entry in zip(events, answer["Entries"], strict=True) if entry.get("ErrorCode")]

    def _entry(self, event: MDMEvent) -> "PutEventsRequestEntryTypeDef":
        return {
            "EventBusName": self._bus,
            "Source": SOURCE,
            "DetailType": event.topic,
            "Detail": event.detail,
            "Time": event.created_at,
        }

    def _put(self, event: MDMEvent) -> bool:
        try:
            answer = self._events().put_events(Entries=[self._entry(event)])
        except (BotoCoreError, ClientError) as error:
            logger.warning("Event bus unreachable", event_id=event.event_id, error=_reason(error))
            return False
        if answer["FailedEntryCount"]:
            # PutEvents answers 200 for an entry that it was too busy to take.
            logger.warning(
                "Event bus refused an event",
                event_id=event.event_id,
                error=answer["Entries"][0].get("ErrorCode"),
            )
            return False
        return True

    def _without_raw(self, document: Mapping[str, Any], raw: bytes, *, large: bool) -> dict[str, Any]:
        event_id = document["event_id"]
        if large:
            try:
                substitute = {"payload_ref": self._payloads.put(payload_key(event_id), raw)}
            except (BotoCoreError, ClientError) as error:
                raise UnavailableError("The payload bucket does not take an event's body.") from error
        else:
            sealed = self._sealer.seal(raw, place=event_place(event_id))
            substitute = {"raw_payload_sealed": b64encode(sealed).decode()}
        return _edited(document, "raw_payload", substitute)


def _calls(events: Sequence[MDMEvent]) -> Iterator[list[MDMEvent]]:
    """Yield the events in as many as one call takes, by number and by size."""
    some: list[MDMEvent] = []
    for event in events:
        if some and (len(some) == _ENTRIES or sum(len(one.detail) for one in (*some, event)) > MAX_DETAIL_BYTES):
            yield some
            some = []
        some.append(event)
    if some:
        yield some


def outbox_item(event: MDMEvent) -> OutboxEvent:
    """Return the item that commits ``event`` in the same transaction as the record that it tells of."""
    return OutboxEvent(
        f"{OUTBOX_PARTITION}{shard_of(event.event_id)}",
        event.event_id,
        topic=event.topic,
        detail=event.detail,
        created_at=int(event.created_at.timestamp()),
    )


def _detoured(phrase: str, event: MDMEvent) -> None:
    metrics.emit(phrase, {Metric.EVENTS_DETOURED: 1}, event_id=event.event_id, topic=event.topic)


def event_place(event_id: str) -> str:
    """Return the place that an event's body is sealed for."""
    return f"event#{event_id}"


def payload_key(event_id: str) -> str:
    """Return the key under which an event's large body lies in the payload bucket."""
    return f"events/{event_id}"


def holds_secret(raw: bytes) -> bool:
    """Return whether a body names something secret, or is written such that looking for the names finds none."""
    # UTF-16 and UTF-32 put a zero byte beside each ASCII letter; a binary plist writes its keys in ASCII all the same.
    if raw[:8] != b"bplist00" and b"\0" in raw[:4] + raw[-4:]:
        return True
    folded = raw.lower()
    return any(word in folded for word in _SECRET_WORDS)


def _edited(document: Mapping[str, Any], name: str, substitute: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with something else in the place of one key of its message part."""
    return {
        key: _replaced(value, name, substitute) if key in MESSAGE_PARTS else value for key, value in document.items()
    }


def _replaced(part: Mapping[str, Any] | None, name: str, substitute: Mapping[str, Any]) -> dict[str, Any] | None:
    if part is None:
        return None
    replaced: dict[str, Any] = {}
    for key, value in part.items():
        replaced |= substitute if key == name else {key: value}
    return replaced


def _reason(error: BotoCoreError | ClientError) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__

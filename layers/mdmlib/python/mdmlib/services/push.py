"""Waking devices: what the push queue brings goes to APNs, and what APNs says about it is acted upon."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pynamodb.exceptions import PynamoDBException, UpdateError

from mdmlib import metrics
from mdmlib.apple.certificates import PushIdentity
from mdmlib.apple.enrollment_id import EnrollmentID, EnrollmentType
from mdmlib.apple.event import ids, rfc3339nano
from mdmlib.clients.apns import ApnsClient, Notification, Outcome, Verdict
from mdmlib.errors import NotFoundError, PicoMDMError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.events import EventPublisher, MDMEvent
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_info import PushInfo, push_token_hash
from mdmlib.services.push_pace import PushPace
from mdmlib.services.push_queue import MAX_DELAY_SECONDS, PushMessage, PushQueue, PushTarget
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment

PUSH_FAILED_TOPIC: Final = "mdm.PushFailed"

KEPT_BY_APNS: Final = timedelta(days=7)
"""For how long APNs keeps a push for a device that is off, unless the push says otherwise."""

MAX_ATTEMPTS: Final = 10
"""With the delays between them these take about an hour; then the message goes the way of its dead-letter queue."""

_FIRST_DELAY_SECONDS: Final = 5
# What an administrator has to repair is not repaired in seconds.
_REFUSED_DELAY_SECONDS: Final = 300

_VERDICTS: Final = {
    Verdict.ACCEPTED: ("Pushes accepted", Metric.PUSHES_ACCEPTED),
    Verdict.REFUSED: ("Pushes refused, see to the push certificate", Metric.PUSHES_REFUSED),
    Verdict.TOKEN_REFUSED: ("Push tokens refused", Metric.PUSH_TOKENS_REFUSED),
    Verdict.PASSING: ("Pushes failed for now", Metric.PUSHES_POSTPONED),
}

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Push:
    """A target with the message that it came in."""

    target: PushTarget
    attempt: int
    message_id: str


class PushService:
    """Delivers pushes. Nothing of a successful push is written anywhere: devices answer by connecting."""

    def __init__(
        self,
        *,
        connect: Callable[[PushIdentity], ApnsClient],
        certificates: PushCertificates,
        queue: PushQueue,
        enrollments: EnrollmentStore,
        events: EventPublisher,
        sealer: Sealer,
        pace: PushPace,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        """``connect`` makes a client for an identity; ``jitter`` returns a random number from 0 to 1."""
        self._connect = connect
        self._certificates = certificates
        self._queue = queue
        self._enrollments = enrollments
        self._events = events
        self._sealer = sealer
        self._pace = pace
        self._now = now
        self._jitter = jitter
        self._clients: dict[str, ApnsClient] = {}

    def deliver(self, messages: Mapping[str, str]) -> list[str]:
        """Push what the messages say: bodies by message id. Return the ids of those that must come again.

        All messages of a topic are pushed together: one that wakes a single device would waste a round trip. A push
        that failed for a passing reason is queued anew, alone, so that its message is done; a message comes again only
        when it cannot be read, when that queueing or a write fails, or when it has been tried for an hour. Repeating a
        push is harmless: APNs and devices make one of several.
        """
        stay: set[str] = set()
        pushes: list[_Push] = []
        for message_id, body in messages.items():
            try:
                message = PushMessage.decode(body, self._sealer)
            except PicoMDMError as error:
                logger.error("Push message unreadable", error=error.code)
                stay.add(message_id)
            else:
                pushes += [_Push(target, message.attempt, message_id) for target in message.targets]
        room = self._pace.begin()
        for (topic, attempt), group in _grouped(pushes[room:], lambda push: (push.target.topic, push.attempt)):
            # What the pace leaves no time for has not failed.
            stay |= self._queue_again(topic, group, attempt=attempt, delay_seconds=self._pace.seconds)
        for topic, group in _grouped(pushes[:room], lambda push: push.target.topic):
            stay |= self._deliver(topic, group)
        return [message_id for message_id in messages if message_id in stay]

    def close(self) -> None:
        """Close all connections; a function never does, for Lambda ends without a word."""
        for client in self._clients.values():
            client.close()

    def _deliver(self, topic: str, pushes: Sequence[_Push]) -> set[str]:
        """Push to one topic; return the ids of messages that must come again."""
        stay: set[str] = set()
        again: list[tuple[_Push, int]] = []
        outcomes = self._send(topic, pushes)
        for push, outcome in zip(pushes, outcomes, strict=True):
            if outcome.verdict is Verdict.TOKEN_REFUSED:
                try:
                    renewed = self._token_refused(push, outcome)
                except (PicoMDMError, PynamoDBException) as error:
                    logger.error("Refusal of a push token not recorded", error=type(error).__name__)
                    stay.add(push.message_id)
                else:
                    again += [(renewed, 0)] if renewed else []
            elif outcome.verdict is not Verdict.ACCEPTED:
                again.append((push, _delay(push, outcome)))
        _log(topic, outcomes)
        for (to, attempt, delay), group in _grouped(
            again, lambda each: (each[0].target.topic, each[0].attempt, each[1])
        ):
            failed = [push for push, _ in group]
            if attempt >= MAX_ATTEMPTS:
                stay |= {push.message_id for push in failed}
                continue
            # Half of the delay is random: what failed together shall not come back together.
            seconds = round(delay * (0.5 + 0.5 * self._jitter()))
            stay |= self._queue_again(to, failed, attempt=attempt + 1, delay_seconds=seconds)
        return stay

    def _queue_again(self, topic: str, pushes: Sequence[_Push], *, attempt: int, delay_seconds: int) -> set[str]:
        """Queue pushes of one topic anew; return the ids of the messages that have to stay because that failed."""
        targets = [push.target for push in pushes]
        if self._queue.send_again(topic, targets, attempt=attempt, delay_seconds=delay_seconds):
            return set()
        return {push.message_id for push in pushes}

    def _send(self, topic: str, pushes: Sequence[_Push]) -> list[Outcome]:
        """Push at the set pace; outcomes are in the order of ``pushes``."""
        outcomes: list[Outcome] = []
        rest = Outcome(Verdict.PASSING, "no time left")
        try:
            client = self._client(topic)
            for start, stop in self._pace.slices(len(pushes)):
                notifications = [self._notification(push.target) for push in pushes[start:stop]]
                answers = client.send(notifications)
                if any(answer.verdict is Verdict.REFUSED for answer in answers):
                    renewed = self._client(topic, fresh=True)
                    if renewed is not client:
                        # The certificate was replaced since it was read.
                        client = renewed
                        answers = client.send(notifications)
                outcomes += answers
                if all(answer.status is None for answer in answers):
                    # Nobody is there: waiting for a connection again and again would take all our time.
                    rest = answers[-1]
                    break
        except NotFoundError as error:
            rest = Outcome(Verdict.REFUSED, error.code)
        return outcomes + [rest] * (len(pushes) - len(outcomes))

    def _client(self, topic: str, *, fresh: bool = False) -> ApnsClient:
        """Return the topic's client: a new one when its certificate is another than it was."""
        identity = self._certificates.identity(topic, fresh=fresh)
        client = self._clients.get(topic)
        if client is None or client.identity != identity:
            if client:
                client.close()
            client = self._clients[topic] = self._connect(identity)
        return client

    def _notification(self, target: PushTarget) -> Notification:
        expiration = target.expiration
        if expiration is None:
            expiration = int((self._now() + KEPT_BY_APNS).timestamp())
        return Notification(target.token, target.magic, target.apns_id, expiration)

    def _token_refused(self, push: _Push, outcome: Outcome) -> _Push | None:
        """Note that APNs will never take this token, and publish it. Return a push to the token that replaced it.

        A refusal may be about a token that is no longer the enrollment's; APNs' timestamp may also be older than the
        TokenUpdate that told us of the very same token.
        """
        target = push.target
        record = self._enrollments.get(target.enrollment_id)
        if record is None or record.push is None:
            return None
        refused = push_token_hash(target.token)
        if record.push_token_hash != refused:
            current = PushInfo.open(record.push, self._sealer, record.enrollment_id)
            return _Push(
                PushTarget(
                    target.enrollment_id,
                    record.topic or target.topic,
                    current.token,
                    current.magic,
                    target.apns_id,
                    target.expiration,
                ),
                push.attempt,
                push.message_id,
            )
        told_after = outcome.timestamp and (record.token_updated_at or 0) > outcome.timestamp.timestamp()
        if told_after and push.attempt < MAX_ATTEMPTS:
            return push
        try:
            record.update(
                [
                    Enrollment.push_failure.set(outcome.reason),
                    Enrollment.push_failed_at.set(int(self._now().timestamp())),
                ],
                condition=Enrollment.item.exists() & (Enrollment.push_token_hash == refused),
            )
        except UpdateError as error:
            if error.cause_response_code != "ConditionalCheckFailedException":
                raise
            return None  # A TokenUpdate, or the end of the enrollment, was quicker.
        self._events.publish(MDMEvent.from_document(self._push_failed(record, target, outcome)))
        return None

    def _push_failed(self, record: Enrollment, target: PushTarget, outcome: Outcome) -> dict[str, Any]:
        """Return the document of an ``mdm.PushFailed`` event.

        Its id is the push's: when the event is published again because the message came again, it is the same event.
        """
        type_ = EnrollmentType(record.type)
        part: dict[str, Any] = {
            "apns_id": target.apns_id,
            "reason": outcome.reason,
            "status": outcome.status,
            "unregistered_at": rfc3339nano(outcome.timestamp) if outcome.timestamp else None,
            "ids": ids(EnrollmentID(record.enrollment_id, type_, record.parent_id)),
            "enrollment_type": type_.value,
            "serial_number": record.serial_number,
        }
        return {
            "topic": PUSH_FAILED_TOPIC,
            "event_id": target.apns_id.lower(),
            "created_at": rfc3339nano(self._now()),
            "push_event": {name: value for name, value in part.items() if value is not None},
        }


def _grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> Iterable[tuple[_K, list[_T]]]:
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _delay(push: _Push, outcome: Outcome) -> int:
    """Return how many seconds a push that failed shall wait, before jitter."""
    backoff: int = _FIRST_DELAY_SECONDS * 2**push.attempt
    if outcome.verdict is Verdict.REFUSED:
        backoff = max(backoff, _REFUSED_DELAY_SECONDS)
    # Twice, for at least half of it is what remains after jitter.
    return min(max(backoff, 2 * (outcome.retry_after or 0)), MAX_DELAY_SECONDS)


def _log(topic: str, outcomes: Iterable[Outcome]) -> None:
    counts = Counter((outcome.verdict, outcome.reason) for outcome in outcomes)
    for (verdict, reason), count in counts.items():
        phrase, metric = _VERDICTS[verdict]
        metrics.emit(phrase, {metric: count}, topic=topic, reason=reason)
        if verdict is Verdict.REFUSED:
            logger.error(phrase, topic=topic, count=count, reason=reason)

"""Waking devices: what the push queue brings goes to APNs, and what APNs says about it is acted upon."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Final, NamedTuple, TypeVar

from pynamodb.exceptions import PynamoDBException

from mdmlib import metrics
from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.apns import ApnsClient, Notification, Outcome, Verdict, send_together
from mdmlib.errors import NotFoundError, PicoMDMError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.push_pace import PushPace
from mdmlib.services.push_queue import MAX_DELAY_SECONDS, PushMessage, PushQueue, PushTarget
from mdmlib.services.push_refusals import PushRefusals
from mdmlib.store.sealing import Sealer

KEPT_BY_APNS: Final = timedelta(days=7)
"""For how long APNs keeps a push for a device that is off, unless the push says otherwise."""

MAX_ATTEMPTS: Final = 10
"""With the delays between them these take about an hour; then the message goes the way of its dead-letter queue."""

KEPT_WHILE_REFUSED: Final = timedelta(days=14)
"""For how long pushes wait for another push certificate."""

STOP_SECONDS: Final = 600
"""For so long a worker leaves APNs alone with a certificate that it refused, unless there is another."""

_FIRST_DELAY_SECONDS: Final = 5
_LONGEST_RETRY_AFTER: Final = 86_400

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
    message_id: str
    attempt: int
    refused_since: int | None


class _Again(NamedTuple):
    """How pushes are queued again: those that are alike travel together."""

    topic: str
    attempt: int
    delay_seconds: int
    not_before: int | None = None
    refused_since: int | None = None


@dataclass(frozen=True)
class _Stop:
    """A topic that is left alone: until when, and with which certificate (None: there was none)."""

    identity: PushIdentity | None
    until: float
    outcome: Outcome


class PushService:
    """Delivers pushes. Nothing of a successful push is written anywhere: devices answer by connecting."""

    def __init__(
        self,
        *,
        connect: Callable[[PushIdentity], ApnsClient],
        certificates: PushCertificates,
        queue: PushQueue,
        refusals: PushRefusals,
        sealer: Sealer,
        pace: PushPace,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        """``connect`` makes a client for an identity; ``jitter`` returns a random number from 0 to 1."""
        self._connect = connect
        self._certificates = certificates
        self._queue = queue
        self._refusals = refusals
        self._sealer = sealer
        self._pace = pace
        self._now = now
        self._jitter = jitter
        self._clients: dict[str, ApnsClient] = {}
        self._stopped: dict[str, _Stop] = {}

    def deliver(self, messages: Mapping[str, str]) -> list[str]:
        """Push what the messages say: bodies by message id. Return the ids of those that must come again.

        All are pushed together, each topic over its own connection, and an enrollment once however often it is named.
        What fails for a passing reason is queued anew, alone, so that its message is done; a message comes again only
        when it cannot be read, when that queueing or a write fails, or when it has been tried for an hour. Repeating a
        push is harmless: APNs and devices make one of several.
        """
        now = int(self._now().timestamp())
        stay: set[str] = set()
        again: list[tuple[_Push, _Again]] = []
        pushes: list[_Push] = []
        for message_id, body in messages.items():
            try:
                message = PushMessage.decode(body, self._sealer)
            except PicoMDMError as error:
                logger.error("Push message unreadable", error=error.code)
                stay.add(message_id)
                continue
            found = [_Push(target, message_id, message.attempt, message.refused_since) for target in message.targets]
            if message.not_before and message.not_before > now:
                how = _Again(
                    message.topic, message.attempt, message.not_before - now, message.not_before, message.refused_since
                )
                again += [(push, how) for push in found]
            else:
                pushes += found
        pushes = _coalesced(pushes)
        stopped = {topic: self._stopped_for(topic) for topic in {push.target.topic for push in pushes}}
        outcomes = [(push, stop) for push in pushes if (stop := stopped[push.target.topic])]
        going = _interleaved([push for push in pushes if not stopped[push.target.topic]])
        room = self._pace.begin()
        # What the pace leaves no time for has not failed.
        again += [
            (push, _Again(push.target.topic, push.attempt, self._pace.seconds, None, push.refused_since))
            for push in going[room:]
        ]
        outcomes += zip(going[:room], self._send(going[:room]), strict=True)
        for push, outcome in outcomes:
            try:
                follows = self._settle(push, outcome, now)
            except (PicoMDMError, PynamoDBException) as error:
                logger.error("Refusal of a push token not recorded", error=type(error).__name__)
                stay.add(push.message_id)
                continue
            if follows and follows[1].attempt > MAX_ATTEMPTS:
                stay.add(push.message_id)
            elif follows:
                again.append(follows)
        _log(outcomes)
        stay |= self._queue_again(again)
        return [message_id for message_id in messages if message_id in stay]

    def close(self) -> None:
        """Close all connections; a function never does, for Lambda ends without a word."""
        for client in self._clients.values():
            client.close()

    def _settle(self, push: _Push, outcome: Outcome, now: int) -> tuple[_Push, _Again] | None:
        """Act upon an outcome; return what is to be pushed again, and how, or None."""
        target = push.target
        if outcome.verdict is Verdict.ACCEPTED:
            return None
        if outcome.verdict is Verdict.TOKEN_REFUSED:
            instead = self._refusals.settle(target, outcome, insists=push.attempt >= MAX_ATTEMPTS)
            if instead is None:
                return None
            return replace(push, target=instead), self._later(instead.topic, push.attempt, now, retry_after=None)
        if outcome.verdict is Verdict.REFUSED:
            since = push.refused_since or now
            # An administrator may take days: this is not counted as an attempt, and no dead-letter queue hears of it.
            attempt = push.attempt if now - since < KEPT_WHILE_REFUSED.total_seconds() else MAX_ATTEMPTS + 1
            seconds = round(MAX_DELAY_SECONDS * (0.5 + 0.5 * self._jitter()))
            return push, _Again(target.topic, attempt, seconds, None, since)
        return push, self._later(target.topic, push.attempt, now, retry_after=outcome.retry_after)

    def _later(self, topic: str, attempt: int, now: int, *, retry_after: int | None) -> _Again:
        """Return how a push is queued again that failed at its so-manieth attempt."""
        backoff: int = min(_FIRST_DELAY_SECONDS * 2**attempt, MAX_DELAY_SECONDS)
        # Half of the delay is random: what failed together shall not come back together.
        seconds = round(backoff * (0.5 + 0.5 * self._jitter()))
        if retry_after:
            seconds = max(seconds, round(min(retry_after, _LONGEST_RETRY_AFTER) * (1 + 0.5 * self._jitter())))
        return _Again(topic, attempt + 1, seconds, now + seconds if seconds > MAX_DELAY_SECONDS else None)

    def _queue_again(self, again: Iterable[tuple[_Push, _Again]]) -> set[str]:
        """Queue pushes anew; return the ids of the messages that have to stay because that failed."""
        stay: set[str] = set()
        for how, group in _grouped(again, lambda each: each[1]):
            if not self._queue.send_again(
                how.topic,
                [push.target for push, _ in group],
                attempt=how.attempt,
                delay_seconds=how.delay_seconds,
                not_before=how.not_before,
                refused_since=how.refused_since,
            ):
                stay |= {push.message_id for push, _ in group}
        return stay

    def _send(self, pushes: Sequence[_Push]) -> list[Outcome]:
        """Push at the set pace; outcomes are in the order of ``pushes``."""
        outcomes: list[Outcome] = []
        over: dict[str, Outcome] = {}
        topics = {push.target.topic for push in pushes}
        for start, stop in self._pace.slices(len(pushes)):
            outcomes += self._send_slice(pushes[start:stop], over)
            if topics <= over.keys():
                break
        rest = Outcome(Verdict.PASSING, "no time left")
        return outcomes + [over.get(push.target.topic, rest) for push in pushes[len(outcomes) :]]

    def _send_slice(self, pushes: Sequence[_Push], over: dict[str, Outcome]) -> list[Outcome]:
        """Push at once what may be; note in ``over`` the topics that nothing more is to be sent for, and why."""
        groups = []
        for topic, group in _grouped(enumerate(pushes), lambda each: each[1].target.topic):
            client = None if topic in over else self._client_or(topic, over)
            if client:
                groups.append((client, [number for number, _ in group]))
        deliveries = [
            (client, [self._notification(pushes[number].target) for number in numbers]) for client, numbers in groups
        ]
        outcomes: dict[int, Outcome] = {}
        for (client, numbers), (_, notifications), first in zip(
            groups, deliveries, send_together(deliveries), strict=True
        ):
            answers, topic = first, client.identity.topic
            if any(answer.verdict is Verdict.REFUSED for answer in answers):
                answers = self._send_with_another_certificate(topic, client, notifications, answers, over)
            elif all(answer.status is None for answer in answers):
                # Nobody is there: waiting for a connection again and again would take all our time.
                over[topic] = answers[-1]
            outcomes |= zip(numbers, answers, strict=True)
        return [outcomes.get(number) or over[push.target.topic] for number, push in enumerate(pushes)]

    def _client_or(self, topic: str, over: dict[str, Outcome]) -> ApnsClient | None:
        try:
            return self._client(topic)
        except NotFoundError as error:
            over[topic] = self._stop(topic, None, Outcome(Verdict.REFUSED, error.code))
        except (PicoMDMError, PynamoDBException) as error:
            over[topic] = Outcome(Verdict.PASSING, f"certificate not read: {type(error).__name__}")
        return None

    def _send_with_another_certificate(
        self,
        topic: str,
        client: ApnsClient,
        notifications: Sequence[Notification],
        answers: list[Outcome],
        over: dict[str, Outcome],
    ) -> list[Outcome]:
        """Push what was refused with the certificate that took the refused one's place, or else stop the topic."""
        refused = [number for number, answer in enumerate(answers) if answer.verdict is Verdict.REFUSED]
        try:
            renewed = self._client(topic, fresh=True)
        except (PicoMDMError, PynamoDBException) as error:
            logger.warning("Push certificate not read again", topic=topic, error=type(error).__name__)
            renewed = client
        if renewed is not client:
            again = renewed.send([notifications[number] for number in refused])
            for number, answer in zip(refused, again, strict=True):
                answers[number] = answer
        last = answers[refused[-1]]
        if last.verdict is Verdict.REFUSED:
            over[topic] = self._stop(topic, renewed.identity, last)
        return answers

    def _stop(self, topic: str, identity: PushIdentity | None, outcome: Outcome) -> Outcome:
        """Leave a topic alone for a while; its pushes are kept."""
        self._stopped[topic] = _Stop(identity, self._now().timestamp() + STOP_SECONDS, outcome)
        if client := self._clients.get(topic):
            client.close()  # The first push over a new connection goes alone.
        logger.error("Topic stopped, see to the push certificate", topic=topic, reason=outcome.reason)
        return outcome

    def _stopped_for(self, topic: str) -> Outcome | None:
        """Return why a topic is stopped, or None: its time may be over, or its certificate another."""
        stop = self._stopped.get(topic)
        if stop is None:
            return None
        try:
            identity = self._certificates.identity(topic)
        except NotFoundError:
            identity = None
        except (PicoMDMError, PynamoDBException):
            identity = stop.identity
        if identity == stop.identity and self._now().timestamp() < stop.until:
            return stop.outcome
        del self._stopped[topic]
        return None

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


def _coalesced(pushes: Iterable[_Push]) -> list[_Push]:
    """Leave one push of several to the same token: the one that APNs keeps the longest, with the fewest attempts."""
    kept: dict[tuple[str, str, str], _Push] = {}
    for push in pushes:
        key = push.target.enrollment_id, push.target.topic, push.target.token.lower()
        other = kept.get(key)
        if other:
            longest = max(other, push, key=_lasts)
            kept[key] = replace(longest, attempt=min(other.attempt, push.attempt))
        else:
            kept[key] = push
    return list(kept.values())


def _lasts(push: _Push) -> tuple[bool, int]:
    # None is a week, and what callers ask for is less, as a rule.
    return push.target.expiration is None, push.target.expiration or 0


def _interleaved(pushes: Iterable[_Push]) -> list[_Push]:
    """Let topics take turns, so that one with many pushes does not keep the others waiting."""
    groups = [group for _, group in _grouped(pushes, lambda push: push.target.topic)]
    return [push for turn in zip_longest(*groups) for push in turn if push is not None]


def _grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> Iterable[tuple[_K, list[_T]]]:
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups.items()


def _log(outcomes: Iterable[tuple[_Push, Outcome]]) -> None:
    counts = Counter((push.target.topic, outcome.verdict, outcome.reason) for push, outcome in outcomes)
    for (topic, verdict, reason), count in counts.items():
        phrase, metric = _VERDICTS[verdict]
        metrics.emit(phrase, {metric: count}, topic=topic, reason=reason)

"""Apple's push notification service, the provider's side: wakes devices so that they connect.

Source: Apple's "Sending notification requests to APNs", "Handling notification responses from APNs" and "Setting up
push notifications for your MDM customers".
"""

import json
import select
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Final
from urllib.parse import urlsplit

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.apns_connection import ApnsConnection, ConnectError, NotTaken, Response, Result, explanation
from mdmlib.clients.client_identity import tls_context

UNUSED_ASK_SECONDS: Final = 1
"""After so long without use a connection is asked (PING) whether it is still one."""

UNUSED_CLOSE_SECONDS: Final = 60
"""After so long it is not even asked: the process was frozen meanwhile, and middleboxes have forgotten it."""

_CONNECT_TIMEOUT_SECONDS: Final = 5.0
_PING_TIMEOUT_SECONDS: Final = 2.0

# So many requests are written before the answers are looked at: APNs begins to work while the rest is prepared.
_AT_ONCE: Final = 32

# So many connections that give no answer, and so many refusals of one notification, are enough for one call.
_TRIES: Final = 3

# A payload is nothing but the device's magic: one that is too large gets smaller only by a TokenUpdate.
_TOKEN_STATUSES: Final = frozenset({410, 413})
_TOKEN_REASONS: Final = frozenset(
    {"BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "MissingDeviceToken", "Unregistered"}
)
_TOPIC_REASONS: Final = frozenset({"BadCertificateEnvironment", "BadTopic", "MissingTopic", "TopicDisallowed"})
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Notification:
    """A wake-up: ``token`` is hex, ``apns_id`` a UUID, ``expiration`` epoch seconds (0: now or never)."""

    token: str = field(repr=False)
    magic: str = field(repr=False)
    apns_id: str
    expiration: int


class Verdict(Enum):
    """What to do after a push."""

    ACCEPTED = auto()
    """APNs took it. Whether the device hears of it, only the device can say."""
    TOKEN_REFUSED = auto()
    """Never push to this token again: only a TokenUpdate helps."""
    REFUSED = auto()
    """Nothing is wrong with the token, but with the certificate: no push of the topic will fare better."""
    PASSING = auto()
    """Try again later."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a notification.

    ``reason`` is APNs' own (``Unregistered``), or says why there was no answer. ``timestamp``: since when APNs has
    known that the token is dead. ``retry_after`` is in seconds.
    """

    verdict: Verdict
    reason: str = ""
    status: int | None = None
    timestamp: datetime | None = None
    retry_after: int | None = None


_ACCEPTED: Final = Outcome(Verdict.ACCEPTED, status=200)


class ApnsClient:
    """Pushes for one topic over one connection, which is kept from one call to the next."""

    def __init__(
        self,
        identity: PushIdentity,
        *,
        url: str,
        trust_anchor: str = "",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        answer_seconds: float = 10.0,
    ) -> None:
        """Prepare a client; nothing is connected yet.

        ``trust_anchor`` is PEM, instead of the system's certificates. ``clock`` measures timeouts; ``wall_clock`` goes
        on while Lambda has frozen the process. A push that is not answered in ``answer_seconds`` is given up.
        """
        parts = urlsplit(url)
        self.identity = identity
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._trust_anchor = trust_anchor
        self._clock = clock
        self._wall_clock = wall_clock
        self._answer_seconds = answer_seconds
        self._context: ssl.SSLContext | None = None
        self._connection: ApnsConnection | None = None
        self._used_at = 0.0
        self._constant_headers = (
            HeaderTuple(b":method", b"POST"),
            HeaderTuple(b":scheme", b"https"),
            HeaderTuple(b":authority", parts.netloc.encode()),
            HeaderTuple(b"apns-topic", identity.topic.encode()),
            HeaderTuple(b"apns-push-type", b"mdm"),
            HeaderTuple(b"apns-priority", b"10"),
        )

    def send(self, notifications: Sequence[Notification]) -> list[Outcome]:
        """Push all ``notifications`` and return their outcomes in the same order. Nothing is raised.

        What APNs did not take (GOAWAY, refused streams) is sent again at once, over a new connection if need be. What
        it may have taken is not: the outcome is passing, and the caller decides when to push again.
        Once APNs has refused the certificate, what is left is not sent: its outcome is the same.
        """
        return send_together([(self, notifications)])[0]

    def delivering(self, notifications: Sequence[Notification]) -> "Delivering":
        """Do the work of :meth:`send` in steps, for :func:`send_together`.

        Yields the connection that there is nothing to do for until it has something to read or to write, or
        :attr:`patience` is over; None to let others have a turn. Returns the outcomes.
        """
        delivery = _Delivery(notifications)
        fruitless, farewell = 0, ""
        try:
            while delivery.waiting and fruitless < _TRIES:
                connection, fresh = self._connected()
                answers = yield from self._send_over(connection, delivery, fresh=fresh)
                fruitless = 0 if answers else fruitless + 1
                if connection.lost or connection.going_away:
                    farewell = connection.lost or connection.farewell
                    self.close()
            delivery.end(Outcome(Verdict.PASSING, f"APNs takes no requests: {farewell}"))
        except ConnectError as error:
            self.close()
            verdict = Verdict.REFUSED if error.certificate_refused else Verdict.PASSING
            delivery.end(Outcome(verdict, error.reason))
        self._used_at = self._wall_clock()
        return [outcome for outcome in delivery.outcomes if outcome]

    @property
    def patience(self) -> float:
        """For how many seconds APNs may say nothing before somebody looks what is the matter."""
        return self._answer_seconds / 4

    def close(self) -> None:
        """Close the connection; the next push opens another."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _connected(self) -> tuple[ApnsConnection, bool]:
        """Return a connection that works, and whether it is a new one."""
        if self._connection and not self._is_usable(self._connection):
            self.close()
        if self._connection:
            return self._connection, False
        self._context = self._context or self._tls()
        self._connection = ApnsConnection.open(
            self._host, self._port, self._context, timeout=_CONNECT_TIMEOUT_SECONDS, clock=self._clock
        )
        return self._connection, True

    def _is_usable(self, connection: ApnsConnection) -> bool:
        unused = self._wall_clock() - self._used_at
        if not 0 <= unused < UNUSED_CLOSE_SECONDS:
            return False
        if unused >= UNUSED_ASK_SECONDS:
            return connection.answers_ping(_PING_TIMEOUT_SECONDS)
        connection.exchange(0)  # what came since the last use: a goodbye, most likely
        return not (connection.lost or connection.going_away)

    def _send_over(
        self, connection: ApnsConnection, delivery: "_Delivery", *, fresh: bool
    ) -> Generator[ApnsConnection | None, None, int]:
        """Push what waits until all is answered or the connection has no more to give; return the number of answers."""
        answers = 0
        opened_at = asked_at = self._clock()
        untried = fresh
        while (delivery.waiting and not connection.going_away) or delivery.in_flight:
            room = connection.room(delivery.payload_bytes)
            if room or delivery.in_flight:
                asked_at = self._clock()
            elif self._clock() - asked_at >= self._answer_seconds:
                connection.abandon("APNs allows no request")
            if untried and self._clock() - opened_at < self.patience:
                # The first goes alone: a certificate that is refused is so once, not for all streams at once.
                room = min(room, 1 - len(delivery.in_flight))
            self._request(connection, delivery, min(room, _AT_ONCE))
            results = connection.exchange(0)
            if delivery.waiting and room > _AT_ONCE:
                yield None
            elif connection.is_quiet and not results:
                yield connection
                results = connection.exchange(0)
            results += connection.give_up(older_than=self._answer_seconds)
            untried = untried and not results
            # A kept connection that ends without a single answer had ended before.
            had_ended = bool(connection.lost) and not fresh and not answers
            answers += delivery.take(results, had_ended=had_ended)
            if connection.lost:
                break
        return answers

    def _request(self, connection: ApnsConnection, delivery: "_Delivery", most: int) -> None:
        for _ in range(min(most, len(delivery.waiting))):
            index = delivery.waiting.popleft()
            notification = delivery.notifications[index]
            delivery.in_flight[connection.request(self._headers(notification), _payload(notification))] = index

    def _headers(self, notification: Notification) -> list[HeaderTuple]:
        method, scheme, authority, *apns = self._constant_headers
        return [
            method,
            scheme,
            authority,
            # Never indexed: they differ each time, would push the others out of the table, and a token is a secret.
            NeverIndexedHeaderTuple(b":path", b"/3/device/" + notification.token.lower().encode()),
            *apns,
            HeaderTuple(b"apns-expiration", b"%d" % notification.expiration),
            # Apple documents lower case here, although the UUIDs that it makes itself are in upper case.
            NeverIndexedHeaderTuple(b"apns-id", notification.apns_id.lower().encode()),
        ]

    def _tls(self) -> ssl.SSLContext:
        context = tls_context(self.identity, trust_anchor=self._trust_anchor)
        context.set_alpn_protocols(["h2"])
        return context


class _Delivery:
    """The books of one call of :meth:`ApnsClient.send`; notifications are known by their index."""

    def __init__(self, notifications: Sequence[Notification]) -> None:
        self.notifications = notifications
        self.outcomes: list[Outcome | None] = [None] * len(notifications)
        self.waiting = deque(range(len(notifications)))
        self.in_flight: dict[int, int] = {}
        self.payload_bytes = max((len(_payload(notification)) for notification in notifications), default=1)
        self._refusals = [0] * len(notifications)

    def take(self, results: Iterable[tuple[int, Result]], *, had_ended: bool) -> int:
        """Note results by their streams; return how many answers are among them.

        ``had_ended``: the connection had ended before it was used. When the certificate is refused, so is all that
        waits.
        """
        answers = 0
        for stream_id, result in results:
            index = self.in_flight.pop(stream_id)
            if isinstance(result, Response):
                answers += 1
                outcome = self.outcomes[index] = _outcome(result)
                if outcome.verdict is Verdict.REFUSED:
                    self.end(outcome)
            elif isinstance(result, NotTaken):
                self.take_back(index, refused=result.refused)
            elif had_ended and not answers:
                self.take_back(index, refused=False)
            else:
                self.outcomes[index] = Outcome(Verdict.PASSING, result.reason)
        return answers

    def take_back(self, index: int, *, refused: bool) -> None:
        """Let a notification that was not taken wait again, unless it was refused too often."""
        self._refusals[index] += refused
        if self._refusals[index] < _TRIES:
            self.waiting.append(index)
        else:
            self.outcomes[index] = Outcome(Verdict.PASSING, "APNs did not take it")

    def end(self, outcome: Outcome) -> None:
        """Give all that wait the same outcome."""
        while self.waiting:
            self.outcomes[self.waiting.popleft()] = outcome


Delivering = Generator[ApnsConnection | None, None, list[Outcome]]
"""A delivery in steps, see :meth:`ApnsClient.delivering`."""


def send_together(deliveries: Sequence[tuple[ApnsClient, Sequence[Notification]]]) -> list[list[Outcome]]:
    """Push with several clients at once, each over its own connection, in this thread; as :meth:`ApnsClient.send`.

    A topic whose APNs is slow holds up no other, except while its connection is being made.
    """
    outcomes: list[list[Outcome]] = [[] for _ in deliveries]
    running = {number: client.delivering(pushes) for number, (client, pushes) in enumerate(deliveries)}
    # What each waits for, and until when; what is in no list has a turn.
    waits: dict[int, tuple[ApnsConnection, float]] = {}
    while running:
        for number in [number for number in running if number not in waits]:
            try:
                connection = next(running[number])
            except StopIteration as end:
                outcomes[number] = end.value
                del running[number]
            else:
                if connection is not None:
                    waits[number] = connection, time.monotonic() + deliveries[number][0].patience
        _wait(waits, idle=len(waits) == len(running))
    return outcomes


def _wait(waits: dict[int, tuple[ApnsConnection, float]], *, idle: bool) -> None:
    """Take out of ``waits`` who may go on; unless ``idle``, somebody may anyway."""
    if not waits:
        return
    poll = select.poll()
    for connection, _ in waits.values():
        poll.register(connection.fileno, select.POLLIN | (select.POLLOUT if connection.has_more_to_write else 0))
    seconds = max(0.0, min(until for _, until in waits.values()) - time.monotonic()) if idle else 0.0
    ready = {fileno for fileno, _ in poll.poll(seconds * 1000)}
    now = time.monotonic()
    for number, (connection, until) in list(waits.items()):
        if connection.fileno in ready or until <= now:
            del waits[number]


def _payload(notification: Notification) -> bytes:
    return json.dumps({"mdm": notification.magic}, separators=(",", ":")).encode()


def _outcome(response: Response) -> Outcome:
    if response.status == 200:  # noqa: PLR2004 - OK
        return _ACCEPTED
    document = explanation(response.body)
    reason = str(document.get("reason") or f"status {response.status}")
    if response.status in _TOKEN_STATUSES or reason in _TOKEN_REASONS:
        return Outcome(Verdict.TOKEN_REFUSED, reason, response.status, _timestamp(document.get("timestamp")))
    if response.status == _FORBIDDEN or reason in _TOPIC_REASONS:
        return Outcome(Verdict.REFUSED, reason, response.status)
    return Outcome(Verdict.PASSING, reason, response.status, retry_after=_retry_after(response))


def _timestamp(milliseconds: object) -> datetime | None:
    if not isinstance(milliseconds, int):
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None  # a time that no calendar has


def _retry_after(response: Response) -> int | None:
    """Return Retry-After in seconds; its other form, a date, is not worth a parser here."""
    value = response.headers.get(b"retry-after", b"")
    return int(value) if value.isdigit() else None

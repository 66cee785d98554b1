"""Apple's push notification service, the provider's side: wakes devices so that they connect.

Source: Apple's "Sending notification requests to APNs", "Handling notification responses from APNs" and "Setting up
push notifications for your MDM customers".
"""

import json
import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hpack import HeaderTuple, NeverIndexedHeaderTuple

from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.apns_connection import ApnsConnection, ConnectError, NotTaken, Response, explanation

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

_TOKEN_REASONS: Final = frozenset(
    {"BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "MissingDeviceToken", "Unregistered"}
)
_GONE: Final = 410
_TOO_MANY_REQUESTS: Final = 429
_CLIENT_ERRORS: Final = range(400, 500)


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
    """Nothing is wrong with the token, but with the certificate, or with us: an administrator has to look."""
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
        """
        delivery = _Delivery(notifications)
        fruitless, farewell = 0, ""
        try:
            while delivery.waiting and fruitless < _TRIES:
                connection, fresh = self._connected()
                answers = self._send_over(connection, delivery, fresh=fresh)
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

    def _send_over(self, connection: ApnsConnection, delivery: "_Delivery", *, fresh: bool) -> int:
        """Push what waits until all is answered or the connection has no more to give; return the number of answers."""
        answers = 0
        asked_at = self._clock()
        while (delivery.waiting and not connection.going_away) or delivery.in_flight:
            room = connection.room(delivery.payload_bytes)
            if room or delivery.in_flight:
                asked_at = self._clock()
            elif self._clock() - asked_at >= self._answer_seconds:
                connection.abandon("APNs allows no request")
            for _ in range(min(room, _AT_ONCE, len(delivery.waiting))):
                index = delivery.waiting.popleft()
                notification = delivery.notifications[index]
                delivery.in_flight[connection.request(self._headers(notification), _payload(notification))] = index
            busy = delivery.waiting and room > _AT_ONCE
            results = connection.exchange(0 if busy else self._answer_seconds / 4)
            results += connection.give_up(older_than=self._answer_seconds)
            for stream_id, result in results:
                index = delivery.in_flight.pop(stream_id)
                if isinstance(result, Response):
                    answers += 1
                    delivery.outcomes[index] = _outcome(result)
                elif isinstance(result, NotTaken):
                    delivery.take_back(index, refused=result.refused)
                elif connection.lost and not fresh and not answers:
                    # A kept connection that ends without a single answer had ended before.
                    delivery.take_back(index, refused=False)
                else:
                    delivery.outcomes[index] = Outcome(Verdict.PASSING, result.reason)
            if connection.lost:
                break
        return answers

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
        context = ssl.create_default_context(cadata=self._trust_anchor or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        # ssl reads certificates from files only: for that moment the key lies there under a password that does not.
        password = os.urandom(24).hex().encode()
        key = load_pem_private_key(self.identity.private_key_pem, None, unsafe_skip_rsa_key_validation=True)
        with TemporaryDirectory() as folder:
            chain = Path(folder, "identity.pem")
            chain.write_bytes(
                self.identity.certificate_pem
                + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
            )
            context.load_cert_chain(chain, password=password)
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


def _payload(notification: Notification) -> bytes:
    return json.dumps({"mdm": notification.magic}, separators=(",", ":")).encode()


def _outcome(response: Response) -> Outcome:
    if response.status == 200:  # noqa: PLR2004 - OK
        return _ACCEPTED
    document = explanation(response.body)
    reason = str(document.get("reason") or f"status {response.status}")
    if response.status == _GONE or reason in _TOKEN_REASONS:
        return Outcome(Verdict.TOKEN_REFUSED, reason, response.status, _timestamp(document.get("timestamp")))
    if response.status == _TOO_MANY_REQUESTS or response.status not in _CLIENT_ERRORS:
        return Outcome(Verdict.PASSING, reason, response.status, retry_after=_retry_after(response))
    return Outcome(Verdict.REFUSED, reason, response.status)


def _timestamp(milliseconds: object) -> datetime | None:
    if not isinstance(milliseconds, int):
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _retry_after(response: Response) -> int | None:
    """Return Retry-After in seconds; its other form, a date, is not worth a parser here."""
    value = response.headers.get(b"retry-after", b"")
    return int(value) if value.isdigit() else None

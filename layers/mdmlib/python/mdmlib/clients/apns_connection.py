"""One HTTP/2 connection to APNs, on ``h2`` and a plain socket.

There is no thread and no event loop: Lambda freezes the process between two invocations, and nothing here runs unless
:meth:`ApnsConnection.exchange` is called. A connection never raises after it was opened; it becomes ``lost``.
"""

import json
import selectors
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from hpack import HeaderTuple

from mdmlib.clients.http2_frames import FrameError, GoAway, Http2Frames

_READ_BYTES: Final = 65536

# More would only lie in buffers: at 30 ms to Apple this is 10,000 pushes a second.
_MAX_IN_FLIGHT: Final = 300

_CERTIFICATE_ALERTS: Final = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED", "DECRYPT_ERROR")


class ConnectError(Exception):
    """There is no connection. ``certificate_refused``: APNs did not take our certificate."""

    def __init__(self, reason: str, *, certificate_refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.certificate_refused = certificate_refused


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class NotTaken:
    """APNs says that it did not look at the request: it may be sent again at once.

    ``refused``: it refused this very stream, while the connection goes on.
    """

    refused: bool


@dataclass(frozen=True, slots=True)
class Unknown:
    """There is no answer and there will be none; APNs may have acted on the request."""

    reason: str


Result = Response | NotTaken | Unknown

_REFUSED: Final = NotTaken(refused=True)
_GONE_AWAY: Final = NotTaken(refused=False)


@dataclass(slots=True)
class _Stream:
    sent_at: float
    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class _Http2(H2Connection):
    """h2, without its walk over all streams for each new one."""

    in_flight = 0
    _until_sweep = 1000

    @property
    def open_outbound_streams(self) -> int:
        """Return how many requests wait for an answer, as our own books say.

        h2 counts anew each time, so that 300 requests would cost 300² steps. As it forgets closed streams only while
        it counts, it is let to now and then.
        """
        self._until_sweep -= 1
        if not self._until_sweep:
            self._until_sweep = 1000
            return super().open_outbound_streams
        return self.in_flight


class ApnsConnection:
    """A connection and the requests that are under way on it."""

    def __init__(self, tls: ssl.SSLSocket, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._socket = tls
        self._socket.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(tls, selectors.EVENT_READ)
        self._h2 = _Http2(
            H2Configuration(
                client_side=True,
                header_encoding=False,
                # Our headers are written below, once; APNs' are looked at field by field.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._h2.initiate_connection()
        self._out = bytearray(self._h2.data_to_send())
        self._in = Http2Frames()
        self._streams: dict[int, _Stream] = {}
        self._results: list[tuple[int, Result]] = []
        self._greeted = False
        self._pinged = False
        self._heard_at = clock()
        self.going_away = False
        """APNs takes no further request, but still answers those that it took."""
        self.farewell = ""
        """Why it is going away."""
        self.lost: str | None = None
        """Why nothing can be done with the connection any more."""
        self.certificate_refused = False
        self.is_quiet = False
        """Whether the last :meth:`exchange` brought nothing."""

    @classmethod
    def open(cls, host: str, port: int, context: ssl.SSLContext, *, timeout: float, clock: Callable[[], float]) -> Self:
        """Connect and wait for the settings of APNs, so that no more streams are opened than it allows.

        Raises :class:`ConnectError`.
        """
        try:
            plain = socket.create_connection((host, port), timeout=timeout)
        except OSError as error:
            raise ConnectError(f"no connection: {type(error).__name__}") from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = context.wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            plain.close()
            raise ConnectError(f"the server's certificate is not trusted: {error.verify_message}") from error
        except OSError as error:
            plain.close()
            raise ConnectError(_tls_reason(error), certificate_refused=_is_about_certificate(error)) from error
        connection = cls(tls, clock=clock)
        # With TLS 1.3 a refused certificate shows only now.
        connection._await(lambda: connection._greeted, timeout)
        if connection.lost or not connection._greeted or tls.selected_alpn_protocol() != "h2":
            connection.close()
            raise ConnectError(
                connection.lost or "no HTTP/2 settings came", certificate_refused=connection.certificate_refused
            )
        return connection

    def close(self) -> None:
        """Close the socket; saying goodbye is not worth waiting for."""
        self.lost = self.lost or "closed"
        self._selector.close()
        self._socket.close()

    @property
    def in_flight(self) -> int:
        """How many requests wait for an answer."""
        return len(self._streams)

    @property
    def fileno(self) -> int:
        """The socket, for who waits for several connections."""
        return self._socket.fileno()

    @property
    def has_more_to_write(self) -> bool:
        """Whether the last :meth:`exchange` could not write all."""
        return bool(self._out)

    def room(self, payload_bytes: int) -> int:
        """Return how many requests with a payload of at most so many bytes may be made now."""
        settings = self._h2.remote_settings
        if self.going_away or self.lost or settings.initial_window_size < payload_bytes:
            return 0
        streams = min(settings.max_concurrent_streams, _MAX_IN_FLIGHT) - len(self._streams)
        return max(0, min(streams, self._h2.outbound_flow_control_window // payload_bytes))

    def request(self, headers: Iterable[HeaderTuple], payload: bytes) -> int:
        """Begin a request, for which there has to be room; return its stream's id.

        It goes out with the next :meth:`exchange`.
        """
        stream_id = self._h2.get_next_available_stream_id()
        self._h2.in_flight = len(self._streams)
        self._h2.send_headers(stream_id, headers)
        self._h2.send_data(stream_id, payload, end_stream=True)
        self._streams[stream_id] = _Stream(self._clock())
        # Stream ids are used up after 2^30 requests.
        self.going_away = self.going_away or stream_id >= (1 << 31) - 3
        return stream_id

    def exchange(self, timeout: float) -> list[tuple[int, Result]]:
        """Write and read what can be; wait up to ``timeout`` seconds for anything. Return requests that are settled.

        When the connection turns out to be lost, all requests are.
        """
        try:
            self._write()
            self.is_quiet = not self._read()
            if self.is_quiet and timeout > 0 and not self._results:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
                self._selector.modify(self._socket, events)
                if self._selector.select(timeout):
                    self._write()
                    self._read()
            # What the answers call for (acknowledgements of settings, pings, windows) shall not wait for a request.
            self._write()
        except (FrameError, H2Error) as error:
            self._lose(f"APNs broke the protocol: {type(error).__name__}")
        except OSError as error:
            self.certificate_refused = _is_about_certificate(error)
            self._lose(_tls_reason(error))
        results, self._results = self._results, []
        return results

    def give_up(self, *, older_than: float) -> list[tuple[int, Result]]:
        """Cancel the requests that were made ``older_than`` seconds ago or before; return them.

        If nothing was heard in all that time, the connection is lost and all are returned.
        """
        now = self._clock()
        # The oldest come first.
        late = takewhile(lambda item: now - item[1].sent_at >= older_than, self._streams.items())
        overdue = [stream_id for stream_id, _ in late]
        if overdue and now - self._heard_at >= older_than:
            self._lose("APNs does not answer")
        else:
            for stream_id in overdue:
                self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
                self._settle(stream_id, Unknown("no answer in time"))
        results, self._results = self._results, []
        return results

    def abandon(self, reason: str) -> None:
        """Have nothing more to do with it; what is under way is settled with the next :meth:`exchange`."""
        self._lose(reason)

    def answers_ping(self, timeout: float) -> bool:
        """Return whether the other end is still there and takes requests."""
        self.exchange(0)  # first what has come meanwhile: a goodbye, most likely
        if self.lost or self.going_away:
            return False
        self._pinged = False
        self._h2.ping(b"PicoMDM?")
        self._await(lambda: self._pinged or self.going_away, timeout)
        return self._pinged and not self.going_away and not self.lost

    def _await(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = self._clock() + timeout
        while not condition() and not self.lost and (left := deadline - self._clock()) > 0:
            self._results += self.exchange(left)

    def _write(self) -> None:
        self._out += self._h2.data_to_send()
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except OSError:
                self._out.clear()
                # What was said before the other end closed still lies here: answers, a goodbye, an alert.
                self._read()
                raise
            del self._out[:sent]

    def _read(self) -> bool:
        """Take in all that has arrived; return whether there was anything."""
        anything = False
        while not self.lost:
            try:
                data = self._socket.recv(_READ_BYTES)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if not data:
                self._lose("APNs closed the connection")
                break
            anything = True
            self._heard_at = self._clock()
            for frames in self._in.feed(data):
                if isinstance(frames, GoAway):
                    self._go_away(frames)
                    continue
                for event in self._h2.receive_data(frames):
                    self._handle(event)
        return anything

    def _go_away(self, goaway: GoAway) -> None:
        """Take back what APNs did not take. A server may say it twice, with a lower last stream (RFC 9113, 6.8)."""
        self.going_away = True
        self.farewell = str(explanation(goaway.debug_data).get("reason") or f"error code {goaway.error_code}")
        for stream_id in [stream_id for stream_id in self._streams if stream_id > goaway.last_stream_id]:
            self._settle(stream_id, _GONE_AWAY)

    def _handle(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            if stream := self._streams.get(event.stream_id):
                stream.headers = dict(event.headers)
                status = stream.headers.get(b":status", b"")
                stream.status = int(status) if status.isdigit() else 0
        elif isinstance(event, StreamEnded):
            if stream := self._streams.get(event.stream_id):
                self._settle(event.stream_id, Response(stream.status, stream.headers, stream.body))
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if stream := self._streams.get(event.stream_id):
                stream.body += event.data
        elif isinstance(event, StreamReset):
            refused = event.error_code == ErrorCodes.REFUSED_STREAM
            self._settle(event.stream_id, _REFUSED if refused else Unknown(f"stream reset ({event.error_code})"))
        elif isinstance(event, RemoteSettingsChanged):
            self._greeted = True
        elif isinstance(event, PingAckReceived):
            self._pinged = True

    def _settle(self, stream_id: int, result: Result) -> None:
        if self._streams.pop(stream_id, None):
            self._results.append((stream_id, result))

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        for stream_id in list(self._streams):
            self._settle(stream_id, Unknown(self.lost))


def explanation(body: bytes) -> dict[str, object]:
    """Return the JSON document with which APNs explains itself, in answers and in GOAWAY; empty when there is none."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _tls_reason(error: OSError) -> str:
    return f"TLS: {error.reason}" if isinstance(error, ssl.SSLError) and error.reason else type(error).__name__


def _is_about_certificate(error: OSError) -> bool:
    """Whether the other side's alert blames our certificate."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and any(word in reason for word in _CERTIFICATE_ALERTS)

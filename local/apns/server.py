"""The provider's side of the simulated APNs: HTTP/2 over TLS."""

import asyncio
import itertools
import json
import ssl
import time
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from cryptography import x509
from hyperframe.frame import GoAwayFrame

from local.apns.behaviour import Behaviour
from local.apns.devices import Devices
from local.apns.portal import Portal, topic_of
from local.apns.rules import Answer, Request, judge
from local.apns.tls import TlsServerProtocol

_KEEP: Final = 20_000
_LINGER_SECONDS: Final = 0.2


class Service:
    """APNs: what all connections share."""

    def __init__(self, portal: Portal, devices: Devices) -> None:
        self.portal = portal
        self.devices = devices
        self.behaviour = Behaviour()
        self.connections: set[Connection] = set()
        self.connections_made = 0
        self.peak_streams = 0
        self.pushes: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self.violations: deque[dict[str, Any]] = deque(maxlen=_KEEP)
        self._revoked: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self.pushes_made = 0

    async def start(self, *, port: int) -> int:
        """Listen on 127.0.0.1; return the port."""
        context = _tls(self.portal)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self, context), "127.0.0.1", port, backlog=1024)
        return cast("int", server.sockets[0].getsockname()[1])

    def revoke(self, topic: str) -> None:
        """Refuse the certificates issued for the topic until now."""
        self._revoked[topic] = time.time()

    def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether the certificate was issued before its topic's were revoked."""
        # A certificate's own date is an hour before its issue; see portal.py.
        issued = certificate.not_valid_before_utc.timestamp() + 3600
        return issued <= self._revoked.get(topic_of(certificate) or "", 0)

    def reset(self) -> None:
        """Forget what was seen and behave again."""
        self.behaviour = Behaviour()
        for connection in list(self.connections):
            connection.abort_if_frozen()
        self.pushes.clear()
        self.violations.clear()
        self.peak_streams = 0

    def forced_answer(self, request: Request) -> Answer:
        """Return the rules' answer, or the trouble that was asked for."""
        behaviour = self.behaviour
        if behaviour.answer_status is not None and behaviour.answer_times > 0:
            behaviour.answer_times -= 1
            return Answer(behaviour.answer_status, behaviour.answer_reason, retry_after=behaviour.retry_after)
        return judge(request, self.devices)

    def carry_out(self, request: Request, answer: Answer, connection: int) -> None:
        """Wake the device when the push was accepted, and keep record."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        token = headers.get(":path", "").rpartition("/")[2]
        self.pushes_made += 1
        self.pushes.append(
            {
                "number": next(self._numbers),
                "connection": connection,
                "token": token,
                "topic": headers.get("apns-topic"),
                "apns_id": headers.get("apns-id"),
                "expiration": headers.get("apns-expiration"),
                "priority": headers.get("apns-priority"),
                "status": answer.status,
                "reason": answer.reason,
            }
        )
        if answer.violation:
            self.violation(answer.violation, apns_id=answer.apns_id)
        if answer.device and answer.push:
            answer.device.deliver(answer.push)

    def violation(self, what: str, **where: object) -> None:
        """Keep record of something that must not be."""
        self.violations.append({"violation": what, **where})


class Connection(TlsServerProtocol):
    """One provider's connection."""

    def __init__(self, service: Service, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self._service = service
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        )
        self._certificate: x509.Certificate | None = None
        self._topic: str | None = None
        self._number = 0
        self._headers: dict[int, list[tuple[bytes, bytes]]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._owed: set[int] = set()
        self._taken = 0
        self._highest_stream = 0
        self._last_stream: int | None = None
        self._frozen = False
        self._idle: asyncio.TimerHandle | None = None

    def established(self) -> None:
        """Greet; a client that did not negotiate HTTP/2 is cut off."""
        if self.tls.selected_alpn_protocol() != "h2":
            self._service.violation("a client did not negotiate h2")
            self.abort()
            return
        if der := self.tls.getpeercert(binary_form=True):
            self._certificate = x509.load_der_x509_certificate(der)
            self._topic = topic_of(self._certificate)
        self._service.connections_made += 1
        self._number = self._service.connections_made
        self._service.connections.add(self)
        self._h2.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self._stream_limit(),
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: self._service.behaviour.initial_window,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 8000,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self._h2.initiate_connection()
        self._flush()
        if len(self._service.connections) > self._service.behaviour.max_connections:
            self.go_away("TooManyConnections", code=h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
        self._restart_idle_timer()

    def ended(self) -> None:
        """Forget the connection."""
        self._service.connections.discard(self)
        if self._idle:
            self._idle.cancel()

    def received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._frozen:
            return
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except h2.exceptions.ProtocolError as error:
            self._service.violation(f"{type(error).__name__}: {error}", connection=self._number)
            self._flush()
            self.close()
        else:
            self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin(event)
        elif isinstance(event, h2.events.DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self._bodies:
                self._bodies[event.stream_id] += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self._end(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self._owed.discard(event.stream_id)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.close()

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        if self._last_stream is not None and stream_id > self._last_stream:
            return  # not taken, as the GOAWAY said
        self._highest_stream = stream_id
        behaviour = self._service.behaviour
        if behaviour.refuse_streams > 0:
            behaviour.refuse_streams -= 1
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._headers[stream_id] = event.headers
        self._bodies[stream_id] = bytearray()
        self._owed.add(stream_id)
        self._service.peak_streams = max(self._service.peak_streams, len(self._owed))
        self._restart_idle_timer()

    def _end(self, stream_id: int) -> None:
        if stream_id not in self._headers:
            return
        behaviour = self._service.behaviour
        request = Request(
            self._headers.pop(stream_id),
            bytes(self._bodies.pop(stream_id)),
            self._topic,
            certificate_revoked=self._certificate is not None and self._service.is_revoked(self._certificate),
        )
        self._taken += 1
        if behaviour.cut_after is not None and self._taken >= behaviour.cut_after and behaviour.cut_connections != 0:
            if behaviour.cut_connections is not None:
                behaviour.cut_connections -= 1
            self.cut()
        elif behaviour.silent > 0:
            behaviour.silent -= 1
            self._owed.discard(stream_id)
        elif behaviour.reset_streams > 0:
            behaviour.reset_streams -= 1
            self._owed.discard(stream_id)
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
        elif behaviour.latency:
            asyncio.get_running_loop().call_later(behaviour.latency, self._answer_late, stream_id, request)
        else:
            self._answer(stream_id, request)
        if self._taken == behaviour.goaway_after:
            self.go_away("Shutdown")

    def _answer_late(self, stream_id: int, request: Request) -> None:
        if stream_id in self._owed and not self.is_closing:
            self._answer(stream_id, request)
            self._flush()

    def _answer(self, stream_id: int, request: Request) -> None:
        answer = self._service.forced_answer(request)
        self._service.carry_out(request, answer, self._number)
        body = answer.body()
        self._h2.send_headers(stream_id, answer.headers(), end_stream=not body)
        if body:
            self._h2.send_data(stream_id, body, end_stream=True)
        self._owed.discard(stream_id)
        if self._taken == 1 and self._service.behaviour.first_streams is not None:
            self._h2.update_settings(
                {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self._service.behaviour.max_streams}
            )
        self._close_when_done()

    def go_away(self, reason: str, *, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """Say GOAWAY: what was taken is answered yet, then the connection is closed."""
        self._last_stream = self._highest_stream
        frame = GoAwayFrame(0, self._last_stream, int(code), json.dumps({"reason": reason}).encode())
        # Not h2's own: it would refuse to send the answers that are owed.
        self._flush()
        self.write(frame.serialize())
        self._close_when_done()

    def cut(self) -> None:
        """End the TCP connection without a word."""
        self._owed.clear()
        self.abort()

    def freeze(self) -> None:
        """Neither read nor answer any more, as a connection that a middlebox forgot."""
        self._frozen = True
        self.pause()

    def abort_if_frozen(self) -> None:
        """End a connection that nobody reads, and that would not notice its own end."""
        if self._frozen:
            self.abort()

    def _close_when_done(self) -> None:
        if self._last_stream is not None and not any(stream_id <= self._last_stream for stream_id in self._owed):
            self._flush()
            # What the client still sends is read for a while: unread, it would make TCP throw the answers away.
            asyncio.get_running_loop().call_later(_LINGER_SECONDS, self.close)

    def _stream_limit(self) -> int:
        behaviour = self._service.behaviour
        return behaviour.max_streams if behaviour.first_streams is None else behaviour.first_streams

    def _restart_idle_timer(self) -> None:
        if self._idle:
            self._idle.cancel()
        if self._service.behaviour.idle_timeout is not None:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(self._service.behaviour.idle_timeout, self.go_away, "IdleTimeout")

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self.write(data)


def _tls(portal: Portal) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    # Optional: without one the answer is 403 MissingProviderToken, one of another CA fails the handshake.
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=portal.push.certificate_pem.decode())
    with TemporaryDirectory() as folder:
        chain = Path(folder, "server.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(portal.servers.issue_server())
        context.load_cert_chain(chain)
    return context

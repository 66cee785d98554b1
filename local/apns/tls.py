"""TLS over an asyncio transport that says why it ends.

asyncio's own closes the connection when a handshake fails and keeps the alert to itself, while Apple's front ends tell
a provider what is wrong with its certificate.
"""

import asyncio
import contextlib
import ssl
from typing import Final, cast

_READ_BYTES: Final = 65536


class TlsServerProtocol(asyncio.Protocol):
    """The server's end of one connection; a subclass overrides ``established``, ``received`` and ``ended``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._transport: asyncio.Transport
        self._is_established = False
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def established(self) -> None:
        """Hear that the handshake is done."""

    def received(self, data: bytes) -> None:
        """Hear what the client said."""

    def ended(self) -> None:
        """Hear that an established connection is no more."""

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be said any more."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Say something."""
        if not self.is_closing:
            self.tls.write(data)
            self._send_records()

    def close(self) -> None:
        """End the connection in good order."""
        if not self.is_closing:
            # The client's own goodbye is not waited for.
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
            self._send_records()
            self._transport.close()

    def abort(self) -> None:
        """End the connection without a word."""
        self._transport.abort()

    def pause(self) -> None:
        """Read nothing any more."""
        self._transport.pause_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's hello."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell the subclass."""
        if self._is_established:
            self.ended()

    def data_received(self, data: bytes) -> None:
        """Take records off the wire."""
        self._incoming.write(data)
        try:
            if not self._is_established:
                self.tls.do_handshake()
                self._is_established = True
                self.established()
            while not self.is_closing and (plain := self.tls.read(_READ_BYTES)):
                self.received(plain)
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            self._send_records()
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self.close()
        except ssl.SSLError:
            self._send_records()  # the alert
            self._transport.close()

    def _send_records(self) -> None:
        if data := self._outgoing.read():
            self._transport.write(data)

"""An aiohttp server on 127.0.0.1 in a thread of its own, for what stands between programs on this machine."""

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from io import BytesIO
from types import TracebackType
from typing import Final, Self

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

_HOP_BY_HOP: Final = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_ADDED_BY_CLIENT: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class ServerThread:
    """Serves ``handler`` from :meth:`start` until :meth:`stop`.

    ``session`` is a client that adds nothing to a request and takes nothing from an answer; it belongs to the thread.
    """

    session: ClientSession

    def __init__(self, handler: Handler, *, name: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._wanted_port = port
        self._tls = tls
        self._ended: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._listening: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> int:
        """Listen, and return the port. Raises ``OSError`` when the wanted one is taken."""
        self._thread.start()
        return self._listening.result()

    def stop(self) -> None:
        """End all connections, and the thread. Safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._listening.done():
                raise
            self._listening.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        connector = TCPConnector(limit=0)
        # What comes back goes on as it is: compressed, unparsed, with its cookies.
        async with ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=_ADDED_BY_CLIENT,
        ) as self.session:
            runner = web.ServerRunner(web.Server(self._handler, access_log=None), shutdown_timeout=1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", self._wanted_port, ssl_context=self._tls).start()
                self._listening.set_result(runner.addresses[0][1])
                await self._ended.wait()
            finally:
                await runner.cleanup()


class BodyTooLargeError(Exception):
    """A request's body exceeds the limit."""


async def body_of(request: web.BaseRequest, *, limit: int | None = None) -> bytes | None:
    """Read a request's whole body; None when it has none. Raises :class:`BodyTooLargeError` beyond ``limit`` bytes."""
    if not request.body_exists:
        return None
    if request.headers.get("Expect", "").lower() == "100-continue":
        # curl and botocore hold a body back until they are told, or a second has passed.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if limit is not None and len(body) > limit:
            raise BodyTooLargeError
    return bytes(body)


def streamed(body: bytes | None) -> BytesIO | None:
    """Return a body as a proxy's client sends it: aiohttp warns of large ``bytes``, and a warning fails a test."""
    return None if body is None else BytesIO(body)


def passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the header fields that a proxy passes on, in their order and spelling, repeated ones included."""
    return [(name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP]

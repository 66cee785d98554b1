"""An administrator's server: it notes what it is sent and answers as it is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass(frozen=True)
class Request:
    """What the server was sent; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpServer:
    """A server on this machine. The next requests are answered with ``status``, ``body`` and ``headers``."""

    url: str
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)


@contextmanager
def http_server() -> Iterator[HttpServer]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value.encode("latin-1").decode("utf-8") for name, value in self.headers.items()}
            server.requests.append(Request(self.command, self.path, headers, body))
            self.send_response(server.status)
            for name, value in {"Content-Length": str(len(server.body)), **server.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(server.body)

        do_GET = do_PUT = do_POST = answer  # noqa: N815 - names that the base class looks for

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
            return

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = HttpServer(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = Thread(target=listener.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()

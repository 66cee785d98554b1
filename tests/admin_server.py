"""The admin API on this machine: the real functions behind a small HTTP server."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests import admin_api
from tests.gateway import Gateway


class AdminServer(ThreadingHTTPServer):
    """The admin API on 127.0.0.1, or what ``handle`` is; remembers what it was asked."""

    daemon_threads = True

    def __init__(self, handle: Callable[[dict[str, Any], Any], dict[str, Any]] = admin_api.handle) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateway = Gateway(handle)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        # A function has one request at a time, and powertools keeps it where the next one is put.
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: AdminServer

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        headers = dict(self.headers.items())
        self.server.requests.append((self.command, self.path, headers))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(parse_qsl(url.query))
        with self.server.lock:
            answer = self.server.gateway.request(self.command, path, body or None, headers=headers, query=query)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - as http.server looks them up

    def log_message(self, *arguments: object) -> None:
        """Say nothing: it would stand among what the command line says."""

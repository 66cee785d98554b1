"""A customer's webhook: receives deliveries, verifies their HMAC, keeps them to be looked at, misbehaves when told to.

It checks what a careful customer would check: POST, ``Content-Type: application/json; charset=utf-8``, a JSON object
with a known shape at the top, and ``X-Hmac-Signature`` = base64 of HMAC-SHA256 over the exact body. A delivery that
fails is kept too, with its ``problems``, and answered 400 (401 for a signature).

Any path is a hook. Paths under ``/_control/`` are for whoever runs the listener:

========================================  =============================================================================
``GET /_control/deliveries``              ``{"deliveries": […], "next": N}``. ``?after=N`` gives what came after number
                                          N, ``&wait=SECONDS`` holds the answer until there is something (at most 60)
``DELETE /_control/deliveries``           forget them (numbers go on)
``PUT /_control/behaviour``               ``{"status": 503, "times": 2, "delay_seconds": 0.5, "path": "/hook"}``: answer
                                          so the next ``times`` deliveries (default: all) to ``path`` (default: any)
``DELETE /_control/behaviour``            be well again
``PUT /_control/keys``                    ``{"path": "/hook", "hmac_key": "…"}``: the key of one hook; null for none
========================================  =============================================================================

It runs in a thread of a test (``with WebhookListener(hmac_key=b"…") as listener``) or as a program::

    python -m local.webhook_listener --hmac-key-file key
    {"url": "http://127.0.0.1:41233/webhook", "control": "http://127.0.0.1:41233/_control"}
"""

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

CONTENT_TYPE: Final = "application/json; charset=utf-8"
CONTROL: Final = "/_control/"
LONGEST_WAIT_SECONDS: Final = 60.0
LARGEST_BODY: Final = 64 * 1024 * 1024


def sign(key: bytes, body: bytes) -> str:
    """Return the ``X-Hmac-Signature`` of a body: base64 of HMAC-SHA256."""
    return base64.b64encode(hmac.digest(key, body, hashlib.sha256)).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One POST as it arrived. ``body`` is exact to the byte; header names are in lower case."""

    number: int
    """Counts up from 1 in the order of arrival."""
    received_at: datetime
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    document: Mapping[str, Any] | None = field(repr=False)
    """The body as JSON, or None when it is no JSON object."""
    problems: tuple[str, ...]
    """What a careful customer would complain about; empty for a good delivery."""
    status: int
    """What it was answered; 0 when the connection was dropped."""

    @property
    def topic(self) -> str | None:
        """The event's topic, such as ``mdm.Connect``."""
        topic = (self.document or {}).get("topic")
        return topic if isinstance(topic, str) else None

    def as_json(self) -> dict[str, Any]:
        """Return what ``GET /_control/deliveries`` says of it; ``body`` in base64."""
        return {
            "number": self.number,
            "received_at": self.received_at.isoformat(),
            "path": self.path,
            "headers": dict(self.headers),
            "body": base64.b64encode(self.body).decode("ascii"),
            "document": self.document,
            "problems": list(self.problems),
            "status": self.status,
        }


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """How to answer: ``status`` 0 drops the connection without an answer. ``times`` None is for ever."""

    status: int = HTTPStatus.OK
    delay_seconds: float = 0.0
    times: int | None = None
    path: str | None = None


class WebhookListener:
    """The listener; a context manager that serves in threads of its own on a free port of 127.0.0.1."""

    def __init__(
        self,
        *,
        hmac_key: bytes | None = None,
        port: int = 0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
    ) -> None:
        self._default_key = hmac_key
        self._keys: dict[str, bytes | None] = {}
        self._now = now
        self._on_delivery = on_delivery
        self._deliveries: list[Delivery] = []
        self._count = 0
        self._behaviours: list[Behaviour] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._server = _Server(("127.0.0.1", port), _Handler, self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """``http://127.0.0.1:<port>``, without a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """A hook to subscribe; any other path works as well."""
        return f"{self.address}/webhook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving; who waits for deliveries gets what there is."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def set_key(self, path: str, hmac_key: bytes | None) -> None:
        """Give one hook a key of its own; None expects no signature there."""
        with self._changed:
            self._keys[path] = hmac_key

    def behave(
        self,
        *,
        status: int = HTTPStatus.OK,
        delay_seconds: float = 0.0,
        times: int | None = None,
        path: str | None = None,
    ) -> None:
        """Answer so from now on, the oldest unspent instruction first. ``status`` 0 drops the connection."""
        behaviour = Behaviour(status=status, delay_seconds=delay_seconds, times=times, path=path)
        with self._changed:
            self._behaviours.append(behaviour)

    def behave_well(self) -> None:
        """Forget all instructions."""
        with self._changed:
            self._behaviours.clear()

    def deliveries(self, *, after: int = 0) -> list[Delivery]:
        """Return the deliveries whose number is above ``after``."""
        with self._changed:
            return [delivery for delivery in self._deliveries if delivery.number > after]

    def forget(self) -> None:
        """Drop the deliveries so far."""
        with self._changed:
            self._deliveries.clear()

    def wait_for(
        self, condition: Callable[[Delivery], bool] = lambda _delivery: True, *, after: int = 0, seconds: float = 10.0
    ) -> Delivery:
        """Return the first delivery after number ``after`` that meets the condition, waiting for it.

        Raises TimeoutError, saying which topics came instead.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                later = [delivery for delivery in self._deliveries if delivery.number > after]
                if found := next(filter(condition, later), None):
                    return found
                remaining = deadline - time.monotonic()
                if remaining <= 0 or self._stopping.is_set():
                    raise TimeoutError(f"No such delivery in {seconds} s; there were {[one.topic for one in later]}.")
                self._changed.wait(remaining)

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> int:
        """Take a delivery and return the status to answer, 0 for none. Blocks for the delay that was asked for."""
        problems, document = self._check(path, headers, body)
        behaviour = self._next_behaviour(path)
        self._stopping.wait(behaviour.delay_seconds)
        status = behaviour.status
        if status == HTTPStatus.OK and problems:
            unsigned = any("signature" in problem for problem in problems)
            status = HTTPStatus.UNAUTHORIZED if unsigned else HTTPStatus.BAD_REQUEST
        with self._changed:
            self._count += 1
            delivery = Delivery(
                number=self._count,
                received_at=self._now(),
                path=path,
                headers=headers,
                body=body,
                document=document,
                problems=tuple(problems),
                status=int(status),
            )
            self._deliveries.append(delivery)
            self._changed.notify_all()
        self._on_delivery(delivery)
        return delivery.status

    def _check(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[list[str], Mapping[str, Any] | None]:
        problems = []
        if (found := headers.get("content-type")) != CONTENT_TYPE:
            problems.append(f"Content-Type is {found!r}, not {CONTENT_TYPE!r}")
        key = self._keys.get(path, self._default_key)
        signature = headers.get("x-hmac-signature")
        if key is not None and signature is None:
            problems.append("the signature is missing (X-Hmac-Signature)")
        elif key is not None and signature is not None and not hmac.compare_digest(signature, sign(key, body)):
            problems.append("the signature does not fit the body (X-Hmac-Signature)")
        document = None
        try:
            document = json.loads(body.decode("utf-8"))
        except ValueError:
            problems.append("the body is not JSON in UTF-8")
        else:
            problems.extend(_complaints(document))
        return problems, document if isinstance(document, dict) else None

    def _next_behaviour(self, path: str) -> Behaviour:
        with self._changed:
            for index, behaviour in enumerate(self._behaviours):
                if behaviour.path in {None, path}:
                    if behaviour.times == 1:
                        del self._behaviours[index]
                    elif behaviour.times is not None:
                        self._behaviours[index] = replace(behaviour, times=behaviour.times - 1)
                    return behaviour
        return Behaviour()


def _complaints(document: object) -> list[str]:
    """Check what every event has: topic, event_id, created_at, and at most one sub-object with a raw payload."""
    if not isinstance(document, dict):
        return ["the body is not a JSON object"]
    problems = [f"{key} is missing" for key in ("topic", "event_id", "created_at") if not document.get(key)]
    sub_objects = [document[key] for key in ("acknowledge_event", "checkin_event") if document.get(key)]
    if len(sub_objects) > 1:
        problems.append("acknowledge_event and checkin_event exclude each other")
    for sub_object in sub_objects:
        try:
            base64.b64decode(sub_object["raw_payload"], validate=True)
        except (KeyError, TypeError, ValueError):
            problems.append("raw_payload is no base64")
    return problems


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Deliveries may come in bursts of a whole Lambda fleet; the default of 5 would refuse some.
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], listener: WebhookListener
    ) -> None:
        super().__init__(address, handler)
        self.listener = listener

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        """Let a client go away before it has its answer: with a delay that is what is being tried."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True
    server: _Server
    timeout = 75

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.listener.receive(urlsplit(self.path).path, headers, body)
        if status:
            self._answer(status)
        else:
            self.close_connection = True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path != f"{CONTROL}deliveries":
            self._answer(HTTPStatus.NOT_FOUND)
            return
        query = parse_qs(url.query)
        try:
            after = int(query.get("after", ["0"])[0])
            wait = min(float(query.get("wait", ["0"])[0]), LONGEST_WAIT_SECONDS)
        except ValueError as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return
        if wait > 0:
            # When none comes in time, an empty list says so.
            with contextlib.suppress(TimeoutError):
                self.server.listener.wait_for(after=after, seconds=wait)
        found = self.server.listener.deliveries(after=after)
        last = found[-1].number if found else after
        self._answer(HTTPStatus.OK, {"deliveries": [delivery.as_json() for delivery in found], "next": last})

    def do_PUT(self) -> None:
        body = self._body()
        if body is None:
            return
        listener = self.server.listener
        try:
            document = json.loads(body)
            if self.path == f"{CONTROL}behaviour":
                listener.behave(**document)
            elif self.path == f"{CONTROL}keys":
                key = document["hmac_key"]
                listener.set_key(document["path"], key.encode() if key is not None else None)
            else:
                self._answer(HTTPStatus.METHOD_NOT_ALLOWED)
                return
        except (ValueError, TypeError, KeyError) as error:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self._answer(HTTPStatus.NO_CONTENT)

    def do_DELETE(self) -> None:
        match self.path.removeprefix(CONTROL):
            case "deliveries":
                self.server.listener.forget()
            case "behaviour":
                self.server.listener.behave_well()
            case _:
                self._answer(HTTPStatus.NOT_FOUND)
                return
        self._answer(HTTPStatus.NO_CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's signature
        """Say nothing: what arrived is asked for by ``/_control/deliveries``."""

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length")
        if length is None or not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            self._answer(HTTPStatus.LENGTH_REQUIRED if length is None else HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        return self.rfile.read(int(length))

    def _answer(self, status: int, document: Mapping[str, Any] | None = None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if body:
            self.send_header("Content-Type", CONTENT_TYPE)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; the first line on stdout is JSON with ``url`` and ``control``."""
    parser = argparse.ArgumentParser(
        prog="python -m local.webhook_listener", description="A customer's webhook that verifies what it gets."
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--hmac-key-file", type=Path, help="file with the key of X-Hmac-Signature (white space is cut)")
    parser.add_argument("--print", action="store_true", help="print each delivery as a line of JSON")
    arguments = parser.parse_args(argv)
    key = arguments.hmac_key_file.read_bytes().strip() if arguments.hmac_key_file else None

    def show(delivery: Delivery) -> None:
        if arguments.print:
            print(json.dumps(delivery.as_json()), flush=True)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    with WebhookListener(hmac_key=key, port=arguments.port, on_delivery=show) as listener:
        print(json.dumps({"url": listener.url, "control": f"{listener.address}{CONTROL.rstrip('/')}"}), flush=True)
        stop.wait()


if __name__ == "__main__":
    main()

"""A proxy in front of emulated AWS that counts calls and makes trouble.

Clients are led to :attr:`AwsProxy.url` in place of the emulator. Each call has a name, its service's and its own:
``dynamodb.Query``, ``sqs.SendMessageBatch``, ``events.PutEvents``, ``s3.PutObject``, ``secretsmanager.GetSecretValue``.
Trouble is asked for by such a name, or by a pattern of it (``dynamodb.*``)::

    proxy.disturb("events.PutEvents", Error(503), times=2)
    proxy.disturb("dynamodb.TransactWriteItems", CutAfter())
"""

import asyncio
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from local.serving import ServerThread, body_of, passed_on, streamed

_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
_OBJECT_CALLS: Final = {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject"}
_BUCKET_CALLS: Final = {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}


@dataclass(frozen=True)
class Call:
    """A call as it came; ``name`` is ``service.Action``, ``status`` what its client was answered (0: nothing)."""

    name: str
    body: bytes = field(repr=False)
    status: int = 0


@dataclass(frozen=True)
class Delay:
    """The answer comes after ``seconds``."""

    seconds: float


@dataclass(frozen=True)
class Error:
    """The call is refused with ``status``; ``code`` is AWS's name for the reason. Nothing was done."""

    status: int = 500
    code: str = "InternalServerError"


@dataclass(frozen=True)
class CutBefore:
    """The connection ends before AWS has seen the call. Nothing was done."""


@dataclass(frozen=True)
class CutAfter:
    """The connection ends after AWS has done what was asked, and before its answer."""


Trouble = Delay | Error | CutBefore | CutAfter


@dataclass
class _Order:
    pattern: str
    trouble: Trouble
    times: int
    skip: int


class AwsProxy:
    """A proxy to the AWS at ``upstream``; usable as a context manager, which stops it."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._orders: list[_Order] = []
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._server = ServerThread(self._pass_on, name="aws-proxy")
        self.url = f"http://127.0.0.1:{self._server.start()}"

    @property
    def calls(self) -> list[Call]:
        """The calls since the last :meth:`reset`, in the order in which they were answered."""
        with self._lock:
            return list(self._calls)

    @property
    def counts(self) -> Counter[str]:
        """How many calls of each name there were since the last :meth:`reset`, those in trouble included."""
        return Counter(call.name for call in self.calls)

    def disturb(self, pattern: str, trouble: Trouble, *, times: int = 1, skip: int = 0) -> None:
        """Let ``trouble`` befall the next ``times`` calls whose name matches, after ``skip`` that are left alone."""
        with self._lock:
            self._orders.append(_Order(pattern, trouble, times, skip))

    def reset(self) -> None:
        """Forget calls and trouble."""
        with self._lock:
            self._orders.clear()
            self._calls.clear()

    def stop(self) -> None:
        """End it. Safe to repeat."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await body_of(request)
        name = call_name(request, body or b"")
        trouble = self._trouble(name)
        if isinstance(trouble, CutBefore):
            return self._cut(request, name, body)
        if isinstance(trouble, Error):
            return self._note(name, body, _refusal(trouble))
        async with self._server.session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=passed_on(request.headers),
            data=streamed(body),
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            headers = [pair for pair in passed_on(answer.headers) if pair[0].lower() != "content-length"]
        if isinstance(trouble, CutAfter):
            return self._cut(request, name, body)
        if isinstance(trouble, Delay):
            await asyncio.sleep(trouble.seconds)
        return self._note(name, body, web.Response(status=answer.status, headers=CIMultiDict(headers), body=content))

    def _trouble(self, name: str) -> Trouble | None:
        with self._lock:
            for order in self._orders:
                if not fnmatchcase(name, order.pattern):
                    continue
                if order.skip:
                    order.skip -= 1
                    continue
                order.times -= 1
                if not order.times:
                    self._orders.remove(order)
                return order.trouble
        return None

    def _note(
        self, name: str, body: bytes | None, response: web.Response, *, status: int | None = None
    ) -> web.Response:
        with self._lock:
            self._calls.append(Call(name, body or b"", response.status if status is None else status))
        return response

    def _cut(self, request: web.BaseRequest, name: str, body: bytes | None) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        # Nobody reads it any more.
        return self._note(name, body, web.Response(), status=0)


def call_name(request: web.BaseRequest, body: bytes) -> str:
    """Return ``service.Action`` of a request to AWS."""
    scope = _SCOPE.search(request.headers.get("Authorization", ""))
    service = scope[1] if scope else "unsigned"
    if target := request.headers.get("X-Amz-Target"):
        return f"{service}.{target.rpartition('.')[2]}"
    if service == "s3":
        _, _, key = urlsplit(request.raw_path).path.lstrip("/").partition("/")
        calls = _OBJECT_CALLS if key else _BUCKET_CALLS
        return f"s3.{calls.get(request.method, request.method)}"
    if request.content_type == "application/x-www-form-urlencoded":
        return f"{service}.{parse_qs(body.decode()).get('Action', ['?'])[0]}"
    return f"{service}.{request.method} {urlsplit(request.raw_path).path}"


def _refusal(trouble: Error) -> web.Response:
    # In the form of the JSON services; of S3, clients take the status alone.
    document = {"__type": trouble.code, "message": "Trouble that was asked for"}
    return web.Response(
        status=trouble.status,
        body=json.dumps(document).encode(),
        headers={"Content-Type": "application/x-amz-json-1.0", "x-amzn-ErrorType": trouble.code},
    )

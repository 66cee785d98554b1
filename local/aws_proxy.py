"""A proxy in front of emulated AWS that counts calls and makes trouble.

Clients are led to :attr:`AwsProxy.url` in place of the emulator. Each call has a name, its service's and its own:
``dynamodb.Query``, ``sqs.SendMessageBatch``, ``events.PutEvents``, ``s3.PutObject``, ``secretsmanager.GetSecretValue``.
Trouble is asked for by such a name, or by a pattern of it (``dynamodb.*``)::

    proxy.disturb("events.PutEvents", Error(503), times=2)
    proxy.disturb("dynamodb.TransactWriteItems", CutAfter())

It may be meant for some requests alone, those of which a call holds a ``mark``, such as a device's UDID: all calls of
one invocation of a function carry the same trace id, and one that holds the mark speaks for those behind it.
"""

import asyncio
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from local.serving import ServerThread, body_of, passed_on, streamed

_SCOPE: Final = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/aws4_request")
_OBJECT_CALLS: Final = {"GET": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject", "HEAD": "HeadObject"}
_BATCHES: Final = {
    "dynamodb.BatchGetItem": "RequestItems",
    "dynamodb.BatchWriteItem": "RequestItems",
    "events.PutEvents": "Entries",
    "sqs.SendMessageBatch": "Entries",
}
"""Calls that can be done partly, and where their entries are."""
BATCHES: Final = frozenset(_BATCHES)

_SIGNED: Final = {"Authorization", "Content-Length", "X-Amz-Content-SHA256", "X-Amz-Security-Token"}
_OF_THE_BODY: Final = {"content-length", "x-amz-crc32"}
_AS_ROOT: Final = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"
_BUCKET_CALLS: Final = {"GET": "ListObjects", "PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}


@dataclass(frozen=True)
class Call:
    """A call as it came; ``name`` is ``service.Action``, ``status`` what its client was answered (0: nothing)."""

    name: str
    body: bytes = field(repr=False)
    status: int = 0
    path: str = ""
    invocation: str = ""
    """What the calls of one invocation of a function have in common; empty for whoever is no function."""

    def holds(self, mark: str) -> bool:
        """Whether the call names something."""
        return mark.encode() in self.body or mark in self.path


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


@dataclass(frozen=True)
class Partly:
    """The first half of a batch is done (of one entry: nothing), and the answer says that the rest was not."""


@dataclass(frozen=True)
class Twice:
    """What was asked for is done twice, as any queue may bring a message twice; the second answer is given."""


@dataclass(frozen=True)
class Overtaken:
    """Messages for a queue arrive ``seconds`` late, so that what is sent after them may be there before them."""

    seconds: int


Trouble = Delay | Error | CutBefore | CutAfter | Partly | Twice | Overtaken


@dataclass
class Disturbance:
    """Trouble that was asked for. ``times`` None is until :meth:`end`; ``fired`` counts whom it befell."""

    pattern: str
    trouble: Trouble
    times: int | None = 1
    skip: int = 0
    mark: str | None = None
    then: Trouble | None = None
    """What befalls every later call, once ``times`` are over."""
    fired: int = 0
    _marked: set[str] = field(default_factory=set)

    def end(self) -> None:
        """Let calls alone from now on."""
        self.times, self.then = 0, None

    def befalls(self, call: Call) -> Trouble | None:
        """Return what befalls a call, or None."""
        if not self._is_meant_for(call):
            return None
        if self.times == 0:
            return self.then
        if not fnmatchcase(call.name, self.pattern):
            return None
        if self.skip:
            self.skip -= 1
            return None
        if self.times is not None:
            self.times -= 1
        self.fired += 1
        return self.trouble

    def _is_meant_for(self, call: Call) -> bool:
        if self.mark is None or call.invocation in self._marked:
            return True
        if not call.holds(self.mark):
            return False
        if call.invocation:
            self._marked.add(call.invocation)
        return True


class AwsProxy:
    """A proxy to the AWS at ``upstream``; usable as a context manager, which stops it."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._disturbances: list[Disturbance] = []
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

    def calls_about(self, mark: str, *, since: int = 0) -> list[Call]:
        """Return the calls of those invocations that name something, from where they name it on.

        Those that were the first ``since`` of :attr:`calls` are left out.
        """
        invocations: set[str] = set()
        found = []
        for call in self.calls[since:]:
            if call.holds(mark):
                invocations.add(call.invocation)
            if call.invocation in invocations:
                found.append(call)
        return found

    def disturb(
        self,
        pattern: str,
        trouble: Trouble,
        *,
        times: int | None = 1,
        skip: int = 0,
        mark: str | None = None,
        then: Trouble | None = None,
    ) -> Disturbance:
        """Let ``trouble`` befall the next ``times`` calls whose name matches, after ``skip`` that are left alone.

        ``times`` None is all of them. After them, ``then`` befalls every call of whatever name. With a ``mark``, only
        those count whose invocation names it.
        """
        disturbance = Disturbance(pattern, trouble, times, skip, mark, then)
        with self._lock:
            self._disturbances.append(disturbance)
        return disturbance

    def reset(self) -> None:
        """Forget calls and trouble."""
        with self._lock:
            self._disturbances.clear()
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
        call = Call(
            call_name(request, body or b""),
            body or b"",
            path=request.raw_path,
            invocation=request.headers.get("X-Amzn-Trace-Id", ""),
        )
        trouble = self._trouble(call)
        if isinstance(trouble, CutBefore):
            return self._cut(request, call)
        if isinstance(trouble, Error):
            return self._note(call, _refusal(trouble))
        headers = passed_on(request.headers)
        refused: _Rest | None = None
        if isinstance(trouble, Twice):
            await self._ask(request, headers, body)
        if isinstance(trouble, Overtaken):
            body, headers = _late(call, trouble.seconds), _as_root(call, headers)
        if isinstance(trouble, Partly):
            refused = _Rest.of(call)
            if refused.accepted is None:
                return self._note(call, web.json_response(refused.answer({})))
            body, headers = refused.accepted, _as_root(call, headers)
        status, answered, content = await self._ask(request, headers, body)
        if isinstance(trouble, CutAfter):
            return self._cut(request, call)
        if isinstance(trouble, Delay):
            await asyncio.sleep(trouble.seconds)
        if refused:
            content = json.dumps(refused.answer(json.loads(content))).encode()
        return self._note(call, web.Response(status=status, headers=CIMultiDict(answered), body=content))

    async def _ask(
        self, request: web.BaseRequest, headers: list[tuple[str, str]], body: bytes | None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask AWS; return the answer's status, headers and body."""
        async with self._server.session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=headers,
            data=streamed(body),
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            return (
                answer.status,
                [pair for pair in passed_on(answer.headers) if pair[0].lower() not in _OF_THE_BODY],
                content,
            )

    def _trouble(self, call: Call) -> Trouble | None:
        with self._lock:
            for disturbance in self._disturbances:
                if (trouble := disturbance.befalls(call)) is not None:
                    return trouble
        return None

    def _note(self, call: Call, response: web.Response, *, status: int | None = None) -> web.Response:
        with self._lock:
            self._calls.append(replace(call, status=response.status if status is None else status))
        return response

    def _cut(self, request: web.BaseRequest, call: Call) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        # Nobody reads it any more.
        return self._note(call, web.Response(), status=0)


@dataclass(frozen=True)
class _Rest:
    """What a service does not do of a batch: ``accepted`` is the request for the first half, None if there is none."""

    name: str
    document: dict[str, Any]
    refused: dict[str, Any]
    accepted: bytes | None

    @classmethod
    def of(cls, call: Call) -> Self:
        """Take a request in halves. Raises ``KeyError`` for a call that is done as a whole or not at all."""
        document = json.loads(call.body)
        listed = _BATCHES[call.name]
        if listed == "Entries":
            half = len(document[listed]) // 2
            accepted, refused = {listed: document[listed][:half]}, {listed: document[listed][half:]}
        else:
            accepted, refused = {listed: {}}, {listed: {}}
            for table, asked in document[listed].items():
                entries = asked["Keys"] if isinstance(asked, dict) else asked
                half = len(entries) // 2
                for part, taken in ((accepted, entries[:half]), (refused, entries[half:])):
                    if taken:
                        part[listed][table] = asked | {"Keys": taken} if isinstance(asked, dict) else taken
        body = json.dumps(document | accepted).encode() if accepted[listed] else None
        return cls(call.name, document, refused, body)

    def answer(self, of_the_first_half: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to the whole request."""
        match self.name:
            case "dynamodb.BatchWriteItem":
                return {"UnprocessedItems": self.refused["RequestItems"]}
            case "dynamodb.BatchGetItem":
                responses = of_the_first_half.get("Responses", {table: [] for table in self.document["RequestItems"]})
                return {"Responses": responses, "UnprocessedKeys": self.refused["RequestItems"]}
            case "events.PutEvents":
                failed = [{"ErrorCode": "ThrottlingException", "ErrorMessage": "Busy"} for _ in self.refused["Entries"]]
                done = of_the_first_half.get("Entries", [])
                return {"FailedEntryCount": len(failed), "Entries": [*done, *failed]}
            case _:
                busy = {"Code": "InternalError", "Message": "Busy", "SenderFault": False}
                not_sent = [{"Id": entry["Id"], **busy} for entry in self.refused["Entries"]]
                return {"Successful": of_the_first_half.get("Successful", []), "Failed": not_sent}


def _as_root(call: Call, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers for another body than the one that was signed: as root, whose signature nobody verifies."""
    kept = [pair for pair in headers if pair[0] not in _SIGNED]
    return [*kept, ("Authorization", _AS_ROOT.format(call.name.partition(".")[0]))]


def _late(call: Call, seconds: int) -> bytes:
    """Return the body of a ``SendMessage`` or ``SendMessageBatch`` with a delay for what had none."""
    document = json.loads(call.body)
    for message in document.get("Entries", [document]):
        message["DelaySeconds"] = max(message.get("DelaySeconds", 0), seconds)
    return json.dumps(document).encode()


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

"""The admin API of a deployment, over HTTP, signed with SigV4; or its dialects alone, by HTTP Basic."""

import json
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from picomdm import basic
from picomdm.deployment import Deployment
from picomdm.errors import RefusedError, SetupError, UnreachableError

_SERVICE: Final = "execute-api"
_SECONDS: Final = 35.0
"""API Gateway itself gives up after 30."""

_ATTEMPTS: Final = 3
_PASSING: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_HINTS: Final = {
    HTTPStatus.FORBIDDEN: "The keys are wrong, or their user lacks the stack's AdministratorPolicy.",
    HTTPStatus.UNAUTHORIZED: "The context's user or API key is wrong.",
}


class AdminAPI:
    """Sends requests and turns refusals into errors."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._deployment = deployment
        self._transport = transport
        self._sleep = sleep
        self.clock_skew: timedelta | None = None
        """By how much this machine's clock is ahead of the server's, as its last answer told."""
        self._etag: str | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        document: object = None,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        repeatable: bool = False,
        accept: frozenset[int] = frozenset(),
        if_match: str | None = None,
    ) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """Send a request, ``document`` as JSON or ``body`` as it is; return the JSON of the answer, or None.

        ``path`` is percent-encoded. ``repeatable`` says that the same request twice does no more than once: then a
        failure that may pass is tried again. ``accept`` names statuses that are no refusal, beside those below 300.
        ``if_match`` is the ETag that what is changed has to have.
        Raises :class:`~picomdm.errors.RefusedError` and :class:`~picomdm.errors.UnreachableError`.
        """
        if self._deployment.basic and not basic.is_there(path):
            return basic.translated(self, method, path, document, query or {})
        url = f"{self._deployment.admin_url}{path}"
        if query:
            # SigV4 is over %20: the "+" of forms would be signed as another character.
            url += f"?{urlencode(query, quote_via=quote)}"
        content = json.dumps(document).encode() if document is not None else body
        attempts = _ATTEMPTS if repeatable else 1
        for attempt in range(1, attempts + 1):
            try:
                answer = self._send(method, url, content, is_json=document is not None, if_match=if_match)
            except httpx.TransportError as error:
                if attempt == attempts:
                    raise UnreachableError(f"{self._deployment.admin_url} does not answer: {error}") from error
            else:
                if not _may_pass(answer) or attempt == attempts:
                    break
            self._sleep(2.0 ** (attempt - 1))
        if answer.status_code < HTTPStatus.MULTIPLE_CHOICES or answer.status_code in accept:
            return answer.json() if answer.content else None
        raise _refusal(answer)

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - see request
        """Send a GET."""
        return self.request("GET", path, query=query, repeatable=True)

    def change(self, path: str, change: Callable[[dict[str, Any]], object]) -> Any:  # noqa: ANN401 - see request
        """Read something and PUT what ``change`` makes of it; once more when somebody else changed it meanwhile."""
        for attempt in range(1, _ATTEMPTS + 1):
            changed = change(self.get(path))
            try:
                return self.request("PUT", path, document=changed, repeatable=True, if_match=self._etag)
            except RefusedError as refused:
                if refused.status != HTTPStatus.PRECONDITION_FAILED or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("not reached")

    def entries(self, path: str, name: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list, page by page."""
        while True:
            page = self.get(path, **query)
            yield from page[name]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _send(
        self, method: str, url: str, content: bytes | None, *, is_json: bool, if_match: str | None
    ) -> httpx.Response:
        headers = {"Accept": "application/json", "User-Agent": f"picomdm/{version('picomdm')}"}
        if content is not None:
            headers["Content-Type"] = "application/json" if is_json else "application/octet-stream"
        if if_match is not None:
            headers["If-Match"] = if_match
        if self._deployment.basic:
            headers["Authorization"] = self._deployment.basic.authorization
        else:
            request = AWSRequest(method, url, data=content, headers=headers)
            SigV4Auth(self._deployment.credentials, _SERVICE, self._deployment.region).add_auth(request)
            headers = dict(request.headers.items())
        # A proxy is for the world outside, not for a deployment on this machine.
        trust_env = httpx.URL(url).host not in basic.LOOPBACK
        with httpx.Client(transport=self._transport, timeout=_SECONDS, trust_env=trust_env, verify=trusted()) as client:
            answer = client.request(method, url, content=content, headers=headers)
        self._note_time(answer.headers.get("Date", ""))
        self._etag = answer.headers.get("ETag")
        return answer

    def _note_time(self, date: str) -> None:
        try:
            self.clock_skew = datetime.now(UTC) - parsedate_to_datetime(date)
        except (TypeError, ValueError):
            self.clock_skew = None


def trusted() -> ssl.SSLContext:
    """Return whom we trust: SSL_CERT_FILE, which httpx would not read for this machine, or the usual authorities."""
    return _authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _authorities(file: str | None, _directory: str | None) -> ssl.SSLContext:
    # Once for all requests: to read them takes longer than most of these do.
    return ssl.create_default_context(cafile=file) if file else httpx.create_ssl_context()


def path_part(text: str) -> str:
    """Return ``text`` as one part of a path, percent-encoded.

    Raises :class:`~picomdm.errors.SetupError` for an empty one, which would make another path, of something else.
    """
    if not text:
        raise SetupError("A name or an id is empty: is a variable of your script not set?", code="empty_name")
    return quote(text, safe="")


def _may_pass(answer: httpx.Response) -> bool:
    """Say whether the same request may go better in a moment. What Apple refuses it refuses again."""
    return answer.status_code in _PASSING and b'"apple_refused"' not in answer.content


def _refusal(answer: httpx.Response) -> RefusedError:
    """Read what is wrong out of a problem document, MicroMDM's or NanoMDM's error, or API Gateway's own message."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    told = document if isinstance(document, dict) else {}
    message = told.get("detail") or told.get("error") or told.get("message") or told.get("Message")
    text = str(message or f"{answer.status_code} {answer.reason_phrase}")
    hint = _HINTS.get(HTTPStatus(answer.status_code))
    # A 403 with a code is about what was asked for, not about who asks.
    if hint and (answer.status_code == HTTPStatus.UNAUTHORIZED or "code" not in told):
        text = f"{text.rstrip('.')}. {hint}"
    return RefusedError(text, code=told.get("code"), field=told.get("field"), status=answer.status_code)

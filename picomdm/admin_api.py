"""The admin API of a deployment, over HTTP, signed with SigV4."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from picomdm.deployment import Deployment
from picomdm.errors import RefusedError, UnreachableError

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
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_FORBIDDEN_HINT: Final = "The keys are wrong, or their user lacks the stack's AdministratorPolicy."


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
    ) -> Any:  # noqa: ANN401 - whatever JSON the server answers
        """Send a request, ``document`` as JSON or ``body`` as it is; return the JSON of the answer, or None.

        ``path`` is percent-encoded. ``repeatable`` says that the same request twice does no more than once: then a
        failure that may pass is tried again. ``accept`` names statuses that are no refusal, beside those below 300.
        Raises :class:`~picomdm.errors.RefusedError` and :class:`~picomdm.errors.UnreachableError`.
        """
        url = f"{self._deployment.admin_url}{path}"
        if query:
            # SigV4 is over %20: the "+" of forms would be signed as another character.
            url += f"?{urlencode(query, quote_via=quote)}"
        content = json.dumps(document).encode() if document is not None else body
        attempts = _ATTEMPTS if repeatable else 1
        for attempt in range(1, attempts + 1):
            try:
                answer = self._send(method, url, content, is_json=document is not None)
            except httpx.TransportError as error:
                if attempt == attempts:
                    raise UnreachableError(f"{self._deployment.admin_url} does not answer: {error}") from error
            else:
                if answer.status_code not in _PASSING or attempt == attempts:
                    break
            self._sleep(2.0 ** (attempt - 1))
        if answer.status_code < HTTPStatus.MULTIPLE_CHOICES or answer.status_code in accept:
            return answer.json() if answer.content else None
        raise _refusal(answer)

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - see request
        """Send a GET."""
        return self.request("GET", path, query=query, repeatable=True)

    def entries(self, path: str, name: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a list, page by page."""
        while True:
            page = self.get(path, **query)
            yield from page[name]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def _send(self, method: str, url: str, content: bytes | None, *, is_json: bool) -> httpx.Response:
        headers = {"Accept": "application/json", "User-Agent": f"picomdm/{version('picomdm')}"}
        if content is not None:
            headers["Content-Type"] = "application/json" if is_json else "application/octet-stream"
        request = AWSRequest(method, url, data=content, headers=headers)
        SigV4Auth(self._deployment.credentials, _SERVICE, self._deployment.region).add_auth(request)
        # A proxy is for the world outside, not for a deployment on this machine.
        trust_env = httpx.URL(url).host not in _LOOPBACK
        with httpx.Client(transport=self._transport, timeout=_SECONDS, trust_env=trust_env) as client:
            return client.request(method, url, content=content, headers=dict(request.headers.items()))


def path_part(text: str) -> str:
    """Return ``text`` as one part of a path, percent-encoded."""
    return quote(text, safe="")


def _refusal(answer: httpx.Response) -> RefusedError:
    """Read what is wrong out of a problem document, MicroMDM's or NanoMDM's error, or API Gateway's own message."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    told = document if isinstance(document, dict) else {}
    message = told.get("detail") or told.get("error") or told.get("message") or told.get("Message")
    text = str(message or f"{answer.status_code} {answer.reason_phrase}")
    if answer.status_code == HTTPStatus.FORBIDDEN and "code" not in told:
        text = f"{text.rstrip('.')}. {_FORBIDDEN_HINT}"
    return RefusedError(text, code=told.get("code"), field=told.get("field"), status=answer.status_code)

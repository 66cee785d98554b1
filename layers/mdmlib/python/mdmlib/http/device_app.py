"""The functions that devices reach: from API Gateway's event to the function of its route, and its answer back.

Administrators' functions have powertools' resolver for this. Devices' requests are short and many: the resolver took as
much time for one as all of its X.509, and importing it was a tenth of a cold start.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, TypeVar

from mdmlib.observability import logger

_PARAMETER: Final = re.compile(r"\{(\w+)(\+?)\}")
_SEGMENT: Final = r"[-._~()'!*:@,;=+&$%<> \[\]{}|^\w]+"
"""What a parameter may stand for: one part of a path, in all characters that belong into one."""


@dataclass(frozen=True, slots=True)
class GatewayRequest:
    """API Gateway's event (payload format 2.0) of a request."""

    raw_event: dict[str, Any] = field(repr=False)
    parameters: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Of its path, by their names in the route."""

    @property
    def http_method(self) -> str:
        """The method, in capital letters."""
        method: str = self.raw_event["requestContext"]["http"]["method"]
        return method

    @property
    def raw_path(self) -> str:
        """The path, percent-decoded. The stage, which is ``$default``, is not in it."""
        path: str = self.raw_event["rawPath"]
        return path

    @property
    def query(self) -> Mapping[str, str]:
        """The query, decoded by the gateway."""
        return self.raw_event.get("queryStringParameters") or {}

    @property
    def request_id(self) -> str:
        """The gateway's own id of the request."""
        request_id: str = self.raw_event["requestContext"]["requestId"]
        return request_id


@dataclass(frozen=True, slots=True)
class DeviceAnswer:
    """What a device, or a person with a link, is answered."""

    status: int
    body: bytes | str = field(default=b"", repr=False)
    """Bytes travel to the gateway in base64, and arrive as they are."""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def for_gateway(self) -> dict[str, Any]:
        """Return it in API Gateway's form."""
        headers = dict(self.headers)
        if self.content_type is not None:
            headers.setdefault("Content-Type", self.content_type)
        answer: dict[str, Any] = {"statusCode": int(self.status), "headers": headers}
        if isinstance(self.body, str):
            return answer | {"body": self.body, "isBase64Encoded": False}
        return answer | {"body": b64encode(self.body).decode(), "isBase64Encoded": True}


_Raised = TypeVar("_Raised", bound=Exception)

Handler = Callable[[GatewayRequest], DeviceAnswer]


class DeviceApp:
    """Routes of one function, and what its errors are answered with."""

    def __init__(self) -> None:
        self.route_keys: set[str] = set()
        self._routes: dict[str, Handler] = {}
        self._patterns: list[tuple[re.Pattern[str], Handler]] = []
        self._error_handlers: dict[type[Exception], Callable[[Any], DeviceAnswer]] = {}

    def route(self, *route_keys: str) -> Callable[[Handler], Handler]:
        """Let a function answer the requests of ``route_keys``, written as in the template.

        ``ANY`` stands for every method, ``{name}`` for one part of a path and ``{name+}`` for all that is left.
        """

        def register(handler: Handler) -> Handler:
            self.route_keys.update(route_keys)
            for route_key in route_keys:
                if "{" in route_key or route_key.startswith("ANY "):
                    self._patterns.append((_pattern(route_key), handler))
                else:
                    self._routes[route_key] = handler
            return handler

        return register

    def error_handler(
        self, *kinds: type[_Raised]
    ) -> Callable[[Callable[[_Raised], DeviceAnswer]], Callable[[_Raised], DeviceAnswer]]:
        """Let a function answer errors of ``kinds``, and of all below them for which there is no other."""

        def register(handler: Callable[[_Raised], DeviceAnswer]) -> Callable[[_Raised], DeviceAnswer]:
            self._error_handlers |= dict.fromkeys(kinds, handler)
            return handler

        return register

    def answer(self, event: dict[str, Any]) -> dict[str, Any]:
        """Answer an event. Raises only what no error handler is there for."""
        request = GatewayRequest(event)
        logger.set_correlation_id(request.request_id)
        try:
            answer = self._handle(request)
        except Exception as error:  # noqa: BLE001 - an error handler has the last word
            answer = self._error_handler_of(error)(error)
        return answer.for_gateway()

    def _handle(self, request: GatewayRequest) -> DeviceAnswer:
        route_key = f"{request.http_method} {request.raw_path}"
        if handler := self._routes.get(route_key):
            return handler(request)
        for pattern, handler in self._patterns:
            if match := pattern.fullmatch(route_key):
                return handler(replace(request, parameters=match.groupdict()))
        # The gateway has no other routes than the functions have; a test holds them against each other.
        logger.warning("No such route")
        return DeviceAnswer(HTTPStatus.NOT_FOUND)

    def _error_handler_of(self, error: Exception) -> Callable[[Any], DeviceAnswer]:
        for kind in type(error).__mro__:
            if handler := self._error_handlers.get(kind):
                return handler
        raise error


def _pattern(route_key: str) -> re.Pattern[str]:
    method, _, path = route_key.partition(" ")
    parts = _PARAMETER.split(path)
    # Of three each: the text in front of a parameter, its name, and the plus sign.
    pattern = re.escape(parts[0])
    for name, plus, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{'.+' if plus else _SEGMENT}){re.escape(text)}"
    return re.compile(f"{'[A-Z]+' if method == 'ANY' else method} {pattern}", re.DOTALL)

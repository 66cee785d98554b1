"""API Gateway in one process: HTTP requests become the events that a function gets, and its answers responses."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript")
"""What API Gateway passes on as text; everything else, and what has no type, comes in base64."""


@dataclass(frozen=True)
class Answer:
    """A function's answer as a client sees it; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class FunctionContext:
    """What Lambda tells a function of its invocation."""

    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:function"
    aws_request_id = "00000000-0000-0000-0000-000000000000"


class Gateway:
    """Calls one function."""

    def __init__(self, handler: Callable[[dict[str, Any], Any], dict[str, Any]]) -> None:
        self._handler = handler

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request; ``path`` is percent-decoded, as the gateway hands it on."""
        return self.answer(http_event(method, path, body, headers=headers, query=query))

    def answer(self, event: dict[str, Any]) -> Answer:
        """Let the function answer an event, and return what the gateway makes of it."""
        answer = self._handler(event, FunctionContext())
        content = answer.get("body") or ""
        return Answer(
            answer["statusCode"],
            {name.lower(): value for name, value in answer["headers"].items()},
            b64decode(content) if answer["isBase64Encoded"] else content.encode(),
        )

    def get(self, path: str, **query: str) -> Answer:
        return self.request("GET", path, query=query)

    def delete(self, path: str) -> Answer:
        return self.request("DELETE", path)

    def post(self, path: str, document: object) -> Answer:
        return self.request("POST", path, json.dumps(document), headers={"Content-Type": "application/json"})


def http_event(
    method: str,
    path: str,
    body: bytes | str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the event (payload format 2.0) of a request."""
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": urlencode(query or {}),
        "headers": {"host": "admin.example.org", **sent},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "api",
            "domainName": "admin.example.org",
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.1",
                "userAgent": sent.get("user-agent", "curl"),
            },
            "requestId": str(uuid4()),
            "routeKey": f"{method} {path}",
            "stage": "$default",
            "timeEpoch": 0,
        },
        "isBase64Encoded": False,
    }
    if query:
        event["queryStringParameters"] = dict(query)
    if body is not None:
        content = body.encode() if isinstance(body, str) else body
        if sent.get("content-type", "").startswith(TEXT_TYPES):
            event["body"] = content.decode()
        else:
            event["body"], event["isBase64Encoded"] = b64encode(content).decode(), True
    return event

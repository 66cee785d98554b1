"""Bad input at every route of the admin API: refused with a reason, as described, and never a failure of ours."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mdmlib.settings import Settings
from tests import admin_api
from tests.api_description import DescribedGateway, operations, resolved
from tests.gateway import Answer, Gateway

LEADS_ELSEWHERE = re.compile(r"/v1/escrowkeyunlock|/v2/account-driven-enrollment|/proxy/")
FAILS_BY_CONTRACT = re.compile(r"/v1/(enqueue|push|queue)/")
"""NanoMDM answers 500 when something failed for everybody, and its clients read that."""

OPERATIONS = [each for each in operations() if not LEADS_ELSEWHERE.match(each[1])]
NAMES = ["..", " ", "x" * 1_025, "é" * 600, "ada#1", "c#", "!", "command#x", "a:b:c", "*", '"', "\x00", "👾", "%00"]
BODIES = [
    *(None, b"", b"null", b"[]", b'"x"', b"1", b'{"a":', b'{"a":NaN}', b'{"a":1e999}', b"[" * 100_000),
    *(b'{"udid":"\\ud800"}', b'{"a":' + b"9" * 5_000 + b"}", bytes(range(256)), '{"a":1}'.encode("utf-16")),
    *(b"<plist><dict/></plist>", b"bplist00", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"),
]
PARAMETERS = ["", "-1", "\x00", "x" * 2_000]
PAGES = [*PARAMETERS, "101", "9" * 30, "null", "MQ==", "e3g=", "////"]
"""Of lists: how much of them, and from where."""
VALUES: list[Any] = [None, True, -1, 1e300, 10**30, "", "\x00", "x" * 5_000, [], [None], [[]], {}, {"a": []}]


@pytest.fixture
def ask(environment: Settings) -> Callable[..., Answer]:
    gateway: Gateway = DescribedGateway(admin_api.handle)

    def ask(method: str, path: str, body: bytes | None = None, **query: str) -> Answer:
        answer = gateway.request(method, path, body, query=query)
        if answer.status >= 500:
            assert FAILS_BY_CONTRACT.match(path), f"{method} {path}: {answer.body!r}"
            assert b"internal_error" not in answer.body
        elif answer.status >= 400:
            assert answer.document["code"]
            assert answer.document.get("detail") or answer.document.get("error")
        return answer

    return ask


def named(path: str, name: str) -> str:
    return re.sub(r"\{\w+\}", lambda _: name, path)


def test_no_name_is_too_strange(ask: Callable[..., Answer]) -> None:
    for method, path, operation in OPERATIONS:
        if "{" in path:
            for name in NAMES:
                body = b"{}" if "requestBody" in operation else None
                ask(method, named(path, name), body)


def test_no_body_is_too_strange(ask: Callable[..., Answer]) -> None:
    for method, path, operation in OPERATIONS:
        if "requestBody" in operation:
            for body in BODIES:
                ask(method, named(path, "x"), body)


def test_no_parameter_is_too_strange(ask: Callable[..., Answer]) -> None:
    for method, path, operation in OPERATIONS:
        for parameter in operation["parameters"]:
            if parameter["in"] == "query":
                for value in PAGES if parameter["name"] in {"limit", "cursor"} else PARAMETERS:
                    ask(method, named(path, "x"), **{parameter["name"]: value})


def test_no_field_is_too_strange(ask: Callable[..., Answer]) -> None:
    for method, path, operation in OPERATIONS:
        for field in fields_of(operation):
            for value in VALUES:
                document = value
                for part in reversed(field):
                    document = {part: document}
                ask(method, named(path, "x"), json.dumps(document).encode())


def test_what_is_too_large_is_413_at_every_route_that_reads_it(ask: Callable[..., Answer]) -> None:
    for method, path, operation in OPERATIONS:
        if "requestBody" in operation and "413" in operation["responses"]:
            answer = ask(method, named(path, "x"), b"x" * 4_700_000)
            assert (answer.status, answer.document["code"]) == (413, "body_too_large"), f"{method} {path}"


def fields_of(operation: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the names of an operation's fields, and of those within them."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    for name, field in resolved(content["schema"]).get("properties", {}).items() if content else ():
        yield (name,)
        yield from ((name, inner) for inner in resolved(field).get("properties", {}))

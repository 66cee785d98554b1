"""``docs/api/admin.openapi.yaml``, which every answer in the tests of the admin functions is held against."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from jsonschema import Draft202012Validator

from tests.gateway import Answer, Gateway

FILE: Final = Path(__file__).parent.parent / "docs" / "api" / "admin.openapi.yaml"
METHODS: Final = ("get", "put", "post", "patch", "delete")


class DescribedGateway(Gateway):
    """A gateway whose answers have to be as the document says."""

    def __init__(self, handler: Callable[[dict[str, Any], Any], dict[str, Any]]) -> None:
        super().__init__(handler)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = super().request(method, path, body, headers=headers, query=query)
        if operation := _operation_at(method, path):
            _assert_described(operation, answer, f"{method} {path}")
        return answer


@cache
def description() -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = yaml.load(FILE.read_text(), yaml.CSafeLoader)
    return document


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method (upper case), path and description of each operation; parameters of its path are among its own."""
    for path, item in description()["paths"].items():
        for method in METHODS:
            if method in item:
                parameters = item.get("parameters", []) + item[method].get("parameters", [])
                yield method.upper(), path, item[method] | {"parameters": [resolved(one) for one in parameters]}


def resolved(described: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference into the document's components points to, or ``described`` itself."""
    reference = described.get("$ref")
    if reference is None:
        return described
    found: dict[str, Any] = description()
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """Return a validator of a schema that may refer to the document's components."""
    return Draft202012Validator({**schema, "components": description()["components"]})


def _operation_at(method: str, path: str) -> dict[str, Any] | None:
    for described_method, described_path, operation in operations():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(described_path))
        if method == described_method and re.fullmatch(pattern, path):
            return operation
    return None


def _assert_described(operation: dict[str, Any], answer: Answer, request: str) -> None:
    if "default" in operation["responses"] and str(int(answer.status)) not in operation["responses"]:
        return  # another server's answer
    assert str(int(answer.status)) in operation["responses"], f"{request}: {answer.status} is not described"
    response = resolved(operation["responses"][str(int(answer.status))])
    if "content" not in response:
        assert answer.body == b"", f"{request}: {answer.status} has a body"
        return
    content_type = answer.headers["content-type"]
    assert content_type in response["content"], f"{request}: {answer.status} as {content_type} is not described"
    schema = response["content"][content_type]["schema"]
    document = json.loads(answer.body) if "json" in content_type else answer.body.decode()
    problems = [f"{error.json_path}: {error.message}" for error in validator(schema).iter_errors(document)]
    assert not problems, f"{request}: {answer.status}\n" + "\n".join(problems)

"""The description of the admin API says what there is: the functions' routes, the template's, their parameters."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from functions.admin import app as admin
from functions.commands import app as commands
from mdmlib import __version__
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.settings import Settings
from tests.api_description import description, operations, resolved, validator
from tests.gateway import Gateway

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
V2 = [
    (method, path, operation)
    for method, path, operation in operations()
    # DELETE takes nothing but its path.
    if path.startswith("/v2/") and method != "DELETE"
]


def nameless(path: str) -> str:
    """Return a path with its parameters' names taken out, as the three call them differently."""
    return re.sub(r"[{<]\w+[}>]", "{}", path)


def described_routes() -> set[tuple[str, str]]:
    return {(method, nameless(path)) for method, path, _ in operations()}


def test_it_describes_the_routes_of_the_template_and_no_others() -> None:
    routes = re.findall(
        r"RouteKey: (\w+) (\S+)\n +AuthorizationType: AWS_IAM\n +Target: !Sub integrations/\$\{(\w+)Integration\}",
        TEMPLATE.read_text(),
    )

    assert {function for _, _, function in routes} == {"Commands", "Admin"}
    own = {(method, nameless(path)) for method, path, _ in routes if path.startswith("/v2/")}
    assert own == {(method, path) for method, path in described_routes() if path.startswith("/v2/")}


def test_it_describes_the_routes_of_the_functions_and_no_others() -> None:
    routes = {
        (method, nameless(route.path))
        for function in (admin, commands)
        for route in function.app._static_routes + function.app._dynamic_routes
        for method in ([route.method] if isinstance(route.method, str) else route.method)
    }

    assert routes == described_routes()


def test_it_is_of_this_release() -> None:
    assert description()["info"]["version"] == __version__


def test_its_schemas_are_schemas() -> None:
    for schema in description()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_its_examples_are_what_they_are_examples_of() -> None:
    for _, _, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                validator(content["schema"]).validate(example["value"])


def test_it_knows_the_types_of_enrollments() -> None:
    assert description()["components"]["schemas"]["EnrollmentType"]["enum"] == list(EnrollmentType)


@pytest.mark.parametrize(("method", "path", "operation"), V2, ids=[f"{method} {path}" for method, path, _ in V2])
def test_what_it_does_not_describe_is_refused(
    environment: Settings, method: str, path: str, operation: dict[str, Any]
) -> None:
    of_commands = path.endswith(("/commands", "/results", "/block")) or "/command-jobs" in path or "/v2/pushes" in path
    gateway = Gateway((commands if of_commands else admin).lambda_handler)
    concrete = re.sub(r"\{\w+\}", "x", path)
    if method in {"POST", "PATCH"}:
        answer = gateway.request(method, concrete, json.dumps({"surprise": 1}))
        known = resolved(operation["requestBody"]["content"]["application/json"]["schema"])["properties"]
    else:
        answer = gateway.request(method, concrete, query={"surprise": "1"})
        known = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]

    assert (answer.status, answer.document["code"], answer.document["field"]) == (400, "unknown_field", "surprise")
    told = answer.document["detail"].partition("known: ")[2].rstrip(".")
    assert told == (", ".join(sorted(known)) or "none")

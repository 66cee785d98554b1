"""The deployed admin API against its description, by requests that schemathesis makes up of it.

Of each operation one that the description allows and one that it does not, always the same ones; more, and others, with
``API_EXAMPLES=50``. Whatever is asked, the answer is one that is described, and never a failure of the server.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS

from local.administrator import Administrator
from local.device import SimulatedDevice
from local.stack import Stack
from tests.api_description import description
from tests.e2e.stored import scan

EXAMPLES = int(os.environ.get("API_EXAMPLES", "1"))

ELSEWHERE = {
    "/v1/escrowkeyunlock": "asks Apple",
    "/proxy/": "asks Apple",
    "PUT /v2/account-driven-enrollment": "asks an issuer, at a URL that is made up",
}
"""What leads out of this machine."""

FAILS_BY_CONTRACT = re.compile(r"\w+ /v1/(enqueue|push|queue)/")
"""NanoMDM answers 500 when something failed for everybody, and its clients read that."""

PLAIN = "application/x-plist", "application/x-pem-file", "application/x-x509-ca-cert"
OF_APPLE = "application/x-apple-aspen-mdm-checkin", "application/x-apple-aspen-config"
SENT = {"content-type", "if-match", "if-none-match"}
CHECKED = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


def as_it_is(_: Any, value: Any) -> bytes:
    """Send what is no JSON as it was made up: nobody expects it to be a property list."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


schemathesis.serializer(*PLAIN, *OF_APPLE)(as_it_is)


@dataclass(frozen=True)
class Tried:
    """How an operation is asked for: as it is described, or not; of something that there is, or of anything."""

    operation: Any
    mode: schemathesis.GenerationMode
    path_parameters: Mapping[str, str] | None = None


@pytest.fixture
def kept(stack: Stack) -> Iterator[None]:
    """Leave resources and webhooks' rules as they were: other tests share the stack."""
    table = stack.outputs["ResourceTableName"]
    before = {_key(item): item for item in scan(stack, table)}
    yield
    dynamodb, events = stack.emulator.dynamodb, stack.emulator.events
    for item in list(scan(stack, table)):
        if _key(item) not in before:
            dynamodb.delete_item(TableName=table, Key={name: item[name] for name in ("collection", "name")})
    for item in before.values():
        dynamodb.put_item(TableName=table, Item=item)
    bus, prefix = stack.outputs["EventBusName"], f"{stack.name}-webhook-"
    for rule in events.list_rules(EventBusName=bus, NamePrefix=prefix)["Rules"]:
        if ("webhook", rule["Name"].removeprefix(prefix)) not in before:
            targets = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=bus)["Targets"]
            events.remove_targets(Rule=rule["Name"], EventBusName=bus, Ids=[each["Id"] for each in targets])
            events.delete_rule(Name=rule["Name"], EventBusName=bus)


def test_every_answer_is_as_the_description_says_whatever_is_asked(
    administrator: Administrator, enroll: Callable[..., SimulatedDevice], kept: None
) -> None:
    there = _what_there_is(administrator, enroll())
    problems: list[str] = []
    for tried in _trials(there):
        problems += _try(tried, administrator)

    assert not problems, "\n\n".join(problems)


def _trials(there: Mapping[str, Mapping[str, str]]) -> Iterator[Tried]:
    unsigned = {name: part for name, part in description().items() if name != "security"}
    components = {name: part for name, part in unsigned["components"].items() if name != "securitySchemes"}
    schema: Any = schemathesis.openapi.from_dict(unsigned | {"components": components})
    for found in schema.get_all_operations():
        operation = found.ok()
        if any(route in operation.label for route in ELSEWHERE):
            continue
        yield Tried(operation, schemathesis.GenerationMode.POSITIVE)
        # Of paths and headers nothing is forbidden, and what is of queries is tried without a gateway.
        if operation.body:
            yield Tried(operation, schemathesis.GenerationMode.NEGATIVE)
        if operation.label in there:
            yield Tried(operation, schemathesis.GenerationMode.POSITIVE, there[operation.label])


def _what_there_is(administrator: Administrator, device: SimulatedDevice) -> dict[str, dict[str, str]]:
    """Make things that can be asked for, and return their path's parameters, by operation."""

    def make(path: str, document: object) -> dict[str, Any]:
        answer = administrator.request("POST", path, document=document)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    webhook = make("/v2/webhooks", {"url": "https://example.org/made-up", "topics": ["dep.None"]})["id"]
    request = make("/v2/push-certificate-requests", {"email": "it@example.org"})["id"]
    job = make("/v2/command-jobs".replace("command-jobs", "commands"), _job())["id"]
    push = make("/v2/pushes", {"ids": [device.udid]})["id"]
    enrollment = {"id": device.udid}
    return {
        "GET /v2/webhooks/{id}": {"id": webhook},
        "PATCH /v2/webhooks/{id}": {"id": webhook},
        "POST /v2/webhooks/{id}/replays": {"id": webhook},
        "DELETE /v2/webhooks/{id}": {"id": webhook},
        "GET /v2/push-certificate-requests/{id}": {"id": request},
        "POST /v2/push-certificate-requests/{id}/opened": {"id": request},
        "DELETE /v2/push-certificate-requests/{id}": {"id": request},
        "GET /v2/command-jobs/{id}": {"id": job},
        "DELETE /v2/command-jobs/{id}": {"id": job},
        "GET /v2/pushes/{id}": {"id": push},
        "GET /v2/certificate-authorities/{name}": {"name": "scep"},
        "GET /v2/enrollments/{id}": enrollment,
        "GET /v2/enrollments/{id}/commands": enrollment,
        "GET /v2/enrollments/{id}/results": enrollment,
        "DELETE /v2/enrollments/{id}/commands": enrollment,
        "GET /v1/queue/{ids}": {"ids": device.udid},
        "GET /v1/commands/{udid}": {"udid": device.udid},
        "PUT /v1/enqueue/{ids}": {"ids": device.udid},
        "POST /v1/commands/{udid}": {"udid": device.udid},
    }


def _job() -> dict[str, Any]:
    return {"serial_numbers": ["NOBODYHASTHIS"], "command": {"request_type": "ProfileList"}}


def _try(tried: Tried, administrator: Administrator) -> list[str]:
    """Send the requests of an operation; return what is wrong with their answers."""
    problems: list[str] = []
    # In a query, 1 is true and nothing is none, which no schema says.
    negative_too = "/v2/" in tried.operation.path and not tried.operation.query
    checks = CHECKS.get_by_names([*CHECKED, *(["negative_data_rejection"] if negative_too else [])])
    for case in _cases(tried):
        answer = _send(case, administrator)
        is_failure = answer.status_code >= 500 and answer.status_code != 503
        if is_failure and not FAILS_BY_CONTRACT.match(tried.operation.label):
            problems.append(f"{tried.operation.label}: {answer.status_code} {answer.text}")
        try:
            case.validate_response(answer, checks=checks)
        except AssertionError as error:
            problems.append(f"{tried.operation.label}: {error}")
        except BaseExceptionGroup as group:
            problems.extend(f"{tried.operation.label}: {error}" for error in group.exceptions)
    return problems


def _cases(tried: Tried) -> list[Any]:
    """Make requests up; the first one that hypothesis thinks of has nothing in it, and is left out."""
    fixed = {"path_parameters": dict(tried.path_parameters)} if tried.path_parameters else {}
    strategy = tried.operation.as_strategy(generation_mode=tried.mode, **fixed).filter(_can_be_sent)
    made: list[Any] = []
    with_cases: Any = given(strategy)
    as_many: Any = settings(
        max_examples=EXAMPLES + 1,
        derandomize="API_EXAMPLES" not in os.environ,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    def keep(case: Any) -> None:
        made.append(case)

    # Of some operations nothing can be made up that the description would not allow.
    with suppress(Unsatisfiable):
        as_many(with_cases(keep))()
    return made[-EXAMPLES:]


def _can_be_sent(case: Any) -> bool:
    """Leave out paths that are another route's, or none's, before our functions are asked."""
    # They are percent-encoded by now.
    names = [unquote(str(value)) for value in (case.path_parameters or {}).values()]
    return all(name.isprintable() and not set(name) & set("/%") and name.strip(". ") for name in names)


def _send(case: Any, administrator: Administrator) -> Any:
    asked = case.as_transport_kwargs(base_url="https://admin.example.org")
    params = asked.get("params") or {}
    pairs = parse_qsl(params, keep_blank_values=True) if isinstance(params, str) else list(params.items())
    # SigV4 is over %20: the "+" of forms would be signed as another character.
    query = urlencode(sorted(pairs), doseq=True, quote_via=quote, errors="replace")
    path = urlsplit(asked["url"]).path + (f"?{query}" if query else "")
    content = asked.get("data") or b""
    body = json.dumps(asked["json"]).encode() if "json" in asked else content
    headers = {name: value for name, value in asked["headers"].items() if name.lower() in SENT and _is_header(value)}
    answer = administrator.request(case.method, path, body=body, headers=headers)
    # What schemathesis asks of an answer, and httpx does not know of one that was read whole.
    answer.elapsed = timedelta(0)
    return answer


def _is_header(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable() and value.strip() == value


def _key(item: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    return item["collection"]["S"], item["name"]["S"]

"""ETags of ``/v2``: asked for only when it changed, changed only when it did not."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib import runtime
from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.http.etags import CONDITIONAL
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests import admin_api, interruptions
from tests.api_description import DescribedGateway, operations
from tests.gateway import Answer, Gateway

AUTHORITY = new_certificate_authority("Partner", now=datetime.now(UTC)).certificate.public_bytes(Encoding.PEM)
CHALLENGE = "/v2/scep-challenges/static"


@pytest.fixture
def gateway(environment: Settings) -> Iterator[Gateway]:
    yield DescribedGateway(admin_api.handle)
    interruptions.forget()


def etag_of(gateway: Gateway, path: str) -> str:
    return gateway.get(path).headers["etag"]


def send(gateway: Gateway, method: str, path: str, document: object = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.request(method, path, None if document is None else json.dumps(document), headers=named)


def make_webhook(gateway: Gateway) -> str:
    return f"/v2/webhooks/{gateway.post('/v2/webhooks', {'url': 'https://example.org/hook'}).document['id']}"


def make_request(gateway: Gateway) -> str:
    made = gateway.post("/v2/push-certificate-requests", {"email": "it@example.org"})
    return f"/v2/push-certificate-requests/{made.document['id']}"


def make_authority(gateway: Gateway) -> str:
    path = "/v2/certificate-authorities/partner"
    assert gateway.request("PUT", path, AUTHORITY).status == 200
    return path


def make_account(_: Gateway) -> str:
    options = {
        "issuer": "https://login.example.org",
        "audiences": ["picomdm"],
        "method": "apple-as-web",
        "mode": "BYOD",
    }
    tables.AccountDrivenEnrollment("account_driven", "default", options=options, changed_at=0).save()
    return "/v2/account-driven-enrollment"


def make_ade_profile(gateway: Gateway) -> str:
    assert send(gateway, "PUT", "/v2/ade-profiles/pupils", {"department": "School"}).status == 200
    return "/v2/ade-profiles/pupils"


def make_ade_rule(gateway: Gateway) -> str:
    assert send(gateway, "PUT", "/v2/ade-assignment-rules/macs", {"device_families": ["Mac"]}).status == 200
    return "/v2/ade-assignment-rules/macs"


CHANGES: dict[str, tuple[Callable[[Gateway], str], str, Any]] = {
    "a webhook is changed": (make_webhook, "PATCH", {"topics": ["mdm.Connect"], "paused": True}),
    "a webhook is deleted": (make_webhook, "DELETE", None),
    "a request is deleted": (make_request, "DELETE", None),
    "an authority is replaced": (make_authority, "PUT", AUTHORITY.decode()),
    "an authority is deleted": (make_authority, "DELETE", None),
    "an ADE profile is changed": (make_ade_profile, "PUT", {"department": "Library"}),
    "an ADE profile is deleted": (make_ade_profile, "DELETE", None),
    "an ADE rule is changed": (make_ade_rule, "PUT", {"device_families": ["iPad"]}),
    "an ADE rule is deleted": (make_ade_rule, "DELETE", None),
    "the profile is changed": (lambda _: "/v2/enrollment-profile", "PUT", {"display_name": "iPads"}),
    "the keys are set": (lambda _: "/v2/ddm-keys", "PUT", {"send_hmac_key": "key"}),
    "the challenge is set": (lambda _: CHALLENGE, "PUT", {"challenge": "a long secret"}),
    "the challenge is ended": (lambda _: CHALLENGE, "DELETE", None),
    "signing in is ended": (make_account, "DELETE", None),
}


def change(gateway: Gateway, path: str, method: str, body: Any, etag: str) -> Answer:
    sent = body if isinstance(body, str) or body is None else json.dumps(body)
    return gateway.request(method, path, sent, headers={"If-Match": etag})


def test_what_did_not_change_is_not_sent_again(gateway: Gateway) -> None:
    path = make_webhook(gateway)
    etag = etag_of(gateway, path)
    known = [etag, f'"other", {etag}', f"W/{etag}", "*"]
    answers = [send(gateway, "GET", path, If_None_Match=each) for each in known]

    assert {(answer.status, answer.body, answer.headers["etag"]) for answer in answers} == {(304, b"", etag)}
    assert send(gateway, "PATCH", path, {"redact": "secrets"}).status == 200
    changed = send(gateway, "GET", path, If_None_Match=etag)
    assert (changed.status, changed.document["redact"]) == (200, "secrets")
    assert changed.headers["etag"] != etag


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_only_to_what_was_seen(gateway: Gateway, name: str) -> None:
    make, method, body = CHANGES[name]
    path = make(gateway)
    etag = etag_of(gateway, path)
    before = gateway.get(path).body

    refused = change(gateway, path, method, body, '"0123456789abcdef0123456789abcdef"')
    assert (refused.status, refused.document["code"]) == (412, "changed_meanwhile")
    assert change(gateway, path, method, body, f"W/{etag}").status == 412
    assert gateway.get(path).body == before
    assert change(gateway, path, method, body, etag).status < 300


@pytest.mark.parametrize("name", CHANGES)
def test_nobody_gets_in_between_the_look_and_the_change(gateway: Gateway, environment: Settings, name: str) -> None:
    make, method, body = CHANGES[name]
    path = make(gateway)
    etag = etag_of(gateway, path)
    interruptions.before_next_write(lambda: _touch(environment, path))

    refused = change(gateway, path, method, body, etag)

    assert (refused.status, refused.document["code"]) == (412, "changed_meanwhile")
    assert _is_touched(environment, path)


def test_a_refused_change_of_filters_leaves_the_rule_as_it_was(gateway: Gateway, environment: Settings) -> None:
    path = make_webhook(gateway)
    rule = f"{environment.stack_name}-webhook-{path.rsplit('/', 1)[1]}"
    events = runtime.event_rules_client()
    before = events.describe_rule(Name=rule, EventBusName=environment.event_bus)["EventPattern"]
    etag = etag_of(gateway, path)
    interruptions.before_next_write(lambda: _touch(environment, path))

    assert change(gateway, path, "PATCH", {"topics": ["mdm.CheckOut"]}, etag).status == 412
    assert events.describe_rule(Name=rule, EventBusName=environment.event_bus)["EventPattern"] == before


def test_a_star_stands_for_whatever_is_there(gateway: Gateway) -> None:
    path = make_request(gateway)

    assert send(gateway, "DELETE", path, If_Match="*").status == 204
    assert send(gateway, "DELETE", path, If_Match="*").status == 412
    assert send(gateway, "DELETE", path).status == 204


def test_a_condition_is_never_ignored(gateway: Gateway) -> None:
    # Which is not in the description of each route: who sends it there has not read it.
    refused = send(Gateway(admin_api.handle), "DELETE", "/v2/managed-users/ada", If_Match="*")
    unknown = send(gateway, "PUT", "/v2/ddm-keys", {}, If_None_Match="*")

    assert (refused.status, refused.document["code"]) == (412, "no_etag")
    assert (unknown.status, unknown.document["code"]) == (400, "unknown_condition")


def test_the_description_says_what_can_be_changed_on_a_condition() -> None:
    conditional = {
        path
        for method, path, operation in operations()
        if method != "GET" and any(parameter["name"] == "If-Match" for parameter in operation["parameters"])
    }

    assert conditional == set(CONDITIONAL)
    table = (Path(__file__).parents[2] / "docs" / "api.md").read_text().partition("| Takes `If-Match` | |")[2]
    assert set(re.findall(r"`(/v2/[^`]+)`", table.partition("\n\n")[0])) == conditional


def _key(path: str) -> dict[str, Any]:
    """Return the key of the item that a path is about."""
    collection, name = {
        "webhooks": ("webhook", path.rsplit("/", 1)[1]),
        "push-certificate-requests": ("push_certificate_request", path.rsplit("/", 1)[1]),
        "certificate-authorities": ("ca", path.rsplit("/", 1)[1]),
        "ade-assignment-rules": ("ade_assignment_rule", path.rsplit("/", 1)[1]),
        "ade-profiles": ("ade_profile", path.rsplit("/", 1)[1]),
        "enrollment-profile": ("enrollment_profile", "default"),
        "ddm-keys": ("ddm_server", "default"),
        "scep-challenges": ("scep_challenge", "static"),
        "account-driven-enrollment": ("account_driven", "default"),
    }[path.split("/")[2]]
    return {"collection": {"S": collection}, "name": {"S": name}}


def _touch(environment: Settings, path: str) -> None:
    """Let somebody else have changed, or made, the item that a path is about."""
    tables.dynamodb_client().update_item(
        TableName=environment.resource_table,
        Key=_key(path),
        UpdateExpression="SET #ttl = :later",
        ExpressionAttributeNames={"#ttl": "ttl"},
        ExpressionAttributeValues={":later": {"N": "4102444800"}},
    )


def _is_touched(environment: Settings, path: str) -> bool:
    item = tables.dynamodb_client().get_item(TableName=environment.resource_table, Key=_key(path)).get("Item", {})
    return set(item) >= {"ttl"}

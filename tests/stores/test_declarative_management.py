"""DeclarativeManagement: declarations and status reports, here and at another server."""

import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from mdmlib.apple.declarations import Declaration, DeclarationSet
from mdmlib.errors import BadRequestError, IdentityError, MalformedBodyError, NotFoundError, UnavailableError
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice
from tests.http_server import HttpServer, http_server

REPORT = {"StatusItems": {"device": {"operating-system": {"version": "26.1"}}}, "Errors": []}
DECLARATION = Declaration(kind="configuration", identifier="passcode/main", server_token="1", body=b'{"Type":"t"}')


def fetch(device: FleetDevice, endpoint: str) -> Any:
    answer = device.answer("DeclarativeManagement", Endpoint=endpoint)
    assert answer is not None
    assert answer.media_type == "application/json"
    return json.loads(answer.body)


def report(device: FleetDevice, data: bytes | None = None) -> None:
    data = json.dumps(REPORT).encode() if data is None else data
    assert device.answer("DeclarativeManagement", Endpoint="status", Data=data) is None


def test_a_device_without_declarations_gets_an_empty_set_that_does_not_change(fleet: Fleet) -> None:
    device = fleet.device()

    items = fetch(device, "declaration-items")
    assert items["Declarations"] == {"Activations": [], "Assets": [], "Configurations": [], "Management": []}
    tokens = fetch(device, "tokens")
    assert tokens["SyncTokens"]["DeclarationsToken"] == items["DeclarationsToken"]
    fleet.clock.advance(hours=1)
    assert fetch(device, "tokens") == tokens
    other = fleet.device("ANOTHER")
    assert fetch(other, "declaration-items") == items


def test_a_declaration_is_fetched_by_kind_and_identifier(fleet: Fleet) -> None:
    fleet.declarations_of = lambda _: DeclarationSet([DECLARATION])
    device = fleet.device()

    assert fetch(device, "declaration/configuration/passcode/main") == {"Type": "t"}
    assert fetch(device, "declaration-items")["Declarations"]["Configurations"] == [
        {"Identifier": "passcode/main", "ServerToken": "1"}
    ]


@pytest.mark.parametrize(
    "endpoint",
    [
        "declaration/activation/passcode/main",
        "declaration/configuration/another",
        "declaration/configuration",
        "declaration/",
        "declaration",
        "new-endpoint",
    ],
)
def test_what_a_device_should_not_have_is_not_found(fleet: Fleet, endpoint: str) -> None:
    fleet.declarations_of = lambda _: DeclarationSet([DECLARATION])

    with pytest.raises(NotFoundError):
        fetch(fleet.device(), endpoint)


def test_every_message_is_published_as_nanomdm_does(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    fetch(device, "tokens")

    (document,) = fleet.bus.take()
    assert document["topic"] == "mdm.DeclarativeManagement"
    assert "raw_payload" in document["checkin_event"]
    assert_conforms(document)


def test_a_status_report_is_published_parsed_and_as_it_is(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    report(device)

    message, status = fleet.bus.take()
    assert (message["topic"], status["topic"]) == ("mdm.DeclarativeManagement", "ddm.StatusReport")
    assert message["event_id"] != status["event_id"]
    part = status["status_event"]
    assert part["ids"] == {"id": str(device), "type": "Device"}
    assert (part["enrollment_type"], part["serial_number"]) == ("Device", "C02XXXX")
    assert part["full_report"] is False
    assert part["status_report"] == REPORT
    assert json.loads(b64decode(part["raw_payload"])) == REPORT
    assert_conforms(status)


def test_a_full_report_says_so(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    report(device, json.dumps(REPORT | {"FullReport": True}).encode())

    assert fleet.bus.take()[1]["status_event"]["full_report"] is True


def test_a_push_magic_in_a_status_report_is_not_on_the_bus_in_clear(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    report(device, json.dumps({"StatusItems": {"mdm": {"push-magic": "the-magic"}}}).encode())

    message, status = fleet.bus.take()
    assert "raw_payload_sealed" in message["checkin_event"]
    assert "raw_payload_sealed" in status["status_event"]
    assert "status_report" not in status["status_event"]
    assert_conforms(status)


def test_a_long_status_report_is_published_by_reference(fleet: Fleet) -> None:
    device = fleet.device()
    fleet.bus.take()
    data = json.dumps(REPORT | {"more": "ü" * 150_000}, ensure_ascii=False).encode()
    report(device, data)

    message, status = fleet.bus.take()
    reference = status["status_event"]["payload_ref"]
    assert reference != message["checkin_event"]["payload_ref"]
    assert fleet.payloads.get(reference) == data
    assert_conforms(status)


@pytest.mark.parametrize("data", [b"", b"no json", b"[]", b'{"StatusItems":[]}', b'{"a":NaN}'])
def test_a_malformed_status_report_is_no_fault_of_ours(fleet: Fleet, data: bytes) -> None:
    device = fleet.device()
    fleet.bus.take()

    with pytest.raises(MalformedBodyError):
        report(device, data)
    assert fleet.bus.topics() == ["mdm.DeclarativeManagement"]


def test_a_user_channel_has_declarations_of_its_own_while_it_lives(fleet: Fleet) -> None:
    device = fleet.device()
    user = device.user()
    with pytest.raises(IdentityError):
        fetch(user, "tokens")

    user.token_update()
    fleet.declarations_of = lambda record: DeclarationSet([DECLARATION] if record.parent_id else [])
    assert fetch(user, "tokens") != fetch(device, "tokens")
    device.authenticate(OSVersion="26.2")
    with pytest.raises(IdentityError) as refused:
        fetch(user, "tokens")
    assert refused.value.code == "enrollment_ended"


# Another server


@pytest.fixture
def server(fleet: Fleet) -> Iterator[HttpServer]:
    with http_server() as server:
        fleet.settings = replace(fleet.settings, ddm_url=f"{server.url}/ddm")
        server.body = b'{"theirs":true}'
        server.headers["Content-Type"] = "application/json"
        yield server


def test_requests_are_forwarded_as_nanomdm_forwards_them(fleet: Fleet, server: HttpServer) -> None:
    device = fleet.device()

    assert fetch(device, "declaration-items") == {"theirs": True}
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("GET", "/ddm/declaration-items", b"")
    assert request.headers["x-enrollment-id"] == str(device)
    assert request.headers["x-enrollment-type"] == "Device"
    assert "x-enrollment-parentid" not in request.headers
    assert "x-hmac-signature" not in request.headers


def test_a_status_report_is_forwarded_as_it_is(fleet: Fleet, server: HttpServer) -> None:
    server.body = b""
    user = fleet.device().user("müller")
    user.token_update()
    fleet.bus.take()
    report(user, b"whatever the other server makes of it")

    (request,) = server.requests
    assert (request.method, request.path) == ("PUT", "/ddm/status")
    assert request.body == b"whatever the other server makes of it"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-enrollment-id"] == str(user)
    assert request.headers["x-enrollment-type"] == "User"
    assert request.headers["x-enrollment-parentid"] == user.udid
    assert fleet.bus.topics() == ["mdm.DeclarativeManagement"]


def test_bodies_are_signed_in_both_directions(fleet: Fleet, server: HttpServer) -> None:
    fleet.ddm_keys.put(send_key="send", receive_key="receive")
    device = fleet.device()

    def sign(key: bytes, body: bytes) -> str:
        return b64encode(hmac.digest(key, body, sha256)).decode()

    server.headers["X-Hmac-Signature"] = sign(b"receive", server.body)
    assert fetch(device, "tokens") == {"theirs": True}
    assert server.requests[-1].headers["x-hmac-signature"] == sign(b"send", b"")
    for signature in (sign(b"another key", server.body), sign(b"receive", b"another body"), "no base64", ""):
        server.headers["X-Hmac-Signature"] = signature
        with pytest.raises(UnavailableError) as failed:
            fetch(device, "tokens")
        assert failed.value.code == "server_unusable"


def test_one_direction_may_be_signed_alone(fleet: Fleet, server: HttpServer) -> None:
    fleet.ddm_keys.put(send_key=None, receive_key="receive")
    server.headers["X-Hmac-Signature"] = b64encode(hmac.digest(b"receive", server.body, sha256)).decode()

    assert fetch(fleet.device(), "tokens") == {"theirs": True}
    assert "x-hmac-signature" not in server.requests[-1].headers


def test_their_404_is_passed_on(fleet: Fleet, server: HttpServer) -> None:
    server.status = 404

    with pytest.raises(NotFoundError):
        fetch(fleet.device(), "declaration/configuration/another")


@pytest.mark.parametrize("status", [201, 302, 400, 401, 403, 410, 500, 503])
def test_after_every_other_failure_the_device_comes_back(fleet: Fleet, server: HttpServer, status: int) -> None:
    server.status = status

    with pytest.raises(UnavailableError):
        fetch(fleet.device(), "tokens")


def test_an_answer_that_is_no_json_is_not_passed_on(fleet: Fleet, server: HttpServer) -> None:
    server.body = b"\xff\xfe"

    with pytest.raises(UnavailableError):
        fetch(fleet.device(), "tokens")


def test_a_server_that_cannot_be_reached_is_asked_again_later(fleet: Fleet) -> None:
    fleet.settings = replace(fleet.settings, ddm_url="http://127.0.0.1:1")

    with pytest.raises(UnavailableError) as failed:
        fetch(fleet.device(), "tokens")
    assert "127.0.0.1" not in failed.value.message


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("declaration/configuration/com.example.a", "/ddm/declaration/configuration/com.example.a"),
        ("declaration/asset/a b?c#d%2f", "/ddm/declaration/asset/a%20b%3Fc%23d%252f"),
        ("declaration/asset/a/b", "/ddm/declaration/asset/a/b"),
        ("https:", "/ddm/https%3A"),
    ],
)
def test_an_endpoint_stays_below_the_servers_url(fleet: Fleet, server: HttpServer, endpoint: str, path: str) -> None:
    fetch(fleet.device(), endpoint)

    assert server.requests[-1].path == path


@pytest.mark.parametrize(
    "endpoint", ["/tokens", "../tokens", "declaration/../../x", "//example.org", "a//b", "./a", "a/"]
)
def test_an_endpoint_that_leads_elsewhere_is_not_forwarded(fleet: Fleet, server: HttpServer, endpoint: str) -> None:
    with pytest.raises(NotFoundError):
        fetch(fleet.device(), endpoint)
    assert server.requests == []


def test_only_enrolled_devices_are_forwarded(fleet: Fleet, server: HttpServer) -> None:
    with pytest.raises(IdentityError):
        fetch(fleet.device(enrolled=False), "tokens")
    assert server.requests == []


def test_keys_that_are_no_keys_are_not_taken(fleet: Fleet) -> None:
    for send_key, receive_key in (("", None), (None, "x" * 1_025)):
        with pytest.raises(BadRequestError):
            fleet.ddm_keys.put(send_key=send_key, receive_key=receive_key)
    assert fleet.ddm_keys.server() is None

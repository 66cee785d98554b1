"""Declarative management as a device does it, and which answers it rejects."""

import json
import plistlib
from collections.abc import Callable
from typing import Any

import pytest

from local.device import DeviceError, Habits, ProtocolViolation, Renewal, SimulatedDevice
from tests.simulators.conversation import rules, run
from tests.simulators.fake_server import FakeServer, command

Make = Callable[..., SimulatedDevice]

TOKENS = {"SyncTokens": {"DeclarationsToken": "t1", "Timestamp": "2026-11-20T12:00:00Z"}}
NO_ITEMS: dict[str, Any] = {
    "Declarations": {"Activations": [], "Configurations": [], "Assets": [], "Management": []},
    "DeclarationsToken": "t1",
}


def serve(server: FakeServer, **documents: object) -> None:
    """Let the server answer endpoints; ``declaration_items`` stands for that with a dash."""
    for name, document in documents.items():
        endpoint = name.replace("_", "-")
        server.bodies[endpoint] = document if isinstance(document, bytes) else json.dumps(document).encode()
        server.types[endpoint] = "application/json"


def declaration(kind: str, identifier: str, server_token: str = "s1", **payload: Any) -> dict[str, Any]:
    return {
        "Type": f"com.apple.{kind}.simple" if kind == "activation" else f"com.apple.{kind}.management.test",
        "Identifier": identifier,
        "ServerToken": server_token,
        "Payload": payload,
    }


def endpoints(server: FakeServer) -> list[str]:
    return [message["Endpoint"] for message in server.messages("DeclarativeManagement")]


def test_an_empty_set_is_asked_for_once_and_reported_on(enrolled: SimulatedDevice, server: FakeServer) -> None:
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS)
    for _ in range(2):
        assert run(enrolled.channel, server, "DeclarativeManagement")["Status"] == "Acknowledged"

    assert endpoints(server) == ["tokens", "declaration-items", "status", "tokens"]
    report = json.loads(server.messages("DeclarativeManagement")[2]["Data"])
    assert report["FullReport"] is True
    assert report["Errors"] == []
    assert report["StatusItems"]["management"]["declarations"] == {
        "activations": [],
        "configurations": [],
        "assets": [],
        "management": [],
    }
    assert not enrolled.violations


def test_tokens_that_came_with_the_command_are_not_asked_for(enrolled: SimulatedDevice, server: FakeServer) -> None:
    serve(server, declaration_items=NO_ITEMS)
    for _ in range(2):
        run(enrolled.channel, server, "DeclarativeManagement", Data=json.dumps(TOKENS).encode())
    assert endpoints(server) == ["declaration-items", "status"]


def test_only_what_changed_is_fetched_and_what_is_gone_is_forgotten(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    lists = NO_ITEMS["Declarations"]
    one, two, three = ({"Identifier": name, "ServerToken": "s1"} for name in ("one", "two", "three"))
    for name, kind in (("one", "activation"), ("two", "configuration"), ("three", "configuration")):
        document = declaration(kind, name, StandardConfigurations=["two", "missing"])
        serve(server, **{f"declaration/{kind}/{name}": document})

    serve(server, tokens=TOKENS)
    serve(
        server, declaration_items=NO_ITEMS | {"Declarations": lists | {"Activations": [one], "Configurations": [two]}}
    )
    run(enrolled.channel, server, "DeclarativeManagement")
    tokens = {"SyncTokens": TOKENS["SyncTokens"] | {"DeclarationsToken": "t2"}}
    after = {"Declarations": lists | {"Activations": [one], "Configurations": [three]}, "DeclarationsToken": "t2"}
    serve(server, tokens=tokens, declaration_items=after)
    run(enrolled.channel, server, "DeclarativeManagement")

    assert endpoints(server) == [
        *("tokens", "declaration-items", "declaration/activation/one", "declaration/configuration/two", "status"),
        *("tokens", "declaration-items", "declaration/configuration/three", "status"),
    ]
    assert enrolled.channel.declarations.declarations.keys() == {("activation", "one"), ("configuration", "three")}
    [activation] = enrolled.channel.declarations.reports[0]["StatusItems"]["management"]["declarations"]["activations"]
    assert activation["valid"] == "invalid"
    assert activation["reasons"][0]["details"] == {"Identifiers": ["missing"]}


def test_a_new_enrollment_knows_no_declarations(make_device: Make, server: FakeServer) -> None:
    device = make_device(habits=Habits(renewal=Renewal.ENROLL_ANEW))
    device.enroll(server.profile_url)
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS)
    run(device.channel, server, "DeclarativeManagement")
    run(device.channel, server, "InstallProfile", Payload=plistlib.dumps(server.profile))

    assert not device.channel.declarations.is_on


def test_each_channel_has_declarations_of_its_own(mac: SimulatedDevice, server: FakeServer) -> None:
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS)
    channel = mac.log_in("ada")
    run(channel, server, "DeclarativeManagement")

    assert channel.declarations.is_on
    assert not mac.channel.declarations.is_on
    assert {one["UserShortName"] for one in server.messages("DeclarativeManagement")} == {"ada"}


ITEM = {"Identifier": "one", "ServerToken": "s1"}


@pytest.mark.parametrize(
    ("endpoint", "answer", "rule"),
    [
        ("tokens", b"", "tokens"),
        ("tokens", b"{", "tokens"),
        ("tokens", [], "tokens"),
        ("tokens", {}, "tokens"),
        ("tokens", {"SyncTokens": {"DeclarationsToken": "t1"}}, "tokens"),
        ("tokens", {"SyncTokens": {"DeclarationsToken": "", "Timestamp": "2026-11-20T12:00:00Z"}}, "tokens"),
        ("tokens", {"SyncTokens": {"DeclarationsToken": "t" * 257, "Timestamp": "2026-11-20T12:00:00Z"}}, "tokens"),
        ("tokens", {"SyncTokens": {"DeclarationsToken": "t1", "Timestamp": "now"}}, "tokens"),
        ("tokens", {"SyncTokens": {"DeclarationsToken": "t1", "Timestamp": "2026-11-20T12:00:00"}}, "tokens"),
        ("declaration-items", {}, "declaration-items"),
        ("declaration-items", {"Declarations": {}, "DeclarationsToken": "t1"}, "declaration-items"),
        ("declaration-items", {"Declarations": NO_ITEMS["Declarations"]}, "declaration-items"),
        ("declaration-items", NO_ITEMS | {"DeclarationsToken": "t2"}, "DeclarationsToken"),
        ("Assets", None, "declaration-items"),
        ("Activations", [{"Identifier": "one"}], "declaration-items"),
        ("Activations", [ITEM, ITEM], "declaration-items"),
        ("Activations", [ITEM | {"Identifier": "i" * 65}], "declaration-items"),
        ("Activations", [ITEM | {"ServerToken": "s" * 65}], "declaration-items"),
        ("Others", [], "declaration-items"),
        ("declaration", {}, "declaration"),
        ("declaration", declaration("activation", "two"), "declaration"),
        ("declaration", declaration("activation", "one", "s2"), "declaration"),
        ("declaration", declaration("configuration", "one"), "declaration"),
        ("declaration", declaration("activation", "one") | {"Payload": []}, "declaration"),
        ("status", {"thanks": True}, "status"),
    ],
)
def test_declarations_that_break_a_rule_are_rejected(
    enrolled: SimulatedDevice, server: FakeServer, endpoint: str, answer: Any, rule: str
) -> None:
    lists = NO_ITEMS["Declarations"] | {"Activations": [ITEM]}
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS | {"Declarations": lists})
    serve(server, **{"declaration/activation/one": declaration("activation", "one")})
    if endpoint == "declaration":
        serve(server, **{"declaration/activation/one": answer})
    elif endpoint[0].isupper():
        serve(server, declaration_items=NO_ITEMS | {"Declarations": lists | {endpoint: answer}})
    else:
        serve(server, **{endpoint: answer})

    server.queue = [command("C1", "DeclarativeManagement")]
    with pytest.raises(ProtocolViolation):
        enrolled.connect()
    assert rules(enrolled) == [rule]


@pytest.mark.parametrize("endpoint", ["tokens", "declaration-items"])
def test_an_answer_that_is_not_called_json_is_rejected(
    enrolled: SimulatedDevice, server: FakeServer, endpoint: str
) -> None:
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS)
    server.types[endpoint] = "text/plain"
    server.queue = [command("C1", "DeclarativeManagement")]
    with pytest.raises(ProtocolViolation):
        enrolled.connect()
    assert rules(enrolled) == ["Content-Type"]


@pytest.mark.parametrize(("status", "is_violation"), [(404, True), (503, False)])
def test_a_declaration_of_the_manifest_that_is_not_there_is_a_violation(
    make_device: Make, server: FakeServer, status: int, *, is_violation: bool
) -> None:
    device = make_device(habits=Habits(retry_delays=()))
    device.enroll(server.profile_url)
    lists = NO_ITEMS["Declarations"] | {"Activations": [ITEM]}
    serve(server, tokens=TOKENS, declaration_items=NO_ITEMS | {"Declarations": lists})
    server.statuses["declaration/activation/one"] = [status]
    server.queue = [command("C1", "DeclarativeManagement")]

    with pytest.raises(DeviceError):
        device.connect()
    assert rules(device) == (["declaration"] if is_violation else [])

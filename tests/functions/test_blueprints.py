"""Blueprints, plans and device attributes over the admin API: MicroMDM's and our own."""

import json
import plistlib
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.workflow.app import lambda_handler
from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests import admin_api, interruptions
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.gateway import Answer, Gateway
from tests.queues import QueueSource
from tests.workflows import Works

UUID = "6b3f9a52-6f0e-4d0f-9a4e-1c7b6f3f7a11"


@pytest.fixture
def gateway(environment: Settings) -> Iterator[Gateway]:
    yield DescribedGateway(admin_api.handle)
    interruptions.forget()


@pytest.fixture
def works(aws: Emulator, environment: Settings, sealer: Sealer) -> Works:
    return Works(Fleet(aws, environment, sealer, Clock(datetime.now(UTC))))


def mac(works: Works, udid: str) -> FleetDevice:
    device = FleetDevice(works.fleet, udid)
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber=f"C02{udid}")
    device.token_update()
    works.work()
    return device


def put(gateway: Gateway, path: str, document: Any, **headers: str) -> Answer:
    return gateway.request("PUT", path, json.dumps(document), headers=headers)


def store_profile(gateway: Gateway, identifier: str = "p.one", text: str = "text") -> None:
    profile = plistlib.dumps({"PayloadIdentifier": identifier, "PayloadUUID": "U1", "PayloadDisplayName": text})
    body = {"profile": {"Identifier": identifier, "Mobileconfig": b64encode(profile).decode()}}
    assert put(gateway, "/v1/profiles", body).status == 200


def test_mdmctl_stores_lists_and_removes_blueprints(gateway: Gateway) -> None:
    store_profile(gateway)
    stored = {
        "uuid": UUID,
        "name": "macs",
        "install_application_manifest_urls": ["https://apps.example.org/munki.plist"],
        "profile_ids": ["p.one"],
        "user_uuids": None,
        "skip_primary_setup_account_creation": True,
        "set_primary_setup_account_as_regular_user": False,
        "apply_at": ["Enroll"],
    }

    assert put(gateway, "/v1/blueprints", {"blueprint": stored}).document == {}
    assert gateway.post("/v1/blueprints", {}).document == {"blueprints": [stored]}
    assert gateway.post("/v1/blueprints", {"filtername": "macs"}).document == {"blueprints": [stored]}
    renamed = stored | {"name": "all macs", "apply_at": ["ENROLL"]}
    assert put(gateway, "/v1/blueprints", {"blueprint": renamed}).status == 200
    assert gateway.post("/v1/blueprints", {}).document == {"blueprints": [renamed | {"apply_at": ["Enroll"]}]}
    taken = renamed | {"uuid": UUID.replace("6", "7")}
    assert put(gateway, "/v1/blueprints", {"blueprint": taken}).document["code"] == "blueprint_name_taken"
    unknown = renamed | {"profile_ids": ["nowhere"]}
    assert put(gateway, "/v1/blueprints", {"blueprint": unknown}).document["field"] == "profiles"
    assert gateway.request("DELETE", "/v1/blueprints", json.dumps({"names": ["all macs", "x"]})).document == {}
    assert gateway.post("/v1/blueprints", {}).document == {"blueprints": None}


def test_what_micromdm_does_not_know_of_a_blueprint_stays(gateway: Gateway) -> None:
    conditions = {"platforms": ["macOS"]}
    ours = put(gateway, "/v2/blueprints/macs", {"conditions": conditions, "apply_on_change": True}).document
    theirs = {"uuid": ours["uuid"], "name": "macs", "apply_at": []}

    assert put(gateway, "/v1/blueprints", {"blueprint": theirs}).status == 200

    known = gateway.get("/v2/blueprints/macs").document
    assert known["conditions"]["platforms"] == ["macOS"]
    assert (known["apply_on_change"], known["apply_on_enrollment"], known["revision"]) == (True, False, 2)


def test_a_blueprint_is_stored_shown_changed_and_forgotten(gateway: Gateway) -> None:
    store_profile(gateway)
    stored = put(gateway, "/v2/blueprints/macs", {"profiles": ["p.one"]})
    assert (stored.status, stored.document["revision"]) == (200, 1)
    assert put(gateway, "/v2/blueprints/macs", {"profiles": ["p.one"]}).document == stored.document
    seen = gateway.get("/v2/blueprints/macs")
    assert seen.document == stored.document
    assert gateway.get("/v2/blueprints").document == {"blueprints": [stored.document], "next_cursor": None}

    tag = {"If-Match": seen.headers["etag"]}
    assert put(gateway, "/v2/blueprints/macs", {}, **tag).document["revision"] == 2
    assert put(gateway, "/v2/blueprints/macs", {"profiles": ["p.one"]}, **tag).status == 412
    assert gateway.request("DELETE", "/v2/blueprints/macs", headers=tag).status == 412
    assert gateway.delete("/v2/blueprints/macs").status == 204
    assert gateway.delete("/v2/blueprints/macs").status == 204
    assert gateway.get("/v2/blueprints/macs").status == 404


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ({"surprise": 1}, "unknown_field", "surprise"),
        ({"profiles": "x"}, "invalid_field", "profiles"),
        ({"profiles": ["x"]}, "names_what_is_not_there", "profiles"),
        ({"apps": ["x"]}, "invalid_field", "apps"),
        ({"commands": [{"request_type": "ProfileList", "surprise": 1}]}, "unknown_field", "commands[0].surprise"),
        ({"conditions": {"surprise": 1}}, "unknown_field", "conditions.surprise"),
        ({"conditions": []}, "invalid_field", "conditions"),
        ({"apply_on_change": "perhaps"}, "invalid_field", "apply_on_change"),
    ],
)
def test_what_is_wrong_is_named(gateway: Gateway, document: dict[str, Any], code: str, field: str) -> None:
    answer = put(gateway, "/v2/blueprints/macs", document)

    assert (answer.status, answer.document["code"], answer.document["field"]) == (400, code, field)


def test_devices_are_brought_to_a_blueprint_by_the_function_and_their_plans_are_told(
    gateway: Gateway, works: Works, aws: Emulator, environment: Settings
) -> None:
    source = QueueSource(aws, environment.workflow_queue_url, lambda_handler)
    device = mac(works, "D1")
    store_profile(gateway)
    put(gateway, "/v2/blueprints/macs", {"profiles": ["p.one"]})
    asked = {"blueprints": ["macs"], "ids": ["D1"]}

    (preview,) = gateway.post("/v2/blueprint-applications", {**asked, "dry_run": True}).document["previews"]
    assert preview["steps"] == ["list profiles", "profile p.one", "let Setup Assistant go on"]
    begun = gateway.post("/v2/blueprint-applications", asked)
    assert (begun.status, begun.document["state"]) == (202, "running")
    assert len(source.invoke().done) == 1

    job = gateway.get(f"/v2/blueprint-applications/{begun.document['id']}").document
    assert (job["state"], job["begun"], job["ids"]) == ("done", 1, 1)
    (plan,) = gateway.get("/v2/plans", enrollment_id="D1").document["plans"]
    assert [step["state"] for step in plan["steps"]] == ["queued", "pending", "pending"]
    assert gateway.get("/v2/plans", state="running").document["plans"] == [plan]
    assert gateway.get("/v2/plans", state="failed").document == {"plans": [], "next_cursor": None}
    assert device.idle() == plan["steps"][0]["command_uuid"]


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({}, 400, "no_targets"),
        ({"ids": ["D1"], "all": True}, 400, "no_targets"),
        ({"ids": ["D1"], "blueprints": ["nowhere"]}, 404, "unknown_blueprint"),
        ({"ids": ["nobody"]}, 404, "unknown_enrollment"),
        ({"all": True, "dry_run": True}, 400, "no_targets"),
        ({"ids": ["D"] * 26, "dry_run": True}, 400, "too_many_targets"),
    ],
)
def test_what_cannot_be_applied_is_refused(
    gateway: Gateway, works: Works, document: dict[str, Any], status: int, code: str
) -> None:
    answer = gateway.post("/v2/blueprint-applications", document)

    assert (answer.status, answer.document["code"]) == (status, code)


def test_a_profile_that_changes_reaches_the_devices_of_its_blueprints(
    gateway: Gateway, works: Works, aws: Emulator, environment: Settings
) -> None:
    source = QueueSource(aws, environment.workflow_queue_url, lambda_handler)
    store_profile(gateway)
    put(gateway, "/v2/blueprints/macs", {"profiles": ["p.one"], "apply_on_change": True})
    source.invoke()
    mac(works, "D1")
    before = works.plan(FleetDevice(works.fleet, "D1")).item.run

    store_profile(gateway, text="another")
    assert len(source.invoke().done) == 1

    plan = works.plan(FleetDevice(works.fleet, "D1"))
    assert (plan.item.cause, plan.item.run != before) == ("change", True)


def test_a_message_that_is_none_stays_and_stops_no_other(aws: Emulator, environment: Settings) -> None:
    source = QueueSource(aws, environment.workflow_queue_url, lambda_handler)
    for body in ("broken", "{}", '{"task": "result"}', '{"task": "job", "job": "nobody"}'):
        source.send(body)
    source.send('{"task": "result", "enrollment_id": "nobody", "command_uuid": "plan.blueprints.1"}')
    source.send('{"task": "enrolled", "enrollment_id": "nobody", "event_id": "1"}')

    batch = source.invoke()
    assert (len(batch.done), len(batch.stayed)) == (3, 3)


def test_what_is_said_of_devices_is_stored_shown_and_forgotten(gateway: Gateway) -> None:
    path = "/v2/device-attributes/C02D1"
    said = put(gateway, path, {"tags": ["lab", "lab"], "values": {"room": "12"}})

    assert said.document == {"serial_number": "C02D1", "tags": ["lab"], "values": {"room": "12"}}
    assert gateway.get(path).document == said.document
    put(gateway, "/v2/device-attributes/C02D2", {"tags": ["loan"]})
    assert len(gateway.get("/v2/device-attributes").document["device_attributes"]) == 2
    assert gateway.get("/v2/device-attributes", tag="lab").document["device_attributes"] == [said.document]
    assert gateway.delete(path).status == 204
    assert gateway.get(path).status == 404
    wrongs: list[dict[str, Any]] = [
        {"tags": [" x"]},
        {"values": {"Room": "1"}},
        {"values": {"room": 1}},
        {"values": []},
    ]
    for wrong in wrongs:
        assert put(gateway, path, wrong).document["code"] == "invalid_field"

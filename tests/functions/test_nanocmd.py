"""NanoCMD's API, and ours for the same: plans that need no blueprint, inventory, escrow."""

import json
import plistlib
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
from tests.gateway import Answer, Gateway, http_event
from tests.queues import QueueSource
from tests.workflows import Works

INVENTORY = "/v1/workflow/io.micromdm.wf.inventory.v1/start"
WIFI = plistlib.dumps({"PayloadIdentifier": "p.wifi", "PayloadUUID": "U1"})


@pytest.fixture
def gateway(environment: Settings) -> Iterator[Gateway]:
    yield DescribedGateway(admin_api.handle)
    interruptions.forget()


@pytest.fixture
def works(aws: Emulator, environment: Settings, sealer: Sealer) -> Works:
    return Works(Fleet(aws, environment, sealer, Clock(datetime.now(UTC))))


@pytest.fixture
def mac(works: Works) -> FleetDevice:
    device = FleetDevice(works.fleet, "D1")
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber="C02D1")
    device.token_update()
    works.work()
    return device


def refusal(answer: Answer) -> tuple[int, str]:
    assert answer.body.startswith(b'{\n\t"error": '), answer.body
    return answer.status, answer.document["code"]


def test_a_workflow_is_started_and_its_inventory_told(
    gateway: Gateway, works: Works, mac: FleetDevice, aws: Emulator, environment: Settings
) -> None:
    source = QueueSource(aws, environment.workflow_queue_url, lambda_handler)
    started = gateway.request("POST", INVENTORY, query={"id": "D1,nobody"})
    assert list(started.document) == ["instance_id"]
    assert len(source.invoke().done) == 1
    command = mac.command("Idle")
    assert command is not None
    mac.command("Acknowledged", command["CommandUUID"], QueryResponses={"OSVersion": "26.1", "ModelName": "Mac"})
    works.work()

    for path in ("/v1/inventory", "/inventory"):
        told = gateway.request("GET", path, query={"id": "D1,nobody"}).document
        assert (told["D1"]["os_version"], list(told)) == ("26.1", ["D1"])
    assert refusal(gateway.request("POST", INVENTORY, query={"id": "D1"})) == (409, "already_running")
    whole = gateway.get("/v2/enrollments/D1/inventory").document
    assert (whole["keys"]["model_name"], whole["apps"]) == ("Mac", [])
    assert gateway.get("/v2/enrollments/D1/inventory-changes").document["inventory_changes"] == []
    searched = gateway.get("/v2/inventory", os_version="26.1").document
    assert (searched["inventory"][0]["enrollment_id"], searched["examined"]) == ("D1", 1)
    assert gateway.get("/v2/inventory", os_version="26.2").document["inventory"] == []
    assert gateway.get("/v2/enrollments/nobody/inventory").document["code"] == "no_inventory"


@pytest.mark.parametrize(
    ("method", "path", "query", "status", "code"),
    [
        ("POST", "/v1/workflow/nothing/start", {"id": "D1"}, 400, "unknown_workflow"),
        ("POST", INVENTORY, {}, 400, "no_targets"),
        ("POST", INVENTORY, {"id": "nobody"}, 404, "unknown_enrollment"),
        ("POST", INVENTORY, {"id": "D1", "context": "x"}, 400, "invalid_field"),
        (
            "POST",
            "/v1/workflow/io.micromdm.wf.profile.v1/start",
            {"id": "D1", "context": "nowhere"},
            400,
            "names_what_is_not_there",
        ),
        (
            "POST",
            "/v1/workflow/io.micromdm.wf.cmdplan.v1/start",
            {"id": "D1", "context": "nowhere"},
            404,
            "unknown_command_plan",
        ),
        (
            "POST",
            "/v1/workflow/io.micromdm.wf.certprof.v1/start",
            {"id": "D1", "context": "{"},
            400,
            "invalid_field",
        ),
        ("GET", "/v1/event/nothing", {}, 404, "unknown_event"),
        ("GET", "/v1/profile/nothing", {}, 404, "profile_not_found"),
        ("PUT", "/v1/profile/empty", {}, 400, "missing_field"),
        ("GET", "/v1/profiles", {"name": "nothing"}, 404, "profile_not_found"),
        ("GET", "/v1/cmdplan/nothing", {}, 404, "unknown_command_plan"),
        ("GET", "/v1/inventory", {}, 400, "no_targets"),
    ],
)
def test_what_is_wrong_is_told_in_nanocmds_form(
    gateway: Gateway, mac: FleetDevice, method: str, path: str, query: dict[str, str], status: int, code: str
) -> None:
    answer = gateway.request(method, path, query=query)

    assert (answer.status, answer.document["code"]) == (status, code)


def test_profiles_have_names(gateway: Gateway) -> None:
    assert gateway.request("PUT", "/v1/profile/wifi", WIFI).status == 204
    assert gateway.get("/v1/profile/wifi").body == WIFI
    listed = {"wifi": {"identifier": "p.wifi", "uuid": "U1"}}
    assert gateway.get("/v1/profiles").document == gateway.get("/v1/profiles", name="wifi").document == listed
    assert refusal(gateway.request("PUT", "/v1/profile/another", WIFI)) == (409, "identifier_taken")
    assert gateway.request("PUT", "/v1/profile/wifi", WIFI).status == 204
    assert gateway.delete("/v1/profile/wifi").status == 204
    assert gateway.get("/v1/profiles").document == {}


def test_command_plans_and_events_are_stored(gateway: Gateway) -> None:
    plan = {"profile_names": ["wifi"], "manifest_urls": [], "device_configured": True}
    gateway.request("PUT", "/v1/profile/wifi", WIFI)
    assert gateway.request("PUT", "/v1/cmdplan/all", json.dumps(plan)).status == 204
    assert gateway.get("/v1/cmdplan/all").document == plan
    event = {"event": "Enrollment", "workflow": "io.micromdm.wf.cmdplan.v1", "context": "all"}
    assert gateway.request("PUT", "/v1/event/e", json.dumps(event)).status == 204
    assert gateway.get("/v1/event/e").document == event
    assert gateway.delete("/v1/event/e").status == 204
    idle = event | {"event": "IdleNotStartedSince", "event_context": "3600"}
    assert gateway.request("PUT", "/v1/event/e", json.dumps(idle)).status == 204
    assert gateway.get("/v1/event/e").document == idle
    assert gateway.delete("/v1/event/e").status == 204
    for wrong in ({"event": "CheckOut"}, {"event": "Nothing"}, {"event": "IdleNotStartedSince", "event_context": "1h"}):
        assert refusal(gateway.request("PUT", "/v1/event/e", json.dumps(event | wrong))) == (400, "invalid_field")


def test_the_filevault_profile_has_the_deployments_certificate_in_it(gateway: Gateway) -> None:
    first = gateway.get("/v1/fvenable/profiletemplate")

    assert first.headers["content-type"] == "application/x-apple-aspen-config"
    assert plistlib.loads(first.body)["PayloadIdentifier"] == "io.micromdm.wf.fvenable.v1.profile"
    assert gateway.get("/v1/fvenable/profiletemplate").body == first.body


def test_a_secret_is_read_by_who_says_why(gateway: Gateway, works: Works, mac: FleetDevice) -> None:
    works.escrow.put_once(mac.record, "lock_pin", lambda: "123456", name="a")
    path = "/v2/escrow/C02D1/lock_pin/reveal"

    (listed,) = gateway.get("/v2/escrow/C02D1").document["escrowed_secrets"]
    assert (listed["kind"], listed["revealed_at"]) == ("lock_pin", None)
    assert gateway.post(path, {}).document["code"] == "missing_field"
    event = http_event("POST", path, json.dumps({"reason": "lost"}))
    event["requestContext"]["authorizer"] = {"iam": {"userArn": "arn:aws:iam::1:user/ada"}}
    revealed = gateway.answer(event).document
    assert revealed["value"] == "123456"
    (told,) = works.topics("mdm.SecretRevealed")
    assert (told["event_id"], told["escrow_event"]["who"], told["escrow_event"]["why"]) == (
        revealed["event_id"],
        "arn:aws:iam::1:user/ada",
        "lost",
    )
    assert gateway.get("/v2/escrow/C02D1").document["escrowed_secrets"][0]["revealed_at"]
    assert gateway.get("/v2/escrow/nobody").status == 404
    assert gateway.post("/v2/escrow/C02D1/filevault_key/reveal", {"reason": "lost"}).status == 404


def test_plans_begin_for_those_that_can(gateway: Gateway, works: Works, mac: FleetDevice) -> None:
    begun: Any = gateway.post("/v2/plans", {"kind": "lock", "ids": ["D1"], "options": {"message": "m"}})
    assert (begun.status, begun.document["targets"][0]["begun"]) == (202, True)
    works.work()
    mixed = gateway.post("/v2/plans", {"kind": "lock", "ids": ["D1", "nobody"]})
    assert mixed.status == 207
    assert [target["error"]["code"] for target in mixed.document["targets"]] == [
        "already_running",
        "unknown_enrollment",
    ]
    assert gateway.post("/v2/plans", {"kind": "nothing", "ids": ["D1"]}).document["code"] == "unknown_plan"
    for kind in "profiles", "command_plan", "certificate_profile":
        refused = gateway.post("/v2/plans", {"kind": kind, "ids": ["D1"]})
        assert (refused.status, refused.document["code"]) == (400, "missing_field")
    assert gateway.post("/v2/plans", {"kind": "lock", "ids": []}).document["code"] == "no_targets"

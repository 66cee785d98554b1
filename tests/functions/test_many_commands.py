"""The commands function: one command for many, jobs, and what became of commands."""

import json
import plistlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.commands import app as function
from local.device.command import Command as SimulatedCommand
from local.device.request_types import REQUEST_TYPES as SIMULATED
from local.emulator import Emulator
from mdmlib.apple.command_catalogue import catalogue
from mdmlib.apple.command_report import CommandReport
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.gateway import Answer, Gateway
from tests.unit.test_command_catalogue import described

DEVICE_INFORMATION = {"request_type": "DeviceInformation", "queries": ["OSVersion"], "command_uuid": "C1"}


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC)))


def mac(fleet: Fleet, udid: str) -> FleetDevice:
    device = FleetDevice(fleet, udid)
    device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber=f"C02{udid}")
    device.token_update()
    return device


def queue(gateway: Gateway, **document: Any) -> Answer:
    return gateway.post("/v2/commands", {"command": DEVICE_INFORMATION, "no_push": True, **document})


def test_a_command_for_several_is_queued_for_all_of_them(gateway: Gateway, fleet: Fleet) -> None:
    devices = [mac(fleet, "D1"), mac(fleet, "D2")]

    answer = queue(gateway, ids=["D1", "D2"])

    assert answer.status == 201
    assert answer.document["queued"] == 2
    assert [device.idle() for device in devices] == ["C1", "C1"]


def test_who_is_unknown_does_not_fail_the_others(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")

    answer = queue(gateway, ids=["D1", "nobody"], no_push=False)

    assert answer.status == 207
    told = {target["id"]: target for target in answer.document["targets"]}
    assert told["D1"]["queued"]
    assert told["D1"]["push_error"].startswith("there is no push certificate")
    assert told["nobody"]["error"]["code"] == "unknown_enrollment"
    assert device.idle() == "C1"


def test_a_whole_property_list_is_taken_as_it_is(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")
    raw = plistlib.dumps(
        {"CommandUUID": "C1", "Command": {"RequestType": "OfTomorrow", "When": b"x"}}, fmt=plistlib.FMT_BINARY
    )

    assert queue(gateway, ids=["D1"], command=None, payload=b64encode(raw).decode()).status == 201
    assert device.command("Idle") == plistlib.loads(raw)


def test_the_options_are_kept(gateway: Gateway, fleet: Fleet) -> None:
    mac(fleet, "D1")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    options = {"priority": 9, "not_before": at.isoformat(), "expires_at": (at + timedelta(hours=1)).isoformat()}

    assert queue(gateway, ids=["D1"], dedup_key="k", **options).status == 201
    (pending,) = gateway.get("/v2/enrollments/D1/commands").document["commands"]
    assert pending["state"] == "scheduled"
    assert datetime.fromisoformat(pending["not_before"]) == at
    second = queue(gateway, ids=["D1"], dedup_key="k", command={**DEVICE_INFORMATION, "command_uuid": "C2"})
    assert (second.status, second.document["targets"][0]["error"]["code"]) == (207, "dedup_key_taken")


REFUSALS: list[tuple[str, dict[str, Any], str, str | None]] = [
    ("nobody", {}, "no_targets", "ids"),
    ("two kinds of targets", {"ids": ["D1"], "all": True}, "no_targets", "ids"),
    ("an empty list", {"ids": []}, "no_targets", "udid"),
    ("all, but no", {"all": "false"}, "invalid_field", "all"),
    ("no types", {"types": []}, "no_targets", "types"),
    ("types that are none", {"types": ""}, "invalid_field", "types"),
    ("no serial numbers", {"serial_numbers": []}, "no_targets", "serial_numbers"),
    ("ids that are none", {"ids": [1]}, "invalid_field", "ids"),
    ("no command", {"ids": ["D1"], "command": None}, "missing_field", "command"),
    ("two commands", {"ids": ["D1"], "payload": ""}, "missing_field", "command"),
    ("a command that is no object", {"ids": ["D1"], "command": []}, "invalid_field", "command"),
    ("a payload that is no base64", {"ids": ["D1"], "command": None, "payload": "!"}, "invalid_field", "payload"),
    ("a payload that is a number", {"ids": ["D1"], "command": None, "payload": 1}, "invalid_field", "payload"),
    ("a payload that is no plist", {"ids": ["D1"], "command": None, "payload": "AAAA"}, "malformed_body", None),
    ("a command with a udid", {"ids": ["D1"], "command": {"UDID": "D1"}}, "unknown_field", "command.udid"),
    ("a type that is none", {"types": ["Toaster"]}, "invalid_field", "types"),
    ("a priority beyond", {"ids": ["D1"], "priority": 10}, "invalid_field", "priority"),
    ("a time that is none", {"ids": ["D1"], "expires_at": "tomorrow"}, "invalid_field", "expires_at"),
    ("the year 9999", {"ids": ["D1"], "expires_at": "9999-12-31T23:59:59-23:00"}, "invalid_field", "expires_at"),
    ("a time that is over", {"ids": ["D1"], "expires_at": "2020-01-01T00:00:00Z"}, "invalid_field", "expires_at"),
    ("a flag that is none", {"ids": ["D1"], "force": "perhaps"}, "invalid_field", "force"),
    ("a serial number that is none", {"serial_numbers": [""]}, "invalid_field", "serial_numbers"),
]


@pytest.mark.parametrize(
    ("document", "code", "field"), [refusal[1:] for refusal in REFUSALS], ids=[refusal[0] for refusal in REFUSALS]
)
def test_what_is_wrong_is_named(gateway: Gateway, document: dict[str, Any], code: str, field: str | None) -> None:
    answer = queue(gateway, **document)

    assert (answer.status, answer.document["code"], answer.document.get("field")) == (400, code, field)


def test_a_job_is_begun_told_of_and_done_by_housekeeping(gateway: Gateway, fleet: Fleet) -> None:
    devices = [mac(fleet, "D1"), mac(fleet, "D2")]

    begun = queue(gateway, all=True)
    assert begun.status == 202
    assert (begun.document["state"], begun.document["progress"]) == ("running", 0)
    fleet.sweep()

    told = gateway.get(f"/v2/command-jobs/{begun.document['id']}").document
    assert (told["state"], told["queued"], told["progress"]) == ("done", 2, 1)
    assert gateway.get("/v2/command-jobs").document["command_jobs"] == [told]
    assert [device.idle() for device in devices] == ["C1", "C1"]


def test_a_job_for_serial_numbers_tells_who_is_missing(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")

    begun = queue(gateway, serial_numbers=["C02D1", "NONE", "C02D1"])
    fleet.sweep()

    told = gateway.get(f"/v2/command-jobs/{begun.document['id']}").document
    assert (told["serial_numbers"], told["queued"], told["refused"]) == (2, 1, 1)
    assert told["errors"][0]["code"] == "unknown_serial_number"
    assert device.idle() == "C1"


def test_a_job_is_cancelled(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")
    job = queue(gateway, types=["Device"]).document["id"]

    assert gateway.delete(f"/v2/command-jobs/{job}").document["state"] == "cancelled"
    fleet.sweep()

    assert device.idle() is None
    assert gateway.get("/v2/command-jobs/nobody").status == 404
    assert gateway.delete("/v2/command-jobs/nobody").status == 404


def test_results_are_told_as_json_and_the_newest_first(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")
    for uuid in ("B", "C", "A"):
        fleet.enqueue([device], uuid)
        device.acknowledge(uuid, Data=b"data")
        fleet.clock.advance(seconds=1)

    def told(**query: str) -> Any:
        return gateway.request("GET", "/v2/enrollments/D1/results", query=query).document

    first = told(newest="true", limit="2", decoded="true")
    assert [result["command_uuid"] for result in first["results"]] == ["A", "C"]
    assert first["results"][0]["report"]["Data"] == "ZGF0YQ=="
    assert first["results"][0]["payload"] is None
    second = told(newest="true", limit="2", payloads="false", cursor=first["next_cursor"])
    assert [(result["command_uuid"], result["payload"]) for result in second["results"]] == [("B", None)]
    assert second["next_cursor"] is None
    assert told(command_uuid="B", decoded="true")["results"][0]["report"]["Status"] == "Acknowledged"


def test_an_expired_command_is_told_of_only_when_that_is_asked_for(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")
    fleet.clock.advance(hours=-2)
    fleet.enqueue([device], "C1", expires_at=fleet.clock() + timedelta(hours=1))

    assert gateway.get("/v2/enrollments/D1/commands").document["commands"] == []
    answer = gateway.request("GET", "/v2/enrollments/D1/commands", query={"expired": "true"})
    assert [command["state"] for command in answer.document["commands"]] == ["expired"]


def test_a_queue_is_cleared_with_those_of_its_users_when_that_is_asked_for(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")
    user = device.user()
    user.token_update(UserShortName="ada")
    fleet.enqueue([device, user], "C1")

    assert gateway.delete("/v2/enrollments/D1/commands").status == 204
    assert (device.idle(), user.idle()) == (None, "C1")
    answer = gateway.request("DELETE", "/v2/enrollments/D1/commands", query={"user_channels": "true"})
    assert answer.status == 204
    assert user.idle() is None


def test_every_command_of_apples_reaches_a_device(gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device()
    wanted = {}
    for request_type in catalogue():
        given, value = described(request_type)
        document = {"udid": str(device), "request_type": request_type, "command_uuid": request_type, **given}
        query = {"force": "true", "no_push": "true"}
        answer = gateway.request("POST", "/v1/commands", json.dumps(document), query=query)
        assert answer.status == 201, f"{request_type}: {answer.document}"
        wanted[request_type] = {"RequestType": request_type, **value}

    received: dict[str, Any] = {}
    report: dict[str, str] = {"Status": "Idle"}
    while body := fleet.connect.report(
        device.certificate, CommandReport.decode(plistlib.dumps(report | device.ids)), {}
    ):
        command = SimulatedCommand.decode(body)
        received[command.uuid] = command.fields
        if kind := SIMULATED.get(command.request_type):
            # What the simulated device would answer with CommandFormatError.
            assert all(isinstance(command.fields.get(key), needed) for key, needed in kind.required.items())
        report = {"Status": "Acknowledged", "CommandUUID": command.uuid}

    assert list(received) == list(wanted)
    assert received == wanted


def test_the_options_of_v1_are_in_its_query(gateway: Gateway, fleet: Fleet) -> None:
    device = mac(fleet, "D1")

    def post(document: dict[str, Any], **query: str) -> Answer:
        return gateway.request("POST", "/v1/commands", json.dumps({"udid": "D1", **document}), query=query)

    lost = {"request_type": "EnableLostMode", "message": "m", "command_uuid": "C1"}
    refused = post(lost)
    assert (refused.status, refused.document["code"]) == (409, "unsuitable_command")
    assert post(lost, force="true").status == 201
    assert post({"request_type": "OfTomorrow", "command_uuid": "C2"}).document["code"] == "unknown_request_type"
    assert post({"request_type": "OfTomorrow", "command_uuid": "C2", "K": 1}, allow_unknown="1").status == 201
    assert post({"request_type": "ProfileList"}, priority="10").document["field"] == "priority"
    assert [device.idle(), device.acknowledge("C1")] == ["C1", "C2"]

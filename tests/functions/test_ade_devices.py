"""Apple's lists of devices at the functions: read when the schedule comes or somebody asks, listed, and given rules."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from functions.admin import app as admin
from functions.dep_sync.app import lambda_handler
from local.ade.client import AdeControl, AdeSimulator
from local.aws_proxy import AwsProxy
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.ade_function import invoked
from tests.api_description import DescribedGateway
from tests.counted_site import GET, QUERY, UPDATE
from tests.queues import FunctionContext

SERVER = "school"


@pytest.fixture
def portal(ade: AdeSimulator, aws: Emulator, environment: Settings) -> Iterator[AdeControl]:
    """Have a server at Apple, whose token is here."""
    there = environment.stack_name
    certificate = runtime.ade_servers().stage(SERVER).public_bytes(Encoding.PEM).decode()
    runtime.ade_servers().import_file(SERVER, ade.control.make_server(there, certificate))
    ade.control.reset()
    with invoked(aws, environment):
        yield ade.control


@pytest.fixture
def api(portal: AdeControl) -> DescribedGateway:
    return DescribedGateway(admin.lambda_handler)


@pytest.fixture
def there(environment: Settings) -> str:
    return environment.stack_name


def run(event: dict[str, Any] | None = None, *, seconds: float = 300) -> None:
    context: Any = FunctionContext(seconds=seconds)
    lambda_handler(event or {"server": SERVER}, context)


def put_profile() -> str:
    return str(runtime.ade_profiles().put("staff", {"profile_name": "Staff"}).definitions[0].profile_uuid)


def test_the_schedule_has_every_server_read_by_a_run_of_its_own(portal: AdeControl, there: str) -> None:
    portal.buy(there, count=2)

    run({"source": "aws.events"})
    assert portal.requests() == []
    run()

    assert [each["path"] for each in portal.requests()] == ["/server/devices", "/devices/sync"]


def test_a_stack_without_servers_asks_nobody(environment: Settings) -> None:
    run({"source": "aws.events"})


def test_a_run_that_has_no_time_asks_for_another_one_and_apple_for_nothing(portal: AdeControl) -> None:
    run(seconds=50)
    assert portal.requests() == []


def test_a_sync_is_asked_for_and_told_of(api: DescribedGateway, portal: AdeControl, there: str) -> None:
    portal.buy(there, count=3)
    assert api.get(f"/v2/ade-servers/{SERVER}/sync").status == 404
    asked = api.post(f"/v2/ade-servers/{SERVER}/sync", {})
    assert (asked.status, asked.document["state"]) == (202, "running")
    run()
    told = api.get(f"/v2/ade-servers/{SERVER}/sync").document
    assert (told["state"], told["phase"], told["devices"], told["problem"]) == ("synced", "sync", 3, None)
    portal.sign_terms(there, signed=False)
    run()
    told = api.get(f"/v2/ade-servers/{SERVER}/sync").document
    assert (told["state"], told["problem"]["code"]) == ("failed", "T_C_NOT_SIGNED")
    assert api.post("/v2/ade-servers/nobody/sync", {}).status == 404


def test_devices_are_listed_page_by_page_and_by_what_they_are(
    api: DescribedGateway, portal: AdeControl, there: str
) -> None:
    portal.buy(there, count=4)
    macs = portal.buy(there, count=3, device_family="Mac")
    run()
    portal.remove(there, macs[:1])
    run()

    found, cursor = [], ""
    while True:
        page = api.get("/v2/ade-devices", limit="3", **({"cursor": cursor} if cursor else {})).document
        found += [device["serial_number"] for device in page["ade_devices"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(found) == len(set(found)) == 7
    listed = api.get("/v2/ade-devices", device_family="Mac,iPad", state="present").document["ade_devices"]
    assert {device["serial_number"] for device in listed} == set(macs[1:])
    assert api.get("/v2/ade-devices", server="nobody").document["ade_devices"] == []
    assert api.get("/v2/ade-devices", assignment="perhaps").status == 400


def test_one_device_is_told_of_with_its_enrollments_and_where_it_was_before(
    api: DescribedGateway, portal: AdeControl, there: str
) -> None:
    (serial,) = portal.buy(there, mdm_migration_deadline="2027-01-31T12:00:00Z")
    run()
    tables.Enrollment(
        "UDID-1", "!", type="Device", state="enrolled", generation="ffffffff", serial_number=serial
    ).save()

    told = api.get(f"/v2/ade-devices/{serial.lower()}").document

    assert (told["server"], told["mdm_migration_deadline"]) == (SERVER, "2027-01-31T12:00:00Z")
    assert told["record"]["serial_number"] == serial
    assert [each["id"] for each in told["enrollments"]] == ["UDID-1"]
    unknown = api.get("/v2/ade-devices/NOBODY1")
    assert (unknown.status, unknown.document["code"]) == (404, "unknown_ade_device")
    assert api.get("/v2/ade-devices/x#y").status == 404


def test_rules_are_made_changed_and_deleted(api: DescribedGateway, portal: AdeControl, there: str) -> None:
    uuid = put_profile()
    (serial,) = portal.buy(there)
    run()

    made = api.request("PUT", "/v2/ade-assignment-rules/all", '{"profile": "staff"}')
    assert (made.status, made.document["profile"]) == (200, "staff")
    run()
    assert portal.device(serial)["profile_uuid"] == uuid
    assert [rule["name"] for rule in api.get("/v2/ade-assignment-rules").document["ade_assignment_rules"]] == ["all"]
    assert api.get("/v2/ade-assignment-rules/all").document == made.document
    assert api.delete("/v2/ade-assignment-rules/all").status == 204
    assert api.get("/v2/ade-assignment-rules/all").status == 404
    run()
    assert api.get(f"/v2/ade-devices/{serial}").document["assignment"] == "none"


def test_a_profile_that_says_something_else_is_given_to_its_devices_anew(
    api: DescribedGateway, portal: AdeControl, there: str
) -> None:
    put_profile()
    (serial,) = portal.buy(there)
    api.request("PUT", "/v2/ade-assignment-rules/all", '{"profile": "staff"}')
    run()
    runtime.ade_profiles().put("staff", {"profile_name": "Staff", "department": "IT"})
    run()
    assert portal.device(serial)["profile"]["department"] == "IT"


def test_a_rule_that_makes_no_sense_is_refused(api: DescribedGateway) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"profile": "nobody"}, "profile"),
        ({"server": "nobody"}, "server"),
        ({"profile_uuid": "A"}, "server"),
        ({"profile_uuid": "#", "server": SERVER}, "profile_uuid"),
        ({"serial_numbers": []}, "serial_numbers"),
        ({"serial_numbers": ["?"]}, "serial_numbers"),
        ({"device_families": ["Toaster"]}, "device_families"),
        ({"models": ["A"], "device_families": ["Mac"]}, "device_families"),
    ]
    for rule, field in refused:
        answer = api.request("PUT", "/v2/ade-assignment-rules/one", json.dumps(rule))
        assert (answer.status, answer.document["field"]) == (400, field)
    assert api.request("PUT", f"/v2/ade-assignment-rules/{'a' * 101}", "{}").status == 400


def test_a_look_at_a_list_that_has_nothing_new_costs_seven_calls(
    proxy: AwsProxy, portal: AdeControl, there: str
) -> None:
    portal.buy(there, count=3)
    run()
    run()
    proxy.reset()

    run()

    # The server; the lease, how far it is, and the lease given back; the rules, and twice what is due.
    assert dict(proxy.counts) == {GET: 1, UPDATE: 3, QUERY: 3}

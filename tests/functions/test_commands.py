"""The commands function: MicroMDM's and NanoMDM's requests, and what they do to the queue."""

import json
import plistlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from functions.commands import app as function
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.services import enrollments
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet, FleetDevice
from tests.gateway import Answer, Gateway

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"
PROFILE = b"""<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict/></plist>"""


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC)))


@pytest.fixture
def device(fleet: Fleet) -> FleetDevice:
    return fleet.device(UDID)


@pytest.fixture
def push_certificate(fleet: Fleet, device: FleetDevice) -> None:
    """The topic has a certificate; nothing here looks into it."""
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()


def install_profile(**fields: Any) -> dict[str, Any]:
    return {
        "udid": UDID,
        "request_type": "InstallProfile",
        "payload": b64encode(PROFILE).decode(),
        "command_uuid": "the-profile",
        **fields,
    }


def test_a_json_command_is_answered_in_micromdms_exact_form(gateway: Gateway, device: FleetDevice) -> None:
    answer = gateway.post("/v1/commands", install_profile())

    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    payload = b64encode(PROFILE).decode()
    assert answer.body.decode() == (
        "{\n"
        '  "payload": {\n'
        '    "command_uuid": "the-profile",\n'
        '    "command": {\n'
        '      "request_type": "InstallProfile",\n'
        f'      "payload": "{payload}"\n'
        "    }\n"
        "  }\n"
        "}\n"
    )


def test_what_was_queued_is_what_the_device_is_given(gateway: Gateway, device: FleetDevice) -> None:
    gateway.post("/v1/commands", install_profile())

    assert device.idle() == "the-profile"
    assert device.acknowledge("the-profile") is None


def test_a_command_without_a_uuid_is_given_one(gateway: Gateway, device: FleetDevice) -> None:
    answer = gateway.post("/v1/commands", {"udid": UDID, "request_type": "ProfileList"})

    assert answer.status == 201
    assert device.idle() == answer.document["payload"]["command_uuid"]


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
def test_the_content_type_of_a_command_does_not_matter(
    gateway: Gateway, device: FleetDevice, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = gateway.request("POST", "/v1/commands", json.dumps(install_profile()), headers=headers)

    assert answer.status == 201


def test_a_command_for_a_user_channel_reaches_only_that(gateway: Gateway, device: FleetDevice) -> None:
    user = device.user()
    user.token_update(UserShortName="ada")

    assert gateway.post("/v1/commands", install_profile(udid=str(user))).status == 201
    assert device.idle() is None
    assert user.idle() == "the-profile"


def test_go_escapes_what_html_would_read_in_an_echo(gateway: Gateway, device: FleetDevice) -> None:
    answer = gateway.post(
        "/v1/commands", {"udid": UDID, "request_type": "DeviceLock", "message": "Tom & Jerry <3 ü", "pin": "123456"}
    )

    assert b'"message": "Tom \\u0026 Jerry \\u003c3 \xc3\xbc"' in answer.body


def test_a_repeated_request_is_accepted_and_queues_nothing_more(gateway: Gateway, device: FleetDevice) -> None:
    assert gateway.post("/v1/commands", install_profile()).status == 201
    assert gateway.post("/v1/commands", install_profile()).status == 201

    assert device.idle() == "the-profile"
    assert device.acknowledge("the-profile") is None


REFUSALS: list[tuple[str, bytes, int, str, str | None]] = [
    ("an empty body", b"", 400, "malformed_body", None),
    ("blanks", b" \n", 400, "malformed_body", None),
    ("no JSON", b'{"udid": ', 400, "malformed_body", None),
    ("a JSON list", b"[]", 400, "malformed_body", None),
    ("JSON with NaN", b'{"udid": NaN}', 400, "malformed_body", None),
    ("JSON that is no UTF-8", b'{"udid": "\xff"}', 400, "malformed_body", None),
    ("half of a surrogate pair", b'{"udid": "\\ud800"}', 400, "malformed_body", None),
    ("JSON that nests 100,000 deep", b"[" * 100_000, 400, "malformed_body", None),
    ("a number of 5,000 digits", b'{"udid": ' + b"1" * 5_000 + b"}", 400, "malformed_body", None),
    ("no udid", b'{"request_type": "ProfileList"}', 400, "missing_field", "udid"),
    (
        "an unknown request type",
        b'{"udid": "x", "request_type": "MakeTea"}',
        400,
        "unknown_request_type",
        "request_type",
    ),
    (
        "a field of the wrong type",
        b'{"udid": "x", "request_type": "InstallProfile", "payload": 7}',
        400,
        "invalid_field",
        "payload",
    ),
    ("an unknown enrollment", b'{"udid": "nobody", "request_type": "ProfileList"}', 404, "unknown_enrollment", "udid"),
    (
        "an enrollment that names another partition",
        b'{"udid": "command#the-profile", "request_type": "ProfileList"}',
        400,
        "invalid_field",
        "udid",
    ),
    (
        "an enrollment longer than any key",
        b'{"udid": "' + b"x" * 3_000 + b'", "request_type": "ProfileList"}',
        400,
        "invalid_field",
        "udid",
    ),
]


@pytest.mark.parametrize(("body", "status", "code", "field"), [pytest.param(*row[1:], id=row[0]) for row in REFUSALS])
def test_what_is_wrong_with_a_command_is_told(
    gateway: Gateway, device: FleetDevice, body: bytes, status: int, code: str, field: str | None
) -> None:
    answer = gateway.request("POST", "/v1/commands", body)

    assert (answer.status, answer.document["code"], answer.document.get("field")) == (status, code, field)
    assert answer.document["error"]
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert device.idle() is None


def test_a_body_above_what_the_edge_takes_is_413(gateway: Gateway) -> None:
    answer = gateway.request("POST", "/v1/commands", b"{" + b" " * 4_700_000 + b"}")

    assert (answer.status, answer.document["code"]) == (413, "body_too_large")


def test_a_checked_out_enrollment_takes_no_commands(gateway: Gateway, device: FleetDevice) -> None:
    device.check_out()
    answer = gateway.post("/v1/commands", install_profile())

    assert (answer.status, answer.document["code"], answer.document["field"]) == (409, "enrollment_ended", "udid")


def test_a_uuid_with_another_body_is_refused(gateway: Gateway, device: FleetDevice) -> None:
    gateway.post("/v1/commands", install_profile())
    answer = gateway.post("/v1/commands", install_profile(payload=b64encode(b"<other/>").decode()))

    assert (answer.status, answer.document["code"]) == (409, "duplicate_command_uuid")
    assert answer.document["field"] == "command_uuid"


def test_a_neighbours_fault_is_503_and_names_nothing(
    gateway: Gateway, device: FleetDevice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "enqueue_service", _raise(EndpointConnectionError(endpoint_url="secret-url")))
    answer = gateway.post("/v1/commands", install_profile())

    assert (answer.status, answer.document["code"], answer.headers["retry-after"]) == (503, "unavailable", "5")
    assert "secret-url" not in answer.body.decode() + capsys.readouterr().out


def test_an_unforeseen_failure_is_500_and_tells_where_to_look(
    device: FleetDevice, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runtime, "enqueue_service", _raise(RuntimeError("hunter2")))
    # No description promises that.
    answer = Gateway(function.lambda_handler).post("/v1/commands", install_profile())

    assert (answer.status, answer.document["code"]) == (500, "internal_error")
    assert "request id" in answer.document["error"]
    assert "hunter2" not in answer.body.decode() + capsys.readouterr().out


def test_no_payload_reaches_the_log(gateway: Gateway, device: FleetDevice, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.post("/v1/commands", {"udid": UDID, "request_type": "DeviceLock", "pin": "839201"})
    gateway.post("/v1/commands", {"udid": UDID, "request_type": "DeviceLock", "pin": 839201})
    gateway.request("POST", "/v1/commands", b'{"pin": "839201"')

    assert "839201" not in capsys.readouterr().out


# Pushes


@pytest.mark.usefixtures("push_certificate")
def test_micromdms_push_answers_with_the_notifications_id(gateway: Gateway) -> None:
    answer = gateway.request("POST", f"/v1/push/{UDID}", query={"expiration": "1900000000"})

    assert answer.status == 200
    assert list(answer.document) == ["status", "push_notification_id"]
    assert answer.document["status"] == "success"


def test_micromdms_push_says_why_it_cannot(gateway: Gateway, device: FleetDevice) -> None:
    unknown = gateway.request("POST", "/v1/push/nobody")
    uncertified = gateway.request("POST", f"/v1/push/{UDID}")
    misdated = gateway.request("POST", f"/v1/push/{UDID}", query={"expiration": "tomorrow"})

    assert (unknown.status, unknown.document["code"]) == (404, "unknown_enrollment")
    assert (uncertified.status, uncertified.document["code"]) == (409, "push_not_sent")
    assert TOPIC in uncertified.document["error"]
    assert (misdated.status, misdated.document["code"], misdated.document["field"]) == (
        400,
        "invalid_field",
        "expiration",
    )


def test_a_push_to_what_is_too_long_for_an_id_wakes_nobody(gateway: Gateway) -> None:
    micro = gateway.request("POST", f"/v1/push/{'x' * 3_000}")
    nano = gateway.get(f"/v1/push/{'x' * 3_000}")

    assert micro.status == 404
    assert (nano.status, list(nano.document["status"])) == (500, ["x" * 3_000])


@pytest.mark.usefixtures("push_certificate")
def test_nanomdms_push_has_its_status_and_a_line_for_each_enrollment(gateway: Gateway) -> None:
    all_woken = gateway.get(f"/v1/push/{UDID}")
    some_woken = gateway.get(f"/v1/push/{UDID},nobody")
    none_woken = gateway.get("/v1/push/nobody")

    assert [answer.status for answer in (all_woken, some_woken, none_woken)] == [200, 207, 500]
    assert all_woken.headers["content-type"] == "application/json"
    apns_id = all_woken.document["status"][UDID]["push_result"]
    assert all_woken.body.decode() == (
        f'{{\n\t"status": {{\n\t\t"{UDID}": {{\n\t\t\t"push_result": "{apns_id}"\n\t\t}}\n\t}}\n}}\n'
    )
    assert list(some_woken.document["status"]["nobody"]) == ["push_error"]


@pytest.mark.usefixtures("push_certificate")
def test_the_dialect_header_decides_where_two_share_a_path(gateway: Gateway) -> None:
    nano = gateway.request("POST", f"/v1/push/{UDID}", headers={"X-PicoMDM-Dialect": "nanomdm"})
    micro = gateway.request("GET", f"/v1/push/{UDID}", headers={"X-PicoMDM-Dialect": "MicroMDM"})

    assert list(nano.document) == ["status"]
    assert list(micro.document) == ["status", "push_notification_id"]


# Queues and results


def test_the_queue_is_listed_in_the_order_in_which_it_goes_out(
    gateway: Gateway, fleet: Fleet, device: FleetDevice
) -> None:
    fleet.enqueue([device], "first")
    fleet.enqueue([device], "second")
    fleet.enqueue([device], "urgent", priority=9)
    device.idle()
    device.not_now("urgent")

    listed = gateway.get(f"/v2/enrollments/{UDID}/commands").document

    assert [entry["command_uuid"] for entry in listed["commands"]] == ["urgent", "first", "second"]
    assert [entry["state"] for entry in listed["commands"]] == ["not_now", "pending", "pending"]
    assert listed["commands"][0]["not_now_tally"] == 1
    assert {entry["payload"] for entry in listed["commands"]} == {None}
    assert listed["next_cursor"] is None


def test_a_list_is_read_page_by_page(gateway: Gateway, fleet: Fleet, device: FleetDevice) -> None:
    for number in range(5):
        fleet.enqueue([device], f"command-{number}")

    pages = list(_pages(gateway, f"/v2/enrollments/{UDID}/commands", "commands", limit="2"))

    assert [[entry["command_uuid"] for entry in page] for page in pages] == [
        ["command-0", "command-1"],
        ["command-2", "command-3"],
        ["command-4"],
    ]


def test_payloads_of_the_queue_come_when_they_are_asked_for(gateway: Gateway, device: FleetDevice) -> None:
    gateway.post("/v1/commands", install_profile())
    large = install_profile(command_uuid="large", payload=b64encode(PROFILE + b" " * 10_000).decode())
    gateway.post("/v1/commands", large)

    small, large = gateway.get(f"/v2/enrollments/{UDID}/commands", payloads="true").document["commands"]

    assert plistlib.loads(b64decode(small["payload"]))["Command"]["Payload"] == PROFILE
    assert plistlib.loads(b64decode(large["payload"]))["Command"]["Payload"] == PROFILE + b" " * 10_000


def test_commands_of_an_earlier_enrollment_are_gone_from_the_list(
    gateway: Gateway, fleet: Fleet, device: FleetDevice
) -> None:
    user = device.user()
    user.token_update(UserShortName="ada")
    fleet.enqueue([device, user], "old")
    assert _commands(gateway, str(user)) == ["old"]
    fleet.clock.advance(minutes=1)
    device.authenticate()

    assert _commands(gateway, str(device)) == []
    assert _commands(gateway, str(user)) == []


def test_results_come_with_their_reports(gateway: Gateway, fleet: Fleet, device: FleetDevice) -> None:
    fleet.enqueue([device], "small")
    fleet.enqueue([device], "large")
    fleet.enqueue([device], "failed")
    device.acknowledge("small", ProfileList=[])
    device.acknowledge("large", Padding=b"x" * 100_000)
    device.report("Error", "failed", ErrorChain=[{"ErrorCode": 12021, "ErrorDomain": "MCMDMErrorDomain"}])

    results = {entry["command_uuid"]: entry for entry in gateway.get(_results()).document["results"]}

    assert list(results) == ["failed", "large", "small"]
    assert results["failed"]["status"] == "Error"
    assert results["failed"]["error_chain"][0]["ErrorCode"] == 12021
    assert results["small"]["request_type"] == "ProfileList"
    assert plistlib.loads(b64decode(results["small"]["payload"]))["Status"] == "Acknowledged"
    assert plistlib.loads(b64decode(results["large"]["payload"]))["Padding"] == b"x" * 100_000


def test_results_come_without_their_reports_when_these_are_not_wanted(
    gateway: Gateway, fleet: Fleet, device: FleetDevice
) -> None:
    fleet.enqueue([device], "small")
    device.acknowledge("small")

    assert gateway.get(_results(), payloads="false").document["results"][0]["payload"] is None
    assert gateway.get(_results(), command_uuid="small").document["results"][0]["command_uuid"] == "small"
    assert gateway.get(_results(), command_uuid="other").document["results"] == []


def test_a_page_of_results_ends_before_it_is_too_long_for_an_answer(
    gateway: Gateway, fleet: Fleet, device: FleetDevice
) -> None:
    for number in range(3):
        fleet.enqueue([device], f"command-{number}")
        # What does not compress, and is as long as a device's message may be.
        device.acknowledge(f"command-{number}", Noise=(b"%d" % number) * 2_000_000)

    pages = list(_pages(gateway, _results(), "results"))

    assert [len(page) for page in pages] == [1, 1, 1]


def test_long_errors_end_a_page_too(
    gateway: Gateway, fleet: Fleet, device: FleetDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrollments, "_PAGE_BYTES", 256 * 1024)
    error = dict.fromkeys(("ErrorDomain", "LocalizedDescription", "USEnglishDescription"), "x" * 5000)
    for number in range(15):
        fleet.enqueue([device], f"command-{number}", push=False)
        device.report("Error", f"command-{number}", ErrorChain=[error] * 20)

    first, *others = _pages(gateway, _results(), "results", payloads="false")

    assert len(first) < 15
    assert len(first) + sum(map(len, others)) == 15


def test_a_report_that_outlived_its_time_in_the_bucket_is_null(
    gateway: Gateway, fleet: Fleet, device: FleetDevice
) -> None:
    fleet.enqueue([device], "large")
    device.acknowledge("large", Padding=b"x" * 100_000)
    for stored in fleet.emulator.s3.list_objects_v2(Bucket=fleet.settings.payload_bucket)["Contents"]:
        fleet.emulator.s3.delete_object(Bucket=fleet.settings.payload_bucket, Key=stored["Key"])

    assert gateway.get(_results()).document["results"][0]["payload"] is None


@pytest.mark.parametrize("what", ["commands", "results"])
def test_an_unknown_enrollment_is_a_problem_with_a_code(gateway: Gateway, what: str) -> None:
    answer = gateway.get(f"/v2/enrollments/nobody/{what}")

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.document["code"] == "unknown_enrollment"
    assert answer.document["title"] == "Not Found"


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"limit": "0"}, "invalid_field", "limit"),
        ({"limit": "101"}, "invalid_field", "limit"),
        ({"limit": "many"}, "invalid_field", "limit"),
        ({"limit": "9" * 5_000}, "invalid_field", "limit"),
        ({"cursor": "#"}, "invalid_cursor", "cursor"),
        ({"payloads": "maybe"}, "invalid_field", "payloads"),
        ({"sort": "name"}, "unknown_field", "sort"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    gateway: Gateway, device: FleetDevice, query: dict[str, str], code: str, field: str
) -> None:
    answer = gateway.get(f"/v2/enrollments/{UDID}/commands", **query)

    assert (answer.status, answer.document["code"], answer.document["field"]) == (400, code, field)


def test_a_path_that_is_none_is_told_in_the_form_of_its_api(gateway: Gateway) -> None:
    assert gateway.get("/v2/nothing").headers["content-type"] == "application/problem+json"
    assert gateway.get("/v1/nothing").document["code"] == "unknown_route"


def _results() -> str:
    return f"/v2/enrollments/{UDID}/results"


def _commands(gateway: Gateway, enrollment_id: str) -> list[str]:
    listed = gateway.get(f"/v2/enrollments/{enrollment_id}/commands").document["commands"]
    return [entry["command_uuid"] for entry in listed]


def _pages(gateway: Gateway, path: str, name: str, **query: str) -> Any:
    while True:
        document = gateway.get(path, **query).document
        yield document[name]
        if document["next_cursor"] is None:
            return
        query["cursor"] = document["next_cursor"]


def _raise(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_queue_is_cleared(gateway: Gateway, device: FleetDevice) -> None:
    for uuid in ("C1", "C2"):
        gateway.post("/v1/commands", install_profile(command_uuid=uuid))

    for _ in range(2):
        assert gateway.delete(f"/v2/enrollments/{UDID}/commands").status == 204
    assert device.idle() is None
    assert gateway.get(f"/v2/enrollments/{UDID}/commands").document["commands"] == []


def test_one_command_is_taken_back(gateway: Gateway, device: FleetDevice) -> None:
    for uuid in ("C1", "C2", "C3"):
        gateway.post("/v1/commands", install_profile(command_uuid=uuid))
    device.acknowledge("C1")

    answers = {uuid: gateway.delete(f"/v2/enrollments/{UDID}/commands/{uuid}") for uuid in ("C1", "C2", "C4")}
    assert {uuid: answer.status for uuid, answer in answers.items()} == {"C1": 409, "C2": 204, "C4": 404}
    assert [answers[uuid].document["code"] for uuid in ("C1", "C4")] == ["command_finished", "unknown_command"]
    assert device.idle() == "C3"


def test_the_queue_of_an_unknown_enrollment_is_not_cleared(gateway: Gateway) -> None:
    for path in ("/v2/enrollments/NOBODY/commands", "/v2/enrollments/NOBODY/commands/C1"):
        answer = gateway.delete(path)
        assert (answer.status, answer.document["code"]) == (404, "unknown_enrollment")


# Messages of another server


def migrate(gateway: Gateway, message: dict[str, Any], **query: str) -> Answer:
    body = plistlib.dumps({"UDID": "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD", "Topic": TOPIC, **message})
    headers = {"Content-Type": "application/x-apple-aspen-mdm-checkin"}
    return gateway.request("PUT", "/migration", body, headers=headers, query=query)


def test_a_message_of_another_server_is_taken_in_and_answered_with_nothing(gateway: Gateway) -> None:
    token_update = {"MessageType": "TokenUpdate", "PushMagic": "x", "Token": b"x"}
    assert migrate(gateway, token_update).status == 409
    answers = [migrate(gateway, {"MessageType": "Authenticate"}), migrate(gateway, token_update)]

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"")] * 2
    assert migrate(gateway, token_update, overwrite="1").status == 200


@pytest.mark.parametrize(
    ("message", "query", "code"),
    [
        ({"MessageType": "CheckOut"}, {}, "message_not_migrated"),
        ({"MessageType": "Authenticate", "UDID": ""}, {}, "bad_request"),
        ({"MessageType": "Authenticate"}, {"force": "1"}, "unknown_field"),
        ({"MessageType": "Authenticate"}, {"overwrite": "perhaps"}, "invalid_field"),
    ],
)
def test_what_is_no_message_of_an_enrollment_is_refused(
    gateway: Gateway, message: dict[str, Any], query: dict[str, str], code: str
) -> None:
    answer = migrate(gateway, message, **query)

    assert (answer.status, answer.document["code"]) == (400, code)
    assert gateway.request("PUT", "/migration", b"no plist").status == 400

"""NanoMDM's API, as the clients of its family call it: ``cmdr.py`` with curl, NanoCMD, KMFDDM, mdmdirector, nano2nano.

What is sent and what is answered are written down as bytes, from what those programs and their server do.
"""

import json
import plistlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from functions.commands import app as function
from local.apns.portal import Authority
from local.emulator import Emulator
from local.escrow_key_unlock import EscrowKeyUnlockService
from mdmlib import runtime
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests.api_description import DescribedGateway
from tests.deployment import Clock, environment_of
from tests.fleet import TOPIC, Fleet, FleetDevice
from tests.gateway import Answer, Gateway

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"
OTHER = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
SEEN = datetime(2026, 11, 20, 12, tzinfo=UTC)
COMMAND = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0"><dict><key>Command</key><dict>'
    b"<key>RequestType</key><string>ProfileList</string></dict>"
    b"<key>CommandUUID</key><string>0001_ProfileList</string></dict></plist>\n"
)
FORM = {
    "topic": TOPIC,
    "serial": "C02XXXX",
    "productType": "iPhone17,3",
    "escrowKey": "escrow key",
    "orgName": "Example",
    "guid": "guid",
}


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(SEEN))


@pytest.fixture
def device(fleet: Fleet) -> FleetDevice:
    return fleet.device(UDID)


@pytest.fixture
def push_certificate(environment: Settings) -> None:
    """The topic has a certificate; nothing here looks into it."""
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()


def put(gateway: Gateway, path: str, body: bytes = COMMAND, **query: str) -> Answer:
    """Upload as ``curl -T -`` does: with no content type."""
    answer = gateway.request("PUT", path, body, query=query)
    assert answer.headers["content-type"] == "application/json"
    return answer


# Commands


def test_a_command_is_queued_and_its_device_woken(
    gateway: Gateway, device: FleetDevice, push_certificate: None
) -> None:
    answer = put(gateway, f"/v1/enqueue/{UDID}")
    apns_id = answer.document["status"][UDID]["push_result"]

    assert answer.status == 200
    assert answer.body.decode() == (
        "{\n"
        '\t"status": {\n'
        f'\t\t"{UDID}": {{\n'
        f'\t\t\t"push_result": "{apns_id}"\n'
        "\t\t}\n"
        "\t},\n"
        '\t"command_uuid": "0001_ProfileList",\n'
        '\t"request_type": "ProfileList"\n'
        "}\n"
    )
    assert device.command("Idle") == plistlib.loads(COMMAND)


@pytest.mark.parametrize("value", ["1", "0", "false"])
def test_nopush_wakes_nobody_whatever_its_value(gateway: Gateway, device: FleetDevice, value: str) -> None:
    answer = put(gateway, f"/v1/enqueue/{UDID}", nopush=value)

    assert answer.status == 200
    assert answer.body == (
        b'{\n\t"no_push": true,\n\t"command_uuid": "0001_ProfileList",\n\t"request_type": "ProfileList"\n}\n'
    )
    assert device.idle() == "0001_ProfileList"


def test_a_binary_command_for_many(gateway: Gateway, fleet: Fleet) -> None:
    devices = [fleet.device(f"DEVICE-{number:03}") for number in range(3)]
    nobody = [f"NOBODY-{number:03}" for number in range(247)]
    binary = plistlib.dumps(plistlib.loads(COMMAND), fmt=plistlib.FMT_BINARY)
    answer = put(gateway, f"/v1/enqueue/{','.join([*map(str, devices), *nobody])}", binary, nopush="1")

    assert answer.status == 207
    assert sorted(answer.document["status"]) == nobody
    assert answer.document["status"]["NOBODY-000"]["command_error"].startswith("There is no enrollment NOBODY-000")
    assert [each.idle() for each in devices] == ["0001_ProfileList"] * 3


def test_one_that_cannot_be_woken_is_told_beside_its_id(
    gateway: Gateway, fleet: Fleet, device: FleetDevice, push_certificate: None
) -> None:
    fleet.device(OTHER, enrolled=False).authenticate()
    answer = put(gateway, f"/v1/enqueue/{UDID},{OTHER}")

    assert answer.status == 207
    assert list(answer.document["status"]) == [UDID, OTHER]
    assert answer.document["status"][OTHER] == {"push_error": "push data missing for id"}


def test_an_empty_body_wakes(gateway: Gateway, device: FleetDevice, push_certificate: None) -> None:
    answer = put(gateway, f"/v1/enqueue/{UDID}", b"")

    assert (answer.status, list(answer.document)) == (200, ["status"])
    neither = put(gateway, f"/v1/enqueue/{UDID}", b"", nopush="1")
    assert neither.status == 500
    assert neither.body == b'{\n\t"no_push": true,\n\t"command_error": "must enqueue or push"\n}\n'


@pytest.mark.parametrize(
    "body",
    [b"no plist", b"{}", COMMAND[:-20], COMMAND.replace(b"CommandUUID", b"UUID"), b"bplist00" + bytes(40)],
)
def test_what_is_no_command_is_500_as_nanomdm_says(gateway: Gateway, device: FleetDevice, body: bytes) -> None:
    answer = put(gateway, f"/v1/enqueue/{UDID}", body)

    assert (answer.status, list(answer.document)) == (500, ["command_error"])
    assert answer.document["command_error"].startswith("decoding command: ")
    assert device.idle() is None


def test_a_uuid_is_good_for_one_command(gateway: Gateway, device: FleetDevice) -> None:
    assert put(gateway, f"/v1/enqueue/{UDID}", nopush="1").status == 200
    assert put(gateway, f"/v1/enqueue/{UDID}", nopush="1").status == 200
    answer = put(gateway, f"/v1/enqueue/{UDID}", COMMAND.replace(b">ProfileList<", b">SecurityInfo<"))

    assert (answer.status, list(answer.document)) == (500, ["command_error", "command_uuid", "request_type"])
    assert device.acknowledge("0001_ProfileList") is None


def test_ids_are_taken_once_and_empty_ones_not_at_all(gateway: Gateway, device: FleetDevice) -> None:
    assert put(gateway, f"/v1/enqueue/{UDID},,{UDID}", nopush="1").status == 200
    assert device.idle() == "0001_ProfileList"
    assert device.acknowledge("0001_ProfileList") is None
    for path in ("/v1/enqueue/,", "/v1/push/,"):
        assert (put(gateway, path).status, put(gateway, path).document["code"]) == (400, "missing_field")


# Enrollments


def test_enrollments_are_told_in_the_drafts_form(gateway: Gateway, device: FleetDevice) -> None:
    answer = gateway.request("POST", "/v1/enrollments/query", b"{}")

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body.decode() == (
        "{\n"
        '\t"enrollments": [\n'
        "\t\t{\n"
        f'\t\t\t"id": "{UDID}",\n'
        '\t\t\t"type": "Device",\n'
        '\t\t\t"device": {\n'
        '\t\t\t\t"serial_number": "C02XXXX"\n'
        "\t\t\t},\n"
        '\t\t\t"enabled": true,\n'
        '\t\t\t"token_update_tally": 1,\n'
        '\t\t\t"last_seen": "2026-11-20T12:00:00Z"\n'
        "\t\t}\n"
        "\t]\n"
        "}\n"
    )


def test_all_filters_have_to_fit(gateway: Gateway, fleet: Fleet, device: FleetDevice) -> None:
    user = device.user("FF00")
    user.token_update(UserShortName="ada", UserLongName="Ada Lovelace")
    gone = fleet.device(OTHER)
    gone.authenticate(SerialNumber="C02OTHER")
    gone.token_update()
    gone.check_out()

    assert found(gateway) == [UDID, str(user), OTHER]
    assert found(gateway, types=["Device"]) == [UDID, OTHER]
    assert found(gateway, types=["Device"], enabled=True) == [UDID]
    assert found(gateway, enabled=False) == [OTHER]
    assert found(gateway, serials=["C02XXXX"]) == [UDID, str(user)]
    assert found(gateway, serials=["C02XXXX"], types=["Device"]) == [UDID]
    assert found(gateway, ids=[OTHER, "nobody", "command#1"]) == [OTHER]
    assert found(gateway, ids=[OTHER], serials=["C02XXXX"]) == []
    assert found(gateway, user_short_names=["ada"]) == [str(user)]
    assert found(gateway, serials=["x" * 3_000][:0], ids=[]) == [UDID, str(user), OTHER]


def test_a_user_has_names_and_the_serial_number_of_its_device(gateway: Gateway, device: FleetDevice) -> None:
    user = device.user("FF00")
    user.token_update(UserShortName="ada", UserLongName="Ada Lovelace")
    body = json.dumps({"filter": {"types": ["User"]}}).encode()
    (shown,) = gateway.request("POST", "/v1/enrollments/query", body).document["enrollments"]

    assert shown["user"] == {"user_short_name": "ada", "user_long_name": "Ada Lovelace"}
    assert shown["device"] == {"serial_number": "C02XXXX"}


def test_an_unlock_token_is_told_only_to_who_asks_for_it(gateway: Gateway, device: FleetDevice) -> None:
    device.token_update(UnlockToken=b"unlock token")
    silent = gateway.request("POST", "/v1/enrollments/query", b'{"options":{"include_device_cert":true}}')
    told = gateway.request("POST", "/v1/enrollments/query", b'{"options":{"include_unlock_token":true}}')

    assert b64encode(b"unlock token") not in silent.body
    assert told.document["enrollments"][0]["device"]["unlock_token"] == b64encode(b"unlock token").decode()


def test_enrollments_come_page_by_page(gateway: Gateway, fleet: Fleet) -> None:
    udids = {f"DEVICE-{number}" for number in range(11)}
    for udid in udids:
        fleet.device(udid)
    by_cursor: list[list[str]] = []
    query = {"limit": "4"}
    while True:
        document = gateway.request("POST", "/v1/enrollments/query", b"{}", query=query).document
        by_cursor.append([each["id"] for each in document["enrollments"]])
        if "next_cursor" not in document:
            break
        query["cursor"] = document["next_cursor"]
    by_offset = [
        [
            each["id"]
            for each in gateway.request(
                "POST", "/v1/enrollments/query", b"{}", query={"limit": "4", "offset": offset}
            ).document["enrollments"]
        ]
        for offset in ("0", "4", "8", "11")
    ]

    assert [len(page) for page in by_cursor] == [4, 4, 3]
    assert {udid for page in by_cursor for udid in page} == udids
    assert by_offset == [*by_cursor, []]


# Queues


def test_a_queue_is_listed_and_cleared(gateway: Gateway, device: FleetDevice) -> None:
    assert gateway.get(f"/v1/queue/{UDID}").body == b'{\n\t"commands": []\n}\n'
    put(gateway, f"/v1/enqueue/{UDID}", nopush="1")
    put(gateway, f"/v1/enqueue/{UDID}", COMMAND.replace(b"0001", b"0002"), nopush="1")
    first = gateway.get(f"/v1/queue/{UDID}", limit="1")

    assert first.body.decode() == (
        "{\n"
        '\t"commands": [\n'
        "\t\t{\n"
        '\t\t\t"command_uuid": "0001_ProfileList",\n'
        '\t\t\t"request_type": "ProfileList",\n'
        f'\t\t\t"command": "{b64encode(COMMAND).decode()}"\n'
        "\t\t}\n"
        "\t],\n"
        f'\t"next_cursor": "{first.document["next_cursor"]}"\n'
        "}\n"
    )
    for more in ({"cursor": first.document["next_cursor"]}, {"offset": "1"}):
        (second,) = gateway.get(f"/v1/queue/{UDID}", **more).document["commands"]
        assert second["command_uuid"] == "0002_ProfileList"
        assert b64decode(second["command"]) == COMMAND.replace(b"0001", b"0002")
    assert gateway.get(f"/v1/queue/{UDID}", offset="2").document == {"commands": []}
    cleared = gateway.delete(f"/v1/queue/{UDID}")
    assert (cleared.status, cleared.body) == (204, b"")
    assert device.idle() is None


def test_what_cannot_be_cleared_is_told_by_its_id(gateway: Gateway, device: FleetDevice) -> None:
    some, all_ = gateway.delete(f"/v1/queue/{UDID},nobody"), gateway.delete("/v1/queue/nobody")

    assert (some.status, list(some.document["status"])) == (207, ["nobody"])
    assert (all_.status, list(all_.document["status"])) == (500, ["nobody"])
    assert gateway.get("/v1/queue/nobody").body == b'{\n\t"commands": []\n}\n'


# Activation Lock


@pytest.fixture
def apple(
    environment: Settings, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EscrowKeyUnlockService]:
    authority = Authority.new("Authority of push certificates")
    service = EscrowKeyUnlockService(
        tmp_path, push_authority=authority.certificate_pem, locked={"C02XXXX": "escrow key"}
    )
    settings = replace(environment, escrow_key_unlock_url=service.start(), apns_trust_anchor=service.trust_anchor)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    runtime.forget()
    assert gateway.request("PUT", "/v1/pushcert", authority.issue_push(TOPIC)).status == 200
    yield service
    service.stop()


def unlock(**fields: str) -> Answer:
    """Send a form as ``curl --data-urlencode`` does. What is described of the answer is Apple's matter."""
    body = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in (FORM | fields).items() if value)
    return Gateway(function.lambda_handler).request(
        "POST", "/v1/escrowkeyunlock", body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )


def test_apple_is_asked_as_the_owner_of_the_topic_and_its_answer_passed_on(apple: EscrowKeyUnlockService) -> None:
    unlocked = unlock(imei="35 1234")
    again = unlock()

    assert (unlocked.status, unlocked.document) == (200, {"code": "UNLOCKED"})
    assert unlocked.headers["content-type"] == "application/json; charset=utf-8"
    assert (again.status, again.document) == (404, {"code": "NOT_UNLOCKED"})
    assert apple.topics == [TOPIC, TOPIC]
    assert apple.violations == []
    assert apple.locked == {}


def test_what_is_missing_for_apple_is_told_in_nanomdms_words(gateway: Gateway, apple: EscrowKeyUnlockService) -> None:
    without_topic = unlock(topic="")

    assert (without_topic.status, without_topic.document["error"]) == (400, "empty topic")
    for name in ("serial", "productType", "escrowKey", "orgName", "guid"):
        answer = unlock(**{name: ""})
        assert (answer.status, answer.document["error"]) == (400, "invalid or missing parameters")
        assert answer.document["field"] == name
    other = unlock(topic=TOPIC.replace("1", "2"))
    assert (other.status, other.document["code"]) == (404, "push_certificate_not_found")
    assert gateway.request("POST", "/v1/escrowkeyunlock", b"\xff=").document["code"] == "malformed_body"
    assert apple.topics == []


def test_apple_may_be_away(apple: EscrowKeyUnlockService, caplog: pytest.LogCaptureFixture) -> None:
    apple.stop()
    answer = unlock()

    assert (answer.status, answer.document["code"]) == (503, "upstream_failed")
    said = answer.body.decode() + "".join(str(vars(record)) for record in caplog.records)
    assert "escrow key" not in said
    assert "C02XXXX" not in said


# What is wrong


WRONG: list[tuple[str, str, bytes, int, str, str]] = [
    ("POST", "/v1/enrollments/query", b"", 400, "malformed_body", ""),
    ("POST", "/v1/enrollments/query", b'{"filter":[]}', 400, "invalid_field", "filter"),
    ("POST", "/v1/enrollments/query", b'{"filter":{"ids":7}}', 400, "invalid_field", "ids"),
    ("POST", "/v1/enrollments/query", b'{"filter":{"enabled":"yes"}}', 400, "invalid_field", "enabled"),
    ("POST", "/v1/enrollments/query", b'{"filter":{"types":["Toaster"]}}', 400, "invalid_field", "types"),
    ("POST", "/v1/enrollments/query?limit=x", b"{}", 400, "invalid_field", "limit"),
    ("POST", "/v1/enrollments/query?limit=1001", b"{}", 400, "invalid_field", "limit"),
    ("POST", "/v1/enrollments/query?offset=-1", b"{}", 400, "invalid_field", "offset"),
    ("POST", "/v1/enrollments/query?cursor=!", b"{}", 400, "invalid_cursor", "cursor"),
    ("POST", "/v1/enrollments/query?cursor=enp6", b"{}", 400, "invalid_cursor", "cursor"),
    ("GET", f"/v1/queue/{UDID}?limit=x", b"", 400, "invalid_field", "limit"),
    ("PUT", "/v1/escrowkeyunlock", b"", 405, "method_not_allowed", ""),
    ("PATCH", f"/v1/queue/{UDID}", b"", 405, "method_not_allowed", ""),
]


def test_what_is_wrong_is_told_in_nanomdms_form(gateway: Gateway, device: FleetDevice) -> None:
    told = []
    for method, path, body, *_ in WRONG:
        plain, _, query = path.partition("?")
        parameters = dict(pair.split("=") for pair in query.split("&")) if query else {}
        answer = gateway.request(method, plain, body, query=parameters)
        assert answer.headers["content-type"] == "application/json"
        assert answer.document["error"]
        told.append((method, path, body, answer.status, answer.document["code"], answer.document.get("field", "")))

    assert told == WRONG


def test_cursor_and_offset_exclude_each_other(gateway: Gateway, device: FleetDevice) -> None:
    for method, path, body in (("POST", "/v1/enrollments/query", b"{}"), ("GET", f"/v1/queue/{UDID}", None)):
        answer = gateway.request(method, path, body, query={"cursor": "MA==", "offset": "1"})
        assert (answer.status, answer.document["error"]) == (400, "both cursor and offset set")


def found(gateway: Gateway, **filters: object) -> list[str]:
    answer = gateway.request("POST", "/v1/enrollments/query", json.dumps({"filter": filters}).encode())
    assert answer.status == 200, answer.body
    return sorted(each["id"] for each in answer.document["enrollments"])

"""The admin function: servers of Apple Business Manager, profiles and devices, against the simulated service."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from functions.admin import app as function
from local.ade.client import AdeSimulator
from local.apns.portal import Authority
from local.aws_proxy import AwsProxy, CutAfter
from local.emulator import Emulator
from local.escrow_key_unlock import EscrowKeyUnlockService
from mdmlib import runtime
from mdmlib.apple.activation_lock import BypassCode
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import ActivationLock
from tests.ade_portal import Portal
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.event_schemas import assert_conforms
from tests.fleet import TOPIC, Bus, Fleet, FleetDevice
from tests.gateway import Answer, Gateway

SERVERS = "/v2/ade-servers"
PROFILES = "/v2/ade-profiles"
LOCKS = "/v2/activation-locks"


@pytest.fixture
def gateway(ade: AdeSimulator) -> Gateway:
    return DescribedGateway(function.lambda_handler)


@pytest.fixture
def portal(ade: AdeSimulator) -> Portal:
    return Portal(ade.control)


@pytest.fixture
def server(gateway: Gateway, portal: Portal) -> Answer:
    """The server ``school``, with its token."""
    made = gateway.request("PUT", f"{SERVERS}/school")
    answer = gateway.request("PUT", f"{SERVERS}/school/token", portal.token(made.document["staged_certificate"]))
    assert answer.status == 200
    return answer


def put(gateway: Gateway, path: str, document: object, **query: str) -> Answer:
    return gateway.request("PUT", path, json.dumps(document), query=query)


def test_a_server_is_made_given_its_token_and_forgotten(gateway: Gateway, portal: Portal) -> None:
    made = gateway.request("PUT", f"{SERVERS}/school")
    assert (made.status, made.document["certificate"], made.document["token_expires_at"]) == (200, None, None)
    assert gateway.request("PUT", f"{SERVERS}/school").document == made.document
    assert gateway.request("POST", f"{SERVERS}/school/certificate").document == {
        "certificate": made.document["staged_certificate"]
    }

    imported = gateway.request("PUT", f"{SERVERS}/school/token", portal.token(made.document["staged_certificate"]))

    assert imported.document["certificate"] == made.document["staged_certificate"]
    assert imported.document["account"]["server_name"] == portal.name()
    assert (imported.document["problem"], imported.document["staged_certificate"]) == (None, None)
    assert gateway.get(SERVERS).document["ade_servers"] == [imported.document]
    assert gateway.get(f"{SERVERS}/school/account").document["account"]["org_phone"]
    assert [gateway.delete(f"{SERVERS}/school").status for _ in range(2)] == [204, 204]
    assert gateway.get(f"{SERVERS}/school").document["code"] == "ade_server_not_found"


def test_whatever_answer_of_dynamodb_is_lost_the_same_import_again_completes_it(
    proxy: AwsProxy, gateway: Gateway, portal: Portal
) -> None:
    failed = 0
    while True:
        path = f"{SERVERS}/server-{failed}"
        staged = gateway.request("PUT", path).document["staged_certificate"]
        file = portal.token(staged, server=str(failed))
        # Until the SDK gives up, each call from this one on.
        proxy.disturb("dynamodb.*", CutAfter(), times=3, skip=failed)
        answer = gateway.request("PUT", f"{path}/token", file)
        proxy.reset()
        if answer.status == 200:
            break
        assert answer.status == 503
        failed += 1

        again = gateway.request("PUT", f"{path}/token", file).document

        assert (again["certificate"], again["staged_certificate"], again["problem"]) == (staged, None, None)
        assert gateway.get(f"{path}/account").status == 200
    assert failed > 4


@pytest.mark.usefixtures("server")
def test_what_is_wrong_with_a_token_is_told(gateway: Gateway, portal: Portal) -> None:
    def imported(file: bytes, **query: str) -> tuple[int, str]:
        answer = gateway.request("PUT", f"{SERVERS}/school/token", file, query=query)
        return answer.status, answer.document.get("code", "")

    present = gateway.get(f"{SERVERS}/school").document["certificate"]
    other = gateway.request("PUT", f"{SERVERS}/other").document["staged_certificate"]
    assert imported(portal.token(other, server="other")) == (400, "token_for_another_key")
    assert imported(portal.token(present, days=-10_000)) == (400, "token_expired")
    assert imported(portal.token(present, days=100)) == (409, "token_older")
    another = portal.token(present, server="another")
    assert imported(another) == (409, "mismatched_consumer_key")
    assert imported(another, force="true") == (200, "")
    assert imported(b"") == (400, "malformed_body")


def test_without_a_token_apple_is_not_asked(gateway: Gateway) -> None:
    gateway.request("PUT", f"{SERVERS}/school")
    for answer in (
        gateway.get(f"{SERVERS}/school/account"),
        gateway.post(f"{SERVERS}/school/assignments", {"profile_uuid": "X", "serial_numbers": ["C02AAAAAAAA1"]}),
    ):
        assert (answer.status, answer.document["code"]) == (409, "ade_token_missing")
        assert "picomdm ade token import" in answer.document["detail"]


@pytest.mark.usefixtures("server")
def test_what_apple_wants_of_an_administrator_is_told(gateway: Gateway, portal: Portal) -> None:
    portal.control.sign_terms(portal.name(), signed=False)
    unsigned = gateway.get(f"{SERVERS}/school/account")
    assert (unsigned.status, unsigned.document["code"]) == (502, "apple_refused")
    assert unsigned.document["apple_code"] == "T_C_NOT_SIGNED"
    assert "Somebody has to accept Apple's new terms" in unsigned.document["detail"]
    assert gateway.get(f"{SERVERS}/school").document["problem"]["code"] == "apple_refused"

    portal.control.behave(answer_status=503, answer_times=1)
    portal.control.sign_terms(portal.name())
    away = gateway.get(f"{SERVERS}/school/account")
    assert (away.status, away.document["code"], away.headers["retry-after"]) == (503, "apple_unavailable", "5")
    assert gateway.get(f"{SERVERS}/school/account").status == 200
    assert gateway.get(f"{SERVERS}/school").document["problem"] is None


@pytest.mark.usefixtures("server")
def test_a_profile_is_told_to_apple_and_assigned_by_its_name(gateway: Gateway, portal: Portal) -> None:
    stored = put(gateway, f"{PROFILES}/pupils", {"skip_setup_items": ["Siri"], "allow_pairing": False})
    assert stored.status == 200
    assert stored.document["apple_profile"]["url"] == "https://mdm.example.org/mdm/enroll"
    assert stored.document["profile"] == {"skip_setup_items": ["Siri"], "allow_pairing": False}
    [definition] = stored.document["definitions"]
    bought = portal.buy(2)

    assigned = gateway.post(
        f"{SERVERS}/school/assignments",
        {"profile": "pupils", "serial_numbers": [bought[0].lower(), *bought, "UNKNOWN1"]},
    )

    assert assigned.document == {
        "profile_uuid": definition["profile_uuid"],
        "devices": {bought[0]: "SUCCESS", bought[1]: "SUCCESS", "UNKNOWN1": "NOT_ACCESSIBLE"},
        "retry_after_seconds": None,
        "problem": None,
    }
    assert portal.control.device(bought[0])["profile"]["allow_pairing"] is False
    cleared = gateway.post(f"{SERVERS}/school/unassignments", {"serial_numbers": bought[:1]})
    assert cleared.document["devices"] == {bought[0]: "SUCCESS"}
    assert portal.control.device(bought[0])["profile"] is None
    assert gateway.get(PROFILES).document["ade_profiles"] == [stored.document]
    assert [gateway.delete(f"{PROFILES}/pupils").status for _ in range(2)] == [204, 204]
    assert gateway.get(f"{PROFILES}/pupils").document["code"] == "ade_profile_not_found"


@pytest.mark.usefixtures("server")
def test_a_device_that_moved_to_another_server_is_told_as_such(gateway: Gateway, portal: Portal) -> None:
    put(gateway, f"{PROFILES}/pupils", {})
    other = gateway.request("PUT", f"{SERVERS}/other").document["staged_certificate"]
    portal.token(other, server="other")
    [moved] = portal.buy()
    portal.control.buy(portal.name("other"), [moved])
    for path, more in (
        ("assignments", {"profile": "pupils"}),
        ("unassignments", {}),
        ("disownments", {"confirm": True}),
    ):
        answer = gateway.post(f"{SERVERS}/school/{path}", {"serial_numbers": [moved], **more})
        assert answer.document["devices"] == {moved: "NOT_ACCESSIBLE"}
    assert portal.control.device(moved)["server"] == portal.name("other")


@pytest.mark.usefixtures("server")
def test_a_throttled_device_says_when_it_may_be_tried_again(gateway: Gateway, portal: Portal) -> None:
    put(gateway, f"{PROFILES}/pupils", {})
    bought = portal.buy(2)
    portal.control.behave(throttled={bought[0]: 1}, retry_after_seconds=86_400)
    answer = gateway.post(f"{SERVERS}/school/assignments", {"profile": "pupils", "serial_numbers": bought})
    assert answer.document["devices"] == {bought[0]: "THROTTLED", bought[1]: "SUCCESS"}
    assert answer.document["retry_after_seconds"] == 86_400


@pytest.mark.usefixtures("server")
def test_apple_is_asked_in_batches_and_what_is_done_is_told_when_one_fails(gateway: Gateway, portal: Portal) -> None:
    put(gateway, f"{PROFILES}/pupils", {})
    bought = portal.buy(450)
    before = len(portal.control.requests())
    # The second batch goes wrong, once.
    portal.control.behave(answer_status=503, answer_times=1, answer_skip=1)

    document = gateway.post(f"{SERVERS}/school/assignments", {"profile": "pupils", "serial_numbers": bought}).document

    assert len(portal.control.requests()) - before == 2
    assert [list(document["devices"].values()).count(status) for status in ("SUCCESS", "NOT_ASKED")] == [200, 250]
    assert document["problem"]["code"] == "apple_unavailable"
    again = gateway.post(f"{SERVERS}/school/assignments", {"profile": "pupils", "serial_numbers": bought}).document
    assert (set(again["devices"].values()), again["problem"]) == ({"SUCCESS"}, None)


@pytest.mark.usefixtures("server")
def test_devices_are_disowned_only_by_who_says_so(gateway: Gateway, portal: Portal) -> None:
    bought = portal.buy(2)
    asked = gateway.post(f"{SERVERS}/school/disownments", {"serial_numbers": bought})
    assert (asked.status, asked.document["code"]) == (400, "not_confirmed")
    assert portal.control.device(bought[0])["server"] == portal.name()

    answer = gateway.post(f"{SERVERS}/school/disownments", {"serial_numbers": bought, "confirm": True})
    assert set(answer.document["devices"].values()) == {"SUCCESS"}
    assert portal.control.device(bought[0])["server"] is None


@pytest.mark.parametrize(
    ("path", "document", "field"),
    [
        ("assignments", {"serial_numbers": ["C02AAAAAAAA1"]}, "profile"),
        ("assignments", {"profile": "a", "profile_uuid": "b", "serial_numbers": ["C02AAAAAAAA1"]}, "profile"),
        ("assignments", {"profile": "pupils", "serial_numbers": []}, "serial_numbers"),
        ("unassignments", {"serial_numbers": ["no serial"]}, "serial_numbers"),
        ("unassignments", {}, "serial_numbers"),
        ("disownments", {"serial_numbers": ["C02A"] * 1_001, "confirm": True}, "serial_numbers"),
        ("activation-locks", {}, "serial_number"),
        ("activation-locks", {"serial_number": "C02AAAAAAAA1", "lost_message": "x" * 1_001}, "lost_message"),
    ],
)
@pytest.mark.usefixtures("server")
def test_what_cannot_be_meant_is_named(gateway: Gateway, path: str, document: dict[str, Any], field: str) -> None:
    answer = gateway.post(f"{SERVERS}/school/{path}", document)
    assert (answer.status, answer.document["field"]) == (400, field)


@pytest.mark.usefixtures("server")
def test_what_is_assigned_has_to_be_there(gateway: Gateway) -> None:
    for name in ("nothing", "é" * 1_000, "a/b"):
        document = {"profile": name, "serial_numbers": ["C02AAAAAAAA1"]}
        answer = gateway.post(f"{SERVERS}/school/assignments", document)
        assert (answer.status, answer.document["code"]) == (404, "ade_profile_not_found")
    unknown = {"profile_uuid": "NONE", "serial_numbers": ["C02AAAAAAAA1"]}
    refused = gateway.post(f"{SERVERS}/school/assignments", unknown)
    assert (refused.status, refused.document["apple_code"]) == (502, "PROFILE_NOT_FOUND")


@pytest.mark.usefixtures("server")
def test_a_profile_that_apple_refuses_is_none(gateway: Gateway, portal: Portal) -> None:
    portal.control.behave(answer_status=400, answer_code="DEPARTMENT_INVALID", answer_times=1)
    refused = put(gateway, f"{PROFILES}/pupils", {"department": "?"})
    assert (refused.status, refused.document["code"]) == (502, "apple_refused")
    assert "DEPARTMENT_INVALID" in refused.document["detail"]
    assert gateway.get(PROFILES).document["ade_profiles"] == []
    wrong = put(gateway, f"{PROFILES}/pupils", {"skip_setup_items": ["Syri"]})
    assert (wrong.status, wrong.document["code"]) == (400, "unknown_skip_item")
    assert put(gateway, f"{PROFILES}/pupils", {"skip_setup_items": ["Syri"]}, allow_unknown="true").status == 200


def test_a_profile_that_a_rule_wants_is_not_deleted(gateway: Gateway) -> None:
    put(gateway, f"{PROFILES}/pupils", {})
    assert (
        put(gateway, "/v2/ade-assignment-rules/ipads", {"device_families": ["iPad"], "profile": "pupils"}).status == 200
    )
    refused = gateway.delete(f"{PROFILES}/pupils")
    assert (refused.status, refused.document["code"]) == (409, "ade_profile_in_use")
    assert gateway.delete("/v2/ade-assignment-rules/ipads").status == 204
    assert gateway.delete(f"{PROFILES}/pupils").status == 204


@pytest.mark.usefixtures("server")
def test_an_organization_says_where_its_accounts_enroll(gateway: Gateway) -> None:
    path = f"{SERVERS}/school/account-driven-enrollment"
    url = "https://mdm.example.org/.well-known/com.apple.remotemanagement"
    assert gateway.get(path).document == {"service_discovery_url": None}
    assert put(gateway, path, {"service_discovery_url": "http://mdm.example.org"}).status == 400
    assert put(gateway, path, {"service_discovery_url": url}).document == {"service_discovery_url": url}
    assert gateway.get(path).document == {"service_discovery_url": url}
    assert gateway.delete(path).status == 204
    assert gateway.get(path).document == {"service_discovery_url": None}
    [token] = gateway.get(f"{SERVERS}/school/beta-tokens").document["beta_tokens"]
    assert (token["os"], token["title"]) == ("iOS", "iOS Developer Beta")


# Activation Lock


@pytest.mark.usefixtures("server")
def test_a_lock_has_one_code_which_is_kept_before_apple_is_asked(
    gateway: Gateway, portal: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    [serial] = portal.buy()
    # Apple does it, and the answer is lost.
    portal.control.behave(answer_status=503, answer_times=1, answer_after=True)
    lost = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial, "lost_message": "Call us"})
    assert lost.status == 503
    kept = gateway.get(f"{LOCKS}/{serial}").document
    assert (kept["response_status"], kept["locked_at"]) == (None, None)

    locked = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial, "lost_message": "Call us"})

    assert (locked.status, locked.document["response_status"]) == (201, "SUCCESS")
    assert locked.document["bypass_code"] == kept["bypass_code"]
    code = BypassCode.from_text(kept["bypass_code"])
    assert portal.control.device(serial)["activation_lock"] == {
        "escrow_key": code.escrow_key,
        "lost_message": "Call us",
    }
    assert kept["bypass_code"] not in capsys.readouterr().out
    assert code.raw not in ActivationLock.get("activation_lock", serial).bypass_code
    assert gateway.delete(f"{LOCKS}/{serial}").status == 204
    assert gateway.get(f"{LOCKS}/{serial}").document["code"] == "activation_lock_not_found"


@pytest.mark.usefixtures("server")
def test_who_is_told_the_code_of_a_lock_is_published_first(
    gateway: Gateway, portal: Portal, aws: Emulator, environment: Settings
) -> None:
    [serial] = portal.buy()
    bus = Bus(aws, environment.event_bus)
    gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial})

    code = gateway.get(f"{LOCKS}/{serial}", reason="It came back").document["bypass_code"]

    assert gateway.get(f"{LOCKS}/{serial}", reason=" ").document["field"] == "reason"
    told = [event for event in bus.take() if event["topic"] == "mdm.SecretRevealed"]
    assert [event["escrow_event"]["why"] for event in told] == [None, "It came back"]
    for event in told:
        assert_conforms(event)
        assert event["escrow_event"]["owner"] == serial
        assert event["escrow_event"]["kind"] == "activation_lock_bypass_code"
        assert code not in json.dumps(event)


# The proxy first: it begins a new runtime.
@pytest.mark.usefixtures("proxy", "server")
def test_whatever_answer_of_dynamodb_is_lost_the_code_of_a_lock_is_known(
    proxy: AwsProxy, gateway: Gateway, portal: Portal
) -> None:
    failed, serials = 0, portal.buy(20)
    while True:
        serial = serials[failed]
        proxy.disturb("dynamodb.*", CutAfter(), times=3, skip=failed)
        answer = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial})
        proxy.reset()
        if answer.status == 201:
            break
        failed += 1
        if lock := portal.control.device(serial)["activation_lock"]:
            code = BypassCode.from_text(gateway.get(f"{LOCKS}/{serial}").document["bypass_code"])
            assert lock["escrow_key"] == code.escrow_key
        again = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial}).document
        known = BypassCode.from_text(again["bypass_code"])
        assert portal.control.device(serial)["activation_lock"]["escrow_key"] == known.escrow_key
    assert failed > 1


@pytest.mark.usefixtures("server")
def test_a_device_of_others_is_not_locked(gateway: Gateway) -> None:
    answer = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": "C02AAAAAAAA1"})
    assert answer.document["response_status"] == "NOT_ACCESSIBLE"
    assert answer.document["locked_at"] is None


@pytest.fixture
def apple(gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EscrowKeyUnlockService]:
    authority = Authority.new("Authority of push certificates")
    service = EscrowKeyUnlockService(tmp_path, push_authority=authority.certificate_pem, locked={})
    monkeypatch.setenv("ESCROW_KEY_UNLOCK_URL", service.start())
    monkeypatch.setenv("APNS_TRUST_ANCHOR", service.trust_anchor)
    runtime.ade_servers().close()
    runtime.forget()
    runtime.push_certificates().upload(authority.issue_push(TOPIC))
    yield service
    service.stop()
    assert service.violations == []


@pytest.mark.usefixtures("server")
def test_a_lock_is_ended_by_its_code_and_what_apple_asks_comes_from_the_enrollment(
    gateway: Gateway,
    portal: Portal,
    apple: EscrowKeyUnlockService,
    aws: Emulator,
    environment: Settings,
    sealer: Sealer,
) -> None:
    serial = "C02XXXX"
    portal.control.buy(portal.name(), [serial])
    locked = gateway.post(f"{SERVERS}/school/activation-locks", {"serial_number": serial}).document
    apple.locked[serial] = locked["bypass_code"]
    unknown = gateway.post(f"{LOCKS}/{serial}/unlock", {})
    assert (unknown.status, unknown.document["field"]) == (400, "product_type")

    device = FleetDevice(Fleet(aws, environment, sealer, Clock(datetime.now(UTC))), "UDID")
    device.authenticate(ProductName="iPhone17,1")
    device.token_update()
    answer = gateway.post(f"{LOCKS}/{serial}/unlock", {})

    assert (answer.document["unlocked"], answer.document["apple_status"]) == (True, 200)
    assert gateway.get(f"{LOCKS}/{serial}").document["unlocked_at"]
    again = gateway.post(f"{LOCKS}/{serial}/unlock", {"product_type": "iPhone17,1", "topic": TOPIC})
    assert (again.document["unlocked"], again.document["apple_answer"]) == (False, '{"code": "NOT_UNLOCKED"}')
    apple.locked[serial] = "the device's own"
    own = gateway.post(f"{LOCKS}/{serial.lower()}/unlock", {"bypass_code": "the device's own"})
    assert (own.document["unlocked"], own.document["serial_number"]) == (True, serial)
    assert apple.topics == [TOPIC] * 3

"""The admin API of what devices ask for when they check in, and of blocked devices."""

import json
import plistlib
from datetime import UTC, datetime
from typing import Any

import pytest

from functions.admin import app as admin
from functions.commands import app as commands
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.errors import BlockedError
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet
from tests.gateway import Answer, Gateway

PAIRING = "com.apple.watch.pairing"


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return DescribedGateway(admin.lambda_handler)


@pytest.fixture
def commands_gateway(environment: Settings) -> Gateway:
    return DescribedGateway(commands.lambda_handler)


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC)))


def put(gateway: Gateway, path: str, **fields: Any) -> Answer:
    return gateway.request("PUT", path, json.dumps(fields), headers={"Content-Type": "application/json"})


def test_a_managed_user_is_put_listed_and_removed_without_a_digest_in_sight(gateway: Gateway) -> None:
    answer = put(gateway, "/v2/managed-users/anna", password="the-password", user_id="GUID")

    assert answer.status == 200
    assert answer.document["name"] == "anna"
    assert (answer.document["realm"], answer.document["user_id"]) == ("PicoMDM", "GUID")
    listed = gateway.get("/v2/managed-users")
    assert listed.document == {"managed_users": [answer.document], "next_cursor": None}
    assert b"the-password" not in listed.body
    assert gateway.delete("/v2/managed-users/anna").status == 204
    assert gateway.delete("/v2/managed-users/anna").status == 404
    assert gateway.get("/v2/managed-users").document["managed_users"] == []


def test_a_managed_user_with_no_proof_is_refused(gateway: Gateway) -> None:
    for fields in ({}, {"password": "p", "digest": "0" * 32}, {"digest": "short"}):
        answer = put(gateway, "/v2/managed-users/anna", **fields)
        assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_token_source_is_put_listed_and_removed_without_its_key(gateway: Gateway) -> None:
    answer = put(gateway, f"/v2/token-sources/{PAIRING}", url="https://tokens.example.org/", hmac_key="the-key")

    assert answer.status == 200
    assert (answer.document["service_type"], answer.document["url"]) == (PAIRING, "https://tokens.example.org/")
    listed = gateway.get("/v2/token-sources")
    assert listed.document == {"token_sources": [answer.document], "next_cursor": None}
    assert b"the-key" not in listed.body
    assert gateway.delete(f"/v2/token-sources/{PAIRING}").status == 204
    assert gateway.delete(f"/v2/token-sources/{PAIRING}").status == 404


def test_a_token_source_without_a_key_or_https_is_refused(gateway: Gateway) -> None:
    for fields, field in (
        ({"url": "https://tokens.example.org/"}, "hmac_key"),
        ({"url": "http://tokens.example.org/", "hmac_key": "k"}, "url"),
    ):
        answer = put(gateway, f"/v2/token-sources/{PAIRING}", **fields)
        assert (answer.status, answer.document["field"]) == (400, field)


def test_a_profile_for_devices_that_return_to_service_is_put_listed_and_removed(gateway: Gateway) -> None:
    path = "/v2/return-to-service-profiles/wifi"
    content = plistlib.dumps({"PayloadIdentifier": "org.example.wifi", "PayloadContent": []})
    answer = gateway.request("PUT", path, content, headers={"Content-Type": "application/x-apple"})

    assert (answer.status, answer.document["name"]) == (200, "wifi")
    unreadable = gateway.request("PUT", path, b"\x30\x82 of something else")
    assert (unreadable.status, unreadable.document["field"]) == (400, "profile")
    (profile,) = runtime.return_to_service_profiles().list()
    assert runtime.sealer().open(profile.profile, place="return_to_service/wifi") == content
    listed = gateway.get("/v2/return-to-service-profiles").document
    assert listed == {"return_to_service_profiles": [answer.document], "next_cursor": None}
    assert gateway.delete(path).status == 204
    assert gateway.delete(path).status == 404
    assert gateway.delete("/v2/return-to-service-profiles/vpn").status == 400


def test_the_keys_of_another_ddm_server_are_set_and_never_shown(gateway: Gateway) -> None:
    nothing = {"sends_signed": False, "verifies_answers": False}
    assert gateway.get("/v2/ddm-keys").document == nothing

    assert put(gateway, "/v2/ddm-keys", send_hmac_key="the-key").document == nothing | {"sends_signed": True}
    both = put(gateway, "/v2/ddm-keys", send_hmac_key="the-key", receive_hmac_key="another")
    assert both.document == gateway.get("/v2/ddm-keys").document == {"sends_signed": True, "verifies_answers": True}
    assert runtime.ddm_keys().pair() == (b"the-key", b"another")
    assert put(gateway, "/v2/ddm-keys").document == nothing


def test_a_device_is_blocked_pushed_and_unblocked(commands_gateway: Gateway, fleet: Fleet, aws: Emulator) -> None:
    device = fleet.device()
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()
    path = f"/v2/enrollments/{device}/block"

    assert commands_gateway.request("PUT", path).status == 204
    with pytest.raises(BlockedError):
        device.idle()
    pushes = aws.sqs.receive_message(QueueUrl=fleet.settings.push_queue_url).get("Messages", [])
    assert len(pushes) == 1
    assert commands_gateway.delete(path).status == 204
    assert device.idle() is None


def test_a_device_that_cannot_be_pushed_to_is_blocked_all_the_same(commands_gateway: Gateway, fleet: Fleet) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate()

    assert commands_gateway.request("PUT", f"/v2/enrollments/{device}/block").status == 204
    assert device.record.blocked


def test_a_user_channel_and_an_unknown_device_are_not_blocked(commands_gateway: Gateway, fleet: Fleet) -> None:
    user = fleet.device().user()
    user.token_update()

    for method in ("PUT", "DELETE"):
        refused = commands_gateway.request(method, f"/v2/enrollments/{user}/block")
        assert (refused.status, refused.document["code"]) == (400, "device_channel_only")
        unknown = commands_gateway.request(method, "/v2/enrollments/UNKNOWN/block")
        assert (unknown.status, unknown.document["code"]) == (404, "unknown_enrollment")

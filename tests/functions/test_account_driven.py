"""Account-driven enrollment, step by step, at the enroll function; and how an administrator sets it up."""

import json
import logging
import plistlib
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from functions.admin import app as admin
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.http.gateway import AUTHENTICATE_HEADER
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.settings import Settings
from tests.api_description import DescribedGateway
from tests.aws_calls import DynamoDBCalls
from tests.gateway import Answer, Gateway
from tests.genuine_devices import MAC, Authority
from tests.oidc_issuer import AUDIENCE, OidcIssuer
from tests.portal import push_certificate

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
WELL_KNOWN = "/.well-known/com.apple.remotemanagement"
SETTINGS = "/v2/account-driven-enrollment"
SIGN_IN_URL = "https://login.example.org/enroll"
IPAD = {"LANGUAGE": "en-US", "PRODUCT": "iPad13,4", "VERSION": "19A240"}


class Device(Gateway):
    """A device whose person typed an account into its settings."""

    def __init__(self) -> None:
        super().__init__(enroll.lambda_handler)

    def discover(self, account: str = "ada@example.org", family: str = "iPad") -> Answer:
        return self.request("GET", WELL_KNOWN, query={"user-identifier": account, "model-family": family})

    def enroll(self, token: str | None = None, *, path: str = "/mdm/account/byod", body: bytes | None = None) -> Answer:
        headers = {"Content-Type": "application/pkcs7-signature"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        signed = Authority.named("Fruit Phone Device CA").device(IPAD).machine_info()
        return self.request("POST", path, signed if body is None else body, headers=headers)


@pytest.fixture
def issuer() -> Iterator[OidcIssuer]:
    with OidcIssuer.running() as issuer:
        yield issuer


@pytest.fixture
def gateway(aws: Emulator, environment: Settings) -> Gateway:
    runtime.push_certificates().upload(push_certificate(TOPIC))
    return DescribedGateway(admin.lambda_handler)


@pytest.fixture
def device(gateway: Gateway, issuer: OidcIssuer) -> Device:
    assert set_up(gateway, issuer).status == 200
    return Device()


def set_up(gateway: Gateway, issuer: OidcIssuer, /, **changes: Any) -> Answer:
    document = {
        "issuer": issuer.url,
        "audiences": [AUDIENCE],
        "sign_in_url": SIGN_IN_URL,
        "domains": ["Example.org"],
        "mode_by_model_family": {"Mac": "device"},
    }
    return gateway.request("PUT", SETTINGS, json.dumps(document | changes))


def mdm_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    payloads = plistlib.loads(answer.body)["PayloadContent"]
    return next(dict(each) for each in payloads if each["PayloadType"] == "com.apple.mdm")


def challenge_parameters(answer: Answer) -> dict[str, str]:
    """Return the parameters of WWW-Authenticate, read as RFC 9110 has it."""
    value = answer.headers["www-authenticate"]
    assert value.startswith("Bearer ")
    assert re.fullmatch(r'Bearer (?:[a-z0-9-]+="(?:[^"\\]|\\.)*"(?:, )?)+', value)
    return dict(re.findall(r'([a-z0-9-]+)="((?:[^"\\]|\\.)*)"', value))


# Steps


def test_a_device_is_told_where_to_enroll(device: Device) -> None:
    answer = device.discover()

    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.document == {
        "Servers": [{"Version": "mdm-byod", "BaseURL": "https://mdm.example.org/mdm/account/byod"}]
    }
    assert device.discover(family="Mac").document == {
        "Servers": [{"Version": "mdm-adde", "BaseURL": "https://mdm.example.org/mdm/account/adde"}]
    }


def test_an_account_of_another_domain_is_told_so(device: Device) -> None:
    for account in ("ada@elsewhere.example.org", "ada", "", "ada@example.org@elsewhere.org"):
        answer = device.discover(account)
        assert (answer.status, answer.headers["content-type"]) == (403, "application/json")
        assert answer.document["code"] == "com.apple.well-known.failed"
        assert answer.document["message"]


def test_who_asks_without_an_account_is_told_the_same(device: Device) -> None:
    assert device.request("GET", WELL_KNOWN).document["code"] == "com.apple.well-known.failed"


def test_a_device_is_sent_away_to_sign_the_person_in(device: Device) -> None:
    answer = device.enroll()

    assert (answer.status, answer.body) == (401, b"")
    assert challenge_parameters(answer) == {"method": "apple-as-web", "url": SIGN_IN_URL}
    assert answer.headers[AUTHENTICATE_HEADER.lower()] == answer.headers["www-authenticate"]


def test_a_person_may_sign_in_by_oauth2(gateway: Gateway, issuer: OidcIssuer) -> None:
    set_up(gateway, issuer, method="apple-oauth2", sign_in_url=None, client_id="mdm", scope='openid "email"')

    assert challenge_parameters(Device().enroll()) == {
        "method": "apple-oauth2",
        "authorization-url": f"{issuer.url}/authorize",
        "token-url": f"{issuer.url}/token",
        "redirect-url": "apple-remotemanagement-user-login:/oauth2/redirection",
        "client-id": "mdm",
        "scope": r"openid \"email\"",
    }


def test_a_user_enrollment_is_for_who_signed_in(device: Device, issuer: OidcIssuer) -> None:
    answer = device.enroll(issuer.token(at=time.time()))

    assert answer.headers["content-type"] == "application/x-apple-aspen-config"
    mdm = mdm_of(answer)
    assert (mdm["EnrollmentMode"], mdm["AssignedManagedAppleID"]) == ("BYOD", "ada@example.org")
    assert "AccessRights" not in mdm
    assert mdm["Topic"] == TOPIC


def test_a_device_enrollment_is_for_that_device(device: Device, issuer: OidcIssuer) -> None:
    mac = Authority.named("Fruit Phone Device CA").device(MAC).machine_info()

    answer = device.enroll(issuer.token(at=time.time(), key="ec-1"), path="/mdm/account/adde", body=mac)

    mdm = mdm_of(answer)
    assert (mdm["EnrollmentMode"], mdm["AccessRights"]) == ("ADDE", 8191)
    scep = plistlib.loads(answer.body)["PayloadContent"][0]["PayloadContent"]
    assert runtime.scep_challenges().recognize(scep["Challenge"]).serial_hash == serial_hash(MAC["SERIAL"])


def test_a_plain_machine_info_will_do_for_who_has_a_token(device: Device, issuer: OidcIssuer) -> None:
    assert device.enroll(issuer.token(at=time.time()), body=plistlib.dumps(IPAD)).status == 200


@pytest.mark.parametrize("body", [b"", b"noise", b"<plist/>", b"\x30\x00"])
def test_who_has_a_token_but_no_machine_info_gets_nothing(device: Device, issuer: OidcIssuer, body: bytes) -> None:
    assert device.enroll(issuer.token(at=time.time()), body=body).status == 400


@pytest.mark.parametrize(
    "claims",
    [{"exp": 1_000_000_000}, {"aud": "somebody"}, {"iss": "https://elsewhere.example.org"}],
)
def test_a_token_that_is_not_good_leads_to_the_sign_in_again(
    device: Device, issuer: OidcIssuer, claims: dict[str, Any]
) -> None:
    answer = device.enroll(issuer.token(at=time.time(), **claims))

    assert answer.status == 401
    assert challenge_parameters(answer)["url"] == SIGN_IN_URL


@pytest.mark.parametrize(
    "claims",
    [
        {"email": None},
        {"email": ["ada@example.org"]},
        {"email": "ada@elsewhere.example.org"},
        {"email": "ada\n@example.org"},
        {"email_verified": False},
    ],
)
def test_a_person_who_may_not_enroll_is_turned_away(device: Device, issuer: OidcIssuer, claims: dict[str, Any]) -> None:
    assert device.enroll(issuer.token(at=time.time(), **claims)).status == 403


def test_another_claim_may_name_the_account(gateway: Gateway, issuer: OidcIssuer) -> None:
    set_up(gateway, issuer, account_claim="apple_account", domains=None)

    answer = Device().enroll(issuer.token(at=time.time(), apple_account="ada@appleid.example.org", email=None))

    assert mdm_of(answer)["AssignedManagedAppleID"] == "ada@appleid.example.org"
    for no_account in ("ada", "ada@", "@example.org"):
        assert Device().enroll(issuer.token(at=time.time(), apple_account=no_account, email=None)).status == 403


def test_a_mode_that_is_not_offered_is_nowhere(gateway: Gateway, issuer: OidcIssuer) -> None:
    set_up(gateway, issuer, mode_by_model_family=None)

    for path in ("/mdm/account/adde", "/mdm/account/x"):
        assert Device().enroll(path=path).status == 404


def test_nobody_enrolls_like_this_unless_it_is_set_up(gateway: Gateway) -> None:
    assert Device().discover().status == 404
    assert Device().enroll().status == 404


def test_nothing_is_written_and_no_token_is_logged(
    device: Device, issuer: OidcIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="service_undefined")
    device.discover()
    device.enroll()
    calls = DynamoDBCalls(runtime.dynamodb_client())
    good, bad = issuer.token(at=time.time()), issuer.token(at=time.time(), aud="somebody")

    for answer in (device.discover(), device.enroll(), device.enroll(bad), device.enroll("noise")):
        assert answer.status in {200, 401}
    assert calls.take() == []
    answer = device.enroll(good)
    assert calls.take_writes() == []

    challenge = plistlib.loads(answer.body)["PayloadContent"][0]["PayloadContent"]["Challenge"]
    logged = "".join(str(record.__dict__) for record in caplog.records)
    assert not [secret for secret in (good, bad, challenge, "ada@") if secret in logged]


def test_an_issuer_that_is_down_is_asked_again_later(device: Device, issuer: OidcIssuer) -> None:
    issuer.is_down = True

    assert device.enroll(issuer.token(at=time.time())).status == 503


# Setting it up


def test_what_was_set_is_shown_and_can_be_taken_back(gateway: Gateway, issuer: OidcIssuer) -> None:
    assert gateway.get(SETTINGS).status == 404

    stored = set_up(gateway, issuer)

    assert stored.document == {
        "issuer": issuer.url,
        "audiences": [AUDIENCE],
        "method": "apple-as-web",
        "sign_in_url": SIGN_IN_URL,
        "client_id": None,
        "scope": None,
        "account_claim": "email",
        "domains": ["example.org"],
        "mode": "user",
        "mode_by_model_family": {"Mac": "device"},
    }
    assert gateway.get(SETTINGS).document == stored.document
    assert [gateway.delete(SETTINGS).status for _ in range(2)] == [204, 204]
    assert gateway.get(SETTINGS).status == 404


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"issuer": None}, "issuer"),
        ({"issuer": "http://login.example.org"}, "issuer"),
        ({"issuer": "ftp://login.example.org"}, "issuer"),
        ({"issuer": "http://127.0.0.1:9"}, "issuer"),
        ({"audiences": None}, "audiences"),
        ({"method": "apple-magic"}, "method"),
        ({"sign_in_url": None}, "sign_in_url"),
        ({"sign_in_url": "http://login.example.org"}, "sign_in_url"),
        ({"sign_in_url": 'https://login.example.org/"x y'}, "sign_in_url"),
        ({"method": "apple-oauth2"}, "client_id"),
        ({"method": "apple-oauth2", "client_id": "mdm"}, "scope"),
        ({"mode": "both"}, "mode"),
        ({"mode_by_model_family": {"PC": "user"}}, "mode_by_model_family"),
        ({"mode_by_model_family": {"Mac": "both"}}, "mode_by_model_family"),
        ({"mode_by_model_family": {"Mac": {}}}, "mode_by_model_family"),
        ({"domains": "example.org"}, "domains"),
    ],
)
def test_what_cannot_be_is_named(gateway: Gateway, issuer: OidcIssuer, changes: dict[str, Any], field: str) -> None:
    answer = set_up(gateway, issuer, **changes)

    assert answer.status == 400
    assert answer.document["field"] == field


def test_an_issuer_without_a_token_endpoint_signs_nobody_in_by_oauth2(gateway: Gateway, issuer: OidcIssuer) -> None:
    issuer.metadata["token_endpoint"] = None

    answer = set_up(gateway, issuer, method="apple-oauth2", client_id="mdm", scope="openid")

    assert (answer.status, answer.document["field"]) == (400, "issuer")

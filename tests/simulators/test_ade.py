"""The simulated device enrollment service against Apple's rules, by a client that is not ours."""

import base64
import email
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from local.ade.client import AdeControl, AdeSimulator, AdeSimulatorError
from local.ade.oauth import Token, _signature
from local.device.envelope import open_envelope

PROFILE = {
    "profile_name": "Pupils",
    "url": "https://mdm.example.org/mdm/enroll",
    "org_magic": "1",
    "is_mdm_removable": True,
    "allow_pairing": False,
}


def certificate_of(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


HTTP = httpx.Client(trust_env=False)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CERTIFICATE = certificate_of(KEY)
CERTIFICATE_PEM = CERTIFICATE.public_bytes(serialization.Encoding.PEM).decode()


def opened(file: bytes) -> dict[str, str]:
    """Read a token's file as servers do."""
    envelope = email.message_from_bytes(file).get_payload(decode=True)
    assert isinstance(envelope, bytes)
    message = open_envelope(envelope, CERTIFICATE, KEY)[0].decode()
    body = message.partition("-----BEGIN MESSAGE-----")[2].partition("-----END MESSAGE-----")[0]
    token: dict[str, str] = json.loads("".join(body.splitlines()))
    return token


class Client:
    """Speaks to the service as a server does, and leaves away what it is told to."""

    def __init__(self, url: str, token: Mapping[str, str]) -> None:
        self.url = url
        self.token = token
        self.headers = {"User-Agent": "test/1", "X-Server-Protocol-Version": "10"}

    def authorization(self, **other: str) -> str:
        parameters = {
            "oauth_consumer_key": self.token["consumer_key"],
            "oauth_token": self.token["access_token"],
            "oauth_signature_method": "HMAC-SHA1",
            "oauth_timestamp": str(int(time.time())),
            "oauth_nonce": base64.b32encode(hashlib.sha256(str(time.time_ns()).encode()).digest()).decode().strip("="),
            "oauth_version": "1.0",
        } | other
        pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in sorted(parameters.items()))
        base = f"GET&{quote(f'{self.url}/session', safe='')}&{quote(pairs, safe='')}"
        key = f"{self.token['consumer_secret']}&{self.token['access_secret']}"
        signature = base64.b64encode(hmac.digest(key.encode(), base.encode(), hashlib.sha1)).decode()
        signed = parameters | {"oauth_signature": signature}
        return 'OAuth realm="ADM", ' + ", ".join(f'{name}="{quote(value, safe="")}"' for name, value in signed.items())

    def open(self, authorization: str | None = None) -> httpx.Response:
        headers = self.headers | {"Authorization": authorization or self.authorization()}
        answer = HTTP.get(f"{self.url}/session", headers=headers)
        if answer.is_success:
            self.headers["X-ADM-Auth-Session"] = answer.json()["auth_session_token"]
        return answer

    def ask(self, method: str, path: str, document: object = None, **query: str) -> httpx.Response:
        url = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        return HTTP.request(method, url, json=document, headers=self.headers)

    def get(self, method: str, path: str, document: object = None, **query: str) -> dict[str, Any]:
        answer = self.ask(method, path, document, **query)
        assert answer.status_code == HTTPStatus.OK, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refused(self, method: str, path: str, document: object = None, **query: str) -> tuple[int, str]:
        answer = self.ask(method, path, document, **query)
        return answer.status_code, answer.text


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdeSimulator]:
    with AdeSimulator.start(tmp_path_factory.mktemp("ade")) as simulator:
        yield simulator


@pytest.fixture
def control(simulator: AdeSimulator) -> AdeControl:
    simulator.control.reset()
    return simulator.control


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """Each test has a server of its own."""
    return str(request.node.name)[:60].replace("[", "-").replace("]", "")


@pytest.fixture
def client(simulator: AdeSimulator, control: AdeControl, server: str) -> Client:
    client = Client(simulator.url, opened(control.make_server(server, CERTIFICATE_PEM)))
    assert client.open().status_code == HTTPStatus.OK
    return client


def test_signatures_are_those_of_the_rfc() -> None:
    token = Token(
        consumer_key="dpf43f3p2l4k3l03",
        consumer_secret="kd94hf93k423kf44",
        access_token="nnch734d00sl2jdk",
        access_secret="pfkkdhi9sl3r4s00",
        expires_at=0,
    )
    parameters = {
        "realm": "Photos",
        "oauth_consumer_key": "dpf43f3p2l4k3l03",
        "oauth_token": "nnch734d00sl2jdk",
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": "137131202",
        "oauth_nonce": "chapoH",
    }
    url = "http://photos.example.net/photos?file=vacation.jpg&size=original"
    assert _signature("GET", url, parameters, token) == "MdpQcU8iPSUjWoN/UDMsK2sui9I="


def test_a_session_is_opened_by_a_good_signature_alone(client: Client) -> None:
    good = client.authorization()
    assert client.open(good).status_code == HTTPStatus.OK
    assert client.open(good).text == "oauth_problem_adv_nonce_used"
    assert client.open("Bearer x").status_code == HTTPStatus.BAD_REQUEST
    assert client.open(client.authorization(oauth_signature_method="PLAINTEXT")).status_code == HTTPStatus.BAD_REQUEST
    assert client.open(client.authorization(oauth_callback="x")).status_code == HTTPStatus.BAD_REQUEST
    assert client.open(client.authorization(oauth_timestamp="1")).status_code == HTTPStatus.UNAUTHORIZED
    assert client.open(client.authorization(oauth_token="AT_other")).status_code == HTTPStatus.UNAUTHORIZED
    forged = Client(client.url, {**client.token, "access_secret": "AS_other"})
    assert forged.open().text == "oauth_problem_adv_signature_invalid"


def test_a_renewed_token_ends_the_former_and_keeps_the_consumer(
    client: Client, control: AdeControl, server: str
) -> None:
    renewed = opened(control.make_server(server, CERTIFICATE_PEM))
    assert renewed["consumer_key"] == client.token["consumer_key"]
    assert renewed["access_token"] != client.token["access_token"]
    assert client.ask("GET", "/account").status_code == HTTPStatus.UNAUTHORIZED
    assert client.open().status_code == HTTPStatus.UNAUTHORIZED
    assert Client(client.url, renewed).open().status_code == HTTPStatus.OK


def test_a_token_that_has_ended_opens_nothing(simulator: AdeSimulator, control: AdeControl, server: str) -> None:
    client = Client(simulator.url, opened(control.make_server(server, CERTIFICATE_PEM, days=0)))
    assert client.open().text == "oauth_problem_adv_token_expired"


def test_the_portal_takes_certificates_of_rsa_keys_alone(control: AdeControl) -> None:
    with pytest.raises(AdeSimulatorError, match="no certificate"):
        control.make_server("bad", "nonsense")


def test_sessions_end_and_rotate(client: Client, control: AdeControl) -> None:
    answer = client.ask("GET", "/account")
    rotated = answer.headers["X-ADM-Auth-Session"]
    assert rotated != client.headers["X-ADM-Auth-Session"]
    control.behave(forget_rotated=True, session_refusal=403)
    assert client.ask("GET", "/account").status_code == HTTPStatus.OK
    assert client.refused("GET", "/account") == (HTTPStatus.FORBIDDEN, "FORBIDDEN")
    client.headers["X-ADM-Auth-Session"] = rotated
    assert client.ask("GET", "/account").status_code == HTTPStatus.OK
    control.expire("sessions")
    control.behave()
    assert client.refused("GET", "/account")[0] == HTTPStatus.UNAUTHORIZED


def test_a_request_needs_a_user_agent_and_a_known_version(client: Client) -> None:
    client.headers["User-Agent"] = ""
    assert client.refused("GET", "/account") == (HTTPStatus.BAD_REQUEST, "USER_AGENT_MISSING")
    client.headers["User-Agent"] = "test/1"
    client.headers["X-Server-Protocol-Version"] = "11"
    assert client.refused("GET", "/account")[0] == HTTPStatus.BAD_REQUEST


def test_nothing_is_answered_before_the_terms_are_accepted(client: Client, control: AdeControl, server: str) -> None:
    control.sign_terms(server, signed=False)
    assert client.refused("GET", "/account") == (HTTPStatus.FORBIDDEN, "T_C_NOT_SIGNED")
    assert client.open().text == "T_C_NOT_SIGNED"
    control.sign_terms(server)
    assert client.get("GET", "/account")["server_name"] == server


@pytest.mark.parametrize(
    ("version", "absent"),
    [("1", {"device_family", "os", "mdm_migration_deadline", "eid"}), ("7", {"mdm_migration_deadline"}), ("10", set())],
)
def test_a_version_tells_what_it_knows(
    client: Client, control: AdeControl, server: str, version: str, absent: set[str]
) -> None:
    bought = control.buy(server, mdm_migration_deadline="2026-12-24T00:00:00Z", eid="89")
    client.headers["X-Server-Protocol-Version"] = version
    device = client.get("POST", "/devices", {"devices": bought})["devices"][bought[0]]
    assert not absent & device.keys()
    assert ("mdm_migration_deadline" in device) == ("mdm_migration_deadline" not in absent)


def test_a_fetch_comes_to_its_end_and_a_sync_goes_on_from_there(
    client: Client, control: AdeControl, server: str
) -> None:
    first = control.buy(server, count=5)
    page = client.get("POST", "/server/devices", {"limit": 3})
    assert [device["serial_number"] for device in page["devices"]] == first[:3]
    assert page["more_to_follow"]
    late = control.buy(server)
    page = client.get("POST", "/server/devices", {"limit": 3, "cursor": page["cursor"]})
    assert not page["more_to_follow"]
    assert client.refused("POST", "/server/devices", {"cursor": page["cursor"]})[1] == "EXHAUSTED_CURSOR"

    control.modify(server, first[:1], asset_tag="7")
    control.remove(server, first[1:2])
    page = client.get("POST", "/devices/sync", {"cursor": page["cursor"]})
    happened = [(device["serial_number"], device["op_type"]) for device in page["devices"]]
    assert happened == [(late[0], "added"), (first[0], "modified"), (first[1], "deleted")]
    assert client.get("POST", "/devices/sync", {"cursor": page["cursor"]})["devices"] == []
    assert control.violations() == []


def test_cursors_are_required_known_and_fresh(client: Client, control: AdeControl) -> None:
    assert client.refused("POST", "/devices/sync", {})[1] == "CURSOR_REQUIRED"
    assert client.refused("POST", "/devices/sync", {"cursor": "00"})[1] == "INVALID_CURSOR"
    cursor = client.get("POST", "/server/devices", {})["cursor"]
    control.expire("cursors")
    control.behave(error_form="quoted")
    assert client.refused("POST", "/devices/sync", {"cursor": cursor})[1] == '"EXPIRED_CURSOR"'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"profile_name": ""}, "CONFIG_NAME_REQUIRED"),
        ({"url": "http://mdm.example.org"}, "CONFIG_URL_INVALID"),
        ({"is_mdm_removable": False}, "FLAGS_INVALID"),
        ({"is_supervised": "yes"}, "MALFORMED_REQUEST_BODY"),
        ({"support_email_address": "nobody"}, "SUPPORT_EMAIL_INVALID"),
        ({"anchor_certs": ["AAAA"]}, "MALFORMED_REQUEST_BODY"),
        ({"unknown": 1}, "MALFORMED_REQUEST_BODY"),
    ],
)
def test_a_profile_is_held_to_apples_rules(client: Client, change: dict[str, object], code: str) -> None:
    assert client.refused("POST", "/profile", PROFILE | change)[1] == code


def test_a_device_is_given_its_profile_when_it_is_unboxed(client: Client, control: AdeControl, server: str) -> None:
    bought = control.buy(server, count=2)
    assert control.activate(bought[0]) is None
    defined = client.get("POST", "/profile", PROFILE | {"devices": bought[:1]})
    assert defined["devices"] == {bought[0]: "SUCCESS"}
    assert client.get("GET", "/profile", profile_uuid=defined["profile_uuid"])["allow_pairing"] is False
    profile = control.activate(bought[0])
    assert profile is not None
    assert profile["url"] == PROFILE["url"]
    assert control.device(bought[0])["profile_status"] == "pushed"

    assigned = {"profile_uuid": defined["profile_uuid"], "devices": [bought[1], "UNKNOWN"]}
    statuses = client.get("PUT", "/profile/devices", assigned)["devices"]
    assert statuses == {bought[1]: "SUCCESS", "UNKNOWN": "NOT_ACCESSIBLE"}
    client.get("DELETE", "/profile/devices", {"devices": bought[1:]})
    assert control.device(bought[1])["profile_status"] == "removed"


@pytest.mark.parametrize(("version", "status"), [("10", "THROTTLED"), ("9", "THROTTLED"), ("8", "FAILED")])
def test_throttled_devices_are_told_apart(
    client: Client, control: AdeControl, server: str, version: str, status: str
) -> None:
    bought = control.buy(server, count=2)
    profile_uuid = client.get("POST", "/profile", PROFILE)["profile_uuid"]
    control.behave(throttled={bought[0]: 1}, retry_after_seconds=7)
    client.headers["X-Server-Protocol-Version"] = version
    assigned = {"profile_uuid": profile_uuid, "devices": bought}
    answer = client.get("PUT", "/profile/devices", assigned)
    assert answer["devices"] == {bought[0]: status, bought[1]: "SUCCESS"}
    assert answer.get("retry_after_seconds") == (7 if version == "10" else None)
    assert client.get("PUT", "/profile/devices", assigned)["devices"][bought[0]] == "SUCCESS"


def test_a_thousand_devices_are_the_most_of_a_request(client: Client, control: AdeControl) -> None:
    many = [f"S{number}" for number in range(1_001)]
    assert client.refused("POST", "/devices", {"devices": many})[1] == "MALFORMED_REQUEST_BODY"
    assert client.refused("POST", "/devices", {"devices": []})[1] == "DEVICE_ID_REQUIRED"
    assert control.violations() != []


def test_a_moved_device_is_deleted_here_and_added_there(client: Client, control: AdeControl, server: str) -> None:
    other = f"{server}-2"
    control.make_server(other, CERTIFICATE_PEM)
    bought = control.buy(server)
    cursor = client.get("POST", "/server/devices", {})["cursor"]
    control.buy(other, bought)
    assert client.get("POST", "/devices/sync", {"cursor": cursor})["devices"][0]["op_type"] == "deleted"
    status = client.get("POST", "/devices", {"devices": bought})["devices"][bought[0]]["response_status"]
    assert status == "NOT_ACCESSIBLE"
    assert control.device(bought[0])["server"] == other


def test_devices_are_locked_and_disowned(client: Client, control: AdeControl, server: str) -> None:
    bought = control.buy(server)
    lock = {"device": bought[0], "escrow_key": "ab" * 32, "lost_message": "Call us"}
    assert client.get("POST", "/device/activationlock", lock)["response_status"] == "SUCCESS"
    assert control.device(bought[0])["activation_lock"]["lost_message"] == "Call us"
    assert client.refused("POST", "/device/activationlock", lock | {"escrow_key": "code"})[0] == HTTPStatus.BAD_REQUEST
    assert client.get("POST", "/devices/disown", {"devices": bought})["devices"] == {bought[0]: "SUCCESS"}
    assert control.device(bought[0])["server"] is None


def test_answers_get_lost_and_the_service_fails(client: Client, control: AdeControl, server: str) -> None:
    bought = control.buy(server)
    profile_uuid = client.get("POST", "/profile", PROFILE)["profile_uuid"]
    control.behave(answer_status=503, answer_times=1, answer_after=True, retry_after=3)
    answer = client.ask("PUT", "/profile/devices", {"profile_uuid": profile_uuid, "devices": bought})
    assert (answer.status_code, answer.headers["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "3")
    assert control.device(bought[0])["profile_status"] == "assigned"


def test_a_discovery_url_is_kept_for_account_driven_enrollment(client: Client) -> None:
    path = "/account-driven-enrollment/profile"
    assert client.refused("GET", path)[0] == HTTPStatus.NOT_FOUND
    assert client.refused("POST", path, {"mdm_service_discovery_url": "x"})[1] == "MDM_SERVICE_DISCOVERY_URL_NOT_VALID"
    url = {"mdm_service_discovery_url": "https://mdm.example.org/.well-known/com.apple.remotemanagement"}
    client.get("POST", path, url)
    assert client.get("GET", path) == url
    assert client.get("GET", "/os-beta-enrollment/tokens")["betaEnrollmentTokens"]


def test_a_later_run_goes_on_where_the_one_before_stopped(tmp_path: Path) -> None:
    with AdeSimulator.start(tmp_path, keep_state=True) as simulator:
        simulator.control.make_server("school", CERTIFICATE_PEM)
        bought = simulator.control.buy("school", count=2)
        simulator.control.remove("school", bought[1:])
        before = simulator.control.server("school"), simulator.control.device(bought[0])
    with AdeSimulator.start(tmp_path, keep_state=True) as simulator:
        assert (simulator.control.server("school"), simulator.control.device(bought[0])) == before
        assert simulator.control.device(bought[1])["server"] is None
        assert not set(simulator.control.buy("school")) & set(bought)

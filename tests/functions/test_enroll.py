"""The enroll function, from the gateway's event to its answer."""

import base64
import json
import plistlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509

from functions.admin import app as admin
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.settings import Settings
from tests import admin_api
from tests.api_description import DescribedGateway
from tests.aws_calls import DynamoDBCalls
from tests.gateway import Answer, Gateway, http_event
from tests.genuine_devices import MAC, GenuineDevice, check_in
from tests.portal import push_certificate
from tests.scep_client import ScepClient, rsa_key

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
CA_CERTIFICATE = "application/x-x509-ca-cert"
PKI_MESSAGE = "application/x-pki-message"


class Enrollment(Gateway):
    """The function behind the gateway."""

    def __init__(self) -> None:
        super().__init__(enroll.lambda_handler)

    def scep(self, raw_query: str, body: bytes | None = None, *, content_type: str = PKI_MESSAGE) -> Answer:
        """Send a SCEP request whose query goes out exactly as it is written."""
        event = http_event("GET" if body is None else "POST", "/scep", body, headers={"Content-Type": content_type})
        event["rawQueryString"] = raw_query
        return self.answer(event)

    def ca(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.scep("operation=GetCACert").body)

    def challenge(self, token: str) -> str:
        profile: dict[str, Any] = plistlib.loads(self.get(f"/mdm/enroll/{token}").body)
        return str(profile["PayloadContent"][0]["PayloadContent"]["Challenge"])


@pytest.fixture
def enrollment(aws: Emulator, environment: Settings) -> Enrollment:
    runtime.push_certificates().upload(push_certificate(TOPIC))
    return Enrollment()


@pytest.fixture
def token(enrollment: Enrollment) -> str:
    _, url = runtime.enrollment_links().create(expires_in=timedelta(days=1))
    return url.rsplit("/", 1)[1]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, token: str) -> Iterator[pytest.LogCaptureFixture]:
    yield caplog
    assert token not in "".join(str(record.__dict__) for record in caplog.records)


# Profiles


def test_a_link_gives_a_profile_that_nobody_keeps(enrollment: Enrollment, token: str) -> None:
    answer = enrollment.get(f"/mdm/enroll/{token}")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-apple-aspen-config"
    assert answer.headers["cache-control"] == "no-store"
    assert {payload["PayloadType"] for payload in plistlib.loads(answer.body)["PayloadContent"]} == {
        "com.apple.security.scep",
        "com.apple.mdm",
    }


def test_whoever_has_no_good_link_sees_a_page_and_no_reason(
    enrollment: Enrollment, token: str, log: pytest.LogCaptureFixture
) -> None:
    runtime.enrollment_links().revoke(runtime.enrollment_links().list()[0].name)

    for path, status, code in (
        (f"/mdm/enroll/{token}", 403, "link_revoked"),
        (f"/mdm/enroll/{'x' * 43}", 404, "link_not_found"),
        ("/mdm/enroll", 403, "enrollment_not_open"),
    ):
        answer = enrollment.get(path)
        assert answer.status == status
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert b"cannot be used" in answer.body
        assert b"revoked" not in answer.body
        assert log.records[-1].__dict__["code"] == code


WINDOWS = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0 Safari/537.36"}
SAFARI = {"User-Agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/18.1 Safari/605.1.15"}


@pytest.mark.parametrize("path", ["/mdm/enroll/{token}", "/ota/enroll/{token}"])
def test_whoever_opens_a_link_elsewhere_is_told_to_open_it_on_the_device(
    enrollment: Enrollment, token: str, path: str
) -> None:
    url = path.replace("{token}", token)
    on_pc = enrollment.request("GET", url, headers=WINDOWS)
    on_mac = enrollment.request("GET", url, headers=SAFARI)

    assert (on_pc.status, on_pc.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"in Safari" in on_pc.body
    assert token.encode() not in on_pc.body
    assert on_mac.headers["content-type"] == "application/x-apple-aspen-config"


def test_a_link_that_is_over_says_so_elsewhere_too(enrollment: Enrollment) -> None:
    answer = enrollment.request("GET", f"/mdm/enroll/{'x' * 43}", headers=WINDOWS)

    assert answer.status == 404
    assert b"cannot be used" in answer.body


def test_whoever_opens_the_address_of_devices_is_told_what_it_is(enrollment: Enrollment) -> None:
    calls = DynamoDBCalls(runtime.dynamodb_client())
    answer = enrollment.request("GET", "/mdm", headers=WINDOWS)

    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"device management server" in answer.body
    assert calls.take() == []


def test_open_enrollment_needs_no_link(enrollment: Enrollment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_ACCESS", "open")
    runtime.forget()

    assert enrollment.get("/mdm/enroll").headers["content-type"] == "application/x-apple-aspen-config"


# SCEP


def test_the_capabilities_are_plain_text(enrollment: Enrollment) -> None:
    answer = enrollment.scep("operation=GetCACaps")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain")
    assert b"POSTPKIOperation" in answer.body.split()


@pytest.mark.parametrize(
    "query",
    ["operation=GetCACert", "operation=GetCACert&message=Any%20CA", "message=%FF%FE&operation=GetCACert"],
)
def test_the_cas_certificate_has_exactly_its_content_type(enrollment: Enrollment, query: str) -> None:
    answer = enrollment.scep(query)

    assert (answer.status, answer.headers["content-type"]) == (200, CA_CERTIFICATE)
    assert x509.load_der_x509_certificate(answer.body) == runtime.certificate_authority().load().certificate


def test_a_device_gets_its_identity_over_post(
    enrollment: Enrollment, token: str, log: pytest.LogCaptureFixture
) -> None:
    client = ScepClient(enrollment.ca())
    challenge = enrollment.challenge(token)

    answer = enrollment.scep("operation=PKIOperation", client.request(challenge))

    assert (answer.status, answer.headers["content-type"]) == (200, PKI_MESSAGE)
    assert client.read(answer.body).certificate.public_key() == client.key.public_key()
    assert challenge not in "".join(str(record.__dict__) for record in log.records)


@pytest.mark.parametrize("content_type", ["application/octet-stream", ""])
def test_the_content_type_of_a_message_does_not_matter(enrollment: Enrollment, token: str, content_type: str) -> None:
    client = ScepClient(enrollment.ca())

    answer = enrollment.scep(
        "operation=PKIOperation", client.request(enrollment.challenge(token)), content_type=content_type
    )

    assert client.read(answer.body).status == "0"


def test_a_message_in_the_query_of_a_post_is_never_looked_at(enrollment: Enrollment, token: str) -> None:
    client = ScepClient(enrollment.ca())
    message = client.request(enrollment.challenge(token))

    for query in (f"operation=PKIOperation&message={quote(message)}", "message=%ZZ%&operation=PKIOperation"):
        assert client.read(enrollment.scep(query, message).body).status == "0"


@pytest.mark.parametrize(
    "encode",
    [
        lambda message: base64.b64encode(message).decode(),
        lambda message: quote(base64.b64encode(message), safe=""),
        lambda message: quote(quote(base64.b64encode(message), safe=""), safe=""),
        lambda message: base64.urlsafe_b64encode(message).decode().rstrip("="),
    ],
    ids=["plain", "percent-encoded", "encoded twice", "url-safe"],
)
def test_a_device_gets_its_identity_over_get(enrollment: Enrollment, token: str, encode: Any) -> None:
    client = ScepClient(enrollment.ca())
    message = encode(client.request(enrollment.challenge(token)))

    answer = enrollment.scep(f"operation=PKIOperation&message={message}")

    assert client.read(answer.body).status == "0"


def test_a_request_fits_into_what_the_gateway_takes_in_a_url(enrollment: Enrollment, token: str) -> None:
    message = ScepClient(enrollment.ca()).request(enrollment.challenge(token))

    assert len(quote(base64.b64encode(message), safe="")) < 9_000


def test_a_challenge_that_is_not_good_is_refused_as_scep_does(enrollment: Enrollment, token: str) -> None:
    used = enrollment.challenge(token)
    client = ScepClient(enrollment.ca())
    enrollment.scep("operation=PKIOperation", client.request(used))

    for challenge in ("wrong", used):
        other = ScepClient(enrollment.ca(), key=rsa_key("another"))
        answer = enrollment.scep("operation=PKIOperation", other.request(challenge))
        assert answer.status == 200
        assert other.read(answer.body).fail_info == "2"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("operation=PKIOperation", b"no message"),
        ("operation=PKIOperation", b""),
        ("operation=PKIOperation", None),
        ("operation=PKIOperation&message=!", None),
        ("operation=GetNextCACert", None),
        ("operation=", None),
        ("", None),
        ("", b"\x30\x00"),
    ],
)
def test_what_is_no_scep_request_gets_400_and_nothing_more(
    enrollment: Enrollment, query: str, body: bytes | None
) -> None:
    answer = enrollment.scep(query, body)

    assert (answer.status, answer.body) == (400, b"")


def test_a_body_that_is_too_large_gets_413(enrollment: Enrollment) -> None:
    answer = enrollment.scep("operation=PKIOperation", bytes(4_700_000))

    assert (answer.status, answer.body) == (413, b"")


def test_an_identity_from_here_is_one_for_the_device_edge(enrollment: Enrollment, token: str) -> None:
    client = ScepClient(enrollment.ca())
    answer = enrollment.scep("operation=PKIOperation", client.request(enrollment.challenge(token)))
    issued = client.read(answer.body).certificate

    assert issued.not_valid_before_utc < datetime.now(UTC) < issued.not_valid_after_utc
    issued.verify_directly_issued_by(enrollment.ca())


# Links for some devices


@pytest.mark.parametrize(
    ("serial_number", "status"), [("C02FX0AAMD6M", 200), ("c02fx0aamd6m", 200), ("C02OTHER0000", 400), (None, 400)]
)
def test_only_listed_devices_enroll_by_a_link_that_lists_some(
    enrollment: Enrollment, serial_number: str | None, status: int
) -> None:
    _, url = runtime.enrollment_links().create(expires_in=timedelta(days=1), serial_numbers=[MAC["SERIAL"]])
    client = ScepClient(enrollment.ca())
    message = client.request(enrollment.challenge(url.rsplit("/", 1)[1]))
    issued = client.read(enrollment.scep("operation=PKIOperation", message).body).certificate
    authenticate = {"MessageType": "Authenticate", "UDID": MAC["UDID"], "Topic": TOPIC}

    answer = check_in(
        GenuineDevice(issued, client.key, MAC),
        plistlib.dumps(authenticate | ({"SerialNumber": serial_number} if serial_number else {})),
    )

    assert answer.status == status
    assert (runtime.enrollments().get(MAC["UDID"]) is not None) == (status == 200)


def test_a_link_that_is_over_still_says_who_it_was_for(enrollment: Enrollment) -> None:
    link, url = runtime.enrollment_links().create(
        expires_in=timedelta(days=1), max_uses=1, serial_numbers=[MAC["SERIAL"]]
    )
    client = ScepClient(enrollment.ca())
    message = client.request(enrollment.challenge(url.rsplit("/", 1)[1]))
    issued = client.read(enrollment.scep("operation=PKIOperation", message).body).certificate
    runtime.enrollment_links().revoke(link.name)
    authenticate = {"MessageType": "Authenticate", "UDID": MAC["UDID"], "Topic": TOPIC, "SerialNumber": MAC["SERIAL"]}

    assert check_in(GenuineDevice(issued, client.key, MAC), plistlib.dumps(authenticate)).status == 200
    record = runtime.enrollments().get(MAC["UDID"])
    assert record
    assert record.link == link.name


# Challenges of an administrator's


@pytest.mark.parametrize("path", ["/v1/challenge", "/v2/scep-challenges"])
def test_a_challenge_from_the_api_is_good_once(enrollment: Enrollment, path: str) -> None:
    made = DescribedGateway(admin_api.handle).request("POST", path)
    challenge = made.document["string"] if path == "/v1/challenge" else made.document["challenge"]
    assert made.status == (200 if path == "/v1/challenge" else 201)
    client, other = ScepClient(enrollment.ca()), ScepClient(enrollment.ca(), key=rsa_key("another"))

    first = enrollment.scep("operation=PKIOperation", client.request(challenge))
    second = enrollment.scep("operation=PKIOperation", other.request(challenge))

    assert client.read(first.body).status == "0"
    assert other.read(second.body).fail_info == "2"


def test_micromdms_challenge_is_answered_as_it_does(enrollment: Enrollment) -> None:
    answer = Gateway(admin_api.handle).request("POST", "/v1/challenge")

    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.body == f'{{\n  "string": "{answer.document["string"]}"\n}}\n'.encode()


def test_a_challenge_is_made_for_a_time_and_a_device(enrollment: Enrollment) -> None:
    gateway = DescribedGateway(admin.lambda_handler)

    made = gateway.post("/v2/scep-challenges", {"expires_in": 60, "serial_number": "C02X"}).document

    found = runtime.scep_challenges().recognize(made["challenge"])
    assert (found.link_id, found.serial_hash) == (None, serial_hash("C02X"))
    assert found.expires_at == datetime.fromisoformat(made["expires_at"]).timestamp()
    assert made["serial_number"] == "C02X"
    for wrong in ({"expires_in": 59}, {"expires_in": 31 * 86_400}, {"serial": "x"}):
        assert gateway.post("/v2/scep-challenges", wrong).status == 400


def test_a_static_challenge_is_set_and_told_to_nobody(enrollment: Enrollment, caplog: pytest.LogCaptureFixture) -> None:
    gateway, path, secret = DescribedGateway(admin.lambda_handler), "/v2/scep-challenges/static", "correct horse"
    assert gateway.get(path).document == {"set_at": None}
    assert gateway.request("PUT", path, b'{"challenge": "short"}').document["field"] == "challenge"

    stored = gateway.request("PUT", path, json.dumps({"challenge": secret}).encode())

    assert stored.document["set_at"]
    assert gateway.get(path).document == stored.document
    client = ScepClient(enrollment.ca())
    answer = enrollment.scep("operation=PKIOperation", client.request(secret))
    assert client.read(answer.body).status == "0"
    assert secret not in "".join(str(record.__dict__) for record in caplog.records)
    assert [gateway.delete(path).status for _ in range(2)] == [204, 204]
    assert gateway.get(path).document == {"set_at": None}


def test_the_next_ca_is_told_of_by_the_one_in_use(enrollment: Enrollment, token: str) -> None:
    refused = enrollment.scep("operation=GetNextCACert")
    assert (refused.status, refused.body) == (400, b"")
    runtime.certificate_authority().load()
    runtime.certificate_authorities().prepare()
    runtime.forget()

    assert b"GetNextCACert" in enrollment.scep("operation=GetCACaps").body.split()
    answer = enrollment.scep("operation=GetNextCACert&message=any")

    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-x509-next-ca-cert")

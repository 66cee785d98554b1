"""From a request for a push certificate to its upload, and what goes wrong when one is renewed."""

import base64
import plistlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from functions.admin import app
from local.device.envelope import seal
from local.push_portal import PortalError, PushPortal
from mdmlib.settings import Settings
from tests.api_description import DescribedGateway
from tests.gateway import Answer

TOPIC = "com.apple.mgmt.External.97479ae0-c9db-4c54-8b10-dd6b4a50c0e5"
OTHER_TOPIC = "com.apple.mgmt.External.0f8dea11-c72b-405f-8142-a06a29fdf754"
REQUESTS = "/v2/push-certificate-requests"
CERTIFICATES = "/v2/push-certificates"
PORTAL = PushPortal()
VENDOR = PORTAL.issue_vendor("Example")


@pytest.fixture
def gateway(environment: Settings) -> DescribedGateway:
    return DescribedGateway(app.lambda_handler)


@pytest.fixture
def request_id(gateway: DescribedGateway) -> str:
    return str(gateway.post(REQUESTS, {"email": "it@example.org", "country": "us"}).document["id"])


def signed(gateway: DescribedGateway, request_id: str, vendor: bytes = VENDOR + PORTAL.chain) -> bytes:
    csr = gateway.get(f"{REQUESTS}/{request_id}").document["csr"]
    answer = gateway.post("/v2/signed-push-certificate-requests", {"csr": csr, "vendor": vendor.decode()})
    assert answer.status == 200, answer.document
    return str(answer.document["push_request"]).encode()


def test_the_portal_gives_a_certificate_for_what_a_vendor_vouched_for(
    gateway: DescribedGateway, request_id: str
) -> None:
    certificate = PORTAL.issue(signed(gateway, request_id), topic=TOPIC)

    stored = gateway.post(CERTIFICATES, {"pem": certificate.decode()})

    assert (stored.status, stored.document["topic"]) == (201, TOPIC)
    assert gateway.get(CERTIFICATES).document["push_certificates"] == [stored.document]
    assert gateway.get(REQUESTS).document["push_certificate_requests"] == []
    again = gateway.post(CERTIFICATES, {"pem": certificate.decode()})
    assert (again.status, again.document) == (201, stored.document)


def test_a_request_shows_everything_but_its_key(
    gateway: DescribedGateway, request_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = gateway.get(f"{REQUESTS}/{request_id}")

    assert shown.document["subject"].startswith("1.2.840.113549.1.9.1=it@example.org,CN=PicoMDM push certificate,C=US")
    assert "PRIVATE KEY" not in shown.body.decode() + capsys.readouterr().out
    assert gateway.delete(f"{REQUESTS}/{request_id}").status == 204
    assert gateway.get(f"{REQUESTS}/{request_id}").document["code"] == "push_certificate_request_not_found"


@pytest.mark.parametrize(
    ("document", "field"),
    [({}, "email"), ({"email": 7}, "email"), ({"email": "a", "country": "USA"}, "country"), ({"mail": "a"}, "mail")],
)
def test_a_request_that_is_none_is_refused(gateway: DescribedGateway, document: dict[str, object], field: str) -> None:
    answer = gateway.post(REQUESTS, document)
    assert (answer.status, answer.document["field"]) == (400, field)


@pytest.mark.parametrize(
    ("vendor", "code"),
    [
        (VENDOR, "chain_incomplete"),
        (VENDOR.split(b"-----BEGIN PRIVATE")[0] + PORTAL.chain, "private_key_missing"),
        (PORTAL.issue_vendor("Gone", days=0) + PORTAL.chain, "certificate_expired"),
        (PORTAL.issue_vendor("A").split(b"-----BEGIN PRIVATE")[0] + b"-----BEGIN PRIVATE"
         + VENDOR.split(b"-----BEGIN PRIVATE")[1] + PORTAL.chain, "private_key_of_another_certificate"),
        (b"nonsense", "private_key_missing"),
    ],
)  # fmt: skip
def test_a_vendor_whom_the_portal_would_refuse_is_told_why(
    gateway: DescribedGateway, request_id: str, vendor: bytes, code: str
) -> None:
    csr = gateway.get(f"{REQUESTS}/{request_id}").document["csr"]
    answer = gateway.post("/v2/signed-push-certificate-requests", {"csr": csr, "vendor": vendor.decode()})
    assert (answer.status, answer.document["code"]) == (400, code)


def test_what_is_no_request_is_not_vouched_for(gateway: DescribedGateway) -> None:
    vendor = (VENDOR + PORTAL.chain).decode()
    answer = gateway.post("/v2/signed-push-certificate-requests", {"csr": "nonsense", "vendor": vendor})
    assert (answer.status, answer.document["field"]) == (400, "csr")


def test_the_portal_takes_nothing_that_was_changed(gateway: DescribedGateway, request_id: str) -> None:
    document = plistlib.loads(base64.b64decode(signed(gateway, request_id)))
    other = gateway.get(REQUESTS).document["push_certificate_requests"][0]["csr"]
    assert other
    document["PushCertSignature"] = base64.b64encode(b"x" * 256).decode()
    with pytest.raises(PortalError):
        PORTAL.issue(base64.b64encode(plistlib.dumps(document)), topic=TOPIC)


def test_a_renewal_that_became_another_topic_is_refused_and_says_what_it_would_break(
    gateway: DescribedGateway, request_id: str
) -> None:
    pem = PORTAL.issue(signed(gateway, request_id), topic=TOPIC).decode()
    gateway.post(CERTIFICATES, {"pem": pem})
    second = str(gateway.post(REQUESTS, {"email": "it@example.org"}).document["id"])
    another = PORTAL.issue(signed(gateway, second), topic=OTHER_TOPIC).decode()

    refused = gateway.post(CERTIFICATES, {"pem": another})

    assert (refused.status, refused.document["code"]) == (409, "another_topic")
    assert TOPIC in refused.document["detail"]
    assert "Renew" in refused.document["detail"]
    assert len(gateway.get(CERTIFICATES).document["push_certificates"]) == 1
    assert gateway.post(CERTIFICATES, {"pem": another, "force": True}).status == 201


def test_a_certificate_without_its_key_is_refused(gateway: DescribedGateway, request_id: str) -> None:
    certificate = PORTAL.issue(signed(gateway, request_id), topic=TOPIC).decode()
    gateway.delete(f"{REQUESTS}/{request_id}")
    answer = gateway.post(CERTIFICATES, {"pem": certificate})
    assert (answer.status, answer.document["code"]) == (400, "private_key_missing")


@pytest.mark.parametrize(("password", "given"), [(b"open sesame", "open sesame"), (b"", None)])
def test_a_certificate_comes_as_pkcs12(gateway: DescribedGateway, password: bytes, given: str | None) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    asked = {"csr": csr.public_bytes(Encoding.PEM).decode(), "vendor": (VENDOR + PORTAL.chain).decode()}
    vouched = gateway.post("/v2/signed-push-certificate-requests", asked).document["push_request"]
    certificate = x509.load_pem_x509_certificate(PORTAL.issue(vouched.encode(), topic=TOPIC))
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    file = serialize_key_and_certificates(b"push", key, certificate, None, encryption)
    document = {"pkcs12": base64.b64encode(file).decode(), "password": given}

    if password:
        wrong = gateway.post(CERTIFICATES, document | {"password": "another"})
        assert (wrong.status, wrong.document["code"]) == (400, "pkcs12_unreadable")
    stored = gateway.post(CERTIFICATES, document)
    assert (stored.status, stored.document["topic"]) == (201, TOPIC)


def opened(gateway: DescribedGateway, request_id: str, answer: bytes) -> Answer:
    return gateway.post(f"{REQUESTS}/{request_id}/opened", {"answer": base64.b64encode(answer).decode()})


def test_mdmcert_downloads_answer_is_opened(gateway: DescribedGateway, request_id: str) -> None:
    vouched = signed(gateway, request_id)
    recipient = gateway.get(f"{REQUESTS}/{request_id}").document["encryption_certificate"].encode()
    mailed = seal(vouched, x509.load_pem_x509_certificate(recipient), cipher="aes256")

    for form in mailed, mailed.hex().encode(), mailed.hex().upper().encode() + b"\n":
        told = opened(gateway, request_id, form)
        assert (told.status, told.document) == (200, {"push_request": vouched.decode()})

    other = str(gateway.post(REQUESTS, {"email": "it@example.org"}).document["id"])
    assert opened(gateway, other, mailed).status == 400
    assert opened(gateway, request_id, b"nonsense").status == 400

"""Uploaded authorities: through the admin function, and for the devices whose certificates they issued."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from functions.admin import app as admin
from functions.checkin import app as checkin
from functions.connect import app as connect
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.certificates import CaIdentity, new_certificate_authority
from mdmlib.settings import Settings
from mdmlib.store.tables import Enrollment
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.gateway import Answer, Gateway
from tests.scep_client import rsa_key
from tests.signed_device import SignedDevice

PATH = "/v2/certificate-authorities"


def intermediate(above: CaIdentity, name: str) -> CaIdentity:
    """Make a CA whose certificate another one has issued."""
    key, now = rsa_key(name), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(above.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(above.private_key, SHA256())
    )
    return CaIdentity(certificate, key)


def pem(*authorities: CaIdentity) -> bytes:
    return b"".join(authority.certificate.public_bytes(Encoding.PEM) for authority in authorities)


ROOT = new_certificate_authority("Corporation", now=datetime.now(UTC))
INTERMEDIATE = intermediate(ROOT, "Corporate Devices")


@pytest.fixture
def gateway(aws: Emulator, environment: Settings) -> Gateway:
    runtime.bind_tables()
    return DescribedGateway(admin.lambda_handler)


def status(device: SignedDevice, message: str) -> int:
    """Return what a message is answered with; ``Idle`` goes to connect."""
    if message == "Idle":
        return Gateway(connect.lambda_handler).answer(device.report("Idle")).status
    return Gateway(checkin.lambda_handler).answer(device.checkin(message)).status


def put(gateway: Gateway, path: str, document: dict[str, str]) -> Answer:
    return gateway.request("PUT", path, json.dumps(document).encode())


def forget() -> None:
    """Let functions begin anew, as five minutes later."""
    runtime.forget()
    runtime.bind_tables()


def test_an_authority_is_uploaded_listed_shown_replaced_and_deleted(gateway: Gateway) -> None:
    assert gateway.get(PATH).document["certificate_authorities"] == []

    stored = gateway.request("PUT", f"{PATH}/corp", pem(INTERMEDIATE, ROOT))
    assert stored.status == 200
    subjects = [certificate["subject"] for certificate in stored.document["certificates"]]
    assert subjects == ["CN=Corporate Devices", "CN=Device Identity CA,O=Corporation"]
    assert stored.document["certificates"][0]["issuer"] == subjects[1]
    assert stored.document["own"] is False
    assert gateway.get(PATH).document["certificate_authorities"] == [stored.document]
    shown = gateway.get(f"{PATH}/corp").document
    assert shown == stored.document | {"pem": pem(INTERMEDIATE, ROOT).decode()}

    replaced = gateway.request("PUT", f"{PATH}/corp", pem(ROOT))
    assert gateway.get(PATH).document["certificate_authorities"] == [replaced.document]
    assert [gateway.delete(f"{PATH}/corp").status for _ in range(2)] == [204, 204]
    assert gateway.get(f"{PATH}/corp").status == 404


def test_the_deployments_own_authority_is_shown_and_left_alone(gateway: Gateway) -> None:
    runtime.certificate_authority().load()

    (own,) = gateway.get(PATH).document["certificate_authorities"]
    assert (own["name"], own["own"]) == ("scep", True)
    assert (own["phase"], own["activates_at"]) == ("in_use", None)
    for name, code in (("scep", "ca_in_use"), ("SCEP", "ca_name_reserved"), ("scep-next", "ca_name_reserved")):
        assert gateway.request("PUT", f"{PATH}/{name}", pem(ROOT)).document["code"] == "ca_name_reserved"
        assert gateway.delete(f"{PATH}/{name}").document["code"] == code
    assert gateway.get(f"{PATH}/scep").status == 200


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [("corp", b"", "certificate_unreadable"), ("..", b"", "invalid_field"), ("a/b", b"", "unknown_route")],
)
def test_what_cannot_be_trusted_is_refused(gateway: Gateway, name: str, body: bytes, code: str) -> None:
    assert gateway.request("PUT", f"{PATH}/{name}", body).document["code"] == code
    assert gateway.get(PATH).document["certificate_authorities"] == []


def test_a_device_of_an_uploaded_intermediate_enrolls_and_is_locked_out_when_that_is_deleted(gateway: Gateway) -> None:
    device = SignedDevice(INTERMEDIATE, "D1")
    assert status(device, "Authenticate") == 400
    gateway.request("PUT", f"{PATH}/corp", pem(ROOT, INTERMEDIATE))
    forget()

    assert status(device, "Authenticate") == 200
    assert status(device, "Idle") == 200
    assert Enrollment.get("D1", "!").state == "authenticated"

    gateway.delete(f"{PATH}/corp")
    forget()
    assert status(device, "Idle") == 400


def test_a_root_alone_does_not_speak_for_what_its_intermediates_issued(gateway: Gateway) -> None:
    gateway.request("PUT", f"{PATH}/corp", pem(ROOT))
    forget()

    assert status(SignedDevice(INTERMEDIATE, "D1"), "Authenticate") == 400
    assert status(SignedDevice(ROOT, "D1"), "Authenticate") == 200


def test_a_new_authority_is_looked_for_when_a_certificate_is_of_none_but_not_for_everybody_who_asks(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(runtime, "now", clock)
    forget()
    device = SignedDevice(ROOT, "D1")
    assert status(device, "Authenticate") == 400
    gateway.request("PUT", f"{PATH}/corp", pem(ROOT))

    assert status(device, "Authenticate") == 400, "somebody was looked for a moment ago"
    clock.advance(seconds=31)
    assert status(device, "Authenticate") == 200


def test_an_authority_follows_another_and_devices_of_both_are_let_in(gateway: Gateway) -> None:
    former = SignedDevice(runtime.certificate_authority().load(), "D1")
    assert status(former, "Authenticate") == 200

    prepared = gateway.post(PATH, {})
    assert prepared.status == 201
    assert (prepared.document["name"], prepared.document["phase"]) == ("scep-2", "next")
    assert "PRIVATE" not in prepared.body.decode()
    assert gateway.post(PATH, {}).document["code"] == "ca_next_exists"
    activation = f"{PATH}/scep-2/activation"
    assert put(gateway, activation, {"at": "yesterday"}).document["field"] == "at"
    assert put(gateway, activation, {"at": "2001-01-01T00:00:00"}).document["field"] == "at"
    planned = put(gateway, activation, {"at": "2031-01-31T13:00:00+01:00"}).document
    assert (planned["phase"], planned["activates_at"]) == ("next", "2031-01-31T12:00:00Z")
    assert gateway.request("PUT", activation).document["phase"] == "in_use"
    forget()

    assert status(SignedDevice(runtime.certificate_authority().load(), "D2"), "Authenticate") == 200
    assert status(former, "Idle") == 200
    assert [one["phase"] for one in gateway.get(PATH).document["certificate_authorities"]] == ["former", "in_use"]
    assert put(gateway, f"{PATH}/scep/activation", {}).document["code"] == "ca_former"
    assert put(gateway, f"{PATH}/scep-9/activation", {}).document["code"] == "ca_not_found"

    assert gateway.delete(f"{PATH}/scep").status == 204
    forget()
    assert status(former, "Idle") == 400


def test_an_authority_is_imported_with_its_key_which_nobody_is_told(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    encryption = BestAvailableEncryption(b"correct horse")
    file = serialize_key_and_certificates(b"ca", ROOT.private_key, ROOT.certificate, None, encryption)
    document = {"pkcs12": b64encode(file).decode(), "password": "correct horse"}
    key = ROOT.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    imported = gateway.post(PATH, document)
    assert (imported.status, imported.document["phase"]) == (201, "in_use")
    assert gateway.post(PATH, document).document == imported.document
    assert gateway.post(PATH, {"pem": (key + pem(ROOT)).decode()}).document == imported.document
    assert runtime.certificate_authority().load().certificate == ROOT.certificate
    assert "correct horse" not in "".join(str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"pem": "x"}, "private_key_missing"),
        ({"pkcs12": "!"}, "invalid_field"),
        ({"pkcs12": "AAAA"}, "pkcs12_unreadable"),
        ({"pkcs12": "AAAA", "pem": "x"}, "invalid_field"),
        ({"password": "x", "key": "y"}, "unknown_field"),
    ],
)
def test_what_is_no_authority_with_its_key_is_refused(gateway: Gateway, document: dict[str, str], code: str) -> None:
    assert gateway.post(PATH, document).document["code"] == code
    assert gateway.get(PATH).document["certificate_authorities"] == []


REVOCATIONS = "/v2/certificate-revocations"


def test_a_device_whose_certificate_is_revoked_gets_nothing_and_is_on_a_list_that_anybody_may_have(
    gateway: Gateway,
) -> None:
    device, other = (SignedDevice(runtime.certificate_authority().load(), udid) for udid in ("D1", "D2"))
    for one in (device, other):
        assert status(one, "Authenticate") == 200

    answer = gateway.post(REVOCATIONS, {"enrollment_id": "D1", "reason": "key_compromise"})

    assert answer.status == 200
    (revoked,) = answer.document["certificate_revocations"]
    assert (revoked["sha256"], revoked["enrollment_id"], revoked["reason"]) == (device.sha256, "D1", "key_compromise")
    assert gateway.post(REVOCATIONS, {"sha256": device.sha256}).document == answer.document
    assert gateway.get(REVOCATIONS).document == answer.document
    assert gateway.get("/v2/enrollments/D1").document["identity"]["revoked"] is True
    assert gateway.get("/v2/enrollments/D2").document["identity"]["revoked"] is False
    for message in ("Authenticate", "Idle", "TokenUpdate"):
        refused = Gateway((connect if message == "Idle" else checkin).lambda_handler)
        event = device.report("Idle") if message == "Idle" else device.checkin(message, Token=b"t", PushMagic="m")
        assert (refused.answer(event).status, refused.answer(event).body) == (400, b"")
    assert status(other, "Idle") == 200

    devices = Gateway(enroll.lambda_handler)
    crl = devices.get("/crl/scep.crl")
    assert (crl.status, crl.headers["content-type"], crl.headers["cache-control"]) == (
        200,
        "application/pkix-crl",
        "max-age=300",
    )
    ca_key = runtime.certificate_authority().load().private_key.public_key()
    assert x509.load_der_x509_crl(crl.body).is_signature_valid(ca_key)
    missing = devices.get("/crl/corp.crl")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize(
    ("document", "status_", "code"),
    [
        ({}, 400, "missing_field"),
        ({"enrollment_id": "D1", "sha256": "00"}, 400, "missing_field"),
        ({"enrollment_id": "D1"}, 404, "unknown_enrollment"),
        ({"serial_number": "abc"}, 404, "certificate_unknown"),
        ({"sha256": "00", "reason": "because"}, 400, "invalid_field"),
    ],
)
def test_what_cannot_be_revoked_is_told(gateway: Gateway, document: dict[str, str], status_: int, code: str) -> None:
    answer = gateway.post(REVOCATIONS, document)

    assert (answer.status, answer.document["code"]) == (status_, code)

"""Uploaded authorities: through the admin function, and for the devices whose certificates they issued."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from functions.admin import app as admin
from functions.checkin import app as checkin
from functions.connect import app as connect
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.certificates import CaIdentity, new_certificate_authority
from mdmlib.settings import Settings
from mdmlib.store.tables import Enrollment
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.gateway import Gateway
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
    for name in ("scep", "SCEP", "scep-next"):
        assert gateway.request("PUT", f"{PATH}/{name}", pem(ROOT)).document["code"] == "ca_name_reserved"
        assert gateway.delete(f"{PATH}/{name}").status == 409
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

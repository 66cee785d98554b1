"""What a device rejects while it enrolls: the profile, the SCEP server's answers, the certificate."""

import plistlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID

from local.ca import LocalAuthority
from local.device import (
    DeviceError,
    EnrollmentProfile,
    Habits,
    Hardware,
    Identity,
    MessageForm,
    NoAnswer,
    ProtocolViolation,
    ScepDialect,
    ScepRefused,
    ServerRefused,
    SimulatedDevice,
    Unenrolled,
)
from tests.simulators.fake_server import FakeServer

Make = Callable[..., SimulatedDevice]


def rejects(device: SimulatedDevice, server: FakeServer, rule: str) -> None:
    """Hold that the device does not enroll, and says why."""
    with pytest.raises(ProtocolViolation) as violation:
        device.enroll(server.profile_url)
    assert violation.value.rule == rule, str(violation.value)
    assert device.violations == [violation.value]
    assert not device.is_enrolled
    assert not server.messages()


def test_a_device_enrolls_with_a_certificate_of_its_own(device: SimulatedDevice, server: FakeServer) -> None:
    device.enroll(server.profile_url)

    authenticate, token_update = server.messages()
    assert authenticate["MessageType"] == "Authenticate"
    assert authenticate["SerialNumber"] == device.hardware.serial_number
    assert token_update["MessageType"] == "TokenUpdate"
    assert token_update["Token"] == device.push_token
    assert token_update["UnlockToken"] == device.unlock_token
    assert all(message["Topic"] == server.mdm["Topic"] for message in (authenticate, token_update))
    assert device.identity.certificate in server.scep.issued
    [(message_type, csr, signer)] = server.scep.requests
    assert message_type == "19"
    assert signer.public_key() == csr.public_key()
    assert csr.is_signature_valid
    assert csr.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD).value == b"a-challenge"
    assert not device.violations


def test_only_a_mac_expands_the_variables_of_the_subject(make_device: Make, server: FakeServer) -> None:
    for hardware in (Hardware.mac(device_name="Desk"), Hardware.iphone()):
        make_device(hardware).enroll(server.profile_url)

    subjects = [csr.subject.rfc4514_string() for _, csr, _ in server.scep.requests]
    assert subjects == ["CN=Identity (Desk),O=Example", "CN=Identity (%ComputerName%),O=Example"]


def test_a_server_with_an_unknown_root_is_not_talked_to(make_device: Make, server: FakeServer, tmp_path: Path) -> None:
    device = make_device(trust=LocalAuthority.open(tmp_path).root)

    with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
        device.enroll(server.profile_url)
    assert not server.seen


@pytest.mark.parametrize("content_type", ["application/xml", "application/x-apple-aspen-config; charset=utf-8", ""])
def test_a_profile_of_another_content_type_is_rejected(
    device: SimulatedDevice, server: FakeServer, content_type: str
) -> None:
    server.profile_type = content_type
    rejects(device, server, "Content-Type")


@pytest.mark.parametrize(
    ("payload", "key", "value", "rule"),
    [
        ("mdm", "IdentityCertificateUUID", "00000000-0000-0000-0000-000000000000", "IdentityCertificateUUID"),
        ("mdm", "IdentityCertificateUUID", "scep", "IdentityCertificateUUID"),
        ("mdm", "Topic", "com.example.topic", "Topic"),
        ("mdm", "Topic", "", "Topic"),
        ("mdm", "ServerURL", "http://127.0.0.1/mdm/connect", "ServerURL"),
        ("mdm", "CheckInURL", "http://127.0.0.1/mdm/checkin", "CheckInURL"),
        ("mdm", "SignMessage", False, "SignMessage"),
        ("mdm", "SignMessage", "true", "SignMessage"),
        ("mdm", "AccessRights", 0, "AccessRights"),
        ("mdm", "AccessRights", 8192, "AccessRights"),
        ("mdm", "AccessRights", 2, "AccessRights"),
        ("mdm", "AccessRights", 128, "AccessRights"),
        ("mdm", "AccessRights", True, "AccessRights"),
        ("mdm", "ServerCapabilities", ["com.example.magic"], "ServerCapabilities"),
        ("mdm", "PayloadType", "com.apple.wifi.managed", "mdm-payload"),
        ("scep_payload", "PayloadType", "com.apple.security.pkcs12", "scep-payload"),
        ("scep_payload", "PayloadIdentifier", "com.example.enroll.mdm", "profile"),
        ("scep_payload", "PayloadVersion", 0, "profile"),
        ("profile", "PayloadType", "Profile", "profile"),
        ("profile", "PayloadVersion", 2, "profile"),
        ("profile", "PayloadContent", [], "profile"),
    ],
)
def test_a_profile_that_breaks_a_rule_is_rejected(
    device: SimulatedDevice, server: FakeServer, payload: str, key: str, value: object, rule: str
) -> None:
    getattr(server, payload)[key] = value
    rejects(device, server, rule)


@pytest.mark.parametrize("key", ["IdentityCertificateUUID", "Topic", "ServerURL", "SignMessage", "AccessRights"])
def test_an_mdm_payload_without_a_key_that_it_needs_is_rejected(
    device: SimulatedDevice, server: FakeServer, key: str
) -> None:
    del server.mdm[key]
    rejects(device, server, key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("URL", "ldap://127.0.0.1/scep"),
        ("URL", "https://127.0.0.1/scep?tenant=1"),
        ("Key Type", "EC"),
        ("Keysize", 1000),
        ("Key Usage", 4),
        ("Subject", [["O", "Example"]]),
        ("CAFingerprint", b"\x00" * 32),
    ],
)
def test_a_scep_payload_that_breaks_a_rule_is_rejected(
    device: SimulatedDevice, server: FakeServer, key: str, value: object
) -> None:
    server.scep_payload["PayloadContent"][key] = value
    rejects(device, server, key)


def test_a_ca_is_known_by_its_fingerprint(device: SimulatedDevice, server: FakeServer, ca: Identity) -> None:
    server.scep_payload["PayloadContent"]["CAFingerprint"] = ca.certificate.fingerprint(hashes.SHA1())
    device.enroll(server.profile_url)
    assert device.is_enrolled


@pytest.mark.parametrize(
    ("attribute", "value", "rule"),
    [
        ("messageType", "19", "messageType"),
        ("transactionID", "another", "transactionID"),
        ("transactionID", None, "transactionID"),
        ("recipientNonce", b"another nonce...", "recipientNonce"),
        ("recipientNonce", None, "recipientNonce"),
        ("senderNonce", None, "senderNonce"),
        ("senderNonce", b"short", "senderNonce"),
        ("pkiStatus", "7", "pkiStatus"),
        ("pkiStatus", None, "pkiStatus"),
    ],
)
def test_a_certrep_that_does_not_answer_the_request_is_rejected(
    device: SimulatedDevice, server: FakeServer, attribute: str, value: str | bytes | None, rule: str
) -> None:
    server.scep.lie[attribute] = value
    rejects(device, server, rule)


def test_a_server_that_sends_the_clients_own_nonce_back_as_its_own_is_rejected(
    make_device: Make, server: FakeServer
) -> None:
    server.scep.lie["senderNonce"] = b"\x07" * 16
    device = make_device(random_bytes=lambda size: b"\x07" * size)
    rejects(device, server, "senderNonce")


def test_a_certrep_with_a_broken_signature_is_rejected(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.tamper = lambda reply: reply[:-1] + bytes([reply[-1] ^ 1])
    rejects(device, server, "CertRep-signature")


def test_a_certrep_whose_content_was_changed_is_rejected(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.tamper = lambda reply: reply[:400] + bytes([reply[400] ^ 1]) + reply[401:]
    rejects(device, server, "CertRep-signature")


def test_a_certrep_that_is_no_cms_is_rejected(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.tamper = lambda _reply: b"Internal Server Error"
    rejects(device, server, "CertRep-signature")


def test_a_certrep_signed_by_somebody_else_is_rejected(
    device: SimulatedDevice, server: FakeServer, ca: Identity
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    server.scep.signer = Identity(key, self_signed_copy(ca.certificate, key))
    rejects(device, server, "CertRep-signer")


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        ({"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}, "certificate-purpose"),
        ({"purposes": []}, "certificate-purpose"),
        ({"lasts": timedelta(seconds=-1)}, "certificate-validity"),
        ({"begins": timedelta(hours=1)}, "certificate-validity"),
        ({"lasts": timedelta(days=4000)}, "certificate-validity"),
    ],
)
def test_a_certificate_that_is_not_good_for_mdm_is_rejected(
    device: SimulatedDevice, server: FakeServer, what: dict[str, Any], rule: str
) -> None:
    server.scep.certify = what
    rejects(device, server, rule)


def test_a_certificate_for_another_key_is_rejected(device: SimulatedDevice, server: FakeServer) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    server.scep.certify = {"public_key": other.public_key()}
    rejects(device, server, "certificate-key")


def test_a_certificate_that_the_ca_did_not_sign_is_rejected(
    device: SimulatedDevice, server: FakeServer, ca: Identity
) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    server.scep.certify = {"issuer": Identity(other, ca.certificate)}
    rejects(device, server, "certificate-chain")


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("capabilities_type", "text/html"),
        ("certificate_type", "application/x-x509-ca-cert; charset=utf-8"),
        ("certificate_type", "application/octet-stream"),
        ("reply_type", "application/octet-stream"),
    ],
)
def test_a_scep_answer_of_another_content_type_is_rejected(
    device: SimulatedDevice, server: FakeServer, attribute: str, value: str
) -> None:
    setattr(server.scep, attribute, value)
    rejects(device, server, "Content-Type")


def test_an_answer_in_a_weaker_cipher_than_the_question_is_rejected(
    device: SimulatedDevice, server: FakeServer
) -> None:
    server.scep.cipher = "des"
    rejects(device, server, "pkcsPKIEnvelope")


def test_a_refused_request_says_why(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.lie |= {"pkiStatus": "2", "failInfo": "2"}

    with pytest.raises(ScepRefused, match="badRequest") as refused:
        device.enroll(server.profile_url)
    assert refused.value.fail_info == 2
    assert not device.violations


def test_a_pending_request_is_polled_as_often_as_the_profile_says(
    device: SimulatedDevice, server: FakeServer, slept: list[float]
) -> None:
    server.scep.pending = 2
    device.enroll(server.profile_url)

    assert [kind for kind, _, _ in server.scep.requests] == ["19", "20", "20"]
    assert slept == [1.0, 1.0]


def test_a_request_that_stays_pending_is_given_up(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.pending = 100
    rejects(device, server, "pkiStatus")
    assert len(server.scep.requests) == 4


@pytest.mark.parametrize(
    "dialect",
    [
        ScepDialect(cipher="des", digest="sha1"),
        ScepDialect(cipher="3des", digest="sha1", null_parameters=False),
        ScepDialect(cipher="aes128", digest="sha512"),
        ScepDialect(use_get=True),
        ScepDialect(message_in_query=True),
    ],
    ids=str,
)
def test_every_dialect_of_scep_gets_a_certificate(make_device: Make, server: FakeServer, dialect: ScepDialect) -> None:
    device = make_device(habits=Habits(scep=dialect))
    device.enroll(server.profile_url)
    assert device.is_enrolled


def test_a_server_that_offers_nothing_gets_des_and_get(device: SimulatedDevice, server: FakeServer) -> None:
    server.scep.capabilities = ""
    server.scep.cipher = "des"
    device.enroll(server.profile_url)

    assert [one.method for one in server.seen if "PKIOperation" in one.path] == ["GET"]


@pytest.mark.parametrize("message", ["Authenticate", "TokenUpdate"])
@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_a_refused_message_ends_the_installation(
    device: SimulatedDevice, server: FakeServer, message: str, status: int
) -> None:
    server.statuses[message] = [status]

    with pytest.raises(Unenrolled if status == 401 else ServerRefused):
        device.enroll(server.profile_url)
    assert not device.is_enrolled
    assert not server.messages("CheckOut")


def test_only_a_token_update_is_tried_again(make_device: Make, server: FakeServer, slept: list[float]) -> None:
    device = make_device()
    server.statuses = {"TokenUpdate": [503, 503]}
    device.enroll(server.profile_url)
    assert len(server.messages("TokenUpdate")) == 3
    assert slept == [0.2, 1.0]

    device.check_out()
    server.statuses = {"Authenticate": [503]}
    with pytest.raises(ServerRefused, match="503"):
        device.enroll(server.profile_url)


def test_a_device_takes_only_one_mdm_profile(enrolled: SimulatedDevice, server: FakeServer) -> None:
    with pytest.raises(DeviceError, match="one MDM profile"):
        enrolled.enroll(server.profile_url)


def test_a_signed_profile_is_opened_and_a_broken_signature_is_not(
    device: SimulatedDevice, server: FakeServer, ca: Identity
) -> None:
    signed = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(plistlib.dumps(server.profile))
        .add_signer(ca.certificate, ca.key, hashes.SHA256())
        .sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    profile = EnrollmentProfile.decode(signed)
    assert profile.topic == server.mdm["Topic"]
    assert profile.profile.signer_certificates == (ca.certificate_der,)

    with pytest.raises(ProtocolViolation, match="signature"):
        EnrollmentProfile.decode(signed.replace(b"com.example.enroll.mdm", b"com.example.enroll.mdx"))


def test_a_renewed_identity_is_vouched_for_by_the_old_one(enrolled: SimulatedDevice, server: FakeServer) -> None:
    old = enrolled.identity
    enrolled.renew_identity()

    message_type, csr, signer = server.scep.requests[-1]
    assert message_type == "17"
    assert signer == old.certificate
    assert AttributeOID.CHALLENGE_PASSWORD not in [attribute.oid for attribute in csr.attributes]
    assert enrolled.identity.certificate == server.scep.issued[-1]
    assert enrolled.identity.certificate != old.certificate


def test_a_sparse_device_sends_only_what_apple_requires(make_device: Make, server: FakeServer) -> None:
    make_device(habits=Habits(message=MessageForm(optional_keys=False))).enroll(server.profile_url)

    authenticate, token_update = server.messages()
    assert authenticate.keys() == {"MessageType", "Topic", "UDID"}
    assert token_update.keys() == {"MessageType", "Topic", "UDID", "Token", "PushMagic"}


def self_signed_copy(certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(key.public_key())
        .serial_number(certificate.serial_number)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )

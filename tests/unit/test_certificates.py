import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.certificates import CaIdentity, PushIdentity, issue, new_certificate_authority
from mdmlib.errors import BadRequestError
from tests.scep_client import openssl, rsa_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
SAN = x509.SubjectAlternativeName([x509.DNSName("mac.example.org"), x509.RFC822Name("u@example.org")])

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@pytest.fixture(scope="module")
def ca() -> CaIdentity:
    return new_certificate_authority("ACME", now=NOW)


def csr(
    *extensions: x509.ExtensionType,
    key: Key | None = None,
    subject: Sequence[tuple[x509.ObjectIdentifier, str]] = ((NameOID.COMMON_NAME, "mac"),),
) -> x509.CertificateSigningRequest:
    attributes = [x509.NameAttribute(oid, value) for oid, value in subject]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    key = key or rsa_key("device")
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def key_usage(*, key_encipherment: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=key_encipherment,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


# The CA


def test_the_ca_may_do_what_scep_needs_and_lasts_ten_years(ca: CaIdentity) -> None:
    certificate = ca.certificate
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value

    assert ca.private_key.key_size == 2048
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert usage.key_cert_sign
    assert usage.digital_signature
    assert usage.key_encipherment
    assert certificate.not_valid_after_utc > NOW + timedelta(days=3650)
    assert certificate.not_valid_before_utc < NOW
    certificate.verify_directly_issued_by(certificate)


def test_the_ca_is_the_same_after_it_was_stored(ca: CaIdentity) -> None:
    again = CaIdentity.decode(ca.certificate.public_bytes(Encoding.DER), ca.private_key_der())

    assert again.certificate == ca.certificate
    assert again.private_key.private_numbers() == ca.private_key.private_numbers()


def test_an_organization_longer_than_a_name_may_be_is_cut() -> None:
    new_certificate_authority("Ä" * 200, now=NOW)


# What it issues


def test_a_device_gets_a_certificate_for_clients(ca: CaIdentity) -> None:
    issued = issue(csr(), ca=ca, now=NOW, days=365)
    extensions = issued.extensions

    issued.verify_directly_issued_by(ca.certificate)
    assert issued.not_valid_before_utc == NOW - timedelta(minutes=10)
    assert issued.not_valid_after_utc == NOW + timedelta(days=365)
    assert issued.serial_number.bit_length() > 64
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    key_id = ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority.key_identifier == key_id.digest


@pytest.mark.parametrize("asked", [True, False])
def test_encryption_is_allowed_when_asked_for_and_nothing_else_ever(ca: CaIdentity, asked: bool) -> None:  # noqa: FBT001 - pytest's parameter
    issued = issue(csr(key_usage(key_encipherment=asked)), ca=ca, now=NOW, days=1)
    usage = issued.extensions.get_extension_for_class(x509.KeyUsage).value

    assert usage.digital_signature
    assert usage.key_encipherment is asked
    assert not usage.key_cert_sign
    assert not usage.crl_sign
    assert not usage.content_commitment
    assert not usage.data_encipherment


def test_a_request_cannot_make_itself_a_ca_or_a_server(ca: CaIdentity) -> None:
    ambitious = csr(
        x509.BasicConstraints(ca=True, path_length=None), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    )

    extensions = issue(ambitious, ca=ca, now=NOW, days=1).extensions

    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_alternative_names_are_copied(ca: CaIdentity) -> None:
    issued = issue(csr(SAN), ca=ca, now=NOW, days=1)

    assert issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == SAN


def test_of_the_subject_only_what_names_people_and_devices_is_kept(ca: CaIdentity) -> None:
    kept = ((NameOID.ORGANIZATION_NAME, "ACME"), (NameOID.COMMON_NAME, "mac"), (NameOID.SERIAL_NUMBER, "C02X"))

    issued = issue(csr(subject=(*kept, (x509.ObjectIdentifier("1.2.3.4"), "odd"))), ca=ca, now=NOW, days=1)

    assert [(attribute.oid, attribute.value) for attribute in issued.subject] == list(kept)


def test_a_certificate_has_a_name_even_when_none_was_asked_for(ca: CaIdentity) -> None:
    assert len(list(issue(csr(subject=()), ca=ca, now=NOW, days=1).subject)) == 1


def test_a_subject_can_be_given_in_place_of_the_requests(ca: CaIdentity) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "who it was before")])

    assert issue(csr(), ca=ca, now=NOW, days=1, subject=subject).subject == subject


def test_no_certificate_outlives_the_ca(ca: CaIdentity) -> None:
    assert issue(csr(), ca=ca, now=NOW, days=36_500).not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_serial_numbers_do_not_repeat(ca: CaIdentity) -> None:
    assert len({issue(csr(), ca=ca, now=NOW, days=1).serial_number for _ in range(20)}) == 20


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_keys_of_elliptic_curves_are_certified(ca: CaIdentity, curve: ec.EllipticCurve) -> None:
    issue(csr(key=ec.generate_private_key(curve)), ca=ca, now=NOW, days=1)


@pytest.mark.parametrize("kind", ["rsa-1024", "secp192r1", "ed25519"])
def test_keys_that_are_weak_or_unusual_are_not_certified(ca: CaIdentity, kind: str) -> None:
    key: Key = ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa-1024":
        key = rsa_key("weak", 1024)
    if kind == "secp192r1":
        key = ec.generate_private_key(ec.SECP256K1())

    with pytest.raises(BadRequestError) as refused:
        issue(csr(key=key), ca=ca, now=NOW, days=1)
    assert refused.value.code == "key_unsupported"


def test_extensions_that_cannot_be_read_are_refused(ca: CaIdentity) -> None:
    broken = csr(x509.UnrecognizedExtension(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x03\xff\xff\xff"))

    with pytest.raises(BadRequestError) as refused:
        issue(broken, ca=ca, now=NOW, days=1)
    assert refused.value.code == "csr_unusable"


def test_a_subject_that_cannot_be_read_is_refused(ca: CaIdentity) -> None:
    # A BIT STRING in place of the UTF8String.
    broken = csr().public_bytes(Encoding.DER).replace(b"\x0c\x03mac", b"\x03\x03\x00ac")

    with pytest.raises(BadRequestError) as refused:
        issue(x509.load_der_x509_csr(broken), ca=ca, now=NOW, days=1)
    assert refused.value.code == "csr_unusable"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is the other implementation")
def test_openssl_verifies_the_chain_for_a_client_and_for_nothing_else(ca: CaIdentity, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    issued = issue(csr(SAN), ca=ca, now=NOW, days=365).public_bytes(Encoding.PEM)
    verify = ("verify", "-x509_strict", "-CAfile", str(tmp_path / "ca.pem"), "-attime", str(int(NOW.timestamp())))

    assert b"OK" in openssl(*verify, "-purpose", "sslclient", stdin=issued)
    with pytest.raises(CalledProcessError):
        openssl(*verify, "-purpose", "sslserver", stdin=issued)


# Push certificates


def push_certificate(ca: CaIdentity, *, uid: str | None = TOPIC) -> bytes:
    subject = [(NameOID.COMMON_NAME, "APSP:1")] + ([(NameOID.USER_ID, uid)] if uid else [])
    return issue(csr(subject=subject, key=rsa_key("push")), ca=ca, now=NOW, days=365).public_bytes(Encoding.PEM)


def private_key(form: PrivateFormat = PrivateFormat.PKCS8, *, name: str = "push", password: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return rsa_key(name).private_bytes(Encoding.PEM, form, encryption)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_a_certificate_and_its_key_are_read_in_any_order(ca: CaIdentity, form: PrivateFormat, line_end: bytes) -> None:
    certificate, key = push_certificate(ca), private_key(form)

    for pem in (
        certificate + key,
        key + certificate,
        certificate.strip() + key,
        b"Bag Attributes\n" + key + certificate,
    ):
        identity = PushIdentity.decode(pem.replace(b"\n", line_end))
        assert identity.topic == TOPIC
        assert identity.not_after == NOW + timedelta(days=365)
        assert PushIdentity.decode(identity.certificate_pem + identity.private_key_pem) == identity
        assert identity.private_key_pem == private_key()


def test_of_each_kind_the_last_block_counts(ca: CaIdentity) -> None:
    other = push_certificate(ca, uid="com.apple.mgmt.External.other")
    pem = other + private_key(name="other") + push_certificate(ca) + private_key()

    assert PushIdentity.decode(pem).topic == TOPIC


def test_what_is_wrong_with_a_push_certificate_is_said(ca: CaIdentity) -> None:
    certificate, key = push_certificate(ca), private_key()
    request = csr().public_bytes(Encoding.PEM)
    cases = {
        "certificate_missing": key,
        "private_key_missing": certificate,
        "private_key_encrypted": certificate + private_key(password=b"secret"),
        "private_key_of_another_certificate": certificate + private_key(name="other"),
        "pem_type_unknown": certificate + key + request,
        "push_topic_missing": push_certificate(ca, uid=None) + key,
        "certificate_unreadable": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + key,
        "private_key_unreadable": certificate + b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
    }
    for code, pem in cases.items():
        with pytest.raises(BadRequestError) as refused:
            PushIdentity.decode(pem)
        assert refused.value.code == code
    with pytest.raises(BadRequestError, match='unrecognized PEM type: "CERTIFICATE REQUEST"'):
        PushIdentity.decode(cases["pem_type_unknown"])
    with pytest.raises(BadRequestError, match="private key PEM appears to be encrypted"):
        PushIdentity.decode(certificate + private_key(PrivateFormat.TraditionalOpenSSL, password=b"secret"))


def test_a_certificate_for_other_pushes_than_mdm_is_refused(ca: CaIdentity) -> None:
    with pytest.raises(BadRequestError) as refused:
        PushIdentity.decode(push_certificate(ca, uid="com.example.app") + private_key())
    assert refused.value.code == "push_topic_missing"


def test_the_private_key_does_not_show_in_a_repr(ca: CaIdentity) -> None:
    assert "PRIVATE KEY" not in repr(PushIdentity.decode(push_certificate(ca) + private_key()))


@given(st.binary(max_size=300) | st.text(alphabet="-BEGINCERTIFICATEPRIVATE KEY\n", max_size=300).map(str.encode))
def test_noise_is_refused_quietly(noise: bytes) -> None:
    with pytest.raises(BadRequestError):
        PushIdentity.decode(noise)

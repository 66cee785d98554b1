"""CAs with their keys, in the files that administrators have them in."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.authority_import import MAX_BYTES, decode_authority_pem, decode_authority_pkcs12
from mdmlib.apple.certificates import CaIdentity
from mdmlib.errors import BadRequestError
from tests.scep_client import rsa_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
PASSWORD = "correct horse"


def authority(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    *,
    name: str = "Corporate Devices",
    extensions: tuple[x509.ExtensionType, ...] = (x509.BasicConstraints(ca=True, path_length=0),),
    not_before: datetime = NOW - DAY,
    not_after: datetime = NOW + 1000 * DAY,
) -> x509.Certificate:
    key = key or rsa_key("ca")
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)] if name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, SHA256())


def key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    others = {
        "content_commitment": False,
        "key_encipherment": False,
        "data_encipherment": False,
        "key_agreement": False,
        "crl_sign": True,
        "encipher_only": False,
        "decipher_only": False,
    }
    return x509.KeyUsage(digital_signature=True, key_cert_sign=key_cert_sign, **others)


CA = authority()
OTHER = authority(rsa_key("another"), name="Corporate Root")


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def key_pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | None = None,
    form: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption | None = None,
) -> bytes:
    return (key or rsa_key("ca")).private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def p12(certificate: x509.Certificate | None = CA, *others: x509.Certificate, password: str | None = None) -> bytes:
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"ca", rsa_key("ca"), certificate, others or None, encryption)


def assert_read(identity: CaIdentity) -> None:
    assert identity.certificate == CA
    assert identity.private_key.private_numbers() == rsa_key("ca").private_numbers()


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_ca_is_read_from_pem_in_any_order(form: PrivateFormat, password: str | None) -> None:
    key = key_pem(form=form, encryption=BestAvailableEncryption(password.encode()) if password else None)

    assert_read(decode_authority_pem(pem(CA) + key, password, at=NOW))
    assert_read(decode_authority_pem(key + pem(OTHER, CA), password, at=NOW))
    assert_read(decode_authority_pem((key + pem(CA)).replace(b"\n", b"\r\n"), password, at=NOW))


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_ca_is_read_from_pkcs12_also_with_its_chain(password: str | None) -> None:
    assert_read(decode_authority_pkcs12(p12(password=password), password, at=NOW))
    assert_read(decode_authority_pkcs12(p12(CA, OTHER, password=password), password, at=NOW))


def test_of_two_certificates_for_one_key_the_one_that_lasts_longer_counts() -> None:
    before = authority(not_after=NOW + DAY)

    assert_read(decode_authority_pem(key_pem() + pem(before, CA), None, at=NOW))


def test_a_password_that_is_not_needed_does_not_matter() -> None:
    assert_read(decode_authority_pem(key_pem() + pem(CA), PASSWORD, at=NOW))


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (lambda: b"", "private_key_missing"),
        (lambda: pem(CA), "private_key_missing"),
        (lambda: key_pem() * 2 + pem(CA), "private_key_missing"),
        (key_pem, "certificate_missing"),
        (lambda: key_pem() + pem(OTHER), "private_key_of_another_certificate"),
        (lambda: key_pem().replace(b"M", b"N") + pem(CA), "private_key_unreadable"),
        (lambda: key_pem() + pem(CA).replace(b"MII", b"NII"), "certificate_unreadable"),
        (lambda: key_pem(encryption=BestAvailableEncryption(b"other")) + pem(CA), "password_wrong"),
        (lambda: key_pem(rsa_key("weak", 1024)) + pem(authority(rsa_key("weak", 1024))), "key_unsupported"),
        (lambda: key_pem() + pem(authority(extensions=())), "not_an_authority"),
        (lambda: key_pem() + pem(authority(extensions=(x509.BasicConstraints(False, None),))), "not_an_authority"),  # noqa: FBT003 - cryptography's
        (lambda: key_pem() + pem(authority(name="")), "not_an_authority"),
        (lambda: key_pem() + pem(authority(not_after=NOW)), "authority_expired"),
        (lambda: key_pem() + pem(authority(not_before=NOW + DAY)), "authority_not_yet_valid"),
        (lambda: b"x" * (MAX_BYTES + 1), "authority_too_large"),
    ],
)
def test_what_cannot_issue_is_refused_with_the_reason(files: Any, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        decode_authority_pem(files(), PASSWORD, at=NOW)

    assert refused.value.code == code


def test_a_key_of_an_elliptic_curve_is_refused_because_devices_encrypt_to_it() -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    with pytest.raises(BadRequestError, match="has to be RSA") as refused:
        decode_authority_pem(key_pem(key) + pem(authority(key)), None, at=NOW)
    assert refused.value.code == "key_unsupported"


@pytest.mark.parametrize("may_sign", [True, False])
def test_a_key_usage_that_is_there_has_to_allow_signing(may_sign: bool) -> None:  # noqa: FBT001 - pytest's parameter
    usage = key_usage(key_cert_sign=may_sign)
    certificate = authority(extensions=(x509.BasicConstraints(ca=True, path_length=None), usage))
    if may_sign:
        assert decode_authority_pem(key_pem() + pem(certificate), None, at=NOW).certificate == certificate
    else:
        with pytest.raises(BadRequestError, match="must not sign"):
            decode_authority_pem(key_pem() + pem(certificate), None, at=NOW)


def test_an_encrypted_key_says_that_its_password_is_missing() -> None:
    encrypted = key_pem(encryption=BestAvailableEncryption(PASSWORD.encode()))

    with pytest.raises(BadRequestError) as refused:
        decode_authority_pem(encrypted + pem(CA), None, at=NOW)
    assert (refused.value.code, refused.value.field) == ("password_missing", "password")


@pytest.mark.parametrize("password", [None, "another"])
def test_a_pkcs12_file_without_its_password_is_refused(password: str | None) -> None:
    with pytest.raises(BadRequestError) as refused:
        decode_authority_pkcs12(p12(password=PASSWORD), password, at=NOW)

    assert refused.value.code == "pkcs12_unreadable"


def test_a_pkcs12_file_without_a_certificate_is_refused() -> None:
    with pytest.raises(BadRequestError) as refused:
        decode_authority_pkcs12(p12(None), None, at=NOW)

    assert refused.value.code == "certificate_missing"


@given(noise=st.binary(max_size=200), password=st.none() | st.text(max_size=5))
def test_noise_is_refused_quietly(noise: bytes, password: str | None) -> None:
    for decode in (decode_authority_pem, decode_authority_pkcs12):
        with pytest.raises(BadRequestError) as refused:
            decode(noise, password, at=NOW)
        assert refused.value.code

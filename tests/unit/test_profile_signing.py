"""Signed profiles, held against OpenSSL and against our own reader."""

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from mdmlib.apple.device_certificate import SignedContent
from mdmlib.apple.profile_signing import SigningIdentity
from mdmlib.errors import BadRequestError
from tests.genuine_devices import Authority
from tests.scep_client import openssl

PROFILE = b'<?xml version="1.0"?>\n<plist version="1.0"><dict/></plist>\n'

CERTIFICATE_OF_NOTHING = b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"


def pem_of(key: object, *, encoding: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, encoding, NoEncryption())  # type: ignore[attr-defined]  # any key
    return pem


@pytest.fixture(scope="module")
def root() -> Authority:
    return Authority.named("Signing Root")


@pytest.fixture(scope="module")
def intermediate(root: Authority) -> Authority:
    return Authority.named("Signing Intermediate", above=root)


@pytest.fixture(scope="module")
def upload(root: Authority, intermediate: Authority) -> bytes:
    signer = intermediate.device()
    return root.pem + pem_of(signer.key) + signer.certificate.public_bytes(Encoding.PEM) + intermediate.pem


def test_a_profile_is_signed_as_it_is_with_its_chain(upload: bytes, root: Authority, intermediate: Authority) -> None:
    identity = SigningIdentity.decode(upload)

    signed = SignedContent.verify(identity.sign(PROFILE))

    assert signed.content == PROFILE
    assert signed.signer.der == identity.certificate.public_bytes(Encoding.DER)
    assert set(signed.certificates) == {
        each.public_bytes(Encoding.DER) for each in (identity.certificate, root.certificate, intermediate.certificate)
    }


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is the other implementation")
def test_openssl_reads_what_was_signed(upload: bytes, root: Authority, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(root.pem)
    signed = SigningIdentity.decode(upload).sign(PROFILE)

    options = ("-CAfile", str(tmp_path / "root.pem"), "-no_check_time", "-purpose", "any", "-binary")
    assert openssl("cms", "-verify", "-inform", "DER", *options, stdin=signed) == PROFILE


@pytest.mark.parametrize("encoding", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_identity_may_be_of_an_elliptic_curve(encoding: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key)
    identity = SigningIdentity.decode(pem_of(key, encoding=encoding) + certificate.public_bytes(Encoding.PEM))

    assert SignedContent.verify(identity.sign(PROFILE)).content == PROFILE
    assert identity.not_after == certificate.not_valid_after_utc


def test_an_identity_is_stored_and_read_again(upload: bytes) -> None:
    identity = SigningIdentity.decode(upload)

    again = SigningIdentity.decode(identity.certificates_pem + identity.private_key_pem)

    assert (again.certificate, again.chain) == (identity.certificate, identity.chain)
    assert "PRIVATE" not in repr(identity)


def test_what_is_wrong_with_an_identity_is_told(upload: bytes, root: Authority) -> None:
    encrypted = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    odd = ed25519.Ed25519PrivateKey.generate()
    wrong = {
        "certificate_unreadable": [
            b"",
            pem_of(root.key),
            b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----",
        ],
        "private_key_missing": [root.pem],
        "private_key_encrypted": [root.pem + encrypted],
        "private_key_unreadable": [root.pem + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
        "private_key_of_another_certificate": [root.pem + pem_of(ec.generate_private_key(ec.SECP256R1()))],
        "key_unsupported": [root.pem + pem_of(odd)],
        "chain_too_long": [
            upload + b"".join(Authority.named(f"Chain {number}").pem for number in range(4)),
        ],
    }
    for code, uploads in wrong.items():
        for pem in uploads:
            with pytest.raises(BadRequestError) as refused:
                SigningIdentity.decode(pem)
            assert refused.value.code == code


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Signer")])
    template = Authority.named("Signing Root").certificate
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )

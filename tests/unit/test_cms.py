import base64
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Self

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmlib.apple import ber, cms
from mdmlib.errors import IdentityError, MalformedBodyError
from tests.scep_client import indefinite, openssl, rsa_key

BODY = b'<?xml version="1.0"?><plist version="1.0"><dict><key>Status</key><string>Idle</string></dict></plist>' * 20

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL is the other implementation")


@cache
def certificate_of(kind: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey]:
    """Return a certificate and its key: ``rsa``, or else of an elliptic curve."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
        rsa_key("signer") if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, kind)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=3650))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


@dataclass(frozen=True)
class Signer:
    """Signs with OpenSSL's command line."""

    certificate: x509.Certificate
    files: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, folder: Path) -> Self:
        certificate, key = certificate_of(kind)
        folder.mkdir()
        certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
        certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cls(certificate, ("-signer", str(certificate_file), "-inkey", str(key_file)))

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def sign(self, *options: str) -> bytes:
        return openssl("cms", "-sign", "-binary", "-outform", "DER", *self.files, *options, stdin=BODY)


@pytest.fixture(params=["rsa", "ec"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    return Signer.of(request.param, tmp_path / "signer")


# Signatures that OpenSSL makes


@needs_openssl
@pytest.mark.parametrize("encoding", [(), ("-stream",)], ids=["der", "ber"])
@pytest.mark.parametrize("attributes", [(), ("-noattr",)], ids=["attributes", "no-attributes"])
@pytest.mark.parametrize("named_by", [(), ("-keyid",)], ids=["serial", "key-id"])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_every_form_of_signature_that_openssl_makes_is_verified(
    signer: Signer, digest: str, named_by: tuple[str, ...], attributes: tuple[str, ...], encoding: tuple[str, ...]
) -> None:
    signature = signer.sign("-md", digest, *named_by, *attributes, *encoding)

    assert cms.verify_detached(signature, BODY) == cms.SignerCertificate(signer.der)
    for other in (BODY + b" ", BODY[:-1], b""):
        with pytest.raises(IdentityError):
            cms.verify_detached(signature, other)


@needs_openssl
def test_a_stream_without_attributes_in_sha1_is_what_devices_send_and_is_verified(signer: Signer) -> None:
    signature = signer.sign("-md", "sha1", "-noattr", "-stream")

    assert signature[:2] == b"\x30\x80"
    assert cms.verify_detached(signature, BODY).der == signer.der


@needs_openssl
def test_a_signature_that_carries_its_content_counts_only_for_that_content(signer: Signer) -> None:
    signature = signer.sign("-md", "sha256", "-nodetach", "-stream")

    assert cms.verify_detached(signature, BODY).der == signer.der
    with pytest.raises(IdentityError):
        cms.verify_detached(signature, b"another body")


@needs_openssl
def test_other_certificates_beside_the_signers_do_not_matter(signer: Signer, tmp_path: Path) -> None:
    others = tmp_path / "others.pem"
    others.write_bytes(certificate_of("other")[0].public_bytes(Encoding.PEM))

    signature = signer.sign("-md", "sha256", "-certfile", str(others))

    assert cms.verify_detached(signature, BODY).der == signer.der


@needs_openssl
def test_a_signature_without_its_certificate_proves_nothing(signer: Signer) -> None:
    with pytest.raises(IdentityError):
        cms.verify_detached(signer.sign("-md", "sha256", "-nocerts"), BODY)


@needs_openssl
def test_two_signatures_prove_nothing(signer: Signer, tmp_path: Path) -> None:
    other = Signer.of("other", tmp_path / "other")

    with pytest.raises(IdentityError):
        cms.verify_detached(signer.sign("-md", "sha256", *other.files), BODY)


@needs_openssl
def test_a_digest_that_collides_is_not_accepted(tmp_path: Path) -> None:
    signature = Signer.of("rsa", tmp_path / "rsa").sign("-md", "md5")

    with pytest.raises(IdentityError):
        cms.verify_detached(signature, BODY)


# Signatures that we make, and what may be changed about them


def signed(*, digest: hashes.HashAlgorithm | None = None) -> bytes:
    certificate, key = certificate_of("rsa")
    assert isinstance(key, rsa.RSAPrivateKey)
    der = certificate.public_bytes(Encoding.DER)
    return cms.sign(BODY, certificate=der, private_key=key, digest=digest or hashes.SHA256(), attributes={})


def edited(edit: Callable[[list[bytes]], None]) -> bytes:
    """Return a signature of ours whose SignerInfo's fields (version to signature) went through ``edit``."""
    *fields, signer_infos = cms.content_info(signed(), cms.SIGNED_DATA).children()
    signer_info = [element.encoded for element in signer_infos.only_child().children()]
    edit(signer_info)
    signer_infos_again = ber.der(ber.SET, ber.der(ber.SEQUENCE, *signer_info))
    signed_data = ber.der(ber.SEQUENCE, *[element.encoded for element in fields], signer_infos_again)
    return cms.wrap(cms.SIGNED_DATA, signed_data)


def algorithm(dotted: str) -> bytes:
    return ber.der(ber.SEQUENCE, ber.der_oid(dotted))


def with_attributes(change: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Return a valid signature over other signed attributes."""

    def edit(fields: list[bytes]) -> None:
        attributes = change([element.encoded for element in ber.decode(fields[3]).children()])
        fields[3] = ber.der(ber.context(0), *attributes)
        signature = rsa_key("signer").sign(ber.der(ber.SET, *attributes), padding.PKCS1v15(), hashes.SHA256())
        fields[5] = ber.der(ber.OCTET_STRING, signature)

    return edited(edit)


@needs_openssl
@pytest.mark.parametrize("digest", ["SHA1", "SHA256", "SHA384", "SHA512"])
def test_openssl_verifies_what_we_sign(tmp_path: Path, digest: str) -> None:
    (tmp_path / "ca.pem").write_bytes(certificate_of("rsa")[0].public_bytes(Encoding.PEM))
    trust = ("-CAfile", str(tmp_path / "ca.pem"), "-purpose", "any")

    content = openssl(
        "cms", "-verify", "-inform", "DER", "-binary", *trust, stdin=signed(digest=getattr(hashes, digest)())
    )

    assert content == BODY


def test_what_we_sign_is_der() -> None:
    assert asn1_cms.ContentInfo.load(signed(), strict=True).dump(force=True) == signed()


def test_null_parameters_or_none_are_the_same() -> None:
    def without_parameters(fields: list[bytes]) -> None:
        fields[2], fields[4] = algorithm("2.16.840.1.101.3.4.2.1"), algorithm("1.2.840.113549.1.1.1")

    cms.verify_detached(signed(), BODY)
    cms.verify_detached(edited(without_parameters), BODY)


def test_the_signature_algorithm_may_name_the_digest_as_well() -> None:
    def with_digest(fields: list[bytes]) -> None:
        fields[4] = algorithm("1.2.840.113549.1.1.11")

    cms.verify_detached(edited(with_digest), BODY)


@pytest.mark.parametrize(
    "other",
    ["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.2", "1.2.840.113549.1.1.4", "1.2.3"],
    ids=["another digest", "another kind of key", "md5", "unknown"],
)
def test_a_signature_of_another_algorithm_does_not_verify(other: str) -> None:
    def with_another(fields: list[bytes]) -> None:
        fields[4] = algorithm(other)

    with pytest.raises(IdentityError):
        cms.verify_detached(edited(with_another), BODY)


def test_attributes_with_indefinite_lengths_are_signed_with_definite_ones() -> None:
    def in_ber(fields: list[bytes]) -> None:
        fields[3] = indefinite(fields[3], depth=4)
        fields[5] = indefinite(fields[5], depth=1)

    assert edited(in_ber) != signed()
    cms.verify_detached(edited(in_ber), BODY)


def test_attributes_out_of_order_are_verified_as_they_were_signed() -> None:
    backwards = with_attributes(lambda attributes: attributes[::-1])

    assert backwards != with_attributes(lambda attributes: attributes)
    cms.verify_detached(backwards, BODY)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_missing_signed_attribute_proves_nothing(kept: int) -> None:
    with pytest.raises(IdentityError, match="missing"):
        cms.verify_detached(with_attributes(lambda attributes: [attributes[kept]]), BODY)


def test_a_signed_attribute_that_occurs_twice_proves_nothing() -> None:
    with pytest.raises(IdentityError):
        cms.verify_detached(with_attributes(lambda attributes: attributes + attributes[:1]), BODY)


@pytest.mark.parametrize("values", [[], [b"\x04\x01a", b"\x04\x01b"]], ids=["none", "two"])
def test_a_signed_attribute_of_no_or_two_values_counts_as_missing(values: list[bytes]) -> None:
    digest = ber.der(ber.SEQUENCE, ber.der(ber.OID, cms.MESSAGE_DIGEST), ber.der(ber.SET, *values))

    with pytest.raises(IdentityError, match="missing"):
        cms.verify_detached(with_attributes(lambda attributes: [attributes[0], digest]), BODY)


def test_the_signed_attributes_must_be_of_the_type_of_content_that_is_there() -> None:
    another = ber.der(
        ber.SEQUENCE,
        ber.der(ber.OID, cms.CONTENT_TYPE),
        ber.der(ber.SET, ber.der(ber.OID, cms.ENVELOPED_DATA)),
    )

    with pytest.raises(IdentityError, match="another content"):
        cms.verify_detached(with_attributes(lambda attributes: [another, attributes[1]]), BODY)


# What is no signature


@pytest.mark.parametrize("body", [b"", b"\x30\x00", b"plist", b"\x30\x80\x00\x00"])
def test_what_is_no_signed_data_proves_nothing(body: bytes) -> None:
    with pytest.raises(IdentityError):
        cms.verify_detached(body, BODY)
    with pytest.raises(MalformedBodyError):
        cms.SignedData.decode(body)


def test_a_signature_larger_than_any_is_not_even_parsed() -> None:
    with pytest.raises(IdentityError, match="larger"):
        cms.verify_detached(signed() + bytes(cms.MAX_SIGNATURE_BYTES), BODY)


@settings(max_examples=150)
@given(st.data())
def test_a_changed_signature_is_refused_and_never_breaks_anything(data: st.DataObject) -> None:
    signature = bytearray(signed())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(signature) - 1))
        signature[position] = data.draw(st.integers(0, 255))

    try:
        found = cms.verify_detached(bytes(signature), BODY)
    except IdentityError:
        return
    # What no signature covers may change: versions, unused fields. Whose key signed may not.
    assert x509.load_der_x509_certificate(found.der).public_key() == rsa_key("signer").public_key()


@given(st.binary(max_size=500))
def test_noise_proves_nothing(noise: bytes) -> None:
    with pytest.raises(IdentityError):
        cms.verify_detached(noise, BODY)


# The header


def test_the_header_may_be_folded_or_hold_spaces() -> None:
    signature = signed()
    plain = base64.b64encode(signature).decode()

    assert cms.decode_mdm_signature(plain) == signature
    assert (
        cms.decode_mdm_signature(" " + "\r\n ".join(plain[i : i + 64] for i in range(0, len(plain), 64))) == signature
    )


@pytest.mark.parametrize("header", ["", "  ", "!!!!", "MIIBA", "é", "MII=MII="])
def test_a_header_that_is_no_base64_proves_nothing(header: str) -> None:
    with pytest.raises(IdentityError):
        cms.decode_mdm_signature(header)


@given(st.text(max_size=60))
def test_any_text_in_the_header_is_refused_quietly(header: str) -> None:
    with contextlib.suppress(IdentityError):
        cms.decode_mdm_signature(header)


# Certificates alone


def test_certificates_alone_keep_their_order() -> None:
    ders = [certificate_of(kind)[0].public_bytes(Encoding.DER) for kind in ("ec", "rsa", "other")]

    assert cms.SignedData.decode(cms.certificates_only(ders)).certificates == ders
    assert cms.SignedData.decode(cms.certificates_only(ders[::-1])).certificates == ders[::-1]


def test_nothing_of_the_content_shows_in_a_repr() -> None:
    assert "Idle" not in repr(cms.SignedData.decode(signed()))

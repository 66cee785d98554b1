import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmlib.apple import ber
from mdmlib.apple.cms import SignerCertificate
from mdmlib.apple.identity import IdentityVerifier
from mdmlib.errors import IdentityError
from tests.scep_client import rsa_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
END = NOW + timedelta(days=365)
GRACE = timedelta(days=30)

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(
    issuer: str,
    issuer_key: Key,
    *extensions: x509.ExtensionType,
    subject: str = "device",
    key: Key | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key((key or rsa_key("device")).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(END)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def anchor(subject: str, key: Key) -> x509.Certificate:
    return certificate(subject, key, subject=subject, key=key)


@pytest.fixture(scope="module")
def ca() -> x509.Certificate:
    return anchor("CA", rsa_key("ca"))


@pytest.fixture(scope="module")
def verifier(ca: x509.Certificate) -> IdentityVerifier:
    return IdentityVerifier([ca], grace=GRACE)


def signer(certificate: x509.Certificate) -> SignerCertificate:
    return SignerCertificate(certificate.public_bytes(Encoding.DER))


def refused(verifier: IdentityVerifier, certificate: x509.Certificate, *, at: datetime = NOW) -> str:
    with pytest.raises(IdentityError) as error:
        verifier.verify(signer(certificate), at=at)
    return error.value.code


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),),
    ],
    ids=["no usage named", "for clients", "for servers and clients", "for anything"],
)
def test_a_certificate_of_our_ca_is_trusted(
    verifier: IdentityVerifier, extensions: tuple[x509.ExtensionType, ...]
) -> None:
    device = certificate("CA", rsa_key("ca"), *extensions)

    verified = verifier.verify(signer(device), at=NOW)

    assert verified.der == device.public_bytes(Encoding.DER)
    assert verified.hash == hashlib.sha256(verified.der).hexdigest()
    assert verified.not_after == END


def test_a_certificate_for_something_else_than_clients_is_not(verifier: IdentityVerifier) -> None:
    server = certificate("CA", rsa_key("ca"), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))

    assert refused(verifier, server) == "certificate_purpose"


def test_a_certificate_of_another_ca_is_not(verifier: IdentityVerifier) -> None:
    assert refused(verifier, certificate("Another CA", rsa_key("another ca"))) == "certificate_not_ours"


def test_a_ca_that_took_our_name_is_not_ours(verifier: IdentityVerifier) -> None:
    assert refused(verifier, certificate("CA", rsa_key("impostor"))) == "certificate_not_ours"


def test_a_self_signed_certificate_is_not(verifier: IdentityVerifier) -> None:
    assert refused(verifier, anchor("device", rsa_key("device"))) == "certificate_not_ours"


def test_without_any_anchor_nobody_is_trusted() -> None:
    assert refused(IdentityVerifier([], grace=GRACE), certificate("CA", rsa_key("ca"))) == "certificate_not_ours"


def test_a_ca_whose_key_was_replaced_is_trusted_under_both_keys(ca: x509.Certificate) -> None:
    verifier = IdentityVerifier([ca, anchor("CA", rsa_key("new ca"))], grace=GRACE)

    for key in (rsa_key("ca"), rsa_key("new ca")):
        verifier.verify(signer(certificate("CA", key)), at=NOW)


def test_a_ca_of_an_elliptic_curve_serves_as_well() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    verifier = IdentityVerifier([anchor("EC CA", key)], grace=GRACE)

    verifier.verify(signer(certificate("EC CA", key)), at=NOW)


@pytest.mark.parametrize("at", [NOW, END, END + GRACE], ids=["from its begin", "to its end", "in the grace after it"])
def test_a_certificate_counts_in_its_time_and_for_a_grace(verifier: IdentityVerifier, at: datetime) -> None:
    verifier.verify(signer(certificate("CA", rsa_key("ca"))), at=at)


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (NOW - timedelta(seconds=1), "certificate_not_yet_valid"),
        (END + GRACE + timedelta(seconds=1), "certificate_expired"),
    ],
)
def test_a_certificate_counts_neither_before_nor_after(verifier: IdentityVerifier, at: datetime, code: str) -> None:
    assert refused(verifier, certificate("CA", rsa_key("ca")), at=at) == code


def test_a_ca_that_outlived_its_own_certificate_still_vouches_for_its_devices(verifier: IdentityVerifier) -> None:
    """Its devices could not enroll anew without somebody at each of them."""
    device = certificate("CA", rsa_key("ca"))

    assert verifier.verify(signer(device), at=END + GRACE)


def test_a_certificate_cannot_be_given_another_hash(verifier: IdentityVerifier) -> None:
    """How many bits of the signature's last octet count can be changed without breaking it, when the last one is 0."""
    device = next(
        issued for issued in (certificate("CA", rsa_key("ca")) for _ in range(99)) if issued.signature[-1] & 1 == 0
    )
    der = device.public_bytes(Encoding.DER)
    twin = der.replace(b"\x00" + device.signature, b"\x01" + device.signature)

    x509.load_der_x509_certificate(twin).verify_directly_issued_by(anchor("CA", rsa_key("ca")))
    with pytest.raises(IdentityError):
        verifier.verify(SignerCertificate(twin), at=NOW)


def test_nor_by_another_way_to_write_the_algorithm_beside_the_signature(verifier: IdentityVerifier) -> None:
    device = certificate("CA", rsa_key("ca"))
    _, algorithm, signature = ber.decode(device.public_bytes(Encoding.DER)).children()
    without_null = ber.der(ber.SEQUENCE, algorithm.children()[0].encoded)
    twin = ber.der(ber.SEQUENCE, device.tbs_certificate_bytes, without_null, signature.encoded)

    assert x509.load_der_x509_certificate(twin).signature_hash_algorithm
    with pytest.raises(IdentityError) as error:
        verifier.verify(SignerCertificate(twin), at=NOW)
    assert error.value.code == "certificate_malformed"


# It says of some that they are odd, before we refuse them.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=150)
@given(st.data())
def test_a_changed_certificate_is_refused_and_never_breaks_anything(data: st.DataObject) -> None:
    der = bytearray(DEVICE)
    position = data.draw(st.integers(0, len(der) - 1))
    der[position] ^= data.draw(st.integers(1, 255))

    with pytest.raises(IdentityError):
        VERIFIER.verify(SignerCertificate(bytes(der)), at=NOW)


VERIFIER = IdentityVerifier([anchor("CA", rsa_key("ca"))], grace=GRACE)
DEVICE = certificate("CA", rsa_key("ca")).public_bytes(Encoding.DER)

"""What a SCEP client asks to be certified (RFC 2986), and the throw-away certificate that it asks with."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import AttributeOID, NameOID

from local.device.cms import PrivateKey

_NAMES: Final[Mapping[str, x509.ObjectIdentifier]] = {
    "C": NameOID.COUNTRY_NAME,
    "L": NameOID.LOCALITY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
}
_ALTERNATIVE_NAMES: Final[Mapping[str, Callable[[str], x509.GeneralName]]] = {
    "rfc822Name": x509.RFC822Name,
    "dNSName": x509.DNSName,
    "uniformResourceIdentifier": x509.UniformResourceIdentifier,
}
SIGNING: Final = 1
ENCRYPTION: Final = 4
"""The bits of the SCEP payload's ``Key Usage``."""


def name(pairs: Sequence[tuple[str, str]]) -> x509.Name:
    """Make a name of the payload's ``Subject``: short names or dotted OIDs with their values."""
    return x509.Name([x509.NameAttribute(_NAMES.get(key) or x509.ObjectIdentifier(key), value) for key, value in pairs])


def new_request(
    key: PrivateKey,
    subject: x509.Name,
    *,
    usage: int,
    alternative_names: Mapping[str, str | list[str]],
    challenge: str | None,
) -> bytes:
    """Return a PKCS #10 request as DER; ``alternative_names`` are those of the payload's ``SubjectAltName``."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if usage:
        builder = builder.add_extension(_key_usage(usage), critical=True)
    names = []
    for kind, make in _ALTERNATIVE_NAMES.items():
        values = alternative_names.get(kind, [])
        names += [make(value) for value in ([values] if isinstance(values, str) else values)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if challenge is not None:
        builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.encode())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def self_signed(key: PrivateKey, subject: x509.Name, *, at: datetime) -> x509.Certificate:
    """Return the certificate that signs a first request (RFC 8894, section 2.3): nobody trusts it."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - timedelta(minutes=5))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(_key_usage(SIGNING | ENCRYPTION), critical=True)
        .sign(key, hashes.SHA256())
    )


def issuer_and_subject(ca: x509.Certificate, subject: x509.Name) -> bytes:
    """Return what a CertPoll carries (RFC 8894, section 3.3.3)."""

    class Names(core.SequenceOf):  # type: ignore[misc]  # asn1crypto has no types
        _child_spec = asn1_x509.Name

    return bytes(Names([asn1_x509.Name.load(one.public_bytes()) for one in (ca.subject, subject)]).dump())


def _key_usage(usage: int) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=bool(usage & SIGNING),
        content_commitment=False,
        key_encipherment=bool(usage & ENCRYPTION),
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )

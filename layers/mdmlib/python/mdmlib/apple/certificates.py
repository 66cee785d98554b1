"""X.509: our own CA, the identities that it issues to devices, and the push certificates that Apple issues to us."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mdmlib.errors import BadRequestError

CA_VALIDITY: Final = timedelta(days=3653)
BACKDATED: Final = timedelta(minutes=10)
"""How long before its issue a certificate is valid already: clocks of devices are behind."""

PUSH_TOPIC_PREFIX: Final = "com.apple.mgmt"

_RSA_BITS: Final = range(2048, 4097)
_NO_AUTHORITY: Final = x509.BasicConstraints(ca=False, path_length=None)
_FOR_CLIENTS: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SUBJECT_ATTRIBUTES: Final = frozenset(
    {
        NameOID.COMMON_NAME,
        NameOID.COUNTRY_NAME,
        NameOID.DOMAIN_COMPONENT,
        NameOID.EMAIL_ADDRESS,
        NameOID.GIVEN_NAME,
        NameOID.LOCALITY_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.ORGANIZATION_NAME,
        NameOID.SERIAL_NUMBER,
        NameOID.STATE_OR_PROVINCE_NAME,
        NameOID.SURNAME,
        NameOID.USER_ID,
    }
)


@dataclass(frozen=True)
class CaIdentity:
    """A CA's certificate with its private key. RSA, for SCEP clients encrypt to it."""

    certificate: x509.Certificate
    private_key: rsa.RSAPrivateKey = field(repr=False)

    @cached_property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @cached_property
    def key_id(self) -> x509.AuthorityKeyIdentifier:
        """How what it signs names its key."""
        return _authority_key_id(self.certificate)

    @classmethod
    def decode(cls, certificate: bytes, private_key: bytes) -> Self:
        """Load a DER certificate and its PKCS #8 DER key, both of which we made and stored."""
        # Checking the primes anew costs more than everything else that an enrollment does.
        key = load_der_private_key(private_key, password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("The CA's key is no RSA key.")
        return cls(x509.load_der_x509_certificate(certificate), key)

    def private_key_der(self) -> bytes:
        """Return the private key as PKCS #8 DER, unencrypted."""
        return self.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def new_certificate_authority(organization: str, *, number: int = 1, now: datetime) -> CaIdentity:
    """Make a self-signed CA for device identities: RSA-2048, ten years. Each ``number`` has a name of its own.

    Larger keys would make SCEP messages that clients send in a URL longer than what API Gateway takes. SCEP clients
    encrypt to this certificate and verify answers with it, so its key may do that as well.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]),
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"Device Identity CA {number}" if number > 1 else "Device Identity CA"
            ),
        ]
    )
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + CA_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            key_usage(digital_signature=True, key_encipherment=True, key_cert_sign=True, crl_sign=True), critical=True
        )
        .add_extension(key_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        .sign(key, hashes.SHA256())
    )
    return CaIdentity(certificate, key)


def issue(
    csr: x509.CertificateSigningRequest,
    *,
    ca: CaIdentity,
    now: datetime,
    days: int,
    subject: x509.Name | None = None,
) -> x509.Certificate:
    """Issue the client certificate that ``csr`` asks for, valid for ``days``, but not beyond the CA's own end.

    The request decides on its subject (of the attributes that name people and devices), its alternative names and
    whether the key may also decrypt; everything else is ours. ``subject`` replaces the request's: a renewed identity
    keeps its name. The request's signature has to be verified before. Raises
    :class:`~mdmlib.errors.BadRequestError` for a key that is too weak and for extensions that cannot be read.
    """
    try:
        public_key = csr.public_key()
        requested = csr.extensions
        name = subject or _allowed_subject(csr)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca.certificate.subject)
            .public_key(_acceptable(public_key))
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(min(now + timedelta(days=days), ca.certificate.not_valid_after_utc))
            .add_extension(_NO_AUTHORITY, critical=True)
            .add_extension(
                key_usage(digital_signature=True, key_encipherment=_asks_for_encryption(requested)), critical=True
            )
            .add_extension(_FOR_CLIENTS, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(ca.key_id, critical=False)
        )
        try:
            names = requested.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            pass
        else:
            builder = builder.add_extension(names.value, critical=names.critical)
        return builder.sign(ca.private_key, hashes.SHA256())
    except (UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError) as error:
        raise BadRequestError("The certificate request cannot be issued as it is.", code="csr_unusable") from error


def spki(public_key: object) -> bytes:
    """Return a public key's DER SubjectPublicKeyInfo: two keys are the same if this is."""
    if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise BadRequestError("The key is neither RSA nor of an elliptic curve.", code="key_unsupported")
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _acceptable(key: object) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES):
        return key
    raise BadRequestError("The key is weaker, or larger, than what is certified.", code="key_unsupported")


def _allowed_subject(csr: x509.CertificateSigningRequest) -> x509.Name:
    try:
        subject = csr.subject
    except TypeError as error:
        # So cryptography says that there is a BIT STRING where a text belongs.
        raise ValueError("The subject cannot be read.") from error
    allowed = [rdn for rdn in subject.rdns if all(attribute.oid in _SUBJECT_ATTRIBUTES for attribute in rdn)]
    if not allowed:
        # Some clients do not take a certificate without a name.
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Device")])
    return x509.Name(allowed)


def _asks_for_encryption(requested: x509.Extensions) -> bool:
    try:
        return requested.get_extension_for_class(x509.KeyUsage).value.key_encipherment
    except x509.ExtensionNotFound:
        return False


def _authority_key_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Return how what a CA signs names its key."""
    try:
        key_id = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]  # RSA
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)


def key_usage(
    *, digital_signature: bool, key_encipherment: bool, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    """Return the extension that says what a key is for, and for nothing else."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def push_topic(certificate: x509.Certificate) -> str:
    """Return the topic that a push certificate is for: the UID in its subject.

    Raises :class:`~mdmlib.errors.BadRequestError` when it is no MDM push certificate.
    """
    topics = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.USER_ID)]
    if len(topics) != 1 or not topics[0].startswith(PUSH_TOPIC_PREFIX):
        raise BadRequestError(
            "This is not an MDM push certificate: the UID in its subject has to be one topic that begins with "
            f"{PUSH_TOPIC_PREFIX}.",
            code="push_topic_missing",
        )
    return topics[0]


@dataclass(frozen=True)
class PushIdentity:
    """A push certificate with its private key."""

    topic: str
    not_after: datetime
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    """PKCS #8, unencrypted."""

    @classmethod
    def decode(cls, pem: bytes, password: str | None = None) -> Self:
        """Read a certificate and its key from PEM blocks in any order; of each kind the last one counts.

        Blocks that were concatenated without a line break are told apart. Raises
        :class:`~mdmlib.errors.BadRequestError` with what is wrong.
        """
        certificate_pem = key_pem = None
        encrypted = False
        for label, block in pem_blocks(pem):
            if label == "CERTIFICATE":
                certificate_pem = block
            elif label.endswith("PRIVATE KEY"):
                key_pem, encrypted = block, b"ENCRYPTED" in block
            else:
                raise BadRequestError(f'unrecognized PEM type: "{label}"', code="pem_type_unknown")
            if encrypted and password is None:
                raise BadRequestError("private key PEM appears to be encrypted", code="private_key_encrypted")
        if certificate_pem is None:
            raise BadRequestError("There is no certificate in the PEM.", code="certificate_missing")
        if key_pem is None:
            raise BadRequestError("There is no private key in the PEM.", code="private_key_missing")
        certificate = decode_push_certificate(certificate_pem)
        try:
            key = load_pem_private_key(key_pem, password.encode() if encrypted and password else None)
        except (UnsupportedAlgorithm, ValueError, TypeError) as error:
            raise BadRequestError("The private key cannot be read.", code="private_key_unreadable") from error
        return cls.of(certificate, key)

    @classmethod
    def decode_pkcs12(cls, encoded: bytes, password: str | None) -> Self:
        """Read the same from a PKCS #12 file (``.p12``, ``.pfx``). Raises as :meth:`decode` does."""
        try:
            loaded = pkcs12.load_pkcs12(encoded, password.encode() if password else None)
        except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError, TypeError) as error:
            raise BadRequestError(
                "The PKCS #12 file cannot be read: it is none, its password is another one, or missing.",
                code="pkcs12_unreadable",
            ) from error
        if loaded.cert is None or loaded.key is None:
            raise BadRequestError("The PKCS #12 file lacks the certificate or its key.", code="private_key_missing")
        return cls.of(loaded.cert.certificate, loaded.key)

    @classmethod
    def of(cls, certificate: x509.Certificate, key: PrivateKeyTypes) -> Self:
        """Put a certificate and its key together. Raises :class:`~mdmlib.errors.BadRequestError`."""
        if spki(key.public_key()) != _spki_of(certificate):
            raise BadRequestError(
                "The private key is not the one of this certificate.", code="private_key_of_another_certificate"
            )
        return cls(
            topic=push_topic(certificate),
            not_after=certificate.not_valid_after_utc,
            certificate_pem=certificate.public_bytes(Encoding.PEM),
            private_key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def decode_push_certificate(pem: bytes) -> x509.Certificate:
    """Read a certificate, PEM. Raises :class:`~mdmlib.errors.BadRequestError`."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
        raise BadRequestError("The certificate cannot be read.", code="certificate_unreadable") from error
    _spki_of(certificate)
    return certificate


def _spki_of(certificate: x509.Certificate) -> bytes:
    try:
        return spki(certificate.public_key())
    except (UnsupportedAlgorithm, ValueError) as error:
        raise BadRequestError("The certificate cannot be read.", code="certificate_unreadable") from error


_PEM_BLOCK: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----[ \t\r]*\n(.{0,100000}?)-----END \1-----", re.DOTALL
)


def pem_blocks(pem: bytes) -> Sequence[tuple[str, bytes]]:
    """Return the blocks of a PEM file, labels first, line ends normalized."""
    return [(match[1].decode(), match[0].replace(b"\r\n", b"\n") + b"\n") for match in _PEM_BLOCK.finditer(pem)]

"""The certificates around APNs: the service's own, and those that Apple's Push Certificates Portal would issue."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TOPIC_PREFIX: Final = "com.apple.mgmt."

_PRODUCTION_PUSH: Final = x509.ObjectIdentifier("1.2.840.113635.100.6.3.2")
_ASN1_NULL: Final = b"\x05\x00"


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its certificate and key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """Its certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def new(cls, common_name: str) -> Self:
        """Make a self-signed one, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        certificate = (
            _builder(name, name, key.public_key(), days=3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(certificate_authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def stored(cls, path: Path, common_name: str) -> Self:
        """Read the authority kept in ``path``, or make one and keep it there."""
        if path.exists():
            pem = path.read_bytes()
            key = serialization.load_pem_private_key(pem, None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{path} holds no EC key.")
            return cls(x509.load_pem_x509_certificate(pem), key)
        authority = cls.new(common_name)
        _write_private(path, authority.certificate_pem + _key_pem(authority.key))
        return authority

    def issue_server(self, *, hosts: tuple[str, ...] = ("localhost",)) -> bytes:
        """Return a server's certificate for 127.0.0.1 and ``hosts``, with its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        names.append(x509.IPAddress(IPv4Address("127.0.0.1")))
        certificate = (
            _builder(_name(hosts[0]), self.certificate.subject, key.public_key(), days=390)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificate_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key)

    def issue_push(self, topic: str, *, days: int = 365) -> bytes:
        """Return a push certificate for ``topic`` with its RSA-2048 key, PEM, named as Apple's are.

        ``days`` of 0 or less give one that has expired.
        """
        if not topic.startswith(TOPIC_PREFIX):
            raise ValueError(f"A topic of device management begins with {TOPIC_PREFIX}")
        key = rsa.generate_private_key(65537, 2048)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.USER_ID, topic),
                x509.NameAttribute(NameOID.COMMON_NAME, f"APSP:{topic.rsplit('.', 1)[-1]}"),
                x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            ]
        )
        certificate = (
            _builder(subject, self.certificate.subject, key.public_key(), days=days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificate_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.UnrecognizedExtension(_PRODUCTION_PUSH, _ASN1_NULL), critical=False)
            .add_extension(self._key_identifier(), critical=False)
            .sign(self.key, SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key)

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


class Portal:
    """Both authorities, kept in a folder so that what they issued outlives a restart."""

    def __init__(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.servers = Authority.stored(state / "server-authority.pem", "Simulated Apple Server Authority")
        self.push = Authority.stored(state / "push-authority.pem", "Simulated Application Integration Authority")


def topic_of(certificate: x509.Certificate) -> str | None:
    """Return the topic that a push certificate is for: the UID of its subject."""
    attributes = certificate.subject.get_attributes_for_oid(NameOID.USER_ID)
    return str(attributes[0].value) if attributes else None


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, *, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        # An hour ago, for clocks that are late; a day before its end when it shall be expired already.
        .not_valid_before(min(now - timedelta(hours=1), until - timedelta(days=1)))
        .not_valid_after(until)
    )


def _key_usage(*, certificate_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificate_authority,
        key_cert_sign=certificate_authority,
        crl_sign=certificate_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(content)

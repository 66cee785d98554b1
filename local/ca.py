"""The certificate authority of one machine: TLS for the simulated APNs and for the HTTPS edge of the emulator.

A real deployment has certificates that devices trust already. Here a root is made once and kept in a directory; the
programs that speak TLS get server certificates from it, and the simulated devices are told to trust its ``root.pem``.

On the command line it makes what is missing and prints where it is::

    python -m local.ca --directory .local/tls 127.0.0.1 localhost
    {"root": "….local/tls/root.pem", "certificate": "….local/tls/127.0.0.1.pem", "key": "….local/tls/127.0.0.1.key"}
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT_LIFETIME: Final = timedelta(days=3650)
SERVER_LIFETIME: Final = timedelta(days=397)
"""Apple devices refuse TLS server certificates that live longer than 398 days (support.apple.com/102028)."""

RENEW_BEFORE: Final = timedelta(days=30)
CLOCK_SKEW: Final = timedelta(minutes=10)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class ServerCertificate:
    """Where a server's certificate chain (leaf, then root) and its private key lie: what ``load_cert_chain`` takes."""

    certificate: Path
    key: Path


class LocalAuthority:
    """A root that is trusted on this machine only, kept in ``directory`` (``root.pem``, ``root.key``).

    Safe to open twice, also by two programs at once: whoever comes second uses the root that the first one made.
    """

    def __init__(
        self,
        directory: Path,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._directory = directory
        self._certificate = certificate
        self._key = key
        self._now = now

    @classmethod
    def open(cls, directory: Path, *, now: Callable[[], datetime] = _now) -> Self:
        """Load the root from ``directory``, or make one there."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "root.key"
        if not path.exists():
            _publish(path, _new_root(now()))
        # Key and certificate lie in one file, so that two programs that start together never mix two roots.
        pem = path.read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{path} is not a key of this module; delete the directory to start anew.")
        certificate = x509.load_pem_x509_certificate(pem)
        authority = cls(directory, certificate, key, now=now)
        _replace(authority.root, certificate.public_bytes(serialization.Encoding.PEM))
        return authority

    @property
    def root(self) -> Path:
        """The PEM file to trust."""
        return self._directory / "root.pem"

    def server_certificate(self, *hosts: str) -> ServerCertificate:
        """Return a certificate for these host names and IP addresses, the one made before while it is good.

        A remade root, other hosts or less than 30 days left make a new one.
        """
        if not hosts:
            raise ValueError("A server certificate needs a host.")
        name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in hosts[0])
        made = ServerCertificate(certificate=self._directory / f"{name}.pem", key=self._directory / f"{name}.key")
        if not self._is_good(made, hosts):
            key_pem, certificate = self._issue(hosts)
            chain = certificate.public_bytes(serialization.Encoding.PEM) + self.root.read_bytes()
            _replace(made.key, key_pem)
            _replace(made.certificate, chain)
        return made

    def _is_good(self, made: ServerCertificate, hosts: Sequence[str]) -> bool:
        if not (made.certificate.exists() and made.key.exists()):
            return False
        certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
        key = serialization.load_pem_private_key(made.key.read_bytes(), password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (InvalidSignature, TypeError, ValueError):
            return False
        return (
            names == _alternative_names(hosts)
            and key.public_key() == certificate.public_key()
            and certificate.not_valid_after_utc > self._now() + RENEW_BEFORE
        )

    def _issue(self, hosts: Sequence[str]) -> tuple[bytes, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now() - CLOCK_SKEW)
            .not_valid_after(self._now() + SERVER_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_alternative_names(hosts), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return _key_pem(key), certificate


def _new_root(now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "PicoMDM local root (this machine only)")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _publish(path: Path, content: bytes) -> None:
    """Put a whole file at ``path`` unless one is there: never half of one, never over another's."""
    temporary = _temporary(path, content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _replace(path: Path, content: bytes) -> None:
    _temporary(path, content).replace(path)


def _temporary(path: Path, content: bytes) -> Path:
    # NamedTemporaryFile makes files that only this user can read, as a key must be.
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    return Path(file.name)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing and print one line of JSON: ``root``, ``certificate`` and ``key`` as paths."""
    parser = argparse.ArgumentParser(prog="python -m local.ca", description="TLS certificates for this machine only.")
    parser.add_argument("--directory", type=Path, required=True, help="where the root and the certificates are kept")
    parser.add_argument(
        "hosts", nargs="*", default=["127.0.0.1", "localhost"], help="names and addresses of the server"
    )
    arguments = parser.parse_args(argv)
    authority = LocalAuthority.open(arguments.directory)
    made = authority.server_certificate(*arguments.hosts)
    paths = {"root": authority.root, "certificate": made.certificate, "key": made.key}
    print(json.dumps({name: str(path.resolve()) for name, path in paths.items()}))


if __name__ == "__main__":
    main()

"""A simulated Apple device CA: it makes the identities that devices leave the factory with.

``python -m local.device_authority --directory D --device UDID`` makes what is missing and prints one line of JSON, with
the paths of the authority's certificate, which an administrator uploads, and of the device's identity.

Apple has issued one and the same authority under certificates that are signed with SHA-1 and with SHA-2, and devices
of both kinds are in use. Both are made here, each below a root of its own that nobody has to know.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Self

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

Digest = Literal["sha1", "sha256"]
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

NAME: Final = "Apple iPhone Device CA (simulated)"

_AUTHORITY_LIFETIME: Final = timedelta(days=3650)
_DEVICE_LIFETIME: Final = timedelta(days=365)


def _now() -> datetime:
    return datetime.now(UTC)


class DeviceAuthority:
    """An authority that is kept in ``directory``, with the devices that it made."""

    def __init__(self, directory: Path, key: rsa.RSAPrivateKey, *, now: Callable[[], datetime] = _now) -> None:
        self._directory = directory
        self._key = key
        self._now = now

    @classmethod
    def open(cls, directory: Path, *, now: Callable[[], datetime] = _now) -> Self:
        """Load the authority, or make one."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = directory / "authority.key"
        if not path.exists():
            _keep(path, _key_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)))
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError(f"{path} is not a key of this module; delete the directory to start anew.")
        return cls(directory, key, now=now)

    def certificate(self, digest: Digest = "sha256") -> Path:
        """Return the PEM of the authority, signed with SHA-1 or SHA-2 by a root that is nowhere else."""
        path = self._directory / f"authority-{digest}.pem"
        if not path.exists():
            root = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            issued = _issue(
                _name("Apple Root CA (simulated)"),
                root,
                _name(NAME),
                self._key.public_key(),
                lifetime=_AUTHORITY_LIFETIME,
                now=self._now(),
                ca=True,
                digest=digest,
            )
            _keep(path, issued.public_bytes(serialization.Encoding.PEM))
        return path

    def identity(self, udid: str, *, digest: Digest = "sha256", curve: bool = False) -> Path:
        """Return the PEM of a device's identity: its key (RSA, or on a curve) and its certificate, as once made."""
        path = self._directory / f"{udid}.pem"
        if not path.exists():
            key: PrivateKey = (
                ec.generate_private_key(ec.SECP256R1())
                if curve
                else rsa.generate_private_key(public_exponent=65537, key_size=2048)
            )
            issued = _issue(
                _name(NAME),
                self._key,
                _name(udid),
                key.public_key(),
                lifetime=_DEVICE_LIFETIME,
                now=self._now(),
                ca=False,
                digest=digest,
            )
            _keep(path, _key_pem(key) + issued.public_bytes(serialization.Encoding.PEM))
        return path


def _issue(
    issuer: x509.Name,
    issuer_key: rsa.RSAPrivateKey,
    subject: x509.Name,
    public_key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    *,
    lifetime: timedelta,
    now: datetime,
    ca: bool,
    digest: Digest,
) -> x509.Certificate:
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return _with_sha1(certificate, issuer_key) if digest == "sha1" else certificate


def _with_sha1(certificate: x509.Certificate, issuer_key: rsa.RSAPrivateKey) -> x509.Certificate:
    # cryptography issues no such certificates any more, but devices have them.
    encoded = asn1_x509.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))
    to_sign = encoded["tbs_certificate"]
    to_sign["signature"] = {"algorithm": "sha1_rsa"}
    signature = issuer_key.sign(to_sign.dump(force=True), padding.PKCS1v15(), hashes.SHA1())
    signed = asn1_x509.Certificate(
        {"tbs_certificate": to_sign, "signature_algorithm": {"algorithm": "sha1_rsa"}, "signature_value": signature}
    )
    return x509.load_der_x509_certificate(signed.dump(force=True))


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Apple Inc. (simulated)"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _keep(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def main(argv: Sequence[str] | None = None) -> None:
    """Make what is missing and print one line of JSON: ``certificate`` and, for a device, ``identity``, as paths."""
    parser = argparse.ArgumentParser(prog="python -m local.device_authority", description="A simulated device CA.")
    parser.add_argument("--directory", type=Path, required=True, help="where the authority and its devices are kept")
    parser.add_argument("--device", metavar="UDID", help="make this device's identity")
    parser.add_argument("--digest", choices=["sha1", "sha256"], default="sha256", help="of the signatures")
    parser.add_argument("--curve", action="store_true", help="give the device a key on a curve")
    arguments = parser.parse_args(argv)
    authority = DeviceAuthority.open(arguments.directory)
    paths = {"certificate": authority.certificate(arguments.digest)}
    if arguments.device:
        paths["identity"] = authority.identity(arguments.device, digest=arguments.digest, curve=arguments.curve)
    print(json.dumps({name: str(path.resolve()) for name, path in paths.items()}))


if __name__ == "__main__":
    main()

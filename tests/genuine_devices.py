"""Genuine Apple devices: authorities like Apple's, and devices that sign with the identity that is built into them."""

import base64
import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID

from functions.checkin import app as checkin
from tests.gateway import Answer, Gateway
from tests.scep_client import rsa_key

IPHONE: Final[dict[str, Any]] = {
    "UDID": "00008030-000A1B2C3D4E5F60",
    "SERIAL": "C39XK123N70M",
    "PRODUCT": "iPhone15,2",
    "VERSION": "21E236",
    "OS_VERSION": "17.4.1",
    "LANGUAGE": "en",
    "IMEI": "35 978631 000000 7",
    "MDM_CAN_REQUEST_SOFTWARE_UPDATE": True,
}
MAC: Final[dict[str, Any]] = {
    "UDID": "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD",
    "SERIAL": "C02FX0AAMD6M",
    "PRODUCT": "MacBookPro18,3",
    "VERSION": "23E224",
    "OS_VERSION": "14.4.1",
    "LANGUAGE": "de",
    "MDM_CAN_REQUEST_SOFTWARE_UPDATE": True,
}


@dataclass(frozen=True)
class Authority:
    """Who makes devices' certificates. Its own ended long ago, as some of Apple's did."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)

    @classmethod
    @cache
    def named(
        cls, name: str, *, above: "Authority | None" = None, ca: bool = True, key: rsa.RSAPrivateKey | None = None
    ) -> "Authority":
        """Return the authority of this name: the same one in every test of a run. To make a key takes long."""
        key = key or rsa_key(f"authority {name}")
        issuer, issuer_key = (above.certificate.subject, above.key) if above else (_name(name), key)
        certificate = (
            _builder(name, issuer)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )
        return cls(certificate, key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def with_sha1(self) -> x509.Certificate:
        """The same authority's other certificate: signed with SHA-1, under another serial number."""
        certificate = _builder("authority", self.certificate.issuer).subject_name(self.certificate.subject)
        signed = certificate.public_key(self.key.public_key()).sign(self.key, hashes.SHA256())
        return with_sha1(signed, self.key)

    def device(self, info: Mapping[str, Any] = IPHONE, *, key: str = "built-in") -> "GenuineDevice":
        """Make a device."""
        device_key = rsa_key(key)
        certificate = (
            _builder(f"device {info.get('SERIAL')}", self.certificate.subject)
            .public_key(device_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return GenuineDevice(certificate, device_key, dict(info))


@dataclass(frozen=True)
class GenuineDevice:
    """A device as it is before it enrolls."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    info: dict[str, Any]

    def machine_info(self, **changes: Any) -> bytes:
        """Return what it says of itself, signed. A change to None leaves a key away."""
        told = {key: value for key, value in (self.info | changes).items() if value is not None}
        return self.sign(plistlib.dumps(told))

    def header(self, **changes: Any) -> str:
        """Return the same for ``x-apple-aspen-deviceinfo``."""
        return base64.b64encode(self.machine_info(**changes)).decode()

    def sign(self, content: bytes, *others: x509.Certificate) -> bytes:
        """Return a SignedData around ``content``, with certificates of others beside its own."""
        builder = PKCS7SignatureBuilder().set_data(content).add_signer(self.certificate, self.key, hashes.SHA256())
        for other in others:
            builder = builder.add_certificate(other)
        return builder.sign(Encoding.DER, [PKCS7Options.Binary])


def check_in(device: GenuineDevice, body: bytes) -> Answer:
    """Let a device whose certificate is its identity here send a check-in message to the checkin function."""
    signature = (
        PKCS7SignatureBuilder()
        .set_data(body)
        .add_signer(device.certificate, device.key, hashes.SHA256())
        .sign(Encoding.DER, [PKCS7Options.DetachedSignature, PKCS7Options.Binary])
    )
    headers = {
        "Content-Type": "application/x-apple-aspen-mdm-checkin",
        "Mdm-Signature": base64.b64encode(signature).decode(),
    }
    return Gateway(checkin.lambda_handler).request("PUT", "/mdm/checkin", body, headers=headers)


def with_sha1(certificate: x509.Certificate, issuer_key: rsa.RSAPrivateKey) -> x509.Certificate:
    """Return the certificate signed with SHA-1, which cryptography does not do any more."""
    parsed = asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER))
    algorithm = {"algorithm": "sha1_rsa", "parameters": None}
    parsed["tbs_certificate"]["signature"] = algorithm
    parsed["signature_algorithm"] = algorithm
    to_be_signed = parsed["tbs_certificate"].dump(force=True)
    parsed["signature_value"] = issuer_key.sign(to_be_signed, padding.PKCS1v15(), hashes.SHA1())
    return x509.load_der_x509_certificate(parsed.dump(force=True))


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Fruit"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def _builder(subject: str, issuer: x509.Name) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2007, 4, 16, tzinfo=UTC))
        .not_valid_after(datetime(2014, 4, 16, tzinfo=UTC))
    )
    return builder.subject_name(_name(subject)) if subject != "authority" else builder

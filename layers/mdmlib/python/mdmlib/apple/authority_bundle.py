"""Bundles of CA certificates: an authority with its intermediates, as an administrator has them in one PEM file."""

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.device_certificate import load_authority
from mdmlib.errors import BadRequestError

MAX_BYTES: Final = 64 * 1024
MAX_CERTIFICATES: Final = 16


def decode_authority_bundle(encoded: bytes) -> list[x509.Certificate]:
    """Read the certificates of a PEM bundle, or of one certificate in DER, each once, in their order.

    Every one of them may issue certificates. One whose issuer is in the bundle was issued by it; one whose issuer is
    not is trusted because somebody uploads it. Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong.
    """
    if len(encoded) > MAX_BYTES:
        raise BadRequestError(f"A bundle has at most {MAX_BYTES:,} bytes.", code="bundle_too_large")
    if b"PRIVATE KEY" in encoded:
        raise BadRequestError("There is a private key in this. Keep it; upload certificates.", code="private_key")
    bundle = list(dict.fromkeys(_load(encoded)))
    if len(bundle) > MAX_CERTIFICATES:
        raise BadRequestError(f"A bundle has at most {MAX_CERTIFICATES} certificates.", code="bundle_too_large")
    for certificate in bundle:
        _check_issuer(certificate, bundle)
    return bundle


def _load(encoded: bytes) -> list[x509.Certificate]:
    if b"-----BEGIN" not in encoded:
        return [load_authority(encoded)]
    try:
        certificates = x509.load_pem_x509_certificates(encoded)
    except (UnsupportedAlgorithm, x509.InvalidVersion, ValueError) as error:
        raise BadRequestError(
            "There is no certificate in the PEM, or one that cannot be read.", code="certificate_unreadable"
        ) from error
    return [load_authority(certificate.public_bytes(Encoding.DER)) for certificate in certificates]


def _check_issuer(certificate: x509.Certificate, bundle: Sequence[x509.Certificate]) -> None:
    namesakes = [each for each in bundle if each.subject == certificate.issuer]
    for issuer in namesakes:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            continue
        return
    if namesakes:
        raise BadRequestError(
            f"The certificate of {certificate.subject.rfc4514_string()} was not issued by the one that has the name of "
            "its issuer.",
            code="chain_broken",
        )

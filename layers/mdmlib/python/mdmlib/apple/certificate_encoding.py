"""Certificates as their issuers wrote them: the parts of one (RFC 5280, section 4.1), and whose key signed it.

cryptography tells what a certificate says. How it says it matters where bytes are compared: a name, and whether there
is another encoding of the same certificate, which would have another hash.
"""

from functools import lru_cache
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mdmlib.apple import ber
from mdmlib.errors import MalformedBodyError


class CertificateEncoding(NamedTuple):
    """The parts of a DER certificate, each in its whole encoding, and the serial number."""

    to_be_signed: bytes
    serial_number: int
    inner_algorithm: bytes
    """The AlgorithmIdentifier that was signed with the rest."""
    issuer: bytes
    subject: bytes
    outer_algorithm: bytes
    """The one beside the signature, which nobody signed."""
    signature: bytes


# A request asks it of its signer's certificate twice, and SCEP of the CA's as well.
@lru_cache(maxsize=16)
def encoding_of(certificate: bytes) -> CertificateEncoding:
    """Return the parts of a DER certificate. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
    try:
        to_be_signed, algorithm, signature = ber.decode(certificate).expect(ber.SEQUENCE).children()
        fields = to_be_signed.expect(ber.SEQUENCE).children()
        if fields[0].tag == ber.context(0):
            fields = fields[1:]
        serial_number, inner_algorithm, issuer, _validity, subject, *_rest = fields
    except (ValueError, IndexError) as error:
        raise MalformedBodyError("CMS: a certificate that cannot be read.") from error
    return CertificateEncoding(
        to_be_signed=to_be_signed.encoded,
        serial_number=serial_number.integer(),
        inner_algorithm=inner_algorithm.encoded,
        issuer=issuer.encoded,
        subject=subject.encoded,
        outer_algorithm=algorithm.encoded,
        signature=signature.encoded,
    )


def is_as_signed(certificate: x509.Certificate, encoding: CertificateEncoding) -> bool:
    """Say whether this is the one encoding that a certificate has, of which ``encoding`` was read.

    What was signed is. Beside it stand the algorithm once more, and the signature in a BIT STRING, which says how many
    bits of its last octet do not count, and the signature is the same whatever it says.
    """
    return (
        encoding.to_be_signed == certificate.tbs_certificate_bytes
        and encoding.outer_algorithm == encoding.inner_algorithm
        and encoding.signature == ber.der(ber.BIT_STRING, b"\x00", certificate.signature)
    )


def is_signed_by(certificate: x509.Certificate, key: object) -> bool:
    """Say whether this public key's holder signed the certificate; names and validity are not looked at.

    Raises what cryptography raises for algorithms that it does not know.
    """
    digest = certificate.signature_hash_algorithm
    scheme = certificate.signature_algorithm_parameters
    if digest is None:
        return False
    try:
        if isinstance(key, rsa.RSAPublicKey) and isinstance(scheme, padding.PKCS1v15 | padding.PSS):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, scheme, digest)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
            key.verify(certificate.signature, certificate.tbs_certificate_bytes, scheme)
        else:
            return False
    except InvalidSignature:
        return False
    return True

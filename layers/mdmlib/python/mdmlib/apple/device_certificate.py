"""Apple's device certificates: the identity that is built into a device, which signs what it says before it enrolls.

A MachineInfo and the answers of over-the-air enrollment come as a SignedData around a plist (RFC 5652, section 5), in
BER or DER. Who signed is asked in two steps: :meth:`SignedContent.verify` proves that the certificate's key signed
the content, :class:`DeviceCertificateVerifier` that the certificate is one of an authority that makes devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.certificate_encoding import is_signed_by
from mdmlib.apple.certificates import spki
from mdmlib.apple.cms import SignedData, SignerCertificate
from mdmlib.errors import BadRequestError, IdentityError, MalformedBodyError

MAX_MESSAGE_BYTES: Final = 128 * 1024
"""Real ones have 3 to 8 KB; in a header, at most what the gateway takes."""

_MAX_CERTIFICATES: Final = 8
_MAX_CHAIN: Final = 3
"""Intermediate authorities between a device's certificate and the one that was uploaded."""

_UNREADABLE: Final = (
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    ValueError,
    TypeError,
)


@dataclass(frozen=True)
class SignedContent:
    """A content and the certificate whose key signed it. Nothing says yet who issued that."""

    content: bytes = field(repr=False)
    signer: SignerCertificate
    certificates: Sequence[bytes] = field(repr=False)
    """DER of all certificates that came along, unverified."""

    @classmethod
    def verify(cls, message: bytes) -> Self:
        """Return what was signed, with who signed it.

        Raises :class:`~mdmlib.errors.MalformedBodyError` when it is no SignedData with its content inside, and
        :class:`~mdmlib.errors.IdentityError` when the signature is none.
        """
        if len(message) > MAX_MESSAGE_BYTES:
            raise MalformedBodyError("A signed plist larger than any that devices send.")
        signed_data = SignedData.decode(message)
        if signed_data.content is None:
            raise MalformedBodyError("CMS: the signed content is not there.")
        signer, certificate, _der = signed_data.signer()
        signer.verify(certificate, signed_data.content, content_type=signed_data.content_type)
        return cls(
            content=signed_data.content,
            signer=SignerCertificate(certificate.public_bytes(Encoding.DER)),
            certificates=signed_data.certificates,
        )


class DeviceCertificateVerifier:
    """Verifies that a device's certificate is of one of the authorities that an administrator uploaded.

    An authority is its **public key**: Apple has issued the same one under certificates that are signed with SHA-1 and
    with SHA-2, and either of them may be at hand. Validity is not asked of anybody. A device's clock stands still in
    its box, some of Apple's authorities have outlived their certificates while devices with theirs are in use, and a
    device remains a genuine one after its certificate's end.
    """

    def __init__(self, authorities: Iterable[x509.Certificate]) -> None:
        self._authorities = list(authorities)

    def verify(self, signed: SignedContent) -> None:
        """Accept a content that a genuine device signed.

        Intermediate authorities between it and an uploaded one may have come along. Raises
        :class:`~mdmlib.errors.IdentityError`.
        """
        try:
            self._verify(signed)
        except _UNREADABLE as error:
            raise IdentityError("A certificate of the device cannot be read.") from error

    def _verify(self, signed: SignedContent) -> None:
        certificate = x509.load_der_x509_certificate(signed.signer.der)
        for _ in range(_MAX_CHAIN + 1):
            if any(is_signed_by(certificate, authority.public_key()) for authority in self._authorities):
                return
            issuer = _issuer_among(signed.certificates[:_MAX_CERTIFICATES], certificate)
            if issuer is None:
                break
            certificate = issuer
        raise IdentityError(
            "The device's certificate is of none of the uploaded authorities.", code="device_not_verified"
        )


def load_authority(encoded: bytes) -> x509.Certificate:
    """Read one authority's certificate, PEM or DER, as an administrator uploads it.

    Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it.
    """
    try:
        if b"-----BEGIN" in encoded:
            certificates = x509.load_pem_x509_certificates(encoded)
            if len(certificates) != 1:
                raise BadRequestError(
                    f"There are {len(certificates)} certificates; upload each under a name of its own.",
                    code="certificate_not_single",
                )
            certificate = certificates[0]
        else:
            certificate = x509.load_der_x509_certificate(encoded)
        spki(certificate.public_key())
        may_issue = _may_issue(certificate, unless_said=True)
    except _UNREADABLE as error:
        raise BadRequestError("This is no certificate, neither PEM nor DER.", code="certificate_unreadable") from error
    if not may_issue:
        raise BadRequestError(
            "This certificate is not of an authority: it may issue no others.", code="certificate_not_authority"
        )
    return certificate


def _issuer_among(candidates: Sequence[bytes], certificate: x509.Certificate) -> x509.Certificate | None:
    for der in candidates:
        candidate = x509.load_der_x509_certificate(der)
        if (
            candidate.subject == certificate.issuer
            # A device must not vouch for another one.
            and _may_issue(candidate, unless_said=False)
            and is_signed_by(certificate, candidate.public_key())
        ):
            return candidate
    return None


def _may_issue(certificate: x509.Certificate, *, unless_said: bool) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return unless_said

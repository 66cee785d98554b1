"""Whether to trust the certificate that a device proved to hold."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mdmlib.apple.certificate_encoding import encoding_of, is_as_signed, is_signed_by
from mdmlib.apple.cms import SignerCertificate
from mdmlib.errors import IdentityError, MalformedBodyError

CERTIFICATE_NOT_OURS: Final = "certificate_not_ours"
"""Code of the error for a certificate of an authority that is not trusted."""


_UNREADABLE: Final = (
    MalformedBodyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    ValueError,
    TypeError,
)


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """A certificate that the device holds the key of and that one of our authorities issued.

    It proves that the device is *some* device of ours; which enrollment it belongs to is the association's matter.
    """

    hash: str
    """SHA-256 of the DER encoding, lower-case hex."""
    not_after: datetime
    der: bytes = field(repr=False)


class IdentityVerifier:
    """Verifies device certificates against the authorities that may issue them.

    ``trust_anchors`` are the SCEP CA and whichever CAs were uploaded; each may be an intermediate. A certificate has to
    be issued by one of them directly. They are trusted because somebody put them there, so neither their own validity
    nor their extensions are asked: a CA that outlived its certificate must not un-enroll a fleet.

    ``grace`` is for how long after its end a certificate is still accepted, so that a device that lay in a drawer can
    renew it.
    """

    def __init__(self, trust_anchors: Sequence[x509.Certificate], *, grace: timedelta) -> None:
        self._grace = grace
        self._anchors: dict[bytes, list[object]] = {}
        """Public keys by the name of their holder. Two may have one name: a CA whose key was replaced."""
        for anchor in trust_anchors:
            name = encoding_of(anchor.public_bytes(Encoding.DER)).subject
            self._anchors.setdefault(name, []).append(anchor.public_key())

    def verify(self, signer: SignerCertificate, *, at: datetime) -> VerifiedCertificate:
        """Return the certificate as one to trust at the server's time ``at``.

        The signing time that a device claims is not looked at: clocks are wrong, and it proves nothing. Raises
        :class:`~mdmlib.errors.IdentityError`.
        """
        try:
            certificate = x509.load_der_x509_certificate(signer.der)
            encoding = encoding_of(signer.der)
            if not is_as_signed(certificate, encoding):
                # It would have another hash, and could be associated a second time.
                raise IdentityError("The certificate is not encoded as it was signed.", code="certificate_malformed")
            if not any(is_signed_by(certificate, key) for key in self._anchors.get(encoding.issuer, ())):
                raise IdentityError("The certificate was issued by none of our authorities.", code=CERTIFICATE_NOT_OURS)
            _check_purpose(certificate)
        except _UNREADABLE as error:
            raise IdentityError("The certificate cannot be read.") from error
        if at < certificate.not_valid_before_utc:
            raise IdentityError("The certificate is not valid yet.", code="certificate_not_yet_valid")
        if at > certificate.not_valid_after_utc + self._grace:
            raise IdentityError("The certificate has expired.", code="certificate_expired")
        return VerifiedCertificate(
            hash=hashlib.sha256(signer.der).hexdigest(), not_after=certificate.not_valid_after_utc, der=signer.der
        )


def _check_purpose(certificate: x509.Certificate) -> None:
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
        raise IdentityError("The certificate is not meant for clients.", code="certificate_purpose")

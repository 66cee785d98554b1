"""Lists of revoked certificates (RFC 5280, section 5), as a CA of ours signs them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.certificates import CaIdentity

MEDIA_TYPE: Final = "application/pkix-crl"

_GOOD_FOR: Final = timedelta(days=1)
_MILLISECONDS: Final = 1000


@dataclass(frozen=True)
class RevokedEntry:
    """A certificate that is revoked."""

    serial_number: int
    revoked_at: datetime
    reason: x509.ReasonFlags


def may_sign(ca: x509.Certificate) -> bool:
    """Say whether a CA's certificate lets its key sign such a list."""
    try:
        return ca.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def sign_crl(ca: CaIdentity, entries: Iterable[RevokedEntry], *, now: datetime) -> bytes:
    """Return the list, DER. It says itself that it is good for a day; its number is the time, so it only grows."""
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=ca.certificate.subject,
        last_update=now,
        next_update=now + _GOOD_FOR,
        # All at once: what adds one copies all that are there.
        revoked_certificates=[_revoked(entry) for entry in entries],
    )
    number = x509.CRLNumber(int(now.timestamp() * _MILLISECONDS))
    return (
        builder.add_extension(number, critical=False)
        .add_extension(ca.key_id, critical=False)
        .sign(ca.private_key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def _revoked(entry: RevokedEntry) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(entry.serial_number, entry.revoked_at)
    if entry.reason is not x509.ReasonFlags.unspecified:
        # RFC 5280, section 5.3.1: who has no reason says none.
        builder = builder.add_extension(x509.CRLReason(entry.reason), critical=False)
    return builder.build()

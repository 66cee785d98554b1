"""Certificate authorities: whose certificates may be identities of devices. Ours is one; others are uploaded."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.authority_bundle import decode_authority_bundle
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.device_identity import certificates_of
from mdmlib.store.tables import CertificateAuthority

_COLLECTION: Final = "ca"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OURS: Final = re.compile(r"scep.*", re.IGNORECASE)


@dataclass(frozen=True)
class AuthorityInfo:
    """An authority whose certificates are trusted."""

    name: str
    certificates: Sequence[x509.Certificate]
    """As they were uploaded; each may have issued a device's certificate."""
    is_ours: bool
    """Whether it is a CA of this deployment, which issues by SCEP."""
    uploaded_at: int
    """Epoch seconds."""

    @property
    def pem(self) -> str:
        """All certificates."""
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in self.certificates)


class CertificateAuthorities:
    """Uploads, lists and deletes authorities. What proves identities learns of it within five minutes."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now

    def upload(self, name: str, bundle: bytes) -> AuthorityInfo:
        """Trust the certificates of a bundle (:mod:`mdmlib.apple.authority_bundle`), in place of those of the name.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it, and
        :class:`~mdmlib.errors.ConflictError` for a name that the deployment's own CA has.
        """
        _check_name(name)
        certificates = decode_authority_bundle(bundle)
        first, *others = certificates
        item = CertificateAuthority(
            _COLLECTION,
            name,
            certificate=first.public_bytes(Encoding.DER),
            intermediates=b"".join(each.public_bytes(Encoding.PEM) for each in others) or None,
            created_at=int(self._now().timestamp()),
        )
        item.save()
        return _info(item)

    def list(self) -> list[AuthorityInfo]:
        """Return all authorities, ours too, ordered by name."""
        return [_info(item) for item in CertificateAuthority.query(_COLLECTION, consistent_read=True)]

    def get(self, name: str) -> AuthorityInfo:
        """Return one authority. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            return _info(CertificateAuthority.get(_COLLECTION, name, consistent_read=True))
        except CertificateAuthority.DoesNotExist:
            raise NotFoundError("There is no certificate authority of this name.", code="ca_not_found") from None

    def delete(self, name: str) -> None:
        """Trust an authority no more; one that is not there is no error. Its devices can only enroll anew.

        Raises :class:`~mdmlib.errors.ConflictError` for the deployment's own CA.
        """
        _check_name(name)
        CertificateAuthority(_COLLECTION, name).delete()


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            "A name has letters, digits, dots, dashes and underscores, at most 64.", code="invalid_field", field="name"
        )
    if _OURS.fullmatch(name):
        raise ConflictError("Names that begin with scep are of the deployment's own CA.", code="ca_name_reserved")


def _info(item: CertificateAuthority) -> AuthorityInfo:
    return AuthorityInfo(item.name, certificates_of(item), _OURS.fullmatch(item.name) is not None, int(item.created_at))

"""Certificate authorities: whose certificates may be identities of devices. Some are ours; others are uploaded."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.authority_bundle import decode_authority_bundle
from mdmlib.apple.authority_import import decode_authority_pem, decode_authority_pkcs12
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.services.device_identity import certificates_of
from mdmlib.services.issuing_authorities import IssuingAuthorityStore, Phase, is_ours, phase_of
from mdmlib.store.tables import CertificateAuthority
from mdmlib.store.unchanged import OnlyIf, only_while

_COLLECTION: Final = "ca"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OURS: Final = re.compile(r"scep.*", re.IGNORECASE)


@dataclass(frozen=True)
class AuthorityInfo:
    """An authority whose certificates are trusted."""

    name: str
    certificates: Sequence[x509.Certificate]
    """As they were uploaded; each may have issued a device's certificate."""
    phase: Phase | None
    """Of a CA of this deployment, which issues by SCEP; None for an uploaded authority."""
    activates_at: int | None
    """When it comes, or came, into use; epoch seconds."""
    uploaded_at: int
    """Epoch seconds."""

    @property
    def pem(self) -> str:
        """All certificates."""
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in self.certificates)


class CertificateAuthorities:
    """Uploads, lists and deletes authorities. What proves identities learns of it within five minutes."""

    def __init__(self, *, issuing: IssuingAuthorityStore, now: Callable[[], datetime]) -> None:
        self._issuing = issuing
        self._now = now

    def upload(self, name: str, bundle: bytes, *, only_if: OnlyIf[AuthorityInfo | None] | None = None) -> AuthorityInfo:
        """Trust the certificates of a bundle (:mod:`mdmlib.apple.authority_bundle`), in place of those of the name.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with it,
        :class:`~mdmlib.errors.ConflictError` for a name that the deployment's own CAs have, and what ``only_if``
        raises.
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
        with only_while(CertificateAuthority, lambda: _stored(name), _of_item(only_if)) as condition:
            item.save(condition=condition)
        return _uploaded(item)

    def list(self) -> list[AuthorityInfo]:
        """Return all authorities, ours too, ordered by name."""
        items, now = list(CertificateAuthority.query(_COLLECTION, consistent_read=True)), self._now()
        return [
            AuthorityInfo(
                item.name,
                certificates_of(item),
                phase_of(item, items, at=now) if is_ours(item.name) else None,
                int(item.activates_at) if item.activates_at is not None else None,
                int(item.created_at),
            )
            for item in items
        ]

    def get(self, name: str) -> AuthorityInfo:
        """Return one authority. Raises :class:`~mdmlib.errors.NotFoundError`."""
        for info in self.list():
            if info.name == name:
                return info
        raise NotFoundError("There is no certificate authority of this name.", code="ca_not_found")

    def prepare(self, *, replace_next: bool = False) -> AuthorityInfo:
        """Make the CA that is to follow the one in use; the first of a deployment is in use at once.

        Raises :class:`~mdmlib.errors.ConflictError` while another one waits, unless that is to be replaced.
        """
        return self.get(self._issuing.prepare(replace_next=replace_next).name)

    def install(
        self, encoded: bytes, *, is_pkcs12: bool, password: str | None, replace_next: bool = False
    ) -> AuthorityInfo:
        """Take an administrator's CA, with its key, for one of our own (:mod:`mdmlib.apple.authority_import`).

        Where there is none yet it is in use at once, else it waits to follow the one in use. Raises
        :class:`~mdmlib.errors.BadRequestError` with what is wrong with it, and
        :class:`~mdmlib.errors.ConflictError` while another one waits, unless that is to be replaced.
        """
        decode = decode_authority_pkcs12 if is_pkcs12 else decode_authority_pem
        identity = decode(encoded, password, at=self._now())
        return self.get(self._issuing.install(identity, replace_next=replace_next).name)

    def activate(self, name: str, *, at: datetime | None) -> AuthorityInfo:
        """Let a CA that waits come into use, now or then. Raises as the store does."""
        return self.get(self._issuing.activate(name, at=at).name)

    def delete(self, name: str, *, only_if: OnlyIf[AuthorityInfo | None] | None = None) -> None:
        """Trust an authority no more; one that is not there is no error. Its devices can only enroll anew.

        Raises :class:`~mdmlib.errors.ConflictError` for the deployment's own CA that is in use, and what ``only_if``
        raises.
        """
        if is_ours(name):
            if only_if:
                only_if(next((info for info in self.list() if info.name == name), None))
            # Whatever there is to change of one is on this deletion's own condition.
            self._issuing.delete(name)
            return
        _check_name(name)
        with only_while(CertificateAuthority, lambda: _stored(name), _of_item(only_if)) as condition:
            CertificateAuthority(_COLLECTION, name).delete(condition=condition)


def _stored(name: str) -> CertificateAuthority | None:
    try:
        return CertificateAuthority.get(_COLLECTION, name, consistent_read=True)
    except CertificateAuthority.DoesNotExist:
        return None


def _uploaded(item: CertificateAuthority) -> AuthorityInfo:
    return AuthorityInfo(item.name, certificates_of(item), None, None, int(item.created_at))


def _of_item(only_if: OnlyIf[AuthorityInfo | None] | None) -> OnlyIf[CertificateAuthority | None] | None:
    if only_if is None:
        return None
    return lambda item: only_if(_uploaded(item) if item else None)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadRequestError(
            "A name has letters, digits, dots, dashes and underscores, at most 64.", code="invalid_field", field="name"
        )
    if _OURS.fullmatch(name):
        raise ConflictError("Names that begin with scep are of the deployment's own CAs.", code="ca_name_reserved")

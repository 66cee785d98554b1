"""Push certificates: one per topic, from Apple's Push Certificates Portal, uploaded by an administrator."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynamodb.exceptions import DeleteError

from mdmlib.apple.certificates import PushIdentity, decode_push_certificate
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import PushCertificate

if TYPE_CHECKING:
    from mdmlib.services.push_certificate_requests import PushCertificateRequests
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "push_certificate"
_LONGEST_TOPIC: Final = 1_024
_KEEP: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class PushCertificateInfo:
    """What may be told of a push certificate."""

    topic: str
    not_after: datetime


class PushCertificates:
    """The push certificates of this deployment.

    What was read is kept for a minute: a renewed certificate is used by every warm function soon after its upload,
    and a push or an enqueue does not read the table each time.
    """

    def __init__(self, *, sealer: "Sealer", now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._now = now
        self._kept: dict[str, tuple[datetime, PushCertificate]] = {}

    def upload(self, pem: bytes) -> PushCertificateInfo:
        """Store a certificate and its private key, PEM in any order, in place of the topic's former one.

        Raises :class:`~mdmlib.errors.BadRequestError` with what is wrong with them.
        """
        return self._store(PushIdentity.decode(pem))

    def replace(
        self,
        encoded: bytes,
        *,
        is_pkcs12: bool,
        password: str | None,
        requests: "PushCertificateRequests",
        force: bool,
    ) -> PushCertificateInfo:
        """Store a certificate, with its key or that of the request that it was issued for.

        Unless ``force`` is set, one of another topic than those that are there is refused, and one that has ended:
        that is what goes wrong when a certificate is renewed. Raises :class:`~mdmlib.errors.BadRequestError` and
        :class:`~mdmlib.errors.ConflictError`.
        """
        waiting = None
        if is_pkcs12:
            identity = PushIdentity.decode_pkcs12(encoded, password)
        elif b"PRIVATE KEY-----" in encoded:
            identity = PushIdentity.decode(encoded, password)
        else:
            certificate = decode_push_certificate(encoded)
            waiting = requests.key_of(certificate)
            if waiting is None:
                if stored := self._stored(certificate):
                    return stored
                raise BadRequestError(
                    "The certificate has no private key with it, and was issued for none of the requests made here.",
                    code="private_key_missing",
                )
            identity = PushIdentity.of(certificate, waiting[1])
        if not force:
            self._refuse_mistakes(identity)
        info = self._store(identity)
        if waiting:
            # Last: until the certificate is stored, the key is nowhere else.
            requests.delete(waiting[0])
        return info

    def _stored(self, certificate: x509.Certificate) -> PushCertificateInfo | None:
        """Return what is known of a certificate that is stored already, by a request whose answer was lost."""
        pem = certificate.public_bytes(Encoding.PEM)
        return next((_info(item) for item in PushCertificate.query(_COLLECTION) if item.certificate == pem), None)

    def _refuse_mistakes(self, identity: PushIdentity) -> None:
        if identity.not_after <= self._now():
            raise ConflictError(
                f"The certificate has ended on {identity.not_after:%Y-%m-%d}; APNs would refuse it.",
                code="certificate_expired",
            )
        others = self.topics()
        if others and identity.topic not in {other.topic for other in others}:
            known = "; ".join(f"{other.topic} (until {other.not_after:%Y-%m-%d})" for other in others)
            raise ConflictError(
                f"The certificate is for the topic {identity.topic}, and devices have enrolled for: {known}. They can "
                "never be woken by another topic. To renew, press Renew beside the certificate of that topic in "
                "Apple's portal, signed in with the account that made it. For a further topic, send force.",
                code="another_topic",
            )

    def _store(self, identity: PushIdentity) -> PushCertificateInfo:
        item = PushCertificate(
            _COLLECTION,
            identity.topic,
            certificate=identity.certificate_pem,
            private_key=self._sealer.seal(identity.private_key_pem, place=_place(identity.topic)),
            not_after=int(identity.not_after.timestamp()),
            uploaded_at=int(self._now().timestamp()),
        )
        item.save()
        self._kept[identity.topic] = self._now(), item
        return _info(item)

    def get(self, topic: str) -> PushCertificateInfo:
        """Return what is known of the topic's certificate. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return _info(self._item(topic, fresh=False))

    def identity(self, topic: str, *, fresh: bool = False) -> PushIdentity:
        """Return the topic's certificate and key, for the client that pushes.

        ``fresh`` reads the table: APNs refused the known certificate, so it may have been replaced. Raises
        :class:`~mdmlib.errors.NotFoundError`.
        """
        item = self._item(topic, fresh=fresh)
        # Not decoded anew: that it is one was seen when it was uploaded.
        return PushIdentity(
            topic=topic,
            not_after=_info(item).not_after,
            certificate_pem=item.certificate,
            private_key_pem=self._sealer.open(item.private_key, place=_place(topic)),
        )

    def newest(self) -> bytes:
        """Return the certificate that was uploaded last, DER. Raises :class:`~mdmlib.errors.NotFoundError`."""
        items = sorted(PushCertificate.query(_COLLECTION, consistent_read=True), key=lambda item: item.uploaded_at)
        if not items:
            raise NotFoundError("There is no push certificate yet; upload one.", code="push_certificate_not_found")
        return x509.load_pem_x509_certificate(items[-1].certificate).public_bytes(Encoding.DER)

    def topics(self) -> list[PushCertificateInfo]:
        """Return all topics' certificates, ordered by topic."""
        return [_info(item) for item in PushCertificate.query(_COLLECTION)]

    def delete(self, topic: str) -> None:
        """Forget a topic whose certificate has ended: nobody can be woken by it any more. One that is gone is no error.

        Raises :class:`~mdmlib.errors.ConflictError` while it is good: devices may have enrolled for it.
        """
        still_good = PushCertificate.not_after > int(self._now().timestamp())
        try:
            PushCertificate(_COLLECTION, topic).delete(condition=~still_good)
        except DeleteError as error:
            if not condition_failed(error):
                raise
            raise ConflictError(
                "The certificate of this topic is good, and devices may be woken by it; it can be deleted when it has "
                "ended.",
                code="certificate_in_use",
            ) from error
        self._kept.pop(topic, None)

    def _item(self, topic: str, *, fresh: bool) -> PushCertificate:
        kept = self._kept.get(topic)
        if kept and not fresh and self._now() - kept[0] < _KEEP:
            return kept[1]
        item = _stored(topic)
        if item is None:
            self._kept.pop(topic, None)
            raise NotFoundError(
                f"There is no push certificate for the topic {topic[:200]}.",
                code="push_certificate_not_found",
                field="topic",
            )
        self._kept[topic] = self._now(), item
        return item


def _stored(topic: str) -> PushCertificate | None:
    try:
        return PushCertificate.get(_COLLECTION, topic) if len(topic.encode()) <= _LONGEST_TOPIC else None
    except PushCertificate.DoesNotExist:
        return None


def _place(topic: str) -> str:
    return f"{_COLLECTION}/{topic}"


def _info(item: PushCertificate) -> PushCertificateInfo:
    return PushCertificateInfo(topic=item.name, not_after=datetime.fromtimestamp(int(item.not_after), UTC))

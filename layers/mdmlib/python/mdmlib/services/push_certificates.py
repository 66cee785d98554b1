"""Push certificates: one per topic, from Apple's Push Certificates Portal, uploaded by an administrator."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from mdmlib.apple.certificates import PushIdentity
from mdmlib.errors import NotFoundError
from mdmlib.store.tables import PushCertificate

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "push_certificate"
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
        identity = PushIdentity.decode(pem)
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

    def topics(self) -> list[PushCertificateInfo]:
        """Return all topics' certificates, ordered by topic."""
        return [_info(item) for item in PushCertificate.query(_COLLECTION)]

    def _item(self, topic: str, *, fresh: bool) -> PushCertificate:
        kept = self._kept.get(topic)
        if kept and not fresh and self._now() - kept[0] < _KEEP:
            return kept[1]
        try:
            item = PushCertificate.get(_COLLECTION, topic)
        except PushCertificate.DoesNotExist:
            self._kept.pop(topic, None)
            raise NotFoundError(
                f"There is no push certificate for the topic {topic}.", code="push_certificate_not_found", field="topic"
            ) from None
        self._kept[topic] = self._now(), item
        return item


def _place(topic: str) -> str:
    return f"{_COLLECTION}/{topic}"


def _info(item: PushCertificate) -> PushCertificateInfo:
    return PushCertificateInfo(topic=item.name, not_after=datetime.fromtimestamp(int(item.not_after), UTC))

"""Requests for push certificates: keys that wait for what Apple's portal makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from mdmlib.apple.push_request import PushRequest, open_vouched_request
from mdmlib.errors import NotFoundError
from mdmlib.store.tables import PushCertificateRequest
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "push_certificate_request"


@dataclass(frozen=True)
class RequestInfo:
    """What may be told of a request."""

    id: str
    csr: x509.CertificateSigningRequest
    certificate: x509.Certificate
    created_at: datetime


class PushCertificateRequests:
    """Makes requests, and keeps their keys until their certificates are uploaded."""

    def __init__(self, *, sealer: "Sealer", now: Callable[[], datetime], new_id: Callable[[], str]) -> None:
        self._sealer = sealer
        self._now = now
        self._new_id = new_id

    def create(self, *, common_name: str, email: str, country: str | None) -> RequestInfo:
        """Make a key and a request for its certificate. Raises :class:`~mdmlib.errors.BadRequestError`."""
        request = PushRequest.new(common_name=common_name, email=email, country=country, now=self._now())
        id_ = self._new_id()
        key = request.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        item = PushCertificateRequest(
            _COLLECTION,
            id_,
            csr=request.csr.public_bytes(Encoding.DER),
            certificate=request.certificate.public_bytes(Encoding.DER),
            private_key=self._sealer.seal(key, place=_place(id_)),
            created_at=int(self._now().timestamp()),
        )
        item.save()
        return _info(item)

    def list(self) -> list[RequestInfo]:
        """Return all requests that wait for their certificates."""
        return [_info(item) for item in PushCertificateRequest.query(_COLLECTION, consistent_read=True)]

    def get(self, request_id: str) -> RequestInfo:
        """Return a request. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return _info(self._item(request_id))

    def delete(self, request_id: str, *, only_if: OnlyIf[RequestInfo | None] | None = None) -> None:
        """Forget a request and its key. One that is not there is no error. Raises what ``only_if`` raises."""

        def read() -> PushCertificateRequest | None:
            try:
                return self._item(request_id)
            except NotFoundError:
                return None

        of_item = (lambda item: only_if(_info(item) if item else None)) if only_if else None
        with only_while(PushCertificateRequest, read, of_item) as condition:
            PushCertificateRequest(_COLLECTION, request_id).delete(condition=condition)

    def open(self, request_id: str, answer: bytes) -> bytes:
        """Return what mdmcert.download has made of a request, from the file that it mailed.

        Raises :class:`~mdmlib.errors.BadRequestError` and :class:`~mdmlib.errors.NotFoundError`.
        """
        item = self._item(request_id)
        info = _info(item)
        return open_vouched_request(answer, PushRequest(info.csr, self._key(item), info.certificate))

    def key_of(self, certificate: x509.Certificate) -> tuple[str, rsa.RSAPrivateKey] | None:
        """Return the request that a certificate was issued for, and its key; None: it was for none of these."""
        public = certificate.public_key()
        for item in PushCertificateRequest.query(_COLLECTION, consistent_read=True):
            if x509.load_der_x509_csr(item.csr).public_key() == public:
                return item.name, self._key(item)
        return None

    def _item(self, request_id: str) -> PushCertificateRequest:
        try:
            return PushCertificateRequest.get(_COLLECTION, request_id, consistent_read=True)
        except PushCertificateRequest.DoesNotExist:
            raise NotFoundError(
                f"There is no request {request_id[:64]!r}, or its certificate was uploaded already.",
                code="push_certificate_request_not_found",
            ) from None

    def _key(self, item: PushCertificateRequest) -> rsa.RSAPrivateKey:
        key = load_der_private_key(self._sealer.open(item.private_key, place=_place(item.name)), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("A request's key is no RSA key.")
        return key


def _place(request_id: str) -> str:
    return f"{_COLLECTION}/{request_id}"


def _info(item: PushCertificateRequest) -> RequestInfo:
    return RequestInfo(
        id=item.name,
        csr=x509.load_der_x509_csr(item.csr),
        certificate=x509.load_der_x509_certificate(item.certificate),
        created_at=datetime.fromtimestamp(int(item.created_at), UTC),
    )

"""Token sources: an administrator's own servers, which make tokens for GetToken.

Such a server is sent a POST of a JSON document, signed as a webhook is (``X-Hmac-Signature``: base64 of HMAC-SHA256 of
the body), and answers 200 with ``{"token": "<base64>"}``, or 404 when there is no token for this device.
"""

import json
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.event import ids, rfc3339nano
from mdmlib.errors import BadRequestError, NotFoundError, UnavailableError
from mdmlib.services.https_url import check_https_url
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import RemoteTokenSource

if TYPE_CHECKING:
    from mdmlib.clients.signed_http import SignedHttpClient
    from mdmlib.services.tokens import TokenRequest

COLLECTION: Final = "token_source"

_SERVICE_TYPE: Final = re.compile(r"[A-Za-z0-9.-]{1,255}")
_MAX_KEY_LENGTH: Final = 1_024
_MAX_ANSWER_BYTES: Final = 128 * 1024


class TokenSources:
    """Keeps the servers, by the service whose tokens they make, and asks them."""

    def __init__(
        self, client: "Callable[[], SignedHttpClient]", *, sealer: Sealer, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._sealer = sealer
        self._now = now

    def put(self, service_type: str, *, url: str, hmac_key: str) -> RemoteTokenSource:
        """Let a server make the tokens of a service, in place of the one that did.

        ``service_type`` is Apple's ``TokenServiceType``. ``hmac_key`` (its UTF-8) signs what the server is sent:
        whoever can have tokens made can pass for a device. Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        if not _SERVICE_TYPE.fullmatch(service_type):
            raise BadRequestError("A service type looks like com.apple.watch.pairing.", field="service_type")
        check_https_url(url, "A token source")
        if not 0 < len(hmac_key) <= _MAX_KEY_LENGTH:
            raise BadRequestError(f"An HMAC key has between 1 and {_MAX_KEY_LENGTH} characters.", field="hmac_key")
        source = RemoteTokenSource(
            COLLECTION,
            service_type,
            url=url,
            hmac_key=self._sealer.seal(hmac_key.encode(), place=_place(service_type)),
            created_at=int(self._now().timestamp()),
        )
        source.save()
        return source

    def list(self) -> Sequence[RemoteTokenSource]:
        """Return all token sources."""
        found = RemoteTokenSource.query(COLLECTION, consistent_read=True)
        return [source for source in found if isinstance(source, RemoteTokenSource)]

    def delete(self, service_type: str) -> None:
        """Have a server make no more tokens. Raises :class:`~mdmlib.errors.NotFoundError`."""
        source = _find(service_type)
        if source is None:
            raise NotFoundError(f"There is no token source for {service_type!r}.", field="service_type")
        source.delete()

    def token(self, request: "TokenRequest") -> bytes | None:
        """Return a token of the service's server, or None when there is no such server or it has none.

        Raises :class:`~mdmlib.errors.UnavailableError`.
        """
        source = _find(request.service_type)
        if source is None:
            return None
        document = {
            "token_service_type": request.service_type,
            "token_parameters": dict(request.parameters),
            "ids": ids(request.enrollment_id),
            "serial_number": request.serial_number,
            "requested_at": rfc3339nano(request.at),
        }
        answer = self._client().send(
            "POST",
            source.url,
            json.dumps(document).encode(),
            headers={"Content-Type": "application/json; charset=utf-8"},
            hmac_key=self._sealer.open(source.hmac_key, place=_place(request.service_type)),
            longest=_MAX_ANSWER_BYTES,
        )
        return None if answer is None else _token(answer)


def _token(body: bytes) -> bytes:
    try:
        return b64decode(json.loads(body)["token"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise UnavailableError("The token source's answer has no token.", code="token_source_unusable") from None


def _find(service_type: str) -> RemoteTokenSource | None:
    if not _SERVICE_TYPE.fullmatch(service_type):
        return None
    try:
        return RemoteTokenSource.get(COLLECTION, service_type, consistent_read=True)
    except DoesNotExist:
        return None


def _place(service_type: str) -> str:
    return f"{COLLECTION}/{service_type}"

"""Posts to customers' webhooks."""

import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import digest
from types import MappingProxyType
from typing import Final

import httpx

from mdmlib.errors import UnavailableError

CONNECT_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 10
"""Each for the whole body to be taken, for the answer to begin, and for the rest of the answer."""

EXCERPT_BYTES: Final = 500
"""So much of an answer is kept."""

_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class WebhookAnswer:
    """What a receiver answered."""

    status: int
    beginning: bytes = field(repr=False, default=b"")
    """The first bytes of the answer's body, whatever they are."""

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken the event. After a redirect, which is not followed, nobody has."""
        return httpx.codes.is_success(self.status)

    def require_success(self) -> None:
        """Raise :class:`~mdmlib.errors.UnavailableError` when the receiver has not taken the event."""
        if not self.is_success:
            raise UnavailableError(f"The webhook's receiver answered {self.status}.", code="webhook_refused")


class WebhookClient:
    """Posts documents, and waits no longer for any receiver than for another.

    Nothing comes from the environment (proxies, credentials of a ``.netrc``): a receiver gets what its subscription
    says. Connections stay open for the next event while a receiver lets them.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout_seconds
        self._monotonic = monotonic
        self._client = httpx.Client(
            headers={"User-Agent": user_agent},
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
            follow_redirects=False,
            trust_env=False,
        )

    def post(
        self,
        url: str,
        body: bytes,
        *,
        hmac_key: bytes | None,
        next_hmac_key: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> WebhookAnswer:
        """Post a JSON document; return what the receiver answered, whatever that is.

        With a key, ``X-Hmac-Signature`` is the base64 HMAC-SHA256 of the body, and ``X-Hmac-Signature-Next`` the same
        under the key that takes over. ``headers`` are the customer's own. Raises
        :class:`~mdmlib.errors.UnavailableError` when the receiver cannot be reached or takes too long. Redirects are
        not followed. Nothing in the error tells the URL, which may hold a receiver's token.
        """
        ours = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
        for name, key in (("X-Hmac-Signature", hmac_key), ("X-Hmac-Signature-Next", next_hmac_key)):
            if key is not None:
                ours[name] = b64encode(digest(key, body, sha256)).decode()
        try:
            with self._client.stream("POST", url, content=self._chunks(body), headers={**headers, **ours}) as response:
                return WebhookAnswer(response.status_code, self._drain(response))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"The webhook's receiver cannot be reached: {type(error).__name__}.", code="webhook_unreachable"
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        # httpx bounds the wait for each send, which a receiver that takes a little now and then never exceeds.
        deadline = self._monotonic() + self._timeout
        for start in range(0, len(body), _CHUNK_BYTES):
            if self._monotonic() > deadline:
                raise httpx.WriteTimeout("The receiver takes the body too slowly.")
            yield body[start : start + _CHUNK_BYTES]

    def _drain(self, response: httpx.Response) -> bytes:
        """Read a short answer to its end, for only then its connection can be used again; return how it begins.

        The status has been told already: whatever goes wrong from here on does not change it.
        """
        deadline = self._monotonic() + self._timeout
        beginning, read = b"", 0
        try:
            for chunk in response.iter_raw():
                beginning = (beginning + chunk)[:EXCERPT_BYTES]
                read += len(chunk)
                if read > _CHUNK_BYTES or self._monotonic() > deadline:
                    break
        except httpx.HTTPError:
            pass
        return beginning

"""Posts to customers' webhooks."""

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from hmac import digest
from typing import Final

import httpx

from mdmlib.errors import UnavailableError

CONNECT_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 10
"""Each for the whole body to be taken, for the answer to begin, and for the rest of the answer."""

_CHUNK_BYTES: Final = 64 * 1024


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

    def post(self, url: str, body: bytes, *, hmac_key: bytes | None) -> None:
        """Post a JSON document; return when the receiver has taken it.

        With a key, ``X-Hmac-Signature`` is the base64 HMAC-SHA256 of the body. Raises
        :class:`~mdmlib.errors.UnavailableError` when the receiver cannot be reached, takes too long, or answers
        anything but success. A redirect is not followed and no success either: nobody has taken the event then.
        Nothing in the error tells the URL, which may hold a receiver's token.
        """
        headers = {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
        if hmac_key is not None:
            headers["X-Hmac-Signature"] = b64encode(digest(hmac_key, body, sha256)).decode()
        try:
            with self._client.stream("POST", url, content=self._chunks(body), headers=headers) as response:
                status = response.status_code
                self._drain(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"The webhook's receiver cannot be reached: {type(error).__name__}.", code="webhook_unreachable"
            ) from error
        if not httpx.codes.is_success(status):
            raise UnavailableError(f"The webhook's receiver answered {status}.", code="webhook_refused")

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

    def _drain(self, response: httpx.Response) -> None:
        """Read what is left of a short answer, for only then its connection can be used again.

        The status has been told already: whatever goes wrong from here on does not change it.
        """
        deadline = self._monotonic() + self._timeout
        read = 0
        try:
            for chunk in response.iter_raw():
                read += len(chunk)
                if read > _CHUNK_BYTES or self._monotonic() > deadline:
                    return
        except httpx.HTTPError:
            return

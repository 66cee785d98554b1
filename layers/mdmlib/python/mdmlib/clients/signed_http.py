"""Requests to an administrator's own servers (DDM, token sources), signed, and their answers."""

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

import httpx

from mdmlib.errors import UnavailableError

CONNECT_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 15
"""For the whole answer: a device waits, and API Gateway gives up after 30 s."""

SIGNATURE_HEADER: Final = "X-Hmac-Signature"
"""Base64 of HMAC-SHA256 of a body, as webhooks have it."""

_CHUNK_BYTES: Final = 64 * 1024


class SignedHttpClient:
    """Sends requests while a device waits.

    Nothing comes from the environment (proxies, credentials of a ``.netrc``). Connections stay open for the next one.
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

    def send(
        self,
        method: str,
        url: str,
        body: bytes,
        *,
        headers: Mapping[str, str],
        hmac_key: bytes | None,
        answer_hmac_key: bytes | None = None,
        longest: int,
    ) -> bytes | None:
        """Send a request and return the body of the answer (200), or None for 404.

        With ``hmac_key`` the body is signed, also an empty one; with ``answer_hmac_key`` the answer has to be. An
        answer may have ``longest`` bytes. Raises :class:`~mdmlib.errors.UnavailableError` for everything but 200 and
        404; nothing in it tells the URL or a body.
        """
        signature = {SIGNATURE_HEADER: _signature(hmac_key, body)} if hmac_key is not None else {}
        # In UTF-8, as other servers write and read ids that are not ASCII.
        sent = [(name.encode(), value.encode()) for name, value in {**headers, **signature}.items()]
        deadline = self._monotonic() + self._timeout
        try:
            with self._client.stream(method, url, content=body, headers=sent) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    return None
                if response.status_code != httpx.codes.OK:
                    raise UnavailableError(f"The server answered {response.status_code}.", code="server_refused")
                content = self._read(response, longest=longest, deadline=deadline)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(
                f"The server cannot be reached: {type(error).__name__}.", code="server_unreachable"
            ) from error
        if answer_hmac_key is not None:
            _verify(answer_hmac_key, content, response.headers.get(SIGNATURE_HEADER, ""))
        return content

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _read(self, response: httpx.Response, *, longest: int, deadline: float) -> bytes:
        content = bytearray()
        for chunk in response.iter_bytes(_CHUNK_BYTES):
            content += chunk
            if len(content) > longest:
                raise UnavailableError("The server's answer is too long.", code="server_unusable")
            # httpx bounds the wait for each piece, which a server that sends a little now and then never exceeds.
            if self._monotonic() > deadline:
                raise httpx.ReadTimeout("The server answers too slowly.")
        return bytes(content)


def _signature(key: bytes, body: bytes) -> str:
    return b64encode(hmac.digest(key, body, sha256)).decode()


def _verify(key: bytes, body: bytes, signature: str) -> None:
    try:
        told = b64decode(signature, validate=True)
    except ValueError:
        told = b""
    if not hmac.compare_digest(told, hmac.digest(key, body, sha256)):
        raise UnavailableError("The server's answer is not signed with the key that is set.", code="server_unusable")

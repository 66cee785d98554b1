"""Passes requests on to another server and its answers back, as they are."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from mdmlib.errors import UpstreamFailedError

CONNECT_SECONDS: Final = 5
TIMEOUT_SECONDS: Final = 25
"""For the whole answer: API Gateway gives up after 30 s."""

MAX_ANSWER_BYTES: Final = 4_613_734
"""4.4 MiB: in base64 with its envelope this just fits what Lambda answers with."""

_CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class ForwardedAnswer:
    """What the other server answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    """As it was encoded: a ``content-encoding`` is still among the headers."""


class ReverseProxyClient:
    """Sends requests while a device waits.

    Redirects are the device's to follow. Nothing comes from the environment (proxies, credentials of a ``.netrc``).
    """

    def __init__(
        self, *, timeout_seconds: float = TIMEOUT_SECONDS, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout = timeout_seconds
        self._monotonic = monotonic
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
            follow_redirects=False,
            trust_env=False,
        )
        # What a device did not send is not to be said in its name.
        self._client.headers.clear()

    def forward(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes) -> ForwardedAnswer:
        """Send a request and return the answer, whatever its status.

        Raises :class:`~mdmlib.errors.UpstreamFailedError` when there is none, or one that is too long.
        """
        deadline = self._monotonic() + self._timeout
        # In UTF-8, as other servers write and read ids that are not ASCII.
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            with self._client.stream(method, url, headers=sent, content=body) as response:
                content = bytearray()
                for chunk in response.iter_raw(_CHUNK_BYTES):
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise UpstreamFailedError("The other server's answer is larger than 4.4 MiB.")
                    # httpx bounds the wait for each piece, which a server that sends a little now and then never
                    # exceeds.
                    if self._monotonic() > deadline:
                        raise httpx.ReadTimeout("The other server answers too slowly.")
                answered = {name.lower(): value for name, value in response.headers.items()}
                return ForwardedAnswer(response.status_code, answered, bytes(content))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UpstreamFailedError(f"The other server cannot be reached: {type(error).__name__}.") from error

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

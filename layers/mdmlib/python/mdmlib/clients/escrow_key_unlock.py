"""Apple's service that ends a device's Activation Lock, for whoever has its escrow key.

Apple's page: https://developer.apple.com/documentation/devicemanagement/creating-and-using-bypass-codes. The server is
known by its push certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.client_identity import tls_context
from mdmlib.errors import UpstreamFailedError

_CONNECT_SECONDS: Final = 5
_TIMEOUT_SECONDS: Final = 20
_LONGEST_ANSWER: Final = 1024 * 1024


@dataclass(frozen=True)
class UnlockAnswer:
    """What Apple answered."""

    status: int
    content_type: str
    body: bytes = field(repr=False)


class EscrowKeyUnlockClient:
    """Asks Apple. A connection serves one request: they are rare, and each may be of another certificate."""

    def __init__(self, *, url: str, trust_anchor: str, user_agent: str) -> None:
        self._url = url
        self._trust_anchor = trust_anchor
        self._user_agent = user_agent

    def unlock(self, identity: PushIdentity, *, query: Mapping[str, str], form: Mapping[str, str]) -> UnlockAnswer:
        """Send a request and return the answer, whatever its status.

        Raises :class:`~mdmlib.errors.UpstreamFailedError` when there is none, or one that is too long.
        """
        try:
            with (
                httpx.Client(
                    verify=tls_context(identity, trust_anchor=self._trust_anchor),
                    headers={"User-Agent": self._user_agent},
                    timeout=httpx.Timeout(_TIMEOUT_SECONDS, connect=_CONNECT_SECONDS),
                    follow_redirects=False,
                    trust_env=False,
                ) as client,
                client.stream("POST", self._url, params=dict(query), data=dict(form)) as response,
            ):
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > _LONGEST_ANSWER:
                        raise UpstreamFailedError("Apple's answer is longer than any.")
                return UnlockAnswer(response.status_code, response.headers.get("Content-Type", ""), bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its message may name the URL, and that the device.
            raise UpstreamFailedError(f"Apple's service cannot be reached: {type(error).__name__}.") from error

"""Clients of Apple's device enrollment service, one for each server, kept with their sessions."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdmlib.apple.ade_token import AdeToken
    from mdmlib.clients.ade import AdeClient


@dataclass(frozen=True)
class _KeptClient:
    sealed: bytes | None = field(repr=False)
    base_url: str
    client: "AdeClient"


class AdeClients:
    """The clients."""

    def __init__(self, make: "Callable[[AdeToken, str], AdeClient]") -> None:
        self._make = make
        self._kept: dict[str, _KeptClient] = {}

    def of(self, server: str, token: "Callable[[], AdeToken]", *, sealed: bytes | None, base_url: str) -> "AdeClient":
        """Return a server's client: the one that there is, for as long as its ``sealed`` token and URL are the same."""
        kept = self._kept.get(server)
        if kept is not None and (kept.sealed, kept.base_url) == (sealed, base_url):
            return kept.client
        client = self._make(token(), base_url)
        self.forget(server)
        self._kept[server] = _KeptClient(sealed, base_url, client)
        return client

    def forget(self, server: str) -> None:
        """Close a server's connections, if there are any."""
        if kept := self._kept.pop(server, None):
            kept.client.close()

    def close(self) -> None:
        """Close all connections."""
        for server in list(self._kept):
            self.forget(server)

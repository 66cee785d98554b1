"""Apple's portal as an administrator uses it: servers, and tokens for their certificates."""

from uuid import uuid4

from local.ade.client import AdeControl


class Portal:
    """The portal. Each has servers of its own, so that tests may call theirs by the same names."""

    def __init__(self, control: AdeControl) -> None:
        self.control = control
        self._prefix = uuid4().hex[:8]

    def name(self, server: str = "school") -> str:
        """Return what a server is called in the portal."""
        return f"{self._prefix}-{server}"

    def token(self, certificate: str, *, server: str = "school", days: float = 365) -> bytes:
        """Upload a certificate (PEM) for a server, which is made if need be, and download its token."""
        return self.control.make_server(self.name(server), certificate, days=days)

    def buy(self, count: int = 1, *, server: str = "school") -> list[str]:
        """Buy devices for a server."""
        return self.control.buy(self.name(server), count=count)

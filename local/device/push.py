"""How a device is woken: its connection to APNs."""

import threading
from http import HTTPStatus
from typing import Protocol

import httpx

from local.device.errors import DeviceError


class PushService(Protocol):
    """What a device needs of APNs."""

    def register(self, *, token: bytes, topic: str, magic: str) -> None:
        """Be reachable under a token, for one topic and with one PushMagic."""

    def unregister(self, token: bytes) -> None:
        """Be gone: pushes to the token are answered Unregistered from now on."""

    def wait(self, token: bytes, *, seconds: float) -> bool:
        """Wait for a push; return whether one came."""


class NoPushes:
    """For a device that is told when to connect, or that only ever polls."""

    def register(self, *, token: bytes, topic: str, magic: str) -> None:
        """Do nothing."""

    def unregister(self, token: bytes) -> None:
        """Do nothing."""

    def wait(self, token: bytes, *, seconds: float) -> bool:  # noqa: ARG002  # the protocol's signature
        """Wait in vain."""
        return threading.Event().wait(seconds)


class SimulatedApns:
    """The device's side of the simulated APNs, over its control interface (``local.apns``)."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url.rstrip("/")
        self._client = httpx.Client(trust_env=False)

    def register(self, *, token: bytes, topic: str, magic: str) -> None:
        """Register; the same token again replaces what was known of it."""
        self._ask("POST", "/devices", {"token": token.hex(), "topic": topic, "magic": magic})

    def unregister(self, token: bytes) -> None:
        """Let pushes to the token be answered 410."""
        self._ask("POST", f"/devices/{token.hex()}/unregister", {})

    def wait(self, token: bytes, *, seconds: float) -> bool:
        """Ask until a push comes or the time is over."""
        response = self._ask("GET", f"/devices/{token.hex()}/wait?timeout={seconds}", timeout=seconds + 10.0)
        return response.status_code == HTTPStatus.OK

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(
        self, method: str, path: str, document: dict[str, str] | None = None, *, timeout: float = 10.0
    ) -> httpx.Response:
        try:
            response = self._client.request(method, f"{self._url}{path}", json=document, timeout=timeout)
        except httpx.TransportError as error:
            raise DeviceError(f"APNs cannot be reached: {error}") from error
        if not response.is_success:
            raise DeviceError(f"APNs answered {response.status_code}: {response.text[:200]}")
        return response

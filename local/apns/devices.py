"""The devices that registered with the simulated APNs, and the pushes that wait for them."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_STORED: Final = ("token", "topic", "magic", "unregistered_at", "unregistered_reason")


@dataclass(frozen=True)
class Push:
    """An accepted push. ``expiration`` is epoch seconds, 0 for "now or never", None when the provider did not say."""

    apns_id: str
    received_at: float
    expiration: int | None


@dataclass
class Device:
    """A device, by the token that APNs gave it."""

    token: str
    topic: str
    magic: str
    unregistered_at: int | None = None
    """Milliseconds since the epoch."""
    unregistered_reason: str = "Unregistered"
    pushes: int = 0
    waiting: Push | None = None
    waiters: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def document(self) -> dict[str, object]:
        """Return what the control interface shows."""
        return {
            "token": self.token,
            "topic": self.topic,
            "magic": self.magic,
            "pushes": self.pushes,
            "unregistered_at": self.unregistered_at,
        }

    def deliver(self, push: Push) -> None:
        """Wake the device, or keep the push for it. There is room for one: the last."""
        self.pushes += 1
        if push.expiration == 0 and not self.waiters:
            return
        self.waiting = push
        self.arrived.set()

    async def wait(self, seconds: float) -> Push | None:
        """Return the push that waits or arrives within ``seconds``, or None."""
        self.waiters += 1
        try:
            async with asyncio.timeout(seconds):
                while True:
                    push, self.waiting = self.waiting, None
                    self.arrived.clear()
                    if push and not (push.expiration and push.expiration < time.time()):
                        return push
                    await self.arrived.wait()
        except TimeoutError:
            return None
        finally:
            self.waiters -= 1


class Devices:
    """All devices; what they are is kept in ``path``, so that a restart forgets none."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._devices: dict[str, Device] = {}
        if path and path.exists():
            self._devices = {entry["token"]: Device(**entry) for entry in json.loads(path.read_text())}

    def get(self, token: str) -> Device | None:
        """Return the device with this token (hex in lower case)."""
        return self._devices.get(token)

    def all(self) -> list[Device]:
        """Return all devices, in the order of their registration."""
        return list(self._devices.values())

    def register(self, *, token: str, topic: str, magic: str) -> Device:
        """Register a device, or what changed about it. Raises ``ValueError`` for a token that is not hex."""
        token = bytes.fromhex(token).hex()
        if not token:
            raise ValueError("an empty token")
        device = self._devices.get(token)
        if device:
            device.topic, device.magic, device.unregistered_at = topic, magic, None
        else:
            device = self._devices[token] = Device(token, topic, magic)
        self._store()
        return device

    def unregister(self, device: Device, *, timestamp: int | None, reason: str) -> None:
        """Make APNs answer 410 for the device from now on."""
        device.unregistered_at = int(time.time() * 1000) if timestamp is None else timestamp
        device.unregistered_reason = reason
        self._store()

    def remove(self, device: Device) -> None:
        """Forget the device as if its token had never been one."""
        del self._devices[device.token]
        self._store()

    def _store(self) -> None:
        if self._path:
            kept = [{key: getattr(device, key) for key in _STORED} for device in self._devices.values()]
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(kept, indent=1))
            temporary.replace(self._path)

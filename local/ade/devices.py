"""Devices, the servers that they are assigned to, and what happened to them since."""

import secrets
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from local.ade.oauth import Token

_SINCE_VERSION: Final = {
    2: ("device_family", "os"),
    8: ("mdm_migration_deadline",),
    10: ("wifi_mac_address", "bluetooth_mac_address", "ethernet_mac_address", "eid", "imei", "meid"),
}
"""Which protocol version was the first to tell of them; all others were there from the beginning."""

FIELDS: Final = frozenset(
    {"model", "description", "color", "asset_tag", "device_assigned_by"}.union(*_SINCE_VERSION.values())
)
"""What whoever buys a device may say of it."""

_MODELS: Final[Mapping[str, dict[str, str]]] = {
    "iPhone": {"model": "iPhone 17", "description": "IPHONE 17 BLACK 256GB", "os": "iOS"},
    "iPad": {"model": "iPad Air", "description": "IPAD AIR WI-FI 128GB", "os": "iPadOS"},
    "Mac": {"model": 'MacBook Pro 14"', "description": "MBP 14 SPACE BLACK", "os": "OSX"},
    "AppleTV": {"model": "Apple TV 4K", "description": "APPLE TV 4K 64GB", "os": "tvOS"},
    "Vision": {"model": "Apple Vision Pro", "description": "VISION PRO 256GB", "os": "visionOS"},
}


def rfc3339(seconds: float | None = None) -> str:
    """Return a time as Apple writes it; now, unless told another."""
    return datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _new_uuid() -> str:
    return uuid.uuid4().hex.upper()


@dataclass
class Device:
    """A device. ``record`` is what Apple tells of it."""

    serial_number: str
    record: dict[str, Any]
    activation_lock: dict[str, Any] | None = None

    @classmethod
    def new(cls, serial_number: str, fields: Mapping[str, Any]) -> "Device":
        """Make one as it comes out of the factory. Raises ``ValueError`` for a field that there is not."""
        if unknown := fields.keys() - FIELDS:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        family = str(fields.get("device_family", "iPhone"))
        if family not in _MODELS:
            raise ValueError(f"unknown device_family: {family}")
        record = {
            "serial_number": serial_number,
            "color": "BLACK",
            "device_family": family,
            "device_assigned_by": "buyer@example.org",
            "profile_status": "empty",
        }
        return cls(serial_number, {**record, **_MODELS[family], **fields})

    def document(self, version: int) -> dict[str, Any]:
        """Return what a protocol version knows of the device."""
        later = {name for since, names in _SINCE_VERSION.items() if since > version for name in names}
        return {name: value for name, value in self.record.items() if name not in later}

    def assign(self, profile_uuid: str) -> None:
        """Give it a profile for its next activation."""
        self.record |= {"profile_uuid": profile_uuid, "profile_status": "assigned", "profile_assign_time": rfc3339()}
        self.record.pop("profile_push_time", None)

    def clear(self) -> None:
        """Take its profile away."""
        self.record["profile_status"] = "removed"
        for name in ("profile_uuid", "profile_assign_time", "profile_push_time"):
            self.record.pop(name, None)


@dataclass(frozen=True)
class Operation:
    """What happened to a device of a server: ``added``, ``modified`` or ``deleted``."""

    kind: str
    device: Device
    at: float


@dataclass
class Cursor:
    """How far a fetch or a sync has come."""

    fetched: int | None
    """The next device of a fetch; None: it is at its end, or this is a sync's."""
    synced: int
    """The next operation of a sync."""
    issued_at: float


@dataclass
class Server:
    """A server in the portal, and what is assigned to it."""

    name: str
    token: Token = field(repr=False)
    uuid: str = field(default_factory=_new_uuid)
    terms_signed: bool = True
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    account_driven_url: str | None = None
    devices: dict[str, Device] = field(default_factory=dict)
    cursors: dict[str, Cursor] = field(default_factory=dict)
    sessions: dict[str, float] = field(default_factory=dict, repr=False)
    """Ends of sessions, by token."""
    fetches: int = 0
    order: list[str] = field(default_factory=list)
    """Serial numbers in the order in which a fetch tells of them."""
    operations: list[Operation] = field(default_factory=list)

    def add(self, device: Device) -> None:
        """Assign a device to this server."""
        device.record["device_assigned_date"] = rfc3339()
        self.devices[device.serial_number] = device
        self.order.append(device.serial_number)
        self._note("added", device)

    def modify(self, device: Device, fields: Mapping[str, Any]) -> None:
        """Change what is known of a device: None takes a field away."""
        for name, value in fields.items():
            if value is None:
                device.record.pop(name, None)
            else:
                device.record[name] = value
        self._note("modified", device)

    def remove(self, serial_number: str) -> Device:
        """Take a device away, with its profile. Raises ``KeyError``."""
        device = self.devices.pop(serial_number)
        device.clear()
        device.record["profile_status"] = "empty"
        self._note("deleted", device)
        return device

    def _note(self, kind: str, device: Device) -> None:
        self.operations.append(Operation(kind, device, time.time()))

    def new_cursor(self, *, fetched: int | None, synced: int) -> str:
        """Remember how far somebody has come, and return what names it."""
        name = secrets.token_hex(24).upper()
        self.cursors[name] = Cursor(fetched, synced, time.time())
        return name

    def begin(self) -> Cursor:
        """Begin a fetch: a sync will go on where the fetch began."""
        self.fetches += 1
        return Cursor(0, len(self.operations), time.time())

    def fetch(self, cursor: Cursor, limit: int) -> tuple[list[Device], str, bool]:
        """Return a page of all devices, the cursor behind it, and whether more follows."""
        start = cursor.fetched or 0
        page = [self.devices[serial] for serial in self.order[start : start + limit] if serial in self.devices]
        more = start + limit < len(self.order)
        return page, self.new_cursor(fetched=start + limit if more else None, synced=cursor.synced), more

    def sync(self, cursor: Cursor, limit: int) -> tuple[list[Operation], str, bool]:
        """Return a page of what happened since, the cursor behind it, and whether more follows."""
        page = self.operations[cursor.synced : cursor.synced + limit]
        end = cursor.synced + len(page)
        return page, self.new_cursor(fetched=None, synced=end), end < len(self.operations)


class Catalogue:
    """All servers, and all devices that were ever bought."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.devices: dict[str, Device] = {}
        self.bought = 0
        """How many serial numbers were made up."""

    @property
    def tokens(self) -> dict[str, Token]:
        """The tokens of all servers, by access token."""
        return {server.token.access_token: server.token for server in self.servers.values()}

    def server_of_token(self, token: Token) -> Server:
        """Return the server that a token was given to."""
        return next(server for server in self.servers.values() if server.token is token)

    def server_of(self, serial_number: str) -> Server | None:
        """Return the server that a device is assigned to."""
        return next((server for server in self.servers.values() if serial_number in server.devices), None)

    def buy(self, server: Server, serial_numbers: Iterable[str], fields: Mapping[str, Any]) -> list[Device]:
        """Assign devices to a server: new ones, or those of another server."""
        bought = []
        for serial_number in serial_numbers:
            if former := self.server_of(serial_number):
                former.remove(serial_number)
            device = self.devices.get(serial_number)
            if device is None:
                device = self.devices[serial_number] = Device.new(serial_number, fields)
            server.add(device)
            bought.append(device)
        return bought

    def next_serial_numbers(self, count: int) -> list[str]:
        """Return serial numbers that no device has."""
        first, self.bought = self.bought + 1, self.bought + count
        return [f"PICO{number:08}" for number in range(first, first + count)]

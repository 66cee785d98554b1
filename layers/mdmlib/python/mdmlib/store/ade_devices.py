"""Devices in Apple's lists, of a server each, and which of them wait for their profile."""

from collections.abc import Iterable, Sequence
from typing import Final

from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.tables import AdeAssignment, AdeDevice, ResourceItem

_BATCH_GET: Final = 100
_BATCH_WRITE: Final = 100
"""Items that one thread writes, 25 a call."""
_KEY_DIGITS: Final = 10


class AdeDeviceStore:
    """Reads and writes of the collections ``ade_device#…`` and ``ade_assignment#…``.

    Only who holds a server's lease writes its devices, so nothing here is conditional.
    """

    def get_many(self, server: str, serial_numbers: Iterable[str]) -> dict[str, AdeDevice]:
        """Return those that are known, by serial number, 100 a call and some calls at a time."""
        keys = [(_collection(server, serial), serial) for serial in dict.fromkeys(serial_numbers)]
        pages = [keys[start : start + _BATCH_GET] for start in range(0, len(keys), _BATCH_GET)]
        return {device.name: device for page in at_once(_read, pages) for device in page}

    def of_serial(self, serial_number: str, servers: Iterable[str]) -> dict[str, AdeDevice]:
        """Return a device as each of these servers knows it, by server, in one call for a hundred of them."""
        collections = {_collection(server, serial_number): server for server in servers}
        keys = [(collection, serial_number) for collection in collections]
        pages = [keys[start : start + _BATCH_GET] for start in range(0, len(keys), _BATCH_GET)]
        return {collections[device.collection]: device for page in pages for device in _read(page)}

    def new(self, server: str, serial_number: str) -> AdeDevice:
        """Return an item for a device that is not known yet; it is written by :meth:`save`."""
        return AdeDevice(_collection(server, serial_number), serial_number)

    def save(self, server: str, devices: Sequence[AdeDevice]) -> None:
        """Write devices, and for each that is pending what leads to it: first that, so that none is forgotten."""
        _put([_pointer(server, device) for device in devices if device.assignment == "pending"])
        _put(devices)

    def due(self, server: str, *, at: int, limit: int) -> list[AdeAssignment]:
        """Return what leads to devices that are due (epoch seconds), the longest due first."""
        condition = AdeAssignment.name < f"{at + 1:0{_KEY_DIGITS}}"
        return list(AdeAssignment.query(_due_collection(server), condition, consistent_read=True, limit=limit))

    def settle(self, pointers: Iterable[AdeAssignment]) -> None:
        """Delete what leads to devices that were looked at."""
        with ResourceItem.batch_write() as batch:
            for pointer in pointers:
                batch.delete(pointer)

    def page(self, server: str, position: str, *, limit: int) -> tuple[list[AdeDevice], str | None]:
        """Return devices behind ``position`` (empty: the first), and the position behind them; None: there are no more.

        Ordered by shard and serial number. A page may hold fewer than ``limit`` and still not be the last.
        """
        shard, after = (int(position[0], 16), position[1:]) if position else (0, "")
        condition = AdeDevice.name > after if after else None
        found = AdeDevice.query(f"ade_device#{server}#{shard:x}", condition, consistent_read=True, limit=limit)
        devices = [device for device in found if isinstance(device, AdeDevice)]
        if len(devices) == limit:
            return devices, f"{shard:x}{devices[-1].name}"
        return devices, f"{shard + 1:x}" if shard + 1 < tables.SHARDS else None


def serial_of(pointer: AdeAssignment) -> str:
    """Return the serial number of the device that it leads to."""
    return str(pointer.name).partition("#")[2]


def leads_to(pointer: AdeAssignment, device: AdeDevice | None) -> bool:
    """Say whether it is the one that is of use: of a device that is pending, for this very time."""
    return device is not None and device.assignment == "pending" and pointer.name == _pointer_name(device)


def server_of(device: AdeDevice) -> str:
    """Return the server in whose list a device is."""
    return str(device.collection).split("#")[1]


def _pointer(server: str, device: AdeDevice) -> AdeAssignment:
    return AdeAssignment(_due_collection(server), _pointer_name(device))


def _pointer_name(device: AdeDevice) -> str:
    return f"{int(device.retry_at or 0):0{_KEY_DIGITS}}#{device.name}"


def _collection(server: str, serial_number: str) -> str:
    return f"ade_device#{server}#{tables.shard_of(serial_number)}"


def _due_collection(server: str) -> str:
    return f"ade_assignment#{server}"


def _read(keys: Sequence[tuple[str, str]]) -> list[AdeDevice]:
    if not keys:
        return []
    return [item for item in ResourceItem.batch_get(keys, consistent_read=True) if isinstance(item, AdeDevice)]


def _put(items: Sequence[ResourceItem]) -> None:
    at_once(_put_some, [items[start : start + _BATCH_WRITE] for start in range(0, len(items), _BATCH_WRITE)])


def _put_some(items: Sequence[ResourceItem]) -> None:
    with ResourceItem.batch_write() as batch:
        for item in items:
            batch.save(item)

"""What is known of the devices in Apple's lists: for administrators, and for whoever asks whether a device is ours."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from mdmlib.errors import NotFoundError
from mdmlib.services.enrollments import MAX_LIMIT, Page
from mdmlib.store.ade_devices import AdeDeviceStore
from mdmlib.store.ade_servers import COLLECTION
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.tables import AdeDevice, AdeServer, Enrollment

PRESENT, DELETED = "present", "deleted"

_EXAMINED: Final = 5_000
_READ: Final = 1_000
_KEEP: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class AdeDeviceEntry:
    """A device, and what it has to do with others."""

    device: AdeDevice
    former_servers: Sequence[str] = ()
    """Those in whose lists it was before."""
    enrollments: Sequence[Enrollment] = ()


class AdeDevices:
    """The devices in the lists of all servers. Nothing here writes."""

    def __init__(self, *, devices: AdeDeviceStore, enrollments: EnrollmentStore, now: Callable[[], datetime]) -> None:
        self._devices = devices
        self._enrollments = enrollments
        self._now = now
        self._kept_servers: tuple[datetime, Sequence[str]] | None = None

    def list(
        self,
        *,
        server: str | None = None,
        state: str | None = None,
        wanted: Mapping[str, Collection[str]],
        limit: int = MAX_LIMIT,
        after: str = "",
    ) -> Page[AdeDeviceEntry]:
        """Return devices, of all servers or of one, in an order that is stable but no more.

        ``wanted`` has values by the names of attributes, of which a device has to have one of each. ``after`` is the
        former page's ``next_cursor``. At most 5,000 devices are looked at for one page, so that a filter that fits few
        cannot take long.
        """
        servers = [name for name in self._servers() if server in {None, name}]
        at_server, _, position = after.partition("#")
        found: list[AdeDeviceEntry] = []
        examined = 0
        for name in servers:
            if name < at_server:
                continue
            next_position: str | None = position if name == at_server else ""
            while next_position is not None:
                # With a filter, most of what is read is not wanted.
                some = _READ if wanted or state else limit - len(found)
                devices, next_position = self._devices.page(name, next_position, limit=some)
                for device in devices:
                    examined += 1
                    if _is_wanted(device, state, wanted):
                        found.append(AdeDeviceEntry(device))
                    if len(found) == limit or examined == _EXAMINED:
                        return Page(found, f"{name}#{device.collection[-1]}{device.name}")
        return Page(found)

    def get(self, serial_number: str) -> AdeDeviceEntry:
        """Return a device: as the server knows it that has it, else the one that had it last.

        Raises :class:`~mdmlib.errors.NotFoundError`.
        """
        serial_number = serial_number.strip().upper()
        found = self._devices.of_serial(serial_number, self._servers()) if serial_number.isalnum() else {}
        if not found:
            raise NotFoundError(
                f"No device {serial_number[:64]!r} is or was in Apple's list of any server, as far as they were read.",
                code="unknown_ade_device",
            )
        latest = max(found.values(), key=lambda device: (device.deleted_at is None, int(device.changed_at)))
        former = [name for name, device in sorted(found.items()) if device is not latest]
        return AdeDeviceEntry(latest, former, self._enrolled(serial_number))

    def profile_statuses(self, serial_numbers: Iterable[str]) -> Mapping[str, str]:
        """Return what Apple says of the profiles of devices that are in a list, by serial number."""
        wanted = [serial_number for serial_number in serial_numbers if serial_number.isalnum()]
        return {
            device.name: device.profile_status or ""
            for server in self._servers()
            for device in self._devices.get_many(server, wanted).values()
            if device.deleted_at is None
        }

    def is_ours(self, serial_number: str) -> bool:
        """Say whether a device is in the list of one of the servers: one read, and another one in a minute."""
        now = self._now()
        if self._kept_servers is None or now - self._kept_servers[0] > _KEEP:
            self._kept_servers = now, self._servers()
        found = self._devices.of_serial(serial_number.upper(), self._kept_servers[1])
        return any(device.deleted_at is None for device in found.values())

    def _servers(self) -> Sequence[str]:
        """Return the names of the servers that there are, in order: what is in the list of another is not ours."""
        return [server.name for server in AdeServer.query(COLLECTION, attributes_to_get=["collection", "name", "cls"])]

    def _enrolled(self, serial_number: str) -> Sequence[Enrollment]:
        records = self._enrollments.get_many(self._enrollments.ids_of_serial(serial_number))
        return [record for record in records.values() if record.state != DELETED and record.parent_id is None]


def state_of(device: AdeDevice) -> str:
    """Return ``present``, or ``deleted`` for one that left its list."""
    return PRESENT if device.deleted_at is None else DELETED


def _is_wanted(device: AdeDevice, state: str | None, wanted: Mapping[str, Collection[str]]) -> bool:
    if state is not None and state_of(device) != state:
        return False
    return all(getattr(device, name) in values for name, values in wanted.items())

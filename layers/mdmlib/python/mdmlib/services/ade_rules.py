"""Which devices may enroll by ADE, and what they have to run: rules that an administrator sets."""

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.platforms import PLATFORMS, is_version
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.store.tables import AdeSerialNumber, MinimumOsVersion

if TYPE_CHECKING:
    from mdmlib.apple.machine_info import MachineInfo

_SERIALS: Final = "ade_serial"
_MINIMUM: Final = "minimum_os"
_SERIAL_NUMBER: Final = re.compile(r"[A-Z0-9]{6,32}")
_BUILD: Final = re.compile(r"\d{1,3}[A-Z]\d{1,5}[a-z]{0,2}", re.ASCII)
_KEEP: Final = timedelta(minutes=1)


def serial_number_of(text: str, *, name: str) -> str:
    """Return a serial number as devices write it: in capitals.

    Raises :class:`~mdmlib.errors.BadRequestError` with ``field`` for what cannot be one.
    """
    serial_number = text.strip().upper()
    if not _SERIAL_NUMBER.fullmatch(serial_number):
        raise BadRequestError(
            f"{text[:40]!r} is no serial number: they have 6 to 32 letters and digits.",
            code="invalid_field",
            field=name,
        )
    return serial_number


class AdeSerialNumbers:
    """The serial numbers that may enroll by ADE; while there are none, every genuine device may.

    A device that Apple has in the list of one of our servers is sent here by Apple itself: it may, whatever is listed.
    """

    def __init__(self, *, is_ours: Callable[[str], bool], now: Callable[[], datetime]) -> None:
        """``is_ours`` says whether a device is in Apple's list of a server."""
        self._is_ours = is_ours
        self._now = now

    def permit(self, serial_number: str) -> bool:
        """Say whether this device may enroll: one read, and at most three more while it is not in the list."""
        try:
            AdeSerialNumber.get(_SERIALS, serial_number.upper())
        except DoesNotExist:
            is_anybody = next(AdeSerialNumber.query(_SERIALS, limit=1), None) is None
            return is_anybody or self._is_ours(serial_number)
        return True

    def add(self, serial_numbers: Iterable[str], *, note: str | None) -> list[AdeSerialNumber]:
        """Let these devices enroll. Adding one again replaces its note.

        Raises :class:`~mdmlib.errors.BadRequestError` for one that is none; then none is added.
        """
        checked = dict.fromkeys(serial_number_of(each, name="serial_numbers") for each in serial_numbers)
        added_at = int(self._now().timestamp())
        items = [AdeSerialNumber(_SERIALS, each, note=note, added_at=added_at) for each in checked]
        for item in items:
            item.save()
        return items

    def list(self, *, limit: int, after: str) -> tuple[list[AdeSerialNumber], str | None]:
        """Return a page behind ``after``, ordered by serial number, and where the next one begins or None."""
        found = AdeSerialNumber.query(
            _SERIALS,
            AdeSerialNumber.name > after if after else None,
            consistent_read=True,
            limit=limit + 1,
        )
        items = list(found)
        return items[:limit], items[limit - 1].name if len(items) > limit else None

    def remove(self, serial_number: str) -> None:
        """Let this device enroll no more by being in the list; one that is not there is no error."""
        if name := serial_number.strip().upper():
            AdeSerialNumber(_SERIALS, name).delete()


class MinimumOsVersions:
    """What devices have to run before they may enroll by ADE, by platform; kept for a minute once it was read."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._kept: tuple[datetime, dict[str, MinimumOsVersion]] | None = None

    def of(self, device: "MachineInfo") -> MinimumOsVersion | None:
        """Return what applies to a device."""
        now = self._now()
        if self._kept is None or now - self._kept[0] > _KEEP:
            self._kept = now, {item.name: item for item in self.list()}
        return self._kept[1].get(device.platform or "")

    def list(self) -> list[MinimumOsVersion]:
        """Return all, ordered by platform."""
        return list(MinimumOsVersion.query(_MINIMUM, consistent_read=True))

    def set(self, platform: str, os_version: str, *, build_version: str | None) -> MinimumOsVersion:
        """Ask devices of a platform for a version; ``build_version`` is for versions that only a seed has.

        Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        _check_platform(platform)
        if not is_version(os_version):
            raise BadRequestError(
                "os_version is no version of an OS, such as 17.4.1.", code="invalid_field", field="os_version"
            )
        if build_version is not None and not _BUILD.fullmatch(build_version):
            raise BadRequestError(
                "build_version is no build of an OS, such as 21E236.", code="invalid_field", field="build_version"
            )
        item = MinimumOsVersion(_MINIMUM, platform, os_version=os_version, build_version=build_version)
        item.save()
        self._kept = None
        return item

    def remove(self, platform: str) -> None:
        """Ask for nothing any more. Raises :class:`~mdmlib.errors.NotFoundError` for what is no platform."""
        if platform not in PLATFORMS:
            raise NotFoundError(f"There is no such platform; known: {', '.join(PLATFORMS)}.", code="platform_not_found")
        MinimumOsVersion(_MINIMUM, platform).delete()
        self._kept = None


def _check_platform(platform: str) -> None:
    if platform not in PLATFORMS:
        raise BadRequestError(
            f"There is no such platform; known: {', '.join(PLATFORMS)}.", code="invalid_field", field="platform"
        )

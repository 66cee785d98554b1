"""What a simulated device is: model, operating system, identifiers."""

import random
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

_SERIAL_LETTERS: Final = "0123456789CDFGHJKLMNPQRTVWXY"
"""Apple's serial numbers leave out the letters that are taken for others."""


class Platform(StrEnum):
    """The operating systems that are simulated; what they know differs (iPadOS counts as iOS, as in Apple's schema)."""

    IOS = "iOS"
    MACOS = "macOS"


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One device as it left the factory, with its name and the release that it runs."""

    platform: Platform
    udid: str
    serial_number: str
    product_name: str
    """The model identifier, such as ``iPhone17,3``."""
    model_name: str
    model: str
    """The part number, such as ``MYAP3LL``."""
    device_name: str
    os_version: str
    build_version: str
    wifi_mac: str
    bluetooth_mac: str
    ethernet_mac: str | None = None
    imei: str | None = None
    meid: str | None = None
    capacity_gb: float = 256.0
    is_supervised: bool = True
    is_shared: bool = False
    """Whether it is a Shared iPad, on which several people have their own data."""

    @classmethod
    def iphone(cls, chance: random.Random | None = None, **different: Any) -> Self:  # noqa: ANN401  # any field
        """Make an iPhone of its own; ``chance`` with a seed makes the same one again."""
        chance = chance or random.SystemRandom()
        number = f"3592{chance.randrange(10**10):010}"
        made: dict[str, Any] = {
            "platform": Platform.IOS,
            "udid": f"00008140-{chance.getrandbits(64):016X}",
            "serial_number": _serial(chance),
            "product_name": "iPhone17,3",
            "model_name": "iPhone",
            "model": "MYAP3LL",
            "device_name": "iPhone",
            "os_version": "26.1",
            "build_version": "23B85",
            "wifi_mac": _mac(chance),
            "bluetooth_mac": _mac(chance),
            "imei": _spaced_imei(number + _luhn(number)),
            "meid": number,
            "capacity_gb": 128.0,
        }
        return cls(**made | different)

    @classmethod
    def ipad(cls, chance: random.Random | None = None, **different: Any) -> Self:  # noqa: ANN401  # any field
        """Make an iPad without a modem."""
        ipad: dict[str, Any] = {
            "product_name": "iPad16,3",
            "model_name": "iPad",
            "model": "MVV83LL",
            "device_name": "iPad",
            "imei": None,
            "meid": None,
            "capacity_gb": 256.0,
        }
        return cls.iphone(chance, **ipad | different)

    @classmethod
    def mac(cls, chance: random.Random | None = None, **different: Any) -> Self:  # noqa: ANN401  # any field
        """Make a Mac with Apple silicon."""
        chance = chance or random.SystemRandom()
        made: dict[str, Any] = {
            "platform": Platform.MACOS,
            "udid": str(uuid.UUID(int=chance.getrandbits(128), version=4)).upper(),
            "serial_number": _serial(chance),
            "product_name": "Mac16,1",
            "model_name": "MacBook Pro",
            "model": "Z1C8000MPLL/A",
            "device_name": "MacBook Pro",
            "os_version": "26.1",
            "build_version": "25B78",
            "wifi_mac": _mac(chance),
            "bluetooth_mac": _mac(chance),
            "ethernet_mac": _mac(chance),
            "capacity_gb": 494.38,
        }
        return cls(**made | different)

    @property
    def model_family(self) -> str:
        """What service discovery calls it."""
        return "Mac" if self.platform is Platform.MACOS else self.model_name

    @property
    def knows_update_required(self) -> bool:
        """Whether it can be told to update before it enrolls: iOS 17, macOS 14 and later."""
        return self.knows_unrecognized_device

    @property
    def knows_unrecognized_device(self) -> bool:
        """Whether a 403 with ``com.apple.unrecognized.device`` ends its enrollment: iOS 17, macOS 14 and later."""
        first = 17 if self.platform is Platform.IOS else 14
        return int(self.os_version.partition(".")[0]) >= first


def _serial(chance: random.Random) -> str:
    return "".join(chance.choices(_SERIAL_LETTERS, k=10))


def _mac(chance: random.Random) -> str:
    # The first byte marks a locally administered address, so that no real vendor's is taken.
    return ":".join(f"{byte:02x}" for byte in (0x02, *chance.randbytes(5)))


def _luhn(digits: str) -> str:
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value  # noqa: PLR2004  # the digits of a two-digit product, summed
    return str(-total % 10)


def _spaced_imei(imei: str) -> str:
    return f"{imei[:2]} {imei[2:8]} {imei[8:14]} {imei[14]}"

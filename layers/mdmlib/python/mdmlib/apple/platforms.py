"""Apple's platforms, by the names of products, and the versions of their systems."""

import re
from collections.abc import Mapping
from typing import Final

# By how a product's name begins, in this order: MacBookPro18,3, Macmini9,1, Mac14,2, iMac21,1, VirtualMac2,1.
_PLATFORMS: Final[Mapping[str, tuple[str, ...]]] = {
    "iPadOS": ("iPad",),
    "iOS": ("iPhone", "iPod"),
    "macOS": ("Mac", "iMac", "VirtualMac", "Xserve"),
    "tvOS": ("AppleTV",),
    "visionOS": ("RealityDevice",),
    "watchOS": ("Watch",),
}

PLATFORMS: Final = tuple(_PLATFORMS)

_VERSION: Final = re.compile(r"\d{1,4}(?:\.\d{1,4}){0,3}", re.ASCII)


def platform_of(product: str) -> str | None:
    """Return which of :data:`PLATFORMS` a product is of (``iPhone15,2``, ``Mac14,2``); None for an unknown one."""
    return next((platform for platform, names in _PLATFORMS.items() if product.startswith(names)), None)


def is_version(text: str) -> bool:
    """Say whether it is the version of an OS: 17, 17.4, 17.4.1."""
    return _VERSION.fullmatch(text) is not None


def is_older(version: str, than: str) -> bool:
    """Compare two versions; 17.4 and 17.4.0 are the same.

    One that cannot be read is the oldest of all.
    """
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    # What follows a space is of a rapid security response, "17.4.1 (a)": the same version here.
    match = _VERSION.match(version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    return tuple(numbers + [0] * (4 - len(numbers)))

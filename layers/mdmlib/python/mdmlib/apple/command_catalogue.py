"""The catalogue of Apple's commands: which there are, their keys, and what can do them.

The data is Apple's schema in a form of our own (``command_catalogue.json``, made by ``tools/command_catalogue.py``),
with what has changed since (:mod:`mdmlib.apple.command_changes`). It is read on first use, in a few milliseconds.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

from mdmlib.apple import command_changes

PLATFORMS: Final = ("iOS", "macOS", "tvOS", "visionOS", "watchOS")
"""Apple's schema counts iPadOS as iOS."""

_FILE: Final = Path(__file__).with_name("command_catalogue.json")


@dataclass(frozen=True, kw_only=True)
class Availability:
    """What a device of one platform has to be."""

    introduced: str = "0"
    deprecated: str | None = None
    removed: str | None = None
    supervised: bool = False
    ade: bool = False
    """Only after Automated Device Enrollment."""
    user_enrollment: bool = True
    """Also where the user has enrolled, and not the device."""
    channels: frozenset[str] = frozenset({"device"})
    """``device``, ``user``."""
    shared_ipad: str = "allowed"
    """``allowed``, ``forbidden``, ``required``, ``ignored``."""
    shared_ipad_channels: frozenset[str] = frozenset({"device"})

    @classmethod
    def read(cls, system: Mapping[str, Any], *, removed: str | None = None) -> Self:
        """Read what the catalogue says of one platform."""
        shared = system.get("shared_ipad", {})
        return cls(
            introduced=system.get("introduced", "0"),
            deprecated=system.get("deprecated"),
            removed=system.get("removed", removed),
            supervised=system.get("supervised", False),
            ade=system.get("ade", False),
            user_enrollment=system.get("user_enrollment") != "forbidden",
            channels=frozenset(system.get("channels", ("device",))),
            shared_ipad=shared.get("mode", "allowed"),
            shared_ipad_channels=frozenset(shared.get("channels", ("device",))),
        )


@dataclass(frozen=True)
class CommandKey:
    """One key of a command, or one element of an array."""

    type: str
    """``string``, ``boolean``, ``integer``, ``data``, ``dictionary``, ``array``, ``any``."""
    required: bool
    values: tuple[Any, ...]
    """All that it may be; empty: anything of its type."""
    keys: Mapping[str, "CommandKey"]
    """Of a dictionary; one without any may have whatever keys."""
    items: "CommandKey | None"
    """Of an array."""
    variants: Mapping[str, "CommandKey"]
    """Of a dictionary that is one of several: by its ``Item``."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """Read a key."""
        items = entry.get("items")
        return cls(
            type=entry["type"],
            required=entry.get("required", False),
            values=tuple(entry.get("values", ())),
            keys=_keys(entry),
            items=cls.read(items) if items else None,
            variants={name: cls.read(variant) for name, variant in entry.get("variants", {}).items()},
        )


@dataclass(frozen=True)
class CatalogueEntry:
    """One request type."""

    keys: Mapping[str, CommandKey]
    _systems: Mapping[str, Any]
    _raw_keys: Mapping[str, Any]
    _removed: str | None
    _removed_values: Mapping[str, Mapping[str, str]]

    def availability(self, platform: str) -> Availability | None:
        """Return what a device of this platform has to be; None: the platform does not know it."""
        system = self._systems.get(platform)
        return Availability.read(system, removed=self._removed) if system is not None else None

    def part(self, key: str, name: str, platform: str) -> Availability | None:
        """Return the same of an entry of the array ``key``: an item of Settings, a query of DeviceInformation.

        What is not said of it is as it is for the whole command.
        """
        whole = self._systems.get(platform)
        if whole is None:
            return None
        items = self._raw_keys.get(key, {}).get("items", {})
        systems = items.get("variants", {}).get(name, {}).get("os") or items.get("value_os", {}).get(name) or {}
        own = systems.get(platform, {})
        if own is None:
            return None
        return Availability.read({**whole, **own}, removed=self._removed_values.get(key, {}).get(name) or self._removed)


@cache
def catalogue() -> Mapping[str, CatalogueEntry]:
    """Return all request types."""
    raw: dict[str, Any] = json.loads(_FILE.read_bytes())
    raw.pop("")  # what the file says of itself
    raw |= command_changes.ADDED
    for (request_type, *path), keys in command_changes.ADDED_KEYS.items():
        entry = raw[request_type]
        for name in path:
            entry = entry["keys"][name]
        entry["keys"] |= keys
    for (request_type, key), values in command_changes.ALLOWED_VALUES.items():
        raw[request_type]["keys"][key]["values"] = values
    return {name: _entry(name, entry) for name, entry in sorted(raw.items())}


def _entry(name: str, raw: Mapping[str, Any]) -> CatalogueEntry:
    return CatalogueEntry(
        keys=_keys(raw),
        _systems=raw["os"],
        _raw_keys=raw.get("keys", {}),
        _removed=command_changes.REMOVED.get(name),
        _removed_values={
            key: values
            for (request_type, key), values in command_changes.REMOVED_VALUES.items()
            if request_type == name
        },
    )


def _keys(entry: Mapping[str, Any]) -> Mapping[str, CommandKey]:
    keys: Sequence[tuple[str, Any]] = list(entry.get("keys", {}).items())
    return {name: CommandKey.read(key) for name, key in keys}

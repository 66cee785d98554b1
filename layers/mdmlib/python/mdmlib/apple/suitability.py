"""Whether an enrollment can do what a command asks for, as far as both are known.

What is known of a device is what it told: platform and version, whose enrollment it is, and, once it has answered
DeviceInformation, whether it is supervised. What is not known refuses nothing: the device has the last word anyway.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mdmlib.apple.command_catalogue import Availability, catalogue
from mdmlib.apple.command_target import Target
from mdmlib.apple.platforms import is_older, is_version

PARTS: Final[Mapping[str, str]] = {"DeviceInformation": "Queries", "Settings": "Settings"}
"""Arrays whose entries a device does one by one: such a command is refused only when nothing of it is left."""


def unsuitable(request_type: str, command: Mapping[str, Any], target: Target) -> str | None:
    """Say why ``target`` cannot do the command (its ``Command`` dictionary), or return None.

    A request type that the catalogue does not have suits everybody.
    """
    entry = catalogue().get(request_type)
    if entry is None or target.platform is None:
        return None
    if reason := _refusal(request_type, entry.availability(target.platform), target):
        return reason
    key = PARTS.get(request_type)
    if key is None:
        return None
    reasons = [_refusal(name, entry.part(key, name, target.platform), target) for name in _names(command.get(key))]
    return reasons[0] if reasons and all(reasons) else None


def _names(entries: object) -> Iterable[str]:
    for one in entries if isinstance(entries, list) else ():
        name = one.get("Item") if isinstance(one, Mapping) else one
        yield name if isinstance(name, str) else ""


def _refusal(name: str, availability: Availability | None, target: Target) -> str | None:
    if availability is None:
        return f"{target.platform} does not know {name}."
    return _outdated(name, availability, target) or _not_for(name, availability, target)


def _outdated(name: str, availability: Availability, target: Target) -> str | None:
    platform = target.platform
    if target.os_version and is_version(target.os_version):
        if is_older(target.os_version, availability.introduced):
            return f"{name} needs {platform} {availability.introduced}; this device runs {target.os_version}."
        if availability.removed and not is_older(target.os_version, availability.removed):
            return f"{name} is gone since {platform} {availability.removed}; this device runs {target.os_version}."
    return None


def _not_for(name: str, availability: Availability, target: Target) -> str | None:
    if target.is_user_enrollment and not availability.user_enrollment:
        return f"{name} is not for devices that their users have enrolled (User Enrollment)."
    if availability.supervised and target.is_supervised is False:
        return f"{name} is for supervised devices alone."
    channel = "user" if target.is_user_channel else "device"
    if target.is_shared_ipad and channel not in availability.shared_ipad_channels:
        return f"{name} is not for the {channel} channel of a Shared iPad."
    if target.platform == "macOS" and channel not in availability.channels:
        return f"{name} is not for the {channel} channel of a Mac."
    return None

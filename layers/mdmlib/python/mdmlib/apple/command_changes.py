"""What Apple's commands became in releases 26 and 27, over the catalogue of release 18 (macOS 15).

Kept by hand, in the catalogue's own form; when the catalogue is made anew from a newer schema, what that has is taken
out here. Apple's page: https://developer.apple.com/documentation/devicemanagement/commands-and-queries.
"""

from collections.abc import Mapping
from typing import Any, Final

_SINCE_27_SUPERVISED: Final[Mapping[str, Any]] = {
    "introduced": "27.0",
    "supervised": True,
    "user_enrollment": "forbidden",
}
_ENHANCED_LOGGING: Final[Mapping[str, Any]] = {
    "iOS": {**_SINCE_27_SUPERVISED, "shared_ipad": {"channels": ["device"]}},
    "macOS": {**_SINCE_27_SUPERVISED, "channels": ["user"]},
    "tvOS": _SINCE_27_SUPERVISED,
    "visionOS": None,
    "watchOS": None,
}

ADDED: Final[Mapping[str, Mapping[str, Any]]] = {
    "CancelEnhancedLogCollection": {"os": _ENHANCED_LOGGING},
    "TriggerEnhancedLogCollection": {
        "os": _ENHANCED_LOGGING,
        "keys": {"AppleCareToken": {"type": "string", "required": True}},
    },
}
"""New request types."""

ADDED_KEYS: Final[Mapping[tuple[str, ...], Mapping[str, Mapping[str, Any]]]] = {
    ("EraseDevice", "ReturnToService"): {
        "BootstrapToken": {"type": "data", "os": {"iOS": {"introduced": "26.0"}, "visionOS": {"introduced": "26.0"}}},
        "ShouldRetryEnrollment": {"type": "boolean", "os": {"iOS": {"introduced": "27.0"}}},
    },
}
"""New keys, by the path of keys to the dictionary that has them."""

REMOVED: Final[Mapping[str, str]] = dict.fromkeys(
    ("AvailableOSUpdates", "OSUpdateStatus", "ScheduleOSUpdate", "ScheduleOSUpdateScan"), "27.0"
)
"""Request types that no platform knows any more since a release: the OS is updated by declarations instead."""

REMOVED_VALUES: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("DeviceInformation", "Queries"): dict.fromkeys(
        ("OSUpdateSettings", "SoftwareUpdateDeviceID", "SoftwareUpdateSettings"), "27.0"
    ),
    ("Settings", "Settings"): {"SoftwareUpdateSettings": "27.0"},
}
"""Entries of an array (queries, items of Settings) that no platform knows any more since a release."""

ALLOWED_VALUES: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    ("InstallApplication", "ManagementFlags"): (0, 1, 4, 5),
    ("InstallEnterpriseApplication", "ManagementFlags"): (0, 1),
}
"""Flags may all be off, which the schema does not say."""

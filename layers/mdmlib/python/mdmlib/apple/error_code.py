"""Errors that a device understands: the body of a 403, and who understands it.

Apple's pages: ErrorCode… under https://developer.apple.com/documentation/devicemanagement/errors.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

MEDIA_TYPE: Final = "application/json"

UNRECOGNIZED_DEVICE: Final = "com.apple.unrecognized.device"
"""The server does not know the device: it un-enrolls."""

SOFTWARE_UPDATE_REQUIRED: Final = "com.apple.softwareupdate.required"
"""In Setup Assistant: the device updates to the ``OSVersion`` of the details, then it asks again."""

PAIRING_TOKEN_MISSING: Final = "com.apple.watch.pairing.token.missing"  # noqa: S105 - a code
"""A watch gets a pairing token through its iPhone, for the ``security-token`` of the details, then it asks again."""

WELL_KNOWN_FAILED: Final = "com.apple.well-known.failed"
"""Whoever signs in is told that this account enrolls nowhere."""

# Since when, by how a product's name begins. Macs: MacBookPro18,3, Macmini9,1, iMac21,1, VirtualMac2,1, Mac14,2.
_UNRECOGNIZED_DEVICE_SINCE: Final[Mapping[tuple[str, ...], tuple[int, int]]] = {
    ("iPhone", "iPad", "iPod"): (17, 0),
    ("Mac", "iMac", "VirtualMac"): (14, 0),
    ("AppleTV",): (17, 0),
    ("RealityDevice",): (1, 1),
    ("Watch",): (10, 0),
}
_VERSION: Final = re.compile(r"(\d{1,4})(?:\.(\d{1,4}))?", re.ASCII)


def error_body(
    code: str,
    *,
    description: str | None = None,
    message: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the body of an error, JSON of :data:`MEDIA_TYPE`.

    ``description`` is for the device's log, ``message`` for the person in front of it.
    """
    document = {"code": code, "description": description, "message": message, "details": details}
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def knows_unrecognized_device(product: str | None, os_version: str | None) -> bool:
    """Say whether a device acts on :data:`UNRECOGNIZED_DEVICE`; one that we know too little of is taken not to.

    ``product`` is its ProductName (``iPhone15,2``), or the Model of a Mac.
    """
    match = _VERSION.match(os_version or "")
    if match is None:
        return False
    version = int(match[1]), int(match[2] or 0)
    return any(
        (product or "").startswith(names) and version >= since for names, since in _UNRECOGNIZED_DEVICE_SINCE.items()
    )

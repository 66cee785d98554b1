"""MachineInfo: what a device says of itself when it asks for an enrollment profile.

A plist in a SignedData of the device's own certificate (:mod:`mdmlib.apple.device_certificate`). It is the body of
Automated Device Enrollment's and account-driven enrollment's POST, and where a web page leads to the profile the value
of the header :data:`HEADER`, in base64. Apple's page:
https://developer.apple.com/documentation/devicemanagement/machineinfo.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mdmlib.apple import plist
from mdmlib.apple.platforms import platform_of
from mdmlib.errors import MalformedBodyError

HEADER: Final = "x-apple-aspen-deviceinfo"
"""In lower case, as headers are looked up here."""

_MAX_TEXT: Final = 256
_MAX_PAIRING_TOKEN_BYTES: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class MachineInfo:
    """A device before it enrolls. What it did not say is None; only ``product`` is always there.

    A device that is about to enroll its user, not itself, tells neither UDID nor serial number.
    """

    product: str
    build_version: str | None = None
    """``VERSION``: the build, such as 21A329."""
    os_version: str | None = None
    """``OS_VERSION``, such as 17.0; since iOS 17 and macOS 14."""
    serial_number: str | None = None
    udid: str | None = None
    imei: str | None = None
    meid: str | None = None
    language: str | None = None
    can_request_software_update: bool = False
    """It understands that it has to update its OS before it may enroll."""
    software_update_device_id: str | None = None
    pairing_token: bytes | None = field(repr=False, default=None)
    """Of a watch: its iPhone's server vouches for it."""

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Decode the plist. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        fields = plist.loads(content)
        product = _text(fields, "PRODUCT")
        if product is None:
            raise MalformedBodyError("The MachineInfo has no PRODUCT.", field="PRODUCT")
        pairing_token = fields.get("PAIRING_TOKEN")
        if not isinstance(pairing_token, bytes | None) or len(pairing_token or b"") > _MAX_PAIRING_TOKEN_BYTES:
            raise MalformedBodyError("PAIRING_TOKEN is no data.", field="PAIRING_TOKEN")
        return cls(
            product=product,
            build_version=_text(fields, "VERSION"),
            os_version=_text(fields, "OS_VERSION"),
            serial_number=_text(fields, "SERIAL"),
            udid=_text(fields, "UDID"),
            imei=_text(fields, "IMEI"),
            meid=_text(fields, "MEID"),
            language=_text(fields, "LANGUAGE"),
            can_request_software_update=fields.get("MDM_CAN_REQUEST_SOFTWARE_UPDATE") is True,
            software_update_device_id=_text(fields, "SOFTWARE_UPDATE_DEVICE_ID"),
            pairing_token=pairing_token or None,
        )

    @property
    def platform(self) -> str | None:
        """Which of :data:`~mdmlib.apple.platforms.PLATFORMS` it is; None for a product that is not known here."""
        return platform_of(self.product)


def decode_header(value: str) -> bytes:
    """Return the SignedData of the header :data:`HEADER`.

    Raises :class:`~mdmlib.errors.MalformedBodyError` for what is not base64.
    """
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedBodyError(f"The header {HEADER} is not base64.", field=HEADER) from error


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if not isinstance(value, str | None) or len(value or "") > _MAX_TEXT:
        raise MalformedBodyError(f"{key} is no short string.", field=key)
    return value or None

"""What a device says of itself before it is enrolled, signed with the identity that it left the factory with.

Apple's pages: MachineInfo; and for over-the-air enrollment the attributes of the Profile Service payload.
"""

import plistlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from local.device.cms import Digest, Identity, SignatureForm, sign_content
from local.device.errors import DeviceError, ProtocolViolation
from local.device.hardware import Hardware, Platform
from local.device.instructions import numbers
from local.device.state import DeviceState

SIGNED: Final = "application/pkcs7-signature"
HEADER: Final = "x-apple-aspen-deviceinfo"

_LANGUAGE: Final = "en-US"
_MAC_ATTRIBUTES: Final = frozenset({"UserID", "UserLongName", "UserShortName", "NotOnConsole"})


@dataclass(frozen=True, kw_only=True)
class MachineInfoForm:
    """How a device signs it; the defaults are today's."""

    signature: SignatureForm = SignatureForm.DER_WITH_ATTRIBUTES
    digest: Digest = "sha256"
    binary: bool = False
    """A binary property list inside."""

    def sign(self, content: Mapping[str, Any], identity: Identity | None, *, at: datetime) -> bytes:
        """Return the property list in a SignedData. Raises DeviceError for a device without an identity."""
        if identity is None:
            raise DeviceError("The device has no built-in identity.")
        body = plistlib.dumps(dict(content), fmt=plistlib.FMT_BINARY if self.binary else plistlib.FMT_XML)
        return sign_content(body, identity, form=self.signature, digest=self.digest, at=at)


def machine_info(hardware: Hardware, *, can_update: bool) -> dict[str, Any]:
    """Return what a device tells that is to be managed as a whole.

    ``can_update``: it is in Setup Assistant, where it could update first.
    """
    told = anonymous_machine_info(hardware) | {"UDID": hardware.udid, "SERIAL": hardware.serial_number}
    if hardware.imei and hardware.meid:
        told |= {"IMEI": hardware.imei.replace(" ", ""), "MEID": hardware.meid}
    if hardware.knows_update_required:
        told["MDM_CAN_REQUEST_SOFTWARE_UPDATE"] = can_update
    return told


def anonymous_machine_info(hardware: Hardware) -> dict[str, Any]:
    """Return what a device tells whose user signs in: nothing that it could be known by again."""
    told: dict[str, Any] = {
        "LANGUAGE": _LANGUAGE,
        "PRODUCT": hardware.product_name,
        "VERSION": hardware.build_version,
    }
    if hardware.knows_update_required:
        told |= {"OS_VERSION": hardware.os_version, "SUPPLEMENTAL_BUILD_VERSION": hardware.build_version}
    since = (17, 4) if hardware.platform is Platform.IOS else (14, 4)
    if numbers(hardware.os_version) >= since:
        told["SOFTWARE_UPDATE_DEVICE_ID"] = hardware.product_name
    return told


def asked_attributes(hardware: Hardware, state: DeviceState, names: Sequence[str]) -> dict[str, Any]:
    """Return what of itself a device is asked for over the air; it leaves out what it has not.

    Raises :class:`~local.device.errors.ProtocolViolation` for a name that is none of Apple's.
    """
    known = {
        "UDID": hardware.udid,
        "VERSION": hardware.build_version,
        "PRODUCT": hardware.product_name,
        "SERIAL": hardware.serial_number,
        "DEVICE_NAME": state.device_name,
        "MAC_ADDRESS_EN0": hardware.ethernet_mac or hardware.wifi_mac,
        "IMEI": hardware.imei,
        "MEID": hardware.meid,
        "ICCID": None,
        "IMSI": None,
    }
    told = {}
    for name in names:
        if name not in known and name not in _MAC_ATTRIBUTES:
            raise ProtocolViolation("DeviceAttributes", f"{name} is no attribute of devices.")
        if known.get(name) is not None:
            told[name] = known[name]
    return told

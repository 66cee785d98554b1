"""The check-in messages that tell what a device is and how to reach it (Apple: Authenticate, TokenUpdate)."""

from collections.abc import Mapping
from typing import Any

from local.device.hardware import Hardware, Platform


def authenticate(hardware: Hardware, device_name: str, *, optional_keys: bool) -> dict[str, Any]:
    """Return an Authenticate without its Topic; an iPad without a modem says nothing of one."""
    message = {"MessageType": "Authenticate", "UDID": hardware.udid}
    if optional_keys:
        message |= {
            "BuildVersion": hardware.build_version,
            "DeviceName": device_name,
            "Model": hardware.model,
            "ModelName": hardware.model_name,
            "OSVersion": hardware.os_version,
            "ProductName": hardware.product_name,
            "SerialNumber": hardware.serial_number,
        }
        if hardware.imei and hardware.meid:
            message |= {"IMEI": hardware.imei, "MEID": hardware.meid}
    return message


def token_update(
    hardware: Hardware,
    ids: Mapping[str, Any],
    *,
    token: bytes,
    magic: str,
    unlock_token: bytes,
    optional_keys: bool,
) -> dict[str, Any]:
    """Return a TokenUpdate without its Topic, for the channel that ``ids`` name."""
    message = {"MessageType": "TokenUpdate", **ids, "Token": token, "PushMagic": magic}
    if optional_keys and "UserID" not in ids:
        message["AwaitingConfiguration"] = False
        # Macs and user channels have nothing to unlock.
        if hardware.platform is Platform.IOS:
            message["UnlockToken"] = unlock_token
    return message

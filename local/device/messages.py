"""The check-in messages of an enrollment's beginning and end (Apple: Authenticate, TokenUpdate, CheckOut)."""

import plistlib
from collections.abc import Mapping
from typing import Any
from xml.parsers.expat import ExpatError

from local.device.errors import ProtocolViolation
from local.device.hardware import Hardware, Platform


def authenticate(hardware: Hardware, topic: str, *, device_name: str, optional_keys: bool) -> dict[str, Any]:
    """Say what the device is; an iPad without a modem says nothing of one."""
    message = {"MessageType": "Authenticate", "Topic": topic, "UDID": hardware.udid}
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
    topic: str,
    ids: Mapping[str, Any],
    *,
    token: bytes,
    magic: str,
    unlock_token: bytes,
    optional_keys: bool,
) -> dict[str, Any]:
    """Say how to reach the channel that ``ids`` name."""
    message = {"MessageType": "TokenUpdate", "Topic": topic, **ids, "Token": token, "PushMagic": magic}
    if optional_keys and "UserID" not in ids:
        message["AwaitingConfiguration"] = False
        # Macs and user channels have nothing to unlock.
        if hardware.platform is Platform.IOS:
            message["UnlockToken"] = unlock_token
    return message


def check_out(hardware: Hardware, topic: str) -> dict[str, Any]:
    """Say that the device is not managed any more."""
    return {"MessageType": "CheckOut", "Topic": topic, "UDID": hardware.udid}


def bootstrap_token(body: bytes) -> bytes | None:
    """Read the answer to GetBootstrapToken; nothing, or a dictionary without the token, means that there is none.

    Raises :class:`~local.device.errors.ProtocolViolation`.
    """
    if not body:
        return None
    try:
        document = plistlib.loads(body)
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise ProtocolViolation("GetBootstrapToken", "The answer is no property list.") from error
    match document:
        case {"BootstrapToken": bytes(token)}:
            return token
        case dict() if "BootstrapToken" not in document:
            return None
        case _:
            raise ProtocolViolation("GetBootstrapToken", "The answer holds no token.")

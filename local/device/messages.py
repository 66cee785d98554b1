"""The check-in messages of an enrollment's beginning and end (Apple: Authenticate, TokenUpdate, CheckOut).

Which of them say what, on which platform, in which kind of enrollment: as Apple's schema has it.
"""

from collections.abc import Mapping
from typing import Any, Final

from local.device.hardware import Hardware, Platform
from local.device.information import AccessRight
from local.device.profile import EnrollmentProfile

SHARED_IPAD_USER: Final = "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"
"""The UserID of everybody on a Shared iPad: nobody authenticates there."""


def device_ids(hardware: Hardware, enrollment_id: str | None) -> dict[str, Any]:
    """Return who a device says that it is: a User Enrollment has an identifier of its own and hides the device's."""
    return {"EnrollmentID": enrollment_id} if enrollment_id else {"UDID": hardware.udid}


def authenticate(
    hardware: Hardware,
    profile: EnrollmentProfile,
    ids: Mapping[str, Any],
    *,
    device_name: str,
    optional_keys: bool,
) -> dict[str, Any]:
    """Say what the device is; an iPad without a modem says nothing of one."""
    message = {"MessageType": "Authenticate", "Topic": profile.topic, **ids}
    if not optional_keys:
        return message
    is_ours = "UDID" in ids
    if hardware.platform is Platform.MACOS:
        message |= {
            "BuildVersion": hardware.build_version,
            "DeviceName": device_name,
            "Model": hardware.model,
            "ModelName": hardware.model_name,
            "OSVersion": hardware.os_version,
            "ProductName": hardware.product_name,
        }
    elif profile.allows(AccessRight.DEVICE_INFORMATION):
        message |= {
            "BuildVersion": hardware.build_version,
            "OSVersion": hardware.os_version,
            "ProductName": hardware.product_name,
        }
        if is_ours and hardware.imei and hardware.meid:
            message |= {"IMEI": hardware.imei, "MEID": hardware.meid}
    if is_ours and profile.allows(AccessRight.DEVICE_INFORMATION):
        message["SerialNumber"] = hardware.serial_number
    return message


def token_update(
    hardware: Hardware,
    profile: EnrollmentProfile,
    ids: Mapping[str, Any],
    *,
    token: bytes,
    magic: str,
    unlock_token: bytes,
    awaiting_configuration: bool,
    optional_keys: bool,
) -> dict[str, Any]:
    """Say how to reach the channel that ``ids`` name."""
    message = {"MessageType": "TokenUpdate", "Topic": profile.topic, **ids, "Token": token, "PushMagic": magic}
    is_user = not ids.keys().isdisjoint({"UserID", "EnrollmentUserID"})
    if is_user and hardware.platform is Platform.MACOS:
        message["NotOnConsole"] = False
        return message
    if optional_keys:
        message["AwaitingConfiguration"] = awaiting_configuration
        # Macs have nothing to unlock; a User Enrollment and a Shared iPad are not for the server to unlock.
        has_unlock_token = hardware.platform is Platform.IOS and not is_user and not hardware.is_shared
        if has_unlock_token and "UDID" in ids and profile.allows(AccessRight.LOCK_AND_CLEAR_PASSCODE):
            message["UnlockToken"] = unlock_token
    return message


def check_out(profile: EnrollmentProfile, ids: Mapping[str, Any]) -> dict[str, Any]:
    """Say that the device is not managed any more."""
    return {"MessageType": "CheckOut", "Topic": profile.topic, **ids}

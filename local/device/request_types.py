"""Which commands there are, what each must have, and where a device carries it out (Apple's schema of the commands)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from local.device.hardware import Platform
from local.device.information import AccessRight


class ChannelKind(StrEnum):
    """Whose channel it is."""

    DEVICE = "device"
    MAC_USER = "user of a Mac"
    SHARED_IPAD_USER = "user of a Shared iPad"


_EVERYWHERE: Final = frozenset(Platform)
_IOS: Final = frozenset({Platform.IOS})
_MACOS: Final = frozenset({Platform.MACOS})
_NOWHERE: Final[frozenset[Platform]] = frozenset()

_DEVICE: Final = frozenset({ChannelKind.DEVICE})
_AND_MAC_USERS: Final = frozenset({ChannelKind.DEVICE, ChannelKind.MAC_USER})
_AND_SHARED_IPAD_USERS: Final = frozenset({ChannelKind.DEVICE, ChannelKind.SHARED_IPAD_USER})
_ALL: Final = frozenset(ChannelKind)


@dataclass(frozen=True)
class RequestType:
    """One request type: who may send it, what its command must have, and where it is carried out."""

    right: AccessRight = AccessRight.NONE
    required: Mapping[str, type] = field(default_factory=dict)
    platforms: frozenset[Platform] = _EVERYWHERE
    supervised: frozenset[Platform] = _NOWHERE
    """Where only a supervised device obeys."""
    channels: frozenset[ChannelKind] = _DEVICE
    user_enrollment: frozenset[Platform] = _NOWHERE
    """Where it is obeyed in a User Enrollment too."""


_LOCK: Final = AccessRight.LOCK_AND_CLEAR_PASSCODE
_APPS: Final = AccessRight.MANAGE_APPLICATIONS

REQUEST_TYPES: Final[Mapping[str, RequestType]] = {
    "AccountConfiguration": RequestType(platforms=_MACOS),
    "CertificateList": RequestType(AccessRight.INSPECT_PROFILES, channels=_AND_MAC_USERS, user_enrollment=_EVERYWHERE),
    "ClearPasscode": RequestType(_LOCK, {"UnlockToken": bytes}, _IOS),
    "ClearRestrictionsPassword": RequestType(platforms=_IOS, supervised=_IOS),
    "DeclarativeManagement": RequestType(channels=_ALL, user_enrollment=_EVERYWHERE),
    "DeviceConfigured": RequestType(supervised=_IOS),
    "DeviceInformation": RequestType(required={"Queries": list}, channels=_ALL, user_enrollment=_EVERYWHERE),
    "DeviceLock": RequestType(_LOCK, user_enrollment=_IOS),
    "DisableLostMode": RequestType(platforms=_IOS, supervised=_IOS),
    "DisableRemoteDesktop": RequestType(platforms=_MACOS, supervised=_MACOS),
    "EnableLostMode": RequestType(platforms=_IOS, supervised=_IOS),
    "EnableRemoteDesktop": RequestType(platforms=_MACOS, supervised=_MACOS),
    "EraseDevice": RequestType(AccessRight.ERASE),
    "InstallApplication": RequestType(_APPS, channels=_AND_MAC_USERS, user_enrollment=_EVERYWHERE),
    "InstallEnterpriseApplication": RequestType(_APPS, platforms=_MACOS, user_enrollment=_MACOS),
    "InstallProfile": RequestType(
        AccessRight.INSTALL_PROFILES, {"Payload": bytes}, channels=_ALL, user_enrollment=_EVERYWHERE
    ),
    "InstalledApplicationList": RequestType(
        AccessRight.INSPECT_APPLICATIONS, channels=_AND_MAC_USERS, user_enrollment=_IOS
    ),
    "LogOutUser": RequestType(platforms=_IOS),
    "ManagedApplicationList": RequestType(_APPS, channels=_AND_MAC_USERS, user_enrollment=_EVERYWHERE),
    "PlayLostModeSound": RequestType(platforms=_IOS, supervised=_IOS),
    "ProfileList": RequestType(AccessRight.INSPECT_PROFILES, channels=_ALL, user_enrollment=_EVERYWHERE),
    "ProvisioningProfileList": RequestType(AccessRight.INSPECT_PROVISIONING_PROFILES, user_enrollment=_EVERYWHERE),
    "RemoveApplication": RequestType(_APPS, {"Identifier": str}, user_enrollment=_IOS),
    "RemoveProfile": RequestType(
        AccessRight.INSTALL_PROFILES, {"Identifier": str}, channels=_ALL, user_enrollment=_EVERYWHERE
    ),
    "RequestUnlockToken": RequestType(platforms=_IOS, supervised=_IOS),
    "RestartDevice": RequestType(_LOCK, supervised=_IOS),
    "Restrictions": RequestType(AccessRight.RESTRICTIONS, platforms=_IOS, channels=_AND_SHARED_IPAD_USERS),
    "RotateFileVaultKey": RequestType(AccessRight.SECURITY, {"KeyType": str, "FileVaultUnlock": dict}, _MACOS),
    "SecurityInfo": RequestType(AccessRight.SECURITY, channels=_AND_MAC_USERS, user_enrollment=_EVERYWHERE),
    "Settings": RequestType(AccessRight.SETTINGS, {"Settings": list}, channels=_ALL, user_enrollment=_EVERYWHERE),
    "ShutDownDevice": RequestType(_LOCK, supervised=_IOS),
    "StopMirroring": RequestType(supervised=_IOS),
    "UserConfigured": RequestType(platforms=_IOS, supervised=_IOS, channels=frozenset({ChannelKind.SHARED_IPAD_USER})),
    "UserList": RequestType(supervised=_MACOS),
}

NOT_SIMULATED: Final = frozenset(
    {
        "ActivationLockBypassCode",
        "ActiveNSExtensions",
        "ApplyRedemptionCode",
        "AvailableOSUpdates",
        "ClearActivationLockBypassCode",
        "ContentCachingInformation",
        "DeleteUser",
        "DeviceLocation",
        "InstallMedia",
        "InstallProvisioningProfile",
        "InviteToProgram",
        "LOMDeviceRequest",
        "LOMSetupRequest",
        "ManagedApplicationAttributes",
        "ManagedApplicationConfiguration",
        "ManagedApplicationFeedback",
        "ManagedMediaList",
        "NSExtensionMappings",
        "OSUpdateStatus",
        "RefreshCellularPlans",
        "RemoveMedia",
        "RemoveProvisioningProfile",
        "RequestMirroring",
        "ScheduleOSUpdate",
        "ScheduleOSUpdateScan",
        "SetAutoAdminPassword",
        "SetFirmwarePassword",
        "SetRecoveryLock",
        "UnlockUserAccount",
        "ValidateApplications",
        "VerifyFirmwarePassword",
        "VerifyRecoveryLock",
    }
)

"""What a device tells of itself: the answers to DeviceInformation and SecurityInfo (Apple's schema of the commands)."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntFlag
from typing import Any, Final

from local.device.hardware import Hardware, Platform


class AccessRight(IntFlag):
    """The bits of the MDM payload's ``AccessRights`` (Apple: MDM payload)."""

    NONE = 0
    INSPECT_PROFILES = 1
    INSTALL_PROFILES = 2
    LOCK_AND_CLEAR_PASSCODE = 4
    ERASE = 8
    DEVICE_INFORMATION = 16
    NETWORK_INFORMATION = 32
    INSPECT_PROVISIONING_PROFILES = 64
    INSTALL_PROVISIONING_PROFILES = 128
    INSPECT_APPLICATIONS = 256
    RESTRICTIONS = 512
    SECURITY = 1024
    SETTINGS = 2048
    MANAGE_APPLICATIONS = 4096


_NO_RIGHT: Final = frozenset(
    {
        "AwaitingConfiguration",
        "LastCloudBackupDate",
        "MDMOptions",
        "OrganizationInfo",
        "ProvisioningUDID",
        "SoftwareUpdateDeviceID",
        "UDID",
    }
)
_NETWORK: Final = frozenset(
    {
        "BluetoothMAC",
        "CarrierSettingsVersion",
        "CurrentCarrierNetwork",
        "CurrentMCC",
        "CurrentMNC",
        "DataRoamingEnabled",
        "EthernetMAC",
        "ICCID",
        "IsNetworkTethered",
        "IsRoaming",
        "PersonalHotspotEnabled",
        "PhoneNumber",
        "ServiceSubscriptions",
        "SubscriberCarrierNetwork",
        "SubscriberMCC",
        "SubscriberMNC",
        "VoiceRoamingEnabled",
        "WiFiMAC",
    }
)
_APPLICATIONS: Final = frozenset({"iTunesStoreAccountHash", "iTunesStoreAccountIsActive"})
_IDENTIFYING: Final = frozenset(
    {
        "BluetoothMAC",
        "EACSPreflight",
        "EASDeviceIdentifier",
        "EthernetMAC",
        "ICCID",
        "IMEI",
        "MEID",
        "PhoneNumber",
        "ProvisioningUDID",
        "SerialNumber",
        "ServiceSubscriptions",
        "SoftwareUpdateDeviceID",
        "UDID",
        "WiFiMAC",
    }
)
"""What a User Enrollment is never told: it would know the device again."""
_GSM: Final = 1
"""A value of ``CellularTechnology``."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What of a device changes in its life."""

    device_name: str
    organization: dict[str, Any]
    options: dict[str, Any]
    push_token: bytes
    passcode_present: bool
    lost_mode: bool
    awaiting_configuration: bool
    bootstrap_token_allowed: bool
    is_user_enrollment: bool
    at: datetime


def needed_right(query: str) -> AccessRight:
    """Return the right that a server needs to be told this of DeviceInformation."""
    if query in _NO_RIGHT:
        return AccessRight.NONE
    if query in _NETWORK:
        return AccessRight.NETWORK_INFORMATION
    return AccessRight.MANAGE_APPLICATIONS if query in _APPLICATIONS else AccessRight.DEVICE_INFORMATION


def device_information(hardware: Hardware, condition: Condition) -> dict[str, Any]:
    """Return everything that the device would say when asked."""
    everywhere = {
        "UDID": hardware.udid,
        "OrganizationInfo": condition.organization,
        "MDMOptions": condition.options,
        "AwaitingConfiguration": condition.awaiting_configuration,
        "iTunesStoreAccountIsActive": False,
        "DeviceName": condition.device_name,
        "OSVersion": hardware.os_version,
        "BuildVersion": hardware.build_version,
        "SupplementalBuildVersion": hardware.build_version,
        "ModelName": hardware.model_name,
        "Model": hardware.model,
        "ModelNumber": hardware.model,
        "ProductName": hardware.product_name,
        "SerialNumber": hardware.serial_number,
        "DeviceCapacity": hardware.capacity_gb,
        "AvailableDeviceCapacity": round(hardware.capacity_gb * 0.62, 2),
        "BatteryLevel": 0.87,
        "IsSupervised": hardware.is_supervised,
        "IsActivationLockEnabled": False,
        "PushToken": condition.push_token,
        "BluetoothMAC": hardware.bluetooth_mac,
        "WiFiMAC": hardware.wifi_mac,
        "SoftwareUpdateDeviceID": hardware.product_name,
    }
    if hardware.platform is Platform.MACOS:
        known = everywhere | _mac(hardware, condition)
    else:
        known = everywhere | _iphone_or_ipad(hardware, condition) | (_cellular(hardware) if hardware.imei else {})
    if condition.is_user_enrollment:
        return {query: answer for query, answer in known.items() if query not in _IDENTIFYING}
    return known


def security_info(hardware: Hardware, condition: Condition) -> dict[str, Any]:
    """Return the answer to SecurityInfo."""
    management = {"IsUserEnrollment": condition.is_user_enrollment}
    if hardware.platform is Platform.MACOS:
        return {
            "SystemIntegrityProtectionEnabled": True,
            "FirewallSettings": {
                "FirewallEnabled": True,
                "BlockAllIncoming": False,
                "StealthMode": False,
                "Applications": [],
                "LoggingEnabled": False,
                "LoggingOption": "throttled",
            },
            "ManagementStatus": management
            | {
                "EnrolledViaDEP": hardware.is_supervised,
                "UserApprovedEnrollment": True,
                "IsActivationLockManageable": hardware.is_supervised,
            },
            "SecureBoot": {
                "SecureBootLevel": "full",
                "ExternalBootLevel": "allowed",
            },
            "RemoteDesktopEnabled": False,
            "AuthenticatedRootVolumeEnabled": True,
            "BootstrapTokenAllowedForAuthentication": "allowed" if condition.bootstrap_token_allowed else "disallowed",
            "BootstrapTokenRequiredForSoftwareUpdate": True,
            "BootstrapTokenRequiredForKernelExtensionApproval": True,
            "IsRecoveryLockEnabled": False,
        }
    return {
        # 1: block-level, 2: file-level encryption; every device of today has both.
        "HardwareEncryptionCaps": 3,
        "PasscodePresent": condition.passcode_present,
        "PasscodeCompliant": True,
        "PasscodeCompliantWithProfiles": True,
        "PasscodeLockGracePeriod": 0,
        "PasscodeLockGracePeriodEnforced": 0,
        "AutoLockTime": 60,
        "ManagementStatus": management,
    }


def _mac(hardware: Hardware, condition: Condition) -> dict[str, Any]:
    host_name = condition.device_name.replace(" ", "-")
    return {
        "ProvisioningUDID": f"00006040-{hashlib.sha256(hardware.udid.encode()).hexdigest()[:16].upper()}",
        "IsAppleSilicon": True,
        "HasBattery": True,
        "IsActivationLockSupported": True,
        "LocalHostName": host_name,
        "HostName": f"{host_name}.local",
        "AutoSetupAdminAccounts": [],
        "SystemIntegrityProtectionEnabled": True,
        "SupportsLOMDevice": False,
        "ActiveManagedUsers": [],
        "EthernetMAC": hardware.ethernet_mac,
        "PINRequiredForEraseDevice": False,
        "PINRequiredForDeviceLock": False,
        "SupportsiOSAppInstalls": True,
        "EACSPreflight": "success",
    }


def _iphone_or_ipad(hardware: Hardware, condition: Condition) -> dict[str, Any]:
    return {
        "LastCloudBackupDate": condition.at - timedelta(days=1),
        "IsMultiUser": hardware.is_shared,
        "IsDeviceLocatorServiceEnabled": False,
        "IsDoNotDisturbInEffect": False,
        "EASDeviceIdentifier": hashlib.sha256(hardware.serial_number.encode()).hexdigest()[:32].upper(),
        "IsCloudBackupEnabled": True,
        "IsMDMLostModeEnabled": condition.lost_mode,
        "DiagnosticSubmissionEnabled": False,
        "AppAnalyticsEnabled": False,
        "TimeZone": "Europe/Berlin",
        "IsNetworkTethered": False,
        "PersonalHotspotEnabled": False,
    }


def _cellular(hardware: Hardware) -> dict[str, Any]:
    # 001/01 is the network that ITU-T E.212 keeps for tests.
    return {
        "IMEI": hardware.imei,
        "MEID": hardware.meid,
        "ModemFirmwareVersion": "2.10.01",
        "CellularTechnology": _GSM,
        "CarrierSettingsVersion": "64.0",
        "CurrentCarrierNetwork": "Test",
        "SubscriberCarrierNetwork": "Test",
        "CurrentMCC": "001",
        "CurrentMNC": "01",
        "SubscriberMCC": "001",
        "SubscriberMNC": "01",
        "DataRoamingEnabled": False,
        "VoiceRoamingEnabled": False,
        "IsRoaming": False,
        "ServiceSubscriptions": [
            {
                "CarrierSettingsVersion": "64.0",
                "CurrentCarrierNetwork": "Test",
                "CurrentMCC": "001",
                "CurrentMNC": "01",
                "IMEI": hardware.imei,
                "MEID": hardware.meid,
                "IsDataPreferred": True,
                "IsRoaming": False,
                "IsVoicePreferred": True,
                "Label": "Primary",
                "LabelID": "00000000-0000-0000-0000-000000000001",
                "PhoneNumber": "",
                "Slot": "CTSubscriptionSlotOne",
            }
        ],
    }

"""JSON commands and what becomes of them: a request type each, written down by hand from the protocols."""

from base64 import b64encode
from typing import Any

DATA = b64encode(b"data").decode()

WITHOUT_FIELDS = (
    "ProfileList",
    "ProvisioningProfileList",
    "CertificateList",
    "SecurityInfo",
    "RestartDevice",
    "LOMSetupRequest",
    "ShutDownDevice",
    "StopMirroring",
    "ClearRestrictionsPassword",
    "UserList",
    "LogOutUser",
    "PlayLostModeSound",
    "DisableLostMode",
    "DeviceLocation",
    "ManagedMediaList",
    "DeviceConfigured",
    "AvailableOSUpdates",
    "NSExtensionMappings",
    "OSUpdateStatus",
    "EnableRemoteDesktop",
    "DisableRemoteDesktop",
    "ActivationLockBypassCode",
)

# For each request type that has fields: its JSON, all of them given, and what the device receives.
WITH_FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "InstallProfile": ({"payload": DATA}, {"Payload": b"data"}),
    "RemoveProfile": ({"identifier": "i"}, {"Identifier": "i"}),
    "InstallProvisioningProfile": ({"provisioning_profile": DATA}, {"ProvisioningProfile": b"data"}),
    "RemoveProvisioningProfile": ({"uuid": "u"}, {"UUID": "u"}),
    "InstalledApplicationList": (
        {"identifiers": ["a", "b"], "managed_appd_only": True},
        {"Identifiers": ["a", "b"], "ManagedAppsOnly": True},
    ),
    "DeviceInformation": ({"queries": ["UDID", "OSVersion"]}, {"Queries": ["UDID", "OSVersion"]}),
    "DeviceLock": (
        {"pin": "123456", "message": "m", "phone_number": "1"},
        {"PIN": "123456", "Message": "m", "PhoneNumber": "1"},
    ),
    "ClearPasscode": ({"unlock_token": DATA}, {"UnlockToken": b"data"}),
    "EraseDevice": (
        {"pin": "123456", "preserve_data_plan": True, "disallow_proximity_setup": True},
        {"PIN": "123456", "PreserveDataPlan": True, "DisallowProximitySetup": True},
    ),
    "RequestMirroring": (
        {"destination_name": "n", "destination_device_id": "d", "scan_time": "30", "password": "p"},
        {"DestinationName": "n", "DestinationDeviceID": "d", "ScanTime": 30, "Password": "p"},
    ),
    "Restrictions": ({"profile_restrictions": True}, {"ProfileRestrictions": True}),
    "UnlockUserAccount": ({"username": "anna"}, {"UserName": "anna"}),
    "DeleteUser": ({"username": "anna", "force_deletion": True}, {"UserName": "anna", "ForceDeletion": True}),
    "EnableLostMode": (
        {"message": "m", "phone_number": "1", "footnote": "f"},
        {"Message": "m", "PhoneNumber": "1", "Footnote": "f"},
    ),
    "InstallEnterpriseApplication": (
        {
            "manifest": {"items": [{"assets": [{"kind": "software-package", "url": "https://example.com/p.pkg"}]}]},
            "manifest_url": "https://example.com/m.plist",
            "manifest_url_pinning_certs": [DATA],
            "pinning_revocation_check_required": True,
        },
        {
            "Manifest": {"items": [{"assets": [{"kind": "software-package", "url": "https://example.com/p.pkg"}]}]},
            "ManifestURL": "https://example.com/m.plist",
            "ManifestURLPinningCerts": [b"data"],
            "PinningRevocationCheckRequired": True,
        },
    ),
    "InstallApplication": (
        {
            "itunes_store_id": 361309726,
            "identifier": "i",
            "management_flags": 1,
            "change_management_state": "Managed",
            "manifest_url": "https://example.com/m.plist",
            "options": {"purchase_method": 1},
            "configuration": {"Server": "https://example.com", "Retries": 3, "Ratio": 0.5, "On": True, "List": ["a"]},
            "attributes": {"VPNUUID": "v", "Removable": False},
        },
        {
            "iTunesStoreID": 361309726,
            "Identifier": "i",
            "ManagementFlags": 1,
            "ChangeManagementState": "Managed",
            "ManifestURL": "https://example.com/m.plist",
            "Options": {"PurchaseMethod": 1},
            "Configuration": {"Server": "https://example.com", "Retries": 3, "Ratio": 0.5, "On": True, "List": ["a"]},
            "Attributes": {"VPNUUID": "v", "Removable": False},
        },
    ),
    "AccountConfiguration": (
        {
            "skip_primary_setup_account_creation": True,
            "set_primary_setup_account_as_regular_user": True,
            "dont_auto_populate_primary_account_info": True,
            "lock_primary_account_info": True,
            "primary_account_full_name": "Anna Berg",
            "primary_account_user_name": "anna",
            "auto_setup_admin_accounts": [
                {"short_name": "admin", "full_name": "Admin", "password_hash": DATA, "hidden": True}
            ],
        },
        {
            "SkipPrimarySetupAccountCreation": True,
            "SetPrimarySetupAccountAsRegularUser": True,
            "DontAutoPopulatePrimaryAccountInfo": True,
            "LockPrimaryAccountInfo": True,
            "PrimaryAccountFullName": "Anna Berg",
            "PrimaryAccountUserName": "anna",
            "AutoSetupAdminAccounts": [
                {"shortName": "admin", "fullName": "Admin", "passwordHash": b"data", "hidden": True}
            ],
        },
    ),
    "ApplyRedemptionCode": (
        {"identifier": "i", "redemption_code": "c"},
        {"Identifier": "i", "RedemptionCode": "c"},
    ),
    "ManagedApplicationList": ({"identifiers": ["a"]}, {"Identifiers": ["a"]}),
    "RemoveApplication": ({"identifier": "i"}, {"Identifier": "i"}),
    "InviteToProgram": (
        {"program_id": "com.apple.cloudvpp", "invitation_url": "https://example.com"},
        {"ProgramID": "com.apple.cloudvpp", "InvitationURL": "https://example.com"},
    ),
    "ValidateApplications": ({"identifiers": ["a"]}, {"Identifiers": ["a"]}),
    "InstallMedia": (
        {"itunes_store_id": 1, "media_url": "https://example.com", "media_type": "Book"},
        {"iTunesStoreID": 1, "MediaURL": "https://example.com", "MediaType": "Book"},
    ),
    "RemoveMedia": (
        {"itunes_store_id": 1, "media_type": "Book", "persistent_id": "p"},
        {"iTunesStoreID": 1, "MediaType": "Book", "PersistentID": "p"},
    ),
    "Settings": (
        {"settings": [{"item": "Bluetooth", "enabled": False}]},
        {"Settings": [{"Item": "Bluetooth", "Enabled": False}]},
    ),
    "ManagedApplicationConfiguration": ({"identifiers": ["a"]}, {"Identifiers": ["a"]}),
    "ManagedApplicationAttributes": ({"identifiers": ["a"]}, {"Identifiers": ["a"]}),
    "ManagedApplicationFeedback": (
        {"identifiers": ["a"], "delete_feedback": True},
        {"Identifiers": ["a"], "DeleteFeedback": True},
    ),
    **dict.fromkeys(
        ("SetFirmwarePassword", "SetRecoveryLock"),
        (
            {
                "current_password": "old",
                "new_password": "new",
                "request_requires_network_tether": True,
                "allow_oroms": True,
            },
            {
                "CurrentPassword": "old",
                "NewPassword": "new",
                "RequestRequiresNetworkTether": True,
                "AllowOroms": True,
            },
        ),
    ),
    "VerifyFirmwarePassword": ({"password": "p"}, {"Password": "p"}),
    "VerifyRecoveryLock": ({"password": "p"}, {"Password": "p"}),
    "SetAutoAdminPassword": ({"guid": "g", "password_hash": DATA}, {"GUID": "g", "passwordHash": b"data"}),
    "ScheduleOSUpdate": (
        {
            "updates": [
                {
                    "product_key": "k",
                    "install_action": "InstallLater",
                    "max_user_deferrals": 3,
                    "product_version": "26.1",
                    "priority": "Low",
                }
            ]
        },
        {
            "Updates": [
                {
                    "ProductKey": "k",
                    "InstallAction": "InstallLater",
                    "MaxUserDeferrals": 3,
                    "ProductVersion": "26.1",
                    "Priority": "Low",
                }
            ]
        },
    ),
    "ScheduleOSUpdateScan": ({"force": True}, {"Force": True}),
    "ActiveNSExtensions": ({"filter_extensions_points": ["a"]}, {"FilterExtensionPoints": ["a"]}),
    "RotateFileVaultKey": (
        {
            "key_type": "personal",
            "filevault_unlock": {
                "password": "p",
                "private_key_export": DATA,
                "private_key_export_password": "q",
            },
            "new_certificate": DATA,
            "reply_encryption_certificate": DATA,
        },
        {
            "KeyType": "personal",
            "FileVaultUnlock": {
                "Password": "p",
                "PrivateKeyExport": b"data",
                "PrivateKeyExportPassword": "q",
            },
            "NewCertificate": b"data",
            "ReplyEncryptionCertificate": b"data",
        },
    ),
    "RefreshCellularPlans": ({"esim_server_url": "example.server.com"}, {"eSIMServerURL": "example.server.com"}),
    "LOMDeviceRequest": (
        {
            "request_list": [
                {
                    "device_dns_name": "deviceDnsName",
                    "device_request_type": "Reset",
                    "device_request_uuid": "B97F3491-E5E9-40D4-B163-36C41648CB46",
                    "lom_protocol_version": 254,
                    "primary_ip_v6_address_list": ["primaryIpV6"],
                    "secondary_ip_v6_address_list": ["secondaryIpV6"],
                }
            ]
        },
        {
            "RequestList": [
                {
                    "DeviceDNSName": "deviceDnsName",
                    "DeviceRequestType": "Reset",
                    "DeviceRequestUUID": "B97F3491-E5E9-40D4-B163-36C41648CB46",
                    "LOMProtocolVersion": 254,
                    "PrimaryIPv6AddressList": ["primaryIpV6"],
                    "SecondaryIPv6AddressList": ["secondaryIpV6"],
                }
            ]
        },
    ),
}

# What the device receives of a request without any field.
ALWAYS_THERE: dict[str, dict[str, Any]] = {
    "EraseDevice": {"PIN": ""},
    "Restrictions": {"ProfileRestrictions": False},
    "SetFirmwarePassword": {"NewPassword": ""},
    "SetRecoveryLock": {"NewPassword": ""},
}

"""The 61 request types of MicroMDM's JSON commands: their JSON fields and the plist keys that these become.

Apple's commands: https://developer.apple.com/documentation/devicemanagement/commands-and-queries. The JSON names,
misspellings included, are MicroMDM's. What Apple has beside these is in :mod:`mdmlib.apple.command_fields`.
"""

from collections.abc import Mapping
from typing import Final

from mdmlib.apple.json_fields import (
    BOOLEAN,
    DATA,
    DATAS,
    DOCUMENT,
    INTEGER,
    OPTIONAL_TEXT,
    PROPERTY_LIST,
    SCAN_TIME,
    TEXT,
    TEXTS,
    Field,
    Kind,
    array,
    record,
)


def _field(name: str, key: str, kind: Kind = TEXT, *aliases: str) -> Field:
    return Field(name=name, key=key, kind=kind, aliases=aliases)


def _always(name: str, key: str, kind: Kind = TEXT, *aliases: str) -> Field:
    return Field(name=name, key=key, kind=kind, always=True, echoed=True, aliases=aliases)


_IDENTIFIER: Final = _field("identifier", "Identifier")
_IDENTIFIERS: Final = _field("identifiers", "Identifiers", TEXTS)
_ITUNES_STORE_ID: Final = _field("itunes_store_id", "iTunesStoreID", INTEGER)
_MANIFEST_URL: Final = _field("manifest_url", "ManifestURL")

_NEW_PASSWORD: Final = (
    _field("current_password", "CurrentPassword"),
    # An empty one removes the password.
    _always("new_password", "NewPassword"),
    _field("request_requires_network_tether", "RequestRequiresNetworkTether", BOOLEAN),
    _field("allow_oroms", "AllowOroms", BOOLEAN),
)

_BUNDLE: Final = (
    _field("bundle-identifier", "bundle-identifier"),
    _field("bundle-version", "bundle-version"),
)

_MANIFEST: Final = record(
    _always(
        "items",
        "items",
        array(
            record(
                _always(
                    "assets",
                    "assets",
                    array(
                        record(
                            _field("kind", "kind"),
                            _field("md5-size", "md5-size", INTEGER),
                            _field("md5s", "md5s", TEXTS),
                            _field("sha256-size", "sha256-size", INTEGER),
                            _field("sha256s", "sha256s", TEXTS),
                            _field("url", "url"),
                        )
                    ),
                ),
                _field(
                    "metadata",
                    "metadata",
                    record(
                        *_BUNDLE,
                        _field("items", "items", array(record(*_BUNDLE))),
                        _field("kind", "kind"),
                        _field("subtitle", "subtitle"),
                        _field("title", "title"),
                        _field("sizeInBytes", "sizeInBytes", INTEGER),
                    ),
                ),
            )
        ),
    )
)

_SETTING: Final = record(
    _always("item", "Item"),
    _field("enabled", "Enabled", BOOLEAN),
    _field("device_name", "DeviceName"),
    _field("hostname", "HostName"),
    Field(name="identifier", key="Identifier", kind=OPTIONAL_TEXT, echoed=True),
    _field("time_zone", "TimeZone"),
    _field("attributes", "Attributes", DOCUMENT),
    _field("image", "Image", DATA),
    _field("where", "Where", INTEGER),
    _field("mdm_options", "MDMOptions", DOCUMENT),
    _field("passcode_lock_grace_period", "PasscodeLockGracePeriod", INTEGER),
    _field("maximum_resident_users", "MaximumResidentUsers", INTEGER),
    _field("recommendation_cadence", "RecommendationCadence", INTEGER),
    Field(name="configuration", key="Configuration", kind=PROPERTY_LIST, echoed=True),
)

_OS_UPDATE: Final = record(
    _field("product_key", "ProductKey"),
    _always("install_action", "InstallAction"),
    _field("max_user_deferrals", "MaxUserDeferrals", INTEGER),
    _field("product_version", "ProductVersion"),
    _field("priority", "Priority"),
)

_ADMIN_ACCOUNT: Final = record(
    _always("short_name", "shortName"),
    _field("full_name", "fullName"),
    _always("password_hash", "passwordHash", DATA),
    _field("hidden", "hidden", BOOLEAN),
)

_LOM_REQUEST: Final = record(
    _always("device_dns_name", "DeviceDNSName"),
    _always("device_request_type", "DeviceRequestType"),
    _always("device_request_uuid", "DeviceRequestUUID"),
    _always("lom_protocol_version", "LOMProtocolVersion", INTEGER),
    # The other spelling is that of MicroMDM's own script, whose addresses MicroMDM drops.
    _always("primary_ip_v6_address_list", "PrimaryIPv6AddressList", TEXTS, "primary_id_v6_address_list"),
    _always("secondary_ip_v6_address_list", "SecondaryIPv6AddressList", TEXTS),
)

_WITHOUT_FIELDS: Final = (
    "ActivationLockBypassCode",
    "AvailableOSUpdates",
    "CertificateList",
    "ClearRestrictionsPassword",
    "DeviceConfigured",
    "DeviceLocation",
    "DisableLostMode",
    "DisableRemoteDesktop",
    "EnableRemoteDesktop",
    "LOMSetupRequest",
    "LogOutUser",
    "ManagedMediaList",
    "NSExtensionMappings",
    "OSUpdateStatus",
    "PlayLostModeSound",
    "ProfileList",
    "ProvisioningProfileList",
    "RestartDevice",
    "SecurityInfo",
    "ShutDownDevice",
    "StopMirroring",
    "UserList",
)

REQUEST_TYPES: Final[Mapping[str, tuple[Field, ...]]] = {
    **dict.fromkeys(_WITHOUT_FIELDS, ()),
    "AccountConfiguration": (
        _field("skip_primary_setup_account_creation", "SkipPrimarySetupAccountCreation", BOOLEAN),
        _field("set_primary_setup_account_as_regular_user", "SetPrimarySetupAccountAsRegularUser", BOOLEAN),
        _field("dont_auto_populate_primary_account_info", "DontAutoPopulatePrimaryAccountInfo", BOOLEAN),
        _field("lock_primary_account_info", "LockPrimaryAccountInfo", BOOLEAN),
        _field("primary_account_full_name", "PrimaryAccountFullName"),
        _field("primary_account_user_name", "PrimaryAccountUserName"),
        _field("auto_setup_admin_accounts", "AutoSetupAdminAccounts", array(_ADMIN_ACCOUNT)),
    ),
    "ActiveNSExtensions": (
        _field("filter_extensions_points", "FilterExtensionPoints", TEXTS, "filter_extension_points"),
    ),
    "ApplyRedemptionCode": (_IDENTIFIER, _field("redemption_code", "RedemptionCode")),
    "ClearPasscode": (_always("unlock_token", "UnlockToken", DATA),),
    "DeleteUser": (_field("username", "UserName"), _field("force_deletion", "ForceDeletion", BOOLEAN)),
    "DeviceInformation": (_field("queries", "Queries", TEXTS),),
    "DeviceLock": (
        Field(name="pin", key="PIN", kind=TEXT, echoed=True),
        _field("message", "Message"),
        _field("phone_number", "PhoneNumber"),
    ),
    "EnableLostMode": (
        _field("message", "Message"),
        _field("phone_number", "PhoneNumber"),
        _field("footnote", "Footnote"),
    ),
    "EraseDevice": (
        _always("pin", "PIN"),
        _field("preserve_data_plan", "PreserveDataPlan", BOOLEAN),
        _field("disallow_proximity_setup", "DisallowProximitySetup", BOOLEAN),
    ),
    "InstallApplication": (
        _ITUNES_STORE_ID,
        _IDENTIFIER,
        _field("management_flags", "ManagementFlags", INTEGER),
        _field("change_management_state", "ChangeManagementState"),
        _MANIFEST_URL,
        _field("options", "Options", record(_field("purchase_method", "PurchaseMethod", INTEGER))),
        _field("configuration", "Configuration", DOCUMENT),
        _field("attributes", "Attributes", DOCUMENT),
    ),
    "InstallEnterpriseApplication": (
        _field("manifest", "Manifest", _MANIFEST),
        _MANIFEST_URL,
        _field("manifest_url_pinning_certs", "ManifestURLPinningCerts", DATAS),
        _field("pinning_revocation_check_required", "PinningRevocationCheckRequired", BOOLEAN),
    ),
    "InstallMedia": (_ITUNES_STORE_ID, _field("media_url", "MediaURL"), _field("media_type", "MediaType")),
    "InstallProfile": (Field(name="payload", key="Payload", kind=DATA, always=True),),
    "InstallProvisioningProfile": (_field("provisioning_profile", "ProvisioningProfile", DATA),),
    "InstalledApplicationList": (
        _IDENTIFIERS,
        _field("managed_appd_only", "ManagedAppsOnly", BOOLEAN, "managed_apps_only"),
    ),
    "InviteToProgram": (_field("program_id", "ProgramID"), _field("invitation_url", "InvitationURL")),
    "LOMDeviceRequest": (_field("request_list", "RequestList", array(_LOM_REQUEST)),),
    "ManagedApplicationAttributes": (_IDENTIFIERS,),
    "ManagedApplicationConfiguration": (_IDENTIFIERS,),
    "ManagedApplicationFeedback": (_IDENTIFIERS, _field("delete_feedback", "DeleteFeedback", BOOLEAN)),
    "ManagedApplicationList": (_IDENTIFIERS,),
    "RefreshCellularPlans": (_field("esim_server_url", "eSIMServerURL"),),
    "RemoveApplication": (_IDENTIFIER,),
    "RemoveMedia": (
        _ITUNES_STORE_ID,
        _field("media_type", "MediaType"),
        _field("persistent_id", "PersistentID"),
    ),
    "RemoveProfile": (Field(name="identifier", key="Identifier", kind=TEXT, always=True),),
    "RemoveProvisioningProfile": (_always("uuid", "UUID"),),
    "RequestMirroring": (
        _field("destination_name", "DestinationName"),
        _field("destination_device_id", "DestinationDeviceID"),
        _field("scan_time", "ScanTime", SCAN_TIME),
        _field("password", "Password"),
    ),
    "Restrictions": (_always("profile_restrictions", "ProfileRestrictions", BOOLEAN),),
    "RotateFileVaultKey": (
        _field("key_type", "KeyType"),
        Field(
            name="filevault_unlock",
            key="FileVaultUnlock",
            kind=record(
                _field("password", "Password"),
                _field("private_key_export", "PrivateKeyExport", DATA),
                _field("private_key_export_password", "PrivateKeyExportPassword"),
                omit_empty=True,
            ),
            echoed=True,
        ),
        _field("new_certificate", "NewCertificate", DATA),
        _field("reply_encryption_certificate", "ReplyEncryptionCertificate", DATA),
    ),
    "ScheduleOSUpdate": (_field("updates", "Updates", array(_OS_UPDATE)),),
    "ScheduleOSUpdateScan": (_field("force", "Force", BOOLEAN),),
    "SetAutoAdminPassword": (_field("guid", "GUID"), _always("password_hash", "passwordHash", DATA)),
    "SetFirmwarePassword": _NEW_PASSWORD,
    "SetRecoveryLock": _NEW_PASSWORD,
    "Settings": (_field("settings", "Settings", array(_SETTING)),),
    "UnlockUserAccount": (_always("username", "UserName"),),
    "ValidateApplications": (_IDENTIFIERS,),
    "VerifyFirmwarePassword": (_always("password", "Password"),),
    "VerifyRecoveryLock": (_always("password", "Password"),),
}

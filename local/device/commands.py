"""What a device does when it is told to.

Which commands there are, what they need and who may send them is Apple's schema; what is acknowledged here changes the
simulated device as it would a real one, as far as the server can see it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from cryptography.x509.oid import NameOID

from local.device.cms import Identity
from local.device.command import ACKNOWLEDGED, COMMAND_FORMAT_ERROR, ERROR, Answer, Command, error
from local.device.errors import DeviceError, Unenrolled
from local.device.hardware import Hardware, Platform
from local.device.information import AccessRight, Condition, device_information, needed_right, security_info
from local.device.profile import MDM_PAYLOAD, ConfigurationProfile, EnrollmentProfile, ProfileError

_MDM_ERRORS: Final = "MCMDMErrorDomain"
_NOT_AUTHORIZED: Final = 12007
_REPLACEMENT_MISMATCH: Final = 12012
_PROFILE_NOT_MANAGED: Final = 12013
_INVALID_REQUEST_TYPE: Final = 12021
_INSTALLATION_ERRORS: Final = "MCInstallationErrorDomain"
_INSTALLATION_FAILED: Final = 4001
_OWN_ERRORS: Final = "SimulatedDeviceErrorDomain"
"""For what Apple's codes are not known."""


class Owner(Protocol):
    """What commands do to the device as a whole, and what they have to know of it."""

    hardware: Hardware

    @property
    def profile(self) -> EnrollmentProfile:
        """The profile that it is enrolled with."""

    @property
    def identity(self) -> Identity:
        """The identity that it is enrolled with."""

    @property
    def push_token(self) -> bytes:
        """The device channel's token."""

    @property
    def unlock_token(self) -> bytes:
        """What ClearPasscode must bring."""

    def authenticate_anew(self, profile: EnrollmentProfile) -> Callable[[], None]:
        """Enroll again while enrolled, up to Authenticate; what is returned does the rest."""

    def remove_management(self) -> None:
        """Be unmanaged, with a CheckOut where the profile asks for one."""

    def erase(self) -> None:
        """Forget everything, without a word."""


class CommandExecutor:
    """Carries out commands on one device, and remembers what they changed."""

    def __init__(self, owner: Owner, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._owner = owner
        self._now = now
        self._instructions: list[tuple[str, str | None]] = []
        self.profiles: dict[str, ConfigurationProfile] = {}
        """By PayloadIdentifier; the enrollment profile is one of them."""
        self.applications: dict[str, dict[str, Any]] = {}
        """Managed ones, by bundle identifier: their entry of ManagedApplicationList."""
        self.device_name = owner.hardware.device_name
        self.organization: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.passcode_present = True
        self.lost_mode = False

    def instruct(self, status: str, *, times: int = 1, request_type: str | None = None) -> None:
        """Answer the next commands (of one request type) with NotNow, Error or CommandFormatError, doing nothing."""
        self._instructions.extend([(status, request_type)] * times)

    def execute(self, command: Command) -> Answer:
        """Do what the command says."""
        if status := self._instructed(command.request_type):
            if status == ERROR:
                return error(1, _OWN_ERRORS, f"{command.request_type} was told to fail.")
            return Answer(status=status)
        kind = _KINDS.get(command.request_type)
        if kind is None or self._owner.hardware.platform not in kind.platforms:
            if command.request_type in _NOT_SIMULATED:
                return error(2, _OWN_ERRORS, f"“{command.request_type}” is not simulated.")
            return error(_INVALID_REQUEST_TYPE, _MDM_ERRORS, f"“{command.request_type}” is not a valid request type.")
        if refusal := self._refuse(kind, command.fields):
            return refusal
        return kind.carry_out(self, command.fields)

    def _refuse(self, kind: "_Kind", fields: Mapping[str, Any]) -> Answer | None:
        if not self._owner.profile.allows(kind.right):
            return error(_NOT_AUTHORIZED, _MDM_ERRORS, "The MDM payload does not give this right.")
        hardware = self._owner.hardware
        if hardware.platform in kind.supervised and not hardware.is_supervised:
            return error(3, _OWN_ERRORS, "The device is not supervised.")
        if not all(isinstance(fields.get(key), needed) for key, needed in kind.required.items()):
            return Answer(status=COMMAND_FORMAT_ERROR)
        return None

    def _instructed(self, request_type: str) -> str | None:
        for index, (status, only) in enumerate(self._instructions):
            if only in {None, request_type}:
                del self._instructions[index]
                return status
        return None

    def acknowledge(self, _fields: Mapping[str, Any]) -> Answer:
        """Do what has no effect that the server could see."""
        return Answer()

    def device_information(self, fields: Mapping[str, Any]) -> Answer:
        """Answer the queries that this device knows and the server may ask; leave out the others."""
        known = device_information(self._owner.hardware, self._condition())
        allowed = self._owner.profile.allows
        answers = {
            query: known[query] for query in fields["Queries"] if query in known and allowed(needed_right(query))
        }
        return Answer(fields={"QueryResponses": answers})

    def security_info(self, _fields: Mapping[str, Any]) -> Answer:
        """Tell of passcode, encryption and management."""
        return Answer(fields={"SecurityInfo": security_info(self._owner.hardware, self._condition())})

    def _condition(self) -> Condition:
        return Condition(
            device_name=self.device_name,
            organization=self.organization,
            options=self.options,
            push_token=self._owner.push_token,
            passcode_present=self.passcode_present,
            lost_mode=self.lost_mode,
            bootstrap_token_allowed="com.apple.mdm.bootstraptoken" in self._owner.profile.capabilities,
            # Property lists have whole seconds, in UTC without saying so.
            at=self._now().astimezone(UTC).replace(tzinfo=None, microsecond=0),
        )

    def install_profile(self, fields: Mapping[str, Any]) -> Answer:
        """Install a profile over the one with the same identifier; one with an MDM payload enrolls anew."""
        try:
            profile = ConfigurationProfile.decode(fields["Payload"])
        except ProfileError as wrong:
            return error(wrong.code, wrong.domain, str(wrong))
        afterwards = None
        if profile.of_type(MDM_PAYLOAD):
            current = self._owner.profile
            try:
                replacement = EnrollmentProfile.decode(fields["Payload"])
                same = ("topic", "server_url", "checkin_url")
                if any(getattr(replacement, key) != getattr(current, key) for key in same):
                    return error(_REPLACEMENT_MISMATCH, _MDM_ERRORS, "Topic or URLs differ from the installed ones.")
                afterwards = self._owner.authenticate_anew(replacement)
            except Unenrolled:
                raise
            except DeviceError as failed:
                return error(_INSTALLATION_FAILED, _INSTALLATION_ERRORS, str(failed))
        self.profiles[profile.identifier] = profile
        return Answer(afterwards=afterwards)

    def remove_profile(self, fields: Mapping[str, Any]) -> Answer:
        """Remove an installed profile; without the enrollment profile the device is unmanaged."""
        profile = self.profiles.get(fields["Identifier"])
        if profile is None:
            return error(_PROFILE_NOT_MANAGED, _MDM_ERRORS, f"The profile “{fields['Identifier']}” is not managed.")
        if profile.of_type(MDM_PAYLOAD):
            return Answer(afterwards=self._owner.remove_management, is_last=True)
        del self.profiles[profile.identifier]
        return Answer()

    def profile_list(self, _fields: Mapping[str, Any]) -> Answer:
        """List the profiles. All are managed: nobody else installs any here."""
        managed = {"IsManaged": True} if self._owner.hardware.platform is Platform.IOS else {}
        return Answer(fields={"ProfileList": [profile.summary() | managed for profile in self.profiles.values()]})

    def certificate_list(self, _fields: Mapping[str, Any]) -> Answer:
        """List the one certificate that there is: the identity."""
        certificate = self._owner.identity.certificate
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        entry = {
            "CommonName": names[0].value if names else "",
            "IsIdentity": True,
            "Data": self._owner.identity.certificate_der,
        }
        return Answer(fields={"CertificateList": [entry]})

    def install_application(self, fields: Mapping[str, Any]) -> Answer:
        """Install an app at once: from the store, by identifier or manifest."""
        match fields:
            case {"Identifier": str(identifier)}:
                pass
            case {"iTunesStoreID": int(store_id)}:
                identifier = f"com.example.store.{store_id}"
            case {"ManifestURL": str(url)}:
                identifier = f"com.example.manifest.{url.rsplit('/', 1)[-1]}"
            case _:
                return Answer(status=COMMAND_FORMAT_ERROR)
        self.applications[identifier] = {
            "Status": "Managed",
            "ManagementFlags": fields.get("ManagementFlags", 0),
            "HasConfiguration": "Configuration" in fields,
            "HasFeedback": False,
            "IsValidated": True,
        }
        return Answer(fields={"Identifier": identifier, "State": "Installing"})

    def remove_application(self, fields: Mapping[str, Any]) -> Answer:
        """Remove a managed app; one that is not there is as good as removed."""
        self.applications.pop(fields["Identifier"], None)
        return Answer()

    def managed_application_list(self, fields: Mapping[str, Any]) -> Answer:
        """Tell of the managed apps, or those that are asked for."""
        wanted = fields.get("Identifiers") or list(self.applications)
        found = {name: self.applications[name] for name in wanted if name in self.applications}
        return Answer(fields={"ManagedApplicationList": found})

    def installed_application_list(self, fields: Mapping[str, Any]) -> Answer:
        """Tell of the installed apps, which are the managed ones."""
        wanted = fields.get("Identifiers") or list(self.applications)
        entries = [
            {"Identifier": name, "Name": name.rsplit(".", 1)[-1], "Version": "1", "ShortVersion": "1.0"}
            for name in wanted
            if name in self.applications
        ]
        return Answer(fields={"InstalledApplicationList": entries})

    def provisioning_profile_list(self, _fields: Mapping[str, Any]) -> Answer:
        """There are none."""
        return Answer(fields={"ProvisioningProfileList": []})

    def restrictions(self, _fields: Mapping[str, Any]) -> Answer:
        """Nothing is restricted."""
        nothing: dict[str, Any] = {"restrictedBool": {}, "restrictedValue": {}, "intersection": {}, "union": {}}
        return Answer(fields={"GlobalRestrictions": nothing, "ProfileRestrictions": {}})

    def device_lock(self, fields: Mapping[str, Any]) -> Answer:
        """Lock, and show the message."""
        shown = "Message" in fields or "PhoneNumber" in fields
        if not shown or self._owner.hardware.platform is Platform.MACOS:
            return Answer()
        return Answer(fields={"MessageResult": "Success" if self.passcode_present else "NoPasscodeSet"})

    def clear_passcode(self, fields: Mapping[str, Any]) -> Answer:
        """Clear the passcode for who has the token of the TokenUpdate."""
        if fields["UnlockToken"] != self._owner.unlock_token:
            return error(4, _OWN_ERRORS, "The UnlockToken is not this device's.")
        self.passcode_present = False
        return Answer()

    def request_unlock_token(self, _fields: Mapping[str, Any]) -> Answer:
        """Hand out the unlock token."""
        return Answer(fields={"UnlockToken": self._owner.unlock_token})

    def erase_device(self, _fields: Mapping[str, Any]) -> Answer:
        """Erase everything once the report is out."""
        return Answer(afterwards=self._owner.erase, is_last=True)

    def enable_lost_mode(self, fields: Mapping[str, Any]) -> Answer:
        """Be lost, as far as the message or the number is given."""
        if not (fields.get("Message") or fields.get("PhoneNumber")):
            return Answer(status=COMMAND_FORMAT_ERROR)
        self.lost_mode = True
        return Answer()

    def disable_lost_mode(self, _fields: Mapping[str, Any]) -> Answer:
        """Be found."""
        self.lost_mode = False
        return Answer()

    def settings(self, fields: Mapping[str, Any]) -> Answer:
        """Apply each item on its own; the report says of each how it went."""
        results = []
        for item in fields["Settings"]:
            match item:
                case {"Item": "DeviceName", "DeviceName": str(name)}:
                    self.device_name = name
                case {"Item": "OrganizationInfo", "OrganizationInfo": dict(organization)}:
                    self.organization = organization
                case {"Item": "MDMOptions", "MDMOptions": dict(options)}:
                    self.options |= options
                case {"Item": str()}:
                    pass
                case _:
                    return Answer(status=COMMAND_FORMAT_ERROR)
            results.append({"Item": item["Item"], "Status": ACKNOWLEDGED})
        return Answer(fields={"Settings": results})

    def user_list(self, _fields: Mapping[str, Any]) -> Answer:
        """There are no other users."""
        return Answer(fields={"Users": []})


_EVERYWHERE: Final = frozenset(Platform)
_IOS: Final = frozenset({Platform.IOS})
_MACOS: Final = frozenset({Platform.MACOS})


@dataclass(frozen=True)
class _Kind:
    """One request type: who carries it out, what its command must have, and who may send it."""

    carry_out: Callable[[CommandExecutor, Mapping[str, Any]], Answer]
    right: AccessRight = AccessRight.NONE
    required: Mapping[str, type] = field(default_factory=dict)
    platforms: frozenset[Platform] = _EVERYWHERE
    supervised: frozenset[Platform] = frozenset()
    """Where only a supervised device obeys."""


_LOCK: Final = AccessRight.LOCK_AND_CLEAR_PASSCODE
_APPS: Final = AccessRight.MANAGE_APPLICATIONS

_KINDS: Final[Mapping[str, _Kind]] = {
    "AccountConfiguration": _Kind(CommandExecutor.acknowledge, platforms=_MACOS),
    "CertificateList": _Kind(CommandExecutor.certificate_list, AccessRight.INSPECT_PROFILES),
    "ClearPasscode": _Kind(CommandExecutor.clear_passcode, _LOCK, {"UnlockToken": bytes}, _IOS),
    "ClearRestrictionsPassword": _Kind(CommandExecutor.acknowledge, platforms=_IOS, supervised=_IOS),
    "DeclarativeManagement": _Kind(CommandExecutor.acknowledge),
    "DeviceConfigured": _Kind(CommandExecutor.acknowledge, supervised=_IOS),
    "DeviceInformation": _Kind(CommandExecutor.device_information, required={"Queries": list}),
    "DeviceLock": _Kind(CommandExecutor.device_lock, _LOCK),
    "DisableLostMode": _Kind(CommandExecutor.disable_lost_mode, platforms=_IOS, supervised=_IOS),
    "DisableRemoteDesktop": _Kind(CommandExecutor.acknowledge, platforms=_MACOS, supervised=_MACOS),
    "EnableLostMode": _Kind(CommandExecutor.enable_lost_mode, platforms=_IOS, supervised=_IOS),
    "EnableRemoteDesktop": _Kind(CommandExecutor.acknowledge, platforms=_MACOS, supervised=_MACOS),
    "EraseDevice": _Kind(CommandExecutor.erase_device, AccessRight.ERASE),
    "InstallApplication": _Kind(CommandExecutor.install_application, _APPS),
    "InstallEnterpriseApplication": _Kind(CommandExecutor.acknowledge, _APPS, platforms=_MACOS),
    "InstallProfile": _Kind(CommandExecutor.install_profile, AccessRight.INSTALL_PROFILES, {"Payload": bytes}),
    "InstalledApplicationList": _Kind(CommandExecutor.installed_application_list, AccessRight.INSPECT_APPLICATIONS),
    "LogOutUser": _Kind(CommandExecutor.acknowledge, platforms=_IOS),
    "ManagedApplicationList": _Kind(CommandExecutor.managed_application_list, _APPS),
    "PlayLostModeSound": _Kind(CommandExecutor.acknowledge, platforms=_IOS, supervised=_IOS),
    "ProfileList": _Kind(CommandExecutor.profile_list, AccessRight.INSPECT_PROFILES),
    "ProvisioningProfileList": _Kind(
        CommandExecutor.provisioning_profile_list, AccessRight.INSPECT_PROVISIONING_PROFILES
    ),
    "RemoveApplication": _Kind(CommandExecutor.remove_application, _APPS, {"Identifier": str}),
    "RemoveProfile": _Kind(CommandExecutor.remove_profile, AccessRight.INSTALL_PROFILES, {"Identifier": str}),
    "RequestUnlockToken": _Kind(CommandExecutor.request_unlock_token, platforms=_IOS, supervised=_IOS),
    "RestartDevice": _Kind(CommandExecutor.acknowledge, _LOCK, supervised=_IOS),
    "Restrictions": _Kind(CommandExecutor.restrictions, AccessRight.RESTRICTIONS, platforms=_IOS),
    "SecurityInfo": _Kind(CommandExecutor.security_info, AccessRight.SECURITY),
    "Settings": _Kind(CommandExecutor.settings, AccessRight.SETTINGS, {"Settings": list}),
    "ShutDownDevice": _Kind(CommandExecutor.acknowledge, _LOCK, supervised=_IOS),
    "StopMirroring": _Kind(CommandExecutor.acknowledge, supervised=_IOS),
    "UserList": _Kind(CommandExecutor.user_list, supervised=_MACOS),
}

_NOT_SIMULATED: Final = frozenset(
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
        "RotateFileVaultKey",
        "ScheduleOSUpdate",
        "ScheduleOSUpdateScan",
        "SetAutoAdminPassword",
        "SetFirmwarePassword",
        "SetRecoveryLock",
        "UnlockUserAccount",
        "UserConfigured",
        "ValidateApplications",
        "VerifyFirmwarePassword",
        "VerifyRecoveryLock",
    }
)

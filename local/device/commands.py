"""What a device does when it is told to.

Which commands there are, what they need and who may send them is Apple's schema; what is acknowledged here changes the
simulated device as it would a real one, as far as the server can see it.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from cryptography.x509.oid import NameOID

from local.device.cms import Identity
from local.device.command import ACKNOWLEDGED, COMMAND_FORMAT_ERROR, ERROR, Answer, Command, error
from local.device.configuration_profile import ConfigurationProfile, ProfileError
from local.device.errors import DeviceError, Unenrolled
from local.device.filevault import FileVault
from local.device.hardware import Hardware, Platform
from local.device.information import Condition, device_information, needed_right, security_info
from local.device.profile import BOOTSTRAP_TOKEN, MDM_PAYLOAD, EnrollmentMode, EnrollmentProfile
from local.device.request_types import NOT_SIMULATED, REQUEST_TYPES, ChannelKind, RequestType
from local.device.state import DeviceState

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

    def replace_profile(self, profile: EnrollmentProfile) -> Callable[[], None] | None:
        """Put an enrollment profile in place of the one that is installed; what is returned does the rest."""

    def remove_management(self) -> None:
        """Be unmanaged, with a CheckOut where the profile asks for one."""

    def erase(self) -> None:
        """Forget everything, without a word."""


class CommandExecutor:
    """Carries out the commands of one channel, and remembers what they changed."""

    def __init__(
        self,
        owner: Owner,
        state: DeviceState,
        *,
        channel: ChannelKind,
        synchronize: Callable[[bytes | None], None],
        awaiting_configuration: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._owner = owner
        self._state = state
        self._channel = channel
        self._synchronize = synchronize
        self._now = now
        self._instructions: list[tuple[str, str | None]] = []
        self.awaiting_configuration = awaiting_configuration
        """Whether Setup Assistant waits for DeviceConfigured (UserConfigured)."""
        self.profiles: dict[str, ConfigurationProfile] = {}
        """By PayloadIdentifier; the enrollment profile is one of the device's."""
        self.applications: dict[str, dict[str, Any]] = {}
        """Managed ones, by bundle identifier: their entry of ManagedApplicationList."""

    @property
    def filevault(self) -> FileVault:
        """The Mac's disk."""
        return self._state.filevault

    def instruct(self, status: str, *, times: int = 1, request_type: str | None = None) -> None:
        """Answer the next commands (of one request type) with NotNow, Error or CommandFormatError, doing nothing."""
        self._instructions.extend([(status, request_type)] * times)

    def execute(self, command: Command) -> Answer:
        """Do what the command says."""
        if status := self._instructed(command.request_type):
            if status == ERROR:
                return error(1, _OWN_ERRORS, f"{command.request_type} was told to fail.")
            return Answer(status=status)
        kind = REQUEST_TYPES.get(command.request_type)
        if kind is None or not self._is_for_us(kind):
            if command.request_type in NOT_SIMULATED:
                return error(2, _OWN_ERRORS, f"“{command.request_type}” is not simulated.")
            return error(_INVALID_REQUEST_TYPE, _MDM_ERRORS, f"“{command.request_type}” is not a valid request type.")
        if refusal := self._refuse(kind, command.fields):
            return refusal
        return _CARRY_OUT.get(command.request_type, CommandExecutor.acknowledge)(self, command.fields)

    def _is_for_us(self, kind: RequestType) -> bool:
        platform = self._owner.hardware.platform
        allowed = kind.user_enrollment if self._owner.profile.mode is EnrollmentMode.BYOD else kind.platforms
        return platform in kind.platforms & allowed and self._channel in kind.channels

    def _refuse(self, kind: RequestType, fields: Mapping[str, Any]) -> Answer | None:
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
        told = security_info(self._owner.hardware, self._condition())
        if self._owner.hardware.platform is Platform.MACOS:
            told |= self._state.filevault.security_info()
        return Answer(fields={"SecurityInfo": told})

    def rotate_filevault_key(self, fields: Mapping[str, Any]) -> Answer:
        """Make another recovery key for whoever knows the present one."""
        envelope = self._state.filevault.rotate(fields)
        if envelope is None:
            return error(5, _OWN_ERRORS, "The recovery key is another one, or there is none.")
        return Answer(fields={"RotateResult": {"EncryptedNewRecoveryKey": envelope}})

    def _condition(self) -> Condition:
        return Condition(
            device_name=self._state.device_name,
            organization=self._state.organization,
            options=self._state.options,
            push_token=self._owner.push_token,
            passcode_present=self._state.passcode_present,
            lost_mode=self._state.lost_mode,
            awaiting_configuration=self.awaiting_configuration,
            bootstrap_token_allowed=BOOTSTRAP_TOKEN in self._owner.profile.capabilities,
            is_user_enrollment=self._owner.profile.mode is EnrollmentMode.BYOD,
            # Property lists have whole seconds, in UTC without saying so.
            at=self._now().astimezone(UTC).replace(tzinfo=None, microsecond=0),
        )

    def configured(self, _fields: Mapping[str, Any]) -> Answer:
        """Go on with Setup Assistant."""
        self.awaiting_configuration = False
        return Answer()

    def declarative_management(self, fields: Mapping[str, Any]) -> Answer:
        """Turn on declarative management if it is off; synchronize once the report is out."""
        tokens = fields.get("Data")
        if not isinstance(tokens, bytes | None):
            return Answer(status=COMMAND_FORMAT_ERROR)
        return Answer(afterwards=lambda: self._synchronize(tokens))

    def install_profile(self, fields: Mapping[str, Any]) -> Answer:
        """Install a profile over the one with the same identifier; one with an MDM payload renews the enrollment."""
        try:
            profile = ConfigurationProfile.decode(fields["Payload"])
        except ProfileError as wrong:
            return error(wrong.code, wrong.domain, str(wrong))
        afterwards = None
        if profile.of_type(MDM_PAYLOAD):
            if self._channel is not ChannelKind.DEVICE:
                return error(_INSTALLATION_FAILED, _INSTALLATION_ERRORS, "A user's channel enrolls nothing.")
            current = self._owner.profile
            try:
                replacement = EnrollmentProfile.decode(fields["Payload"], mode=current.mode)
                if changed := current.change_refused(replacement):
                    return error(_REPLACEMENT_MISMATCH, _MDM_ERRORS, f"The profile may not change the {changed}.")
                afterwards = self._owner.replace_profile(replacement)
            except Unenrolled:
                raise
            except DeviceError as failed:
                return error(_INSTALLATION_FAILED, _INSTALLATION_ERRORS, str(failed))
        self.profiles[profile.identifier] = profile
        if self._owner.hardware.platform is Platform.MACOS:
            self._state.filevault.heed(profile)
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
        return Answer(fields={"MessageResult": "Success" if self._state.passcode_present else "NoPasscodeSet"})

    def clear_passcode(self, fields: Mapping[str, Any]) -> Answer:
        """Clear the passcode for who has the token of the TokenUpdate."""
        if fields["UnlockToken"] != self._owner.unlock_token:
            return error(4, _OWN_ERRORS, "The UnlockToken is not this device's.")
        self._state.passcode_present = False
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
        self._state.lost_mode = True
        return Answer()

    def disable_lost_mode(self, _fields: Mapping[str, Any]) -> Answer:
        """Be found."""
        self._state.lost_mode = False
        return Answer()

    def settings(self, fields: Mapping[str, Any]) -> Answer:
        """Apply each item on its own; the report says of each how it went."""
        results = []
        for item in fields["Settings"]:
            match item:
                case {"Item": "DeviceName", "DeviceName": str(name)}:
                    self._state.device_name = name
                case {"Item": "OrganizationInfo", "OrganizationInfo": dict(organization)}:
                    self._state.organization = organization
                case {"Item": "MDMOptions", "MDMOptions": dict(options)}:
                    self._state.options |= options
                case {"Item": str()}:
                    pass
                case _:
                    return Answer(status=COMMAND_FORMAT_ERROR)
            results.append({"Item": item["Item"], "Status": ACKNOWLEDGED})
        return Answer(fields={"Settings": results})

    def user_list(self, _fields: Mapping[str, Any]) -> Answer:
        """There are no other users."""
        return Answer(fields={"Users": []})


_CARRY_OUT: Final[Mapping[str, Callable[[CommandExecutor, Mapping[str, Any]], Answer]]] = {
    "CertificateList": CommandExecutor.certificate_list,
    "ClearPasscode": CommandExecutor.clear_passcode,
    "DeclarativeManagement": CommandExecutor.declarative_management,
    "DeviceConfigured": CommandExecutor.configured,
    "DeviceInformation": CommandExecutor.device_information,
    "DeviceLock": CommandExecutor.device_lock,
    "DisableLostMode": CommandExecutor.disable_lost_mode,
    "EnableLostMode": CommandExecutor.enable_lost_mode,
    "EraseDevice": CommandExecutor.erase_device,
    "InstallApplication": CommandExecutor.install_application,
    "InstallProfile": CommandExecutor.install_profile,
    "InstalledApplicationList": CommandExecutor.installed_application_list,
    "ManagedApplicationList": CommandExecutor.managed_application_list,
    "ProfileList": CommandExecutor.profile_list,
    "ProvisioningProfileList": CommandExecutor.provisioning_profile_list,
    "RemoveApplication": CommandExecutor.remove_application,
    "RemoveProfile": CommandExecutor.remove_profile,
    "RequestUnlockToken": CommandExecutor.request_unlock_token,
    "Restrictions": CommandExecutor.restrictions,
    "RotateFileVaultKey": CommandExecutor.rotate_filevault_key,
    "SecurityInfo": CommandExecutor.security_info,
    "Settings": CommandExecutor.settings,
    "UserConfigured": CommandExecutor.configured,
    "UserList": CommandExecutor.user_list,
}
"""What does more than to acknowledge."""

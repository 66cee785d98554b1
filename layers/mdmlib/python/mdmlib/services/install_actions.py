"""Steps of blueprints: accounts, profiles, apps and commands, sent where the device differs."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple import plist
from mdmlib.apple.command_json import command_of
from mdmlib.apple.profile_variables import OF_ADMINISTRATORS, OF_DEVICES, filled
from mdmlib.apple.stored_profile import payload_uuid
from mdmlib.errors import NotFoundError
from mdmlib.services.plan_actions import PlannedDevice, Send, Unneeded
from mdmlib.services.plan_document import PlanDocument, Step

if TYPE_CHECKING:
    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.stored_profiles import StoredProfiles

_MAC: Final = "macOS"
_REMOVED_WITH_MANAGEMENT: Final = 1


def variables(device: PlannedDevice) -> dict[str, str]:
    """Return the values that a device has for variables of profiles."""
    own = {name: getattr(device.record, name) for name in OF_DEVICES}
    return {name: value for name, value in own.items() if value} | {
        f"{OF_ADMINISTRATORS}{name}": value for name, value in device.values.items()
    }


class _Installs(Send):
    """What is installed is noted under the blueprints that say so, for the next time that one changes."""

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Note it."""
        _note(step, plan)


class CreateAccounts(Send):
    """Creates the administrators of a Mac, and says what its first user may be."""

    def __init__(self, users: "MicroMDMUsers") -> None:
        self._users = users

    def command(self, step: Step, _plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return AccountConfiguration, which a Mac takes in Setup Assistant alone."""
        if device.platform != _MAC:
            raise Unneeded("Only Macs have accounts.")
        if not device.record.awaiting_configuration:
            raise Unneeded("Setup Assistant does not wait: accounts are made in it alone.")
        accounts = []
        for uuid in step.detail["users"]:
            user = self._users.find(uuid)
            if user is None:
                raise NotFoundError(f"There is no user {uuid}.", code="unknown_user")
            accounts.append(
                {
                    "shortName": user.user_shortname,
                    "fullName": user.user_longname,
                    "passwordHash": user.password_hash,
                    "hidden": user.hidden,
                }
            )
        return {
            "RequestType": "AccountConfiguration",
            "SkipPrimarySetupAccountCreation": bool(step.detail["skip"]),
            "SetPrimarySetupAccountAsRegularUser": bool(step.detail["regular"]),
            "AutoSetupAdminAccounts": accounts,
        }


class InstallProfile(_Installs):
    """Installs a stored profile, with the device's values in it."""

    def __init__(self, profiles: "StoredProfiles") -> None:
        self._profiles = profiles

    def command(self, step: Step, plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return InstallProfile, unless the device has the profile as it is now."""
        identifier = step.detail["identifier"]
        mobileconfig = self._profiles.get(identifier).mobileconfig
        profile = filled(mobileconfig or b"", variables(device))
        step.detail["what"] = {"sha256": hashlib.sha256(profile).hexdigest()}
        known = plan.known(step.detail["name"])
        there = (plan.profiles or {}).get(identifier)
        same = there is not None and there.upper() == payload_uuid(profile).upper()
        if same and not plan.again and (known is None or known == step.detail["what"]):
            _note(step, plan)
            raise Unneeded("It is installed.")
        return {"RequestType": "InstallProfile", "Payload": profile}


class RemoveProfile(Send):
    """Removes a profile that has left its blueprint."""

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return RemoveProfile, unless it is gone."""
        identifier = step.detail["identifier"]
        if plan.profiles is not None and identifier not in plan.profiles:
            plan.forget_installed(step.detail["name"])
            raise Unneeded("It is not installed.")
        return {"RequestType": "RemoveProfile", "Identifier": identifier}

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Forget it."""
        plan.forget_installed(step.detail["name"])


class InstallApp(_Installs):
    """Installs an app by its manifest or from the App Store."""

    def command(self, step: Step, plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:  # noqa: ARG002 - as an Action
        """Return InstallApplication, unless a plan of this enrollment has installed it."""
        app = step.detail["app"]
        step.detail["what"] = {"sha256": hashlib.sha256(str(sorted(app.items())).encode()).hexdigest()}
        if not plan.again and plan.known(step.detail["name"]) == step.detail["what"]:
            _note(step, plan)
            raise Unneeded("It was installed before.")
        if "itunes_store_id" in app:
            return {
                "RequestType": "InstallApplication",
                "iTunesStoreID": app["itunes_store_id"],
                "ManagementFlags": _REMOVED_WITH_MANAGEMENT,
                "Options": {"PurchaseMethod": 1},
            }
        return {
            "RequestType": "InstallApplication",
            "ManifestURL": app["manifest_url"],
            "ManagementFlags": _REMOVED_WITH_MANAGEMENT,
        }


class RemoveApp(Send):
    """Removes an app that has left its blueprint."""

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return RemoveApplication, unless it is gone."""
        bundle_id = step.detail["bundle_id"]
        if plan.apps is not None and bundle_id not in plan.apps:
            plan.forget_installed(step.detail["name"])
            raise Unneeded("It is not installed.")
        return {"RequestType": "RemoveApplication", "Identifier": bundle_id}

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Forget it."""
        plan.forget_installed(step.detail["name"])


class SendCommand(_Installs):
    """Sends a command of a blueprint, once in an enrollment as long as it stays the same."""

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return the command, made of its JSON."""
        made, _ = command_of(step.detail["json"])
        command: dict[str, Any] = plist.loads(made.body)["Command"]
        step.detail["what"] = {"sha256": hashlib.sha256(plist.dumps({"Command": command})).hexdigest()}
        if not plan.again and plan.known(step.detail["name"]) == step.detail["what"]:
            _note(step, plan)
            raise Unneeded("It was sent before.")
        return command


def _note(step: Step, plan: PlanDocument) -> None:
    for blueprint in step.detail["blueprints"]:
        plan.note_installed(blueprint, step.detail["name"], step.detail["what"])

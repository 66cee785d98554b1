"""Steps of blueprints: accounts, profiles, apps and commands, sent where the device differs."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple import plist
from mdmlib.apple.command_json import command_of
from mdmlib.apple.profile_variables import OF_ADMINISTRATORS, OF_DEVICES, filled
from mdmlib.apple.stored_profile import payload_uuid
from mdmlib.errors import NotFoundError
from mdmlib.services.plan_actions import PlannedDevice, Send, Unneeded
from mdmlib.services.plan_document import PlanDocument, Step, StepState

if TYPE_CHECKING:
    from mdmlib.services.apps import Apps
    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.stored_profiles import StoredProfiles
    from mdmlib.store.tables import App

INSTALL_PROFILE: Final = "install_profile"
"""The action of steps that install a stored profile."""

_READ_AT_ONCE: Final = 40
_MAC: Final = "macOS"
_REMOVED_WITH_MANAGEMENT: Final = 1


def value_of(device: PlannedDevice, variable: str) -> str | None:
    """Return the value that a device has for a variable of profiles."""
    if variable in OF_DEVICES:
        value: str | None = getattr(device.record, variable)
        return value
    return device.attributes.values.get(variable.removeprefix(OF_ADMINISTRATORS))


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
        profile = filled(self._read(identifier, plan), partial(value_of, device))
        step.detail["what"] = {"sha256": hashlib.sha256(profile).hexdigest()}
        known = plan.known(step.detail["name"])
        there = (plan.profiles or {}).get(identifier)
        same = there is not None and there.upper() == payload_uuid(profile).upper()
        if same and not plan.again and (known is None or known == step.detail["what"]):
            _note(step, plan)
            raise Unneeded("It is installed.")
        return {"RequestType": "InstallProfile", "Payload": profile}

    def _read(self, identifier: str, plan: PlanDocument) -> bytes:
        """Return a profile as it is stored. The next ones of a phase are read with it."""
        if identifier not in plan.stored_profiles:
            wanted = [
                step.detail["identifier"]
                for _, step in plan.current()
                if step.action == INSTALL_PROFILE and step.state in {StepState.PENDING, StepState.WAITING}
            ]
            unread = [each for each in dict.fromkeys([identifier, *wanted]) if each not in plan.stored_profiles]
            plan.stored_profiles |= self._profiles.get_many(unread[:_READ_AT_ONCE])
        if identifier not in plan.stored_profiles:
            # It is not there, or too large to be read with others.
            return self._profiles.get(identifier).mobileconfig or b""
        return plan.stored_profiles[identifier]


class _Removes(Send):
    """Removes what has left its blueprint."""

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Forget it."""
        plan.forget_installed(step.detail["name"])


class RemoveProfile(_Removes):
    """Removes a profile that has left its blueprint."""

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return RemoveProfile, unless it is gone."""
        identifier = step.detail["identifier"]
        if plan.profiles is not None and identifier not in plan.profiles:
            plan.forget_installed(step.detail["name"])
            raise Unneeded("It is not installed.")
        return {"RequestType": "RemoveProfile", "Identifier": identifier}


class InstallApp(_Installs):
    """Installs an app: an uploaded one, one by its manifest, or one from the App Store."""

    def __init__(self, apps: "Apps") -> None:
        self._apps = apps

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return InstallApplication, unless the device has it, or a plan of this enrollment has installed it."""
        app = step.detail["app"]
        if "app" in app:
            return self._uploaded(step, plan, self._apps.get(app["app"]))
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
        return _by_manifest(app["manifest_url"])

    def _uploaded(self, step: Step, plan: PlanDocument, app: "App") -> Mapping[str, Any]:
        """Return the command for an app that is here, of which it is known what it is on a device."""
        bundles = (app.facts or {}).get("bundles") or {}
        step.detail["what"] = {
            "sha256": hashlib.sha256(
                json.dumps([app.sha256s, app.uploaded_at if app.kind == "manifest" else 0], default=int).encode()
            ).hexdigest()
        }
        if bundles:
            step.detail["what"]["bundle_id"] = next(iter(bundles))
        listed = plan.apps or {}
        there = {name: version for name, version in bundles.items() if name in listed}
        has_it = bool(there) and all(listed[name] == version for name, version in there.items())
        # What installs no app that a device would list is known by what was done alone.
        was_sent = plan.known(step.detail["name"]) == step.detail["what"] and (not bundles or plan.apps is None)
        if not plan.again and (has_it or was_sent):
            _note(step, plan)
            raise Unneeded("It is installed." if has_it else "It was installed before.")
        return _by_manifest(self._apps.manifest_url(app))


class RemoveApp(_Removes):
    """Removes an app that has left its blueprint."""

    def command(self, step: Step, plan: PlanDocument, _device: PlannedDevice) -> Mapping[str, Any]:
        """Return RemoveApplication, unless it is gone."""
        bundle_id = step.detail["bundle_id"]
        if plan.apps is not None and bundle_id not in plan.apps:
            plan.forget_installed(step.detail["name"])
            raise Unneeded("It is not installed.")
        return {"RequestType": "RemoveApplication", "Identifier": bundle_id}


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


def _by_manifest(url: str) -> dict[str, Any]:
    return {"RequestType": "InstallApplication", "ManifestURL": url, "ManagementFlags": _REMOVED_WITH_MANAGEMENT}


def _note(step: Step, plan: PlanDocument) -> None:
    for blueprint in step.detail["blueprints"]:
        plan.note_installed(blueprint, step.detail["name"], step.detail["what"])

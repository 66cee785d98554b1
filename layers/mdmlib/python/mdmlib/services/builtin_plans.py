"""Plans that need no blueprint: inventory, FileVault, lock, profiles by name, and others that NanoCMD has.

An administrator starts them for devices; a blueprint or another program may, too. What is wrong with what is asked for
is said before anything begins.
"""

import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509

from mdmlib.apple.profile_variables import filled, replaced
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.escrow import LOCK_PIN, Escrow
from mdmlib.services.install_actions import value_of
from mdmlib.services.inventory import QUERIES
from mdmlib.services.plan_actions import PlannedDevice, Send, Unneeded
from mdmlib.services.plan_document import PlanDocument, Step
from mdmlib.services.plans import Plans, Situation
from mdmlib.store.at_once import at_once
from mdmlib.store.sealing import Sealer

if TYPE_CHECKING:
    from mdmlib.services.inventory import InventoryStore
    from mdmlib.services.named_profiles import NamedProfiles
    from mdmlib.services.stored_profiles import StoredProfiles
    from mdmlib.services.workflow_queue import WorkflowQueue

INVENTORY: Final = "inventory"
DEVICE_INFORMATION: Final = "device_information"
FILEVAULT_ENABLE: Final = "filevault_enable"
FILEVAULT_ROTATE: Final = "filevault_rotate"
LOCK: Final = "lock"
PROFILES: Final = "profiles"
CERTIFICATE_PROFILE: Final = "certificate_profile"
COMMAND_PLAN: Final = "command_plan"

KINDS: Final[Mapping[str, frozenset[str]]] = {
    INVENTORY: frozenset(),
    DEVICE_INFORMATION: frozenset(),
    FILEVAULT_ENABLE: frozenset(),
    FILEVAULT_ROTATE: frozenset(),
    LOCK: frozenset({"message", "phone_number"}),
    PROFILES: frozenset({"install", "remove"}),
    CERTIFICATE_PROFILE: frozenset(
        {
            "profile",
            "common_name_prefix",
            "managed_only",
            "identities_only",
            "always",
            "days_left",
            "text_replacements",
        }
    ),
    COMMAND_PLAN: frozenset({"install", "manifest_urls", "device_configured"}),
}
"""Kinds of plans, and the options of each."""

MAX_IDS: Final = 1_000
_MAC: Final = "macOS"
_PIN_DIGITS: Final = 6
_LOGGED: Final = ("Model", "ModelName", "OSVersion", "BuildVersion", "IsSupervised", "BatteryLevel", "TimeZone")
"""Of DeviceInformation: nothing that names a person, a number or a place in a network."""


@dataclass(frozen=True)
class Started:
    """What became of a start, by enrollment id: None, or why not."""

    run: str
    refused: Mapping[str, ConflictError | NotFoundError]


class BuiltinPlans:
    """Starts plans and says what they do."""

    def __init__(
        self,
        *,
        plans: Plans,
        names: "NamedProfiles",
        workflow_queue: "Callable[[], WorkflowQueue]",
        sealer: Sealer,
        new_id: Callable[[], str],
    ) -> None:
        self._plans = plans
        self._names = names
        self._workflow_queue = workflow_queue
        self._sealer = sealer
        self._new_id = new_id

    def start(self, kind: str, ids: Sequence[str], options: Mapping[str, Any]) -> Started:
        """Have plans begin, by the workflow function, for devices that have none of the kind under way.

        Raises :class:`~mdmlib.errors.BadRequestError` for what is wrong with what is asked for.
        """
        checked = self.check(kind, options)
        if not ids or len(ids) > MAX_IDS:
            raise BadRequestError(f"Name 1 to {MAX_IDS} enrollments.", code="no_targets", field="ids")
        run = self._new_id()
        # They may hold a secret that a profile is to get: no queue has them in clear.
        sealed = b64encode(self._sealer.seal(json.dumps(checked).encode(), place=_place(kind, run))).decode()
        profiles = [*checked.get("install", ()), *([checked["profile"]] if "profile" in checked else ())]
        variables = self._names.variables(profiles)
        asked = list(dict.fromkeys(ids))
        refusals = zip(asked, at_once(lambda id_: self._refusal(id_, kind, variables), asked), strict=True)
        refused = {id_: error for id_, error in refusals if error is not None}
        self._workflow_queue().start_plans([id_ for id_ in asked if id_ not in refused], kind, run, sealed)
        return Started(run, refused)

    def _refusal(
        self, enrollment_id: str, kind: str, variables: Collection[str]
    ) -> ConflictError | NotFoundError | None:
        try:
            situation = self._plans.situation(enrollment_id, kind)
        except (ConflictError, NotFoundError) as error:
            return error
        if situation.former is not None and situation.former.phase is not None:
            return ConflictError(f"A plan of the kind {kind} is under way for {enrollment_id}.", code="already_running")
        if missing := sorted(name for name in variables if not value_of(situation.device, name)):
            return ConflictError(f"{enrollment_id} has no value for {{{{{missing[0]}}}}}.", code="variable_missing")
        return None

    def begin_started(self, enrollment_id: str, kind: str, run: str, sealed: str) -> None:
        """Begin a plan that was started: what a message of the workflow queue asks for."""
        if kind not in KINDS:
            return

        def options() -> Mapping[str, Any]:
            opened: Mapping[str, Any] = json.loads(self._sealer.open(b64decode(sealed), place=_place(kind, run)))
            return opened

        self.begin(enrollment_id, kind, run, options, "request")

    def begin(
        self,
        enrollment_id: str,
        kind: str,
        run: str,
        options: Callable[[], Mapping[str, Any]],
        cause: str,
        begins: Callable[[Situation], bool] | None = None,
    ) -> None:
        """Begin a plan with options that were checked, if it ``begins`` for a device."""

        def draft(situation: Situation) -> PlanDocument:
            return PlanDocument(steps=_STEPS[kind](situation, options(), run))

        try:
            self._plans.begin(enrollment_id, kind, draft, run=run, cause=cause, begins=begins)
        except (ConflictError, NotFoundError) as error:
            # It has ended since it was asked for.
            logger.info("Plan not begun", enrollment_id=enrollment_id, code=error.code)

    def check(self, kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a plan's options, names of profiles made identifiers of them.

        Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        _check_options(kind, options)
        checked = dict(options)
        for name in ("install", "remove"):
            if name in checked:
                checked[name] = [self._names.identifier(one) for one in _texts(checked[name], name)]
        if kind == PROFILES and not checked.get("install") and not checked.get("remove"):
            raise BadRequestError("Name profiles.", code="missing_field", field="options.install")
        if kind == COMMAND_PLAN and not any(checked.values()):
            raise BadRequestError(
                "Say what is to be done: install, manifest_urls or device_configured.",
                code="missing_field",
                field="options.install",
            )
        if kind == CERTIFICATE_PROFILE:
            if not checked.get("profile"):
                raise BadRequestError("Name the profile.", code="missing_field", field="options.profile")
            checked["profile"] = self._names.identifier(str(checked["profile"]))
            _check_replacements(checked.get("text_replacements") or {})
        for url in _texts(checked.get("manifest_urls", []), "manifest_urls"):
            if not url.startswith("https://"):
                raise BadRequestError(
                    "Devices take manifests over https alone.", code="invalid_field", field="options.manifest_urls"
                )
        return checked


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    if kind not in KINDS:
        raise BadRequestError(
            f"There is no plan {kind[:100]}; there are: {', '.join(KINDS)}.", code="unknown_plan", field="kind"
        )
    for name in options:
        if name not in KINDS[kind]:
            raise BadRequestError(
                f"{name[:100]!r} is no option of {kind}.", code="unknown_field", field=f"options.{name[:100]}"
            )


def _check_replacements(value: object) -> None:
    if not isinstance(value, Mapping) or not all(
        isinstance(text, str) and text and isinstance(replacement, str) for text, replacement in value.items()
    ):
        raise BadRequestError(
            "text_replacements has to be an object of texts.", code="invalid_field", field="options.text_replacements"
        )


def _texts(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise BadRequestError(f"{name} has to be a list of texts.", code="invalid_field", field=f"options.{name}")
    return value


class TakeInventory(Send):
    """Asks a device, and keeps what it tells."""

    at_once = True

    def __init__(self, inventory: "InventoryStore") -> None:
        self._inventory = inventory

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Keep it."""
        request_type = step.detail["command"]["RequestType"]
        self._inventory.take(device.record, request_type, answer)
        if step.detail.get("log"):
            told = answer.get("QueryResponses")
            told = told if isinstance(told, Mapping) else {}
            facts = {name: told[name] for name in _LOGGED if isinstance(told.get(name), str | bool | int | float)}
            logger.info("Device information", enrollment_id=device.id, facts=json.dumps(facts))


class LockDevice(Send):
    """Locks a device; a Mac with a PIN, which is escrowed before it is sent."""

    def __init__(self, escrow: Escrow) -> None:
        self._escrow = escrow

    def command(self, step: Step, _plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return DeviceLock. The same step has the same PIN, however often it is asked."""
        command: dict[str, Any] = {"RequestType": "DeviceLock"}
        for key, name in (("Message", "message"), ("PhoneNumber", "phone_number")):
            if step.detail.get(name):
                command[key] = step.detail[name]
        if device.platform == _MAC:
            command["PIN"] = self._escrow.put_once(device.record, LOCK_PIN, _new_pin, name=step.detail["run"])
        return command


class ReplaceCertificateProfile(Send):
    """Installs a profile again whose certificate the device does not have, or not for long any more."""

    def __init__(self, profiles: "StoredProfiles", now: Callable[[], datetime]) -> None:
        self._profiles = profiles
        self._now = now

    def command(self, step: Step, plan: PlanDocument, device: PlannedDevice) -> Mapping[str, Any]:
        """Return InstallProfile, unless the certificate is good for long enough."""
        found: list[str] = plan.installed.get("certificates", {}).get("not_after", {}).get("all", "").split()
        if len(found) > 1:
            raise ConflictError(f"{len(found)} certificates begin so; it is not known which.", code="ambiguous")
        if found and not step.detail.get("always"):
            left = datetime.fromisoformat(found[0]) - self._now()
            if left > timedelta(days=float(step.detail.get("days_left") or 0)):
                raise Unneeded(f"Its certificate is good until {found[0]}.")
        stored = self._profiles.get(step.detail["profile"]).mobileconfig or b""
        profile = replaced(stored, step.detail.get("text_replacements") or {})
        return {"RequestType": "InstallProfile", "Payload": filled(profile, partial(value_of, device))}


class ListCertificates(Send):
    """Asks which certificates a device has, and keeps when those end whose names begin so."""

    def learn(self, step: Step, plan: PlanDocument, device: PlannedDevice, answer: Mapping[str, Any]) -> None:  # noqa: ARG002 - as an Action
        """Keep it."""
        ends = []
        listed = answer.get("CertificateList")
        for entry in listed if isinstance(listed, list) else ():
            if not isinstance(entry, Mapping) or not isinstance(entry.get("Data"), bytes):
                continue
            if step.detail["identities_only"] and entry.get("IsIdentity") is not True:
                continue
            if not str(entry.get("CommonName") or "").startswith(step.detail["common_name_prefix"]):
                continue
            try:
                ends.append(x509.load_der_x509_certificate(entry["Data"]).not_valid_after_utc)
            except ValueError:
                continue
        told = " ".join(end.astimezone(UTC).isoformat() for end in ends)
        plan.installed["certificates"] = {"not_after": {"all": told}}


def _place(kind: str, run: str) -> str:
    return f"start/{kind}/{run}"


def _new_pin() -> str:
    return f"{secrets.randbelow(10**_PIN_DIGITS):0{_PIN_DIGITS}d}"


def _ask(request_type: str, **fields: Any) -> Step:  # noqa: ANN401 - of a command
    command = {"RequestType": request_type, **fields}
    return Step(f"ask for {request_type}", "take_inventory", 0, {"command": command})


def _inventory(_situation: Situation, _options: Mapping[str, Any], _run: str) -> list[Step]:
    return [
        _ask("DeviceInformation", Queries=list(QUERIES)),
        _ask("SecurityInfo"),
        _ask("InstalledApplicationList", Items=["Name", "ShortVersion", "Version"]),
        _ask("CertificateList"),
    ]


def _device_information(_situation: Situation, _options: Mapping[str, Any], _run: str) -> list[Step]:
    step = _ask("DeviceInformation", Queries=[*QUERIES, "BatteryLevel", "TimeZone"])
    step.detail["log"] = True
    return [step]


def _filevault_enable(_situation: Situation, _options: Mapping[str, Any], _run: str) -> list[Step]:
    return [
        Step("list profiles", "list_profiles", 0),
        Step("turn FileVault on", "install_filevault_profile", 1),
        Step("escrow the recovery key", "await_recovery_key", 2),
    ]


def _filevault_rotate(_situation: Situation, _options: Mapping[str, Any], _run: str) -> list[Step]:
    return [Step("rotate the recovery key", "rotate_recovery_key")]


def _lock(_situation: Situation, options: Mapping[str, Any], run: str) -> list[Step]:
    return [Step("lock", "lock_device", 0, {**options, "run": run})]


def _profiles(_situation: Situation, options: Mapping[str, Any], _run: str) -> list[Step]:
    return [
        Step("list profiles", "list_profiles", 0),
        *(_install(identifier) for identifier in options.get("install", ())),
        *(
            Step(
                f"remove profile {identifier}",
                "remove_profile",
                1,
                {"identifier": identifier, "name": f"profile {identifier}"},
            )
            for identifier in options.get("remove", ())
        ),
    ]


def _install(identifier: str) -> Step:
    name = f"profile {identifier}"
    return Step(name, "install_profile", 1, {"identifier": identifier, "name": name, "blueprints": []})


def _certificate_profile(_situation: Situation, options: Mapping[str, Any], _run: str) -> list[Step]:
    managed = {"ManagedOnly": True} if options.get("managed_only", True) else {}
    looked = {
        "command": {"RequestType": "CertificateList", **managed},
        "common_name_prefix": str(options.get("common_name_prefix") or ""),
        "identities_only": options.get("identities_only", True),
    }
    replaced = {name: options.get(name) for name in ("profile", "always", "days_left", "text_replacements")}
    return [
        Step("list certificates", "list_certificates", 0, looked),
        Step(f"profile {options['profile']}", "replace_certificate_profile", 1, replaced),
    ]


def _command_plan(_situation: Situation, options: Mapping[str, Any], _run: str) -> list[Step]:
    steps = [Step("list profiles", "list_profiles", 0)] if options.get("install") else []
    steps += [_install(identifier) for identifier in options.get("install", ())]
    for url in options.get("manifest_urls", ()):
        name = f"app {url}"
        steps.append(Step(name, "install_app", 1, {"app": {"manifest_url": url}, "name": name, "blueprints": []}))
    if options.get("device_configured"):
        steps.append(Step("let Setup Assistant go on", "release", 2))
    return steps


_STEPS: Final[Mapping[str, Callable[[Situation, Mapping[str, Any], str], list[Step]]]] = {
    INVENTORY: _inventory,
    DEVICE_INFORMATION: _device_information,
    FILEVAULT_ENABLE: _filevault_enable,
    FILEVAULT_ROTATE: _filevault_rotate,
    LOCK: _lock,
    PROFILES: _profiles,
    CERTIFICATE_PROFILE: _certificate_profile,
    COMMAND_PLAN: _command_plan,
}

"""Rules that say which ADE profile a device gets: an administrator's, and what other servers call assigners.

Of the rules that fit a device one decides, the most precise: one that names its serial number goes before one for its
model, that before one for its family, and all of them before one for every device. Of two that are as precise, the one
for the device's server goes first, then the one whose name is first in the alphabet.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.ade_codes import FOR_EVERYTHING
from mdmlib.errors import AppleRefusedError, BadRequestError, NotFoundError
from mdmlib.observability import logger
from mdmlib.services.ade_rules import serial_number_of
from mdmlib.store.tables import AdeAssignmentRule, AdeDevice
from mdmlib.store.unchanged import OnlyIf, only_while

DEVICE_FAMILIES: Final = ("AppleTV", "Mac", "Vision", "iPad", "iPhone", "iPod")
"""Apple's words."""

ASSIGNER: Final = "assigner."
"""What the names of those rules begin with that MicroMDM's and NanoDEP's API make: one for each server."""

_RULES: Final = "ade_assignment_rule"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UUID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAX_RULES: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a rule says. At most one of the three lists is there: none: it is for every device."""

    server: str | None = None
    serial_numbers: Sequence[str] | None = None
    models: Sequence[str] | None = None
    device_families: Sequence[str] | None = None
    profile: str | None = None
    profile_uuid: str | None = None
    """Without a profile, by name or by UUID, devices are left as they are."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a device is to get. Without a ``uuid`` it is left as it is."""

    rule: str
    profile: str | None
    uuid: str | None


class RuleSet:
    """The rules of one server, with the UUIDs that Apple knows their profiles by."""

    def __init__(self, rules: Iterable[AdeAssignmentRule], uuid_of: Callable[[str], str | None]) -> None:
        """``uuid_of`` is asked once for each profile; None: there is none."""
        uuids: dict[str, str | None] = {}
        self._serial_numbers: dict[str, Wanted] = {}
        self._models: dict[str, Wanted] = {}
        self._device_families: dict[str, Wanted] = {}
        self._all: Wanted | None = None
        for rule in sorted(rules, key=lambda rule: (rule.server is None, rule.name)):
            if rule.profile is not None and rule.profile not in uuids:
                uuids[rule.profile] = uuid_of(rule.profile)
            uuid = rule.profile_uuid if rule.profile is None else uuids[rule.profile]
            wanted = Wanted(rule=rule.name, profile=rule.profile, uuid=uuid)
            if rule.serial_numbers is not None:
                _for_each(rule.serial_numbers, self._serial_numbers, wanted)
            elif rule.models is not None:
                _for_each([model.casefold() for model in rule.models], self._models, wanted)
            elif rule.device_families is not None:
                _for_each(rule.device_families, self._device_families, wanted)
            else:
                self._all = self._all or wanted

    def wanted(self, device: AdeDevice) -> Wanted | None:
        """Return what decides on a device, or None: no rule is for it."""
        return (
            self._serial_numbers.get(device.name)
            or self._models.get((device.model or "").casefold())
            or self._device_families.get(device.device_family or "")
            or self._all
        )

    @property
    def digest(self) -> str:
        """Tells these rules from others, and their profiles from what they were before they were defined anew."""
        tables = (self._serial_numbers, self._models, self._device_families, {"": self._all})
        told = [
            [(key, wanted.rule, wanted.uuid) for key, wanted in sorted(table.items()) if wanted] for table in tables
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class AdeAssignmentRules:
    """The rules, by the names that administrators gave them."""

    def __init__(
        self,
        *,
        profile_uuid: Callable[[str, str], str],
        check_profile: Callable[[str], object],
        check_server: Callable[[str], object],
        now: Callable[[], datetime],
    ) -> None:
        """``profile_uuid`` tells Apple's UUID of a profile at a server, and has it defined there if it is not.

        It and the two checks raise :class:`~mdmlib.errors.NotFoundError` for what there is not.
        """
        self._profile_uuid = profile_uuid
        self._check_profile = check_profile
        self._check_server = check_server
        self._now = now

    def of(self, server: str) -> RuleSet:
        """Return the rules for a server's devices.

        Raises as ``profile_uuid`` does when Apple does not answer, or lets the server do nothing.
        """

        def uuid_of(profile: str) -> str | None:
            try:
                return self._profile_uuid(server, profile)
            except NotFoundError:
                logger.warning("Rule names an ADE profile that is not there", server=server, profile=profile)
            except AppleRefusedError as refused:
                if refused.apple_code in FOR_EVERYTHING:
                    raise
                # Devices that are to get it wait, others do not.
                logger.warning("Apple refuses an ADE profile", server=server, profile=profile, code=refused.apple_code)
            return None

        return RuleSet([rule for rule in self.list() if rule.server in {None, server}], uuid_of)

    def list(self) -> list[AdeAssignmentRule]:
        """Return all, ordered by name."""
        found = AdeAssignmentRule.query(_RULES, consistent_read=True)
        return [rule for rule in found if isinstance(rule, AdeAssignmentRule)]

    def get(self, name: str) -> AdeAssignmentRule:
        """Return one. Raises :class:`~mdmlib.errors.NotFoundError`."""
        rule = _find(name)
        if rule is None:
            raise NotFoundError(f"There is no assignment rule {name[:100]!r}.", code="unknown_rule")
        return rule

    def put(
        self, name: str, rule: Rule, *, only_if: OnlyIf[AdeAssignmentRule | None] | None = None
    ) -> AdeAssignmentRule:
        """Store a rule in place of the one of its name, if there is one.

        Raises :class:`~mdmlib.errors.BadRequestError`, also for a server or a profile that there is not, and what
        ``only_if`` raises.
        """
        if not _NAME.fullmatch(name):
            raise BadRequestError(
                "A rule's name has letters, digits, dots, dashes and underscores, at most 100.",
                code="invalid_field",
                field="name",
            )
        self._check(rule)
        if sum(rule.name != name for rule in self.list()) >= _MAX_RULES:
            raise BadRequestError(f"There are {_MAX_RULES} rules, and no more can be.", code="too_many_rules")
        item = AdeAssignmentRule(
            _RULES,
            name,
            server=rule.server,
            serial_numbers=_once(serial_number_of(each, name="serial_numbers") for each in rule.serial_numbers or ()),
            models=_once(rule.models),
            device_families=_once(rule.device_families),
            profile=rule.profile,
            profile_uuid=rule.profile_uuid,
            changed_at=int(self._now().timestamp()),
        )
        with only_while(AdeAssignmentRule, lambda: _find(name), only_if) as condition:
            item.save(condition=condition)
        return item

    def delete(self, name: str, *, only_if: OnlyIf[AdeAssignmentRule | None] | None = None) -> None:
        """Forget a rule. Devices keep the profile that they have; one that is not there is no error.

        Raises what ``only_if`` raises.
        """
        with only_while(AdeAssignmentRule, lambda: _find(name), only_if) as condition:
            AdeAssignmentRule(_RULES, name).delete(condition=condition)

    def set_assigner(self, server: str, profile_uuid: str | None) -> None:
        """Give all devices of a server a profile that Apple knows, as other servers' assigners do; None: no more.

        Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        name = ASSIGNER + server
        if profile_uuid is None:
            self.delete(name)
        else:
            self.put(name, Rule(server=server, profile_uuid=profile_uuid))

    def assigner(self, server: str) -> str | None:
        """Return the UUID that was set so, or None."""
        try:
            return self.get(ASSIGNER + server).profile_uuid
        except NotFoundError:
            return None

    def _check(self, rule: Rule) -> None:
        lists = {
            "serial_numbers": rule.serial_numbers,
            "models": rule.models,
            "device_families": rule.device_families,
        }
        given = [name for name, values in lists.items() if values is not None]
        if len(given) > 1:
            raise BadRequestError(
                f"A rule is for {given[0]} or for {given[1]}: make two of it.", code="invalid_field", field=given[1]
            )
        for name in given:
            if not lists[name]:
                raise BadRequestError(f"{name} is empty.", code="invalid_field", field=name)
        if rule.profile is not None and rule.profile_uuid is not None:
            raise BadRequestError(
                "A rule has a profile, or the profile_uuid of one that was defined elsewhere, and not both.",
                code="invalid_field",
                field="profile_uuid",
            )
        if rule.profile_uuid is not None and not _UUID.fullmatch(rule.profile_uuid):
            raise BadRequestError("profile_uuid is none.", code="invalid_field", field="profile_uuid")
        if rule.profile_uuid is not None and rule.server is None:
            raise BadRequestError(
                "A profile_uuid is known to one server alone: say which.", code="missing_field", field="server"
            )
        for field, value, check in (
            ("server", rule.server, self._check_server),
            ("profile", rule.profile, self._check_profile),
        ):
            if value is not None:
                try:
                    check(value)
                except NotFoundError as error:
                    raise BadRequestError(error.message, code="invalid_field", field=field) from error


def _for_each(keys: Iterable[str], table: dict[str, Wanted], wanted: Wanted) -> None:
    """Let a rule decide where none does that goes before it."""
    for key in keys:
        table.setdefault(key, wanted)


def _once(values: Iterable[str] | None) -> list[str] | None:
    return sorted(set(values)) or None if values is not None else None


def _find(name: str) -> AdeAssignmentRule | None:
    try:
        return AdeAssignmentRule.get(_RULES, name, consistent_read=True) if name else None
    except DoesNotExist:
        return None

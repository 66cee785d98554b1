"""Blueprints and Apple's lists: the rules that give devices an ADE profile before they enroll, and whose list is whose.

A blueprint with an ADE profile has a rule of its own for each of its servers, or one for all: see
:mod:`mdmlib.services.ade_assignment_rules`, which says what decides where several rules fit a device.
"""

from collections.abc import Callable, Mapping
from typing import Final

from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.services.ade_assignment_rules import AdeAssignmentRules, Rule
from mdmlib.services.ade_rules import serial_number_of
from mdmlib.services.blueprint_content import Content
from mdmlib.store.ade_devices import AdeDeviceStore

_RULE: Final = "blueprint."
_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "iOS": ("iPhone", "iPod"),
    "iPadOS": ("iPad",),
    "macOS": ("Mac",),
    "tvOS": ("AppleTV",),
    "visionOS": ("Vision",),
    "watchOS": (),
}
_KNOWN_BEFORE: Final = "serial numbers, platforms and ADE servers"


class BlueprintAde:
    """Gives devices the ADE profiles of their blueprints."""

    def __init__(
        self,
        *,
        rules: AdeAssignmentRules,
        check_profile: Callable[[str], object],
        check_server: Callable[[str], object],
        read_list: Callable[[str | None], object],
    ) -> None:
        """Both checks raise :class:`~mdmlib.errors.NotFoundError`.

        ``read_list`` has the list of a server looked at soon, or with None all lists.
        """
        self._rules = rules
        self._check_profile = check_profile
        self._check_server = check_server
        self._read_list = read_list

    def check(self, content: Content) -> None:
        """Raise :class:`~mdmlib.errors.BadRequestError` for a profile or server that is not there.

        Also for conditions of which nothing is known before a device enrolls, when it would be given a profile.
        """
        if content.ade_profile is None:
            return
        asked = content.conditions
        later = {
            "types": set(asked.types) - {"Device"},
            "models": asked.models,
            "os_at_least": asked.os_at_least,
            "os_below": asked.os_below,
            "tags": asked.tags,
        }
        for name, given in later.items():
            if given:
                raise BadRequestError(
                    f"conditions.{name}: devices get an ADE profile before they enroll, when only {_KNOWN_BEFORE} are"
                    " known of them.",
                    code="known_too_late",
                    field=f"conditions.{name}",
                )
        for number in asked.serial_numbers:
            serial_number_of(number, name="conditions.serial_numbers")
        if not asked.serial_numbers and asked.platforms and not _families(content):
            raise BadRequestError(
                "conditions.platforms: Apple's lists have no devices of these.",
                code="known_too_late",
                field="conditions.platforms",
            )
        _there(lambda: self._check_profile(content.ade_profile or ""), "ade_profile")
        for server in asked.ade_servers:
            _there(lambda server=server: self._check_server(server), "conditions.ade_servers")  # type: ignore[misc]  # mypy has no type for the default

    def tell(self, uuid: str, content: Content | None) -> None:
        """Let the rules of a blueprint be what its content says; None: it has none any more. Safe to repeat."""
        wanted = _wanted(uuid, content)
        there = {rule.name: rule for rule in self._rules.list() if rule.name.startswith(f"{_RULE}{uuid}.")}
        changed: set[str | None] = set()
        for name in there.keys() - wanted.keys():
            self._rules.delete(name)
            changed.add(there[name].server)
        for name, rule in wanted.items():
            if name not in there or _says(there[name]) != _says(rule):
                self._rules.put(name, rule)
                changed.add(rule.server)
                if name in there:
                    changed.add(there[name].server)
        for server in [None] if None in changed else sorted(filter(None, changed)):
            self._read_list(server)


def ade_server_of(serial_number: str | None, servers: Callable[[], list[str]], devices: AdeDeviceStore) -> str | None:
    """Return the server in whose list a device is."""
    if not serial_number:
        return None
    found = devices.of_serial(serial_number, servers())
    return next((server for server, device in sorted(found.items()) if device.deleted_at is None), None)


def _wanted(uuid: str, content: Content | None) -> dict[str, Rule]:
    if content is None or content.ade_profile is None:
        return {}
    numbers = [serial_number_of(number, name="serial_numbers") for number in content.conditions.serial_numbers]
    return {
        f"{_RULE}{uuid}.{number}": Rule(
            server=server,
            serial_numbers=numbers or None,
            device_families=None if numbers else _families(content) or None,
            profile=content.ade_profile,
        )
        for number, server in enumerate(sorted(content.conditions.ade_servers) or [None])
    }


def _families(content: Content) -> list[str]:
    return [family for platform in content.conditions.platforms for family in _FAMILIES[platform]]


def _says(rule: object) -> list[object]:
    names = ("server", "serial_numbers", "device_families", "profile")
    values = [getattr(rule, name) for name in names]
    return [sorted(value) if isinstance(value, list) else value for value in values]


def _there(check: Callable[[], object], field: str) -> None:
    try:
        check()
    except NotFoundError as error:
        raise BadRequestError(error.message, code="names_what_is_not_there", field=field) from error

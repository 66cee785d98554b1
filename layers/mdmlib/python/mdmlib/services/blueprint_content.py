"""What a blueprint says: what devices shall have, which devices those are, and when they get it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any, Final, Self

from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.apple.platforms import PLATFORMS, is_older, is_version, platform_of
from mdmlib.errors import BadRequestError
from mdmlib.services.plan_actions import PlannedDevice

MAX_ITEMS: Final = 100
"""Profiles, apps, users, commands: of each."""

MAX_SERIAL_NUMBERS: Final = 5_000
MAX_BYTES: Final = 250_000
"""Of the whole, as JSON: it is one item."""

TYPES: Final = tuple(kind.value for kind in EnrollmentType if not kind.is_user_channel)

_APP_KEYS: Final = ("app", "manifest_url", "itunes_store_id")


@dataclass(frozen=True)
class Conditions:
    """Which devices a blueprint is for: those that meet all of these. An empty one asks for nothing."""

    types: Sequence[str] = ()
    """Enrollment types."""
    platforms: Sequence[str] = ()
    models: Sequence[str] = ()
    """Of products, as devices tell them: ``Mac14,2``, ``iPad*``; any of them will do."""
    os_at_least: str | None = None
    os_below: str | None = None
    serial_numbers: Sequence[str] = ()
    tags: Sequence[str] = ()
    """All of them."""
    ade_servers: Sequence[str] = ()
    """Any of them, by the administrator's names."""

    def unmet(self, device: PlannedDevice, ade_server: str | None) -> str | None:
        """Say which of the conditions a device does not meet, or return None."""
        record = device.record
        product = record.product_name or record.model or ""
        version = record.os_version or ""
        checks: dict[str, bool] = {
            "type": not self.types or record.type in self.types,
            "platform": not self.platforms or platform_of(product) in self.platforms,
            "model": not self.models or any(fnmatchcase(product, model) for model in self.models),
            "os_at_least": self.os_at_least is None or (bool(version) and not is_older(version, self.os_at_least)),
            "os_below": self.os_below is None or (bool(version) and is_older(version, self.os_below)),
            "serial_numbers": not self.serial_numbers or record.serial_number in self.serial_numbers,
            "tags": not self.tags or set(self.tags) <= device.attributes.tags,
            "ade_servers": not self.ade_servers or ade_server in self.ade_servers,
        }
        return next((name for name, met in checks.items() if not met), None)

    def check(self) -> None:
        """Raise :class:`~mdmlib.errors.BadRequestError` for what no device can be."""
        for name, known in (("types", TYPES), ("platforms", PLATFORMS)):
            if unknown := set(getattr(self, name)) - set(known):
                raise _invalid(f"conditions.{name}", f"{min(unknown)!r} is none of {', '.join(known)}")
        for name in ("os_at_least", "os_below"):
            version = getattr(self, name)
            if version is not None and not is_version(version):
                raise _invalid(f"conditions.{name}", "it is no version such as 15.1")
        if len(self.serial_numbers) > MAX_SERIAL_NUMBERS:
            raise _invalid("conditions.serial_numbers", f"there are at most {MAX_SERIAL_NUMBERS}; use tags for more")


@dataclass(frozen=True)
class Content:
    """A blueprint's content. Lists are in the order in which their entries are sent."""

    profiles: Sequence[str] = ()
    """PayloadIdentifiers of stored profiles."""
    apps: Sequence[Mapping[str, Any]] = ()
    """Each ``{"app": <name of an uploaded app>}``, ``{"manifest_url": …}`` or ``{"itunes_store_id": …}``."""
    users: Sequence[str] = ()
    """UUIDs of users that become administrators of Macs in Setup Assistant."""
    commands: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """In MicroMDM's JSON, without ``udid``."""
    includes: Sequence[str] = ()
    """Names of other blueprints, which come first."""
    ade_profile: str | None = None
    """Name of the ADE profile that devices of its conditions are given before they enroll."""
    conditions: Conditions = field(default_factory=Conditions)
    apply_on_enrollment: bool = True
    apply_on_change: bool = False
    """Bring all devices of its conditions to it whenever it changes."""
    remove_what_left: bool = False
    """Then take away what is in it no more."""
    skip_primary_setup_account_creation: bool = False
    set_primary_setup_account_as_regular_user: bool = False

    def check(self) -> None:
        """Raise :class:`~mdmlib.errors.BadRequestError` for what can be seen without looking elsewhere."""
        for name in ("profiles", "apps", "users", "commands", "includes"):
            entries = list(getattr(self, name))
            if len(entries) > MAX_ITEMS:
                raise _invalid(name, f"there are at most {MAX_ITEMS}")
            if twice := next((entry for entry in entries if name != "commands" and entries.count(entry) > 1), None):
                what = "a profile of this identifier" if name == "profiles" else "this"
                raise _invalid(name, f"{what} is in it twice: {_shown(twice)}", code="named_twice")
        for number, app in enumerate(self.apps):
            _check_app(app, f"apps[{number}]")
        self.conditions.check()
        if len(self.encode()) > MAX_BYTES:
            raise BadRequestError(f"A blueprint has at most {MAX_BYTES} bytes.", code="blueprint_too_large")

    def encode(self) -> bytes:
        """Write it down."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    @classmethod
    def decode(cls, document: bytes) -> Self:
        """Read what :meth:`encode` wrote, of this release or of another."""
        values = json.loads(document)
        conditions = values.pop("conditions", {})
        known, asked = ({one.name for one in fields(kind)} for kind in (cls, Conditions))
        return cls(
            **{name: value for name, value in values.items() if name in known},
            conditions=Conditions(**{name: value for name, value in conditions.items() if name in asked}),
        )


def app_name(app: Mapping[str, Any]) -> str:
    """Return what an app of a blueprint is called."""
    return str(next(value for key, value in app.items() if key in _APP_KEYS))


def _check_app(app: Mapping[str, Any], field_name: str) -> None:
    if not isinstance(app, Mapping) or len(set(app) & set(_APP_KEYS)) != 1 or set(app) - set(_APP_KEYS):
        raise _invalid(field_name, f"it has to have one of {', '.join(_APP_KEYS)}")
    ((key, value),) = app.items()
    if key == "itunes_store_id":
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise _invalid(f"{field_name}.{key}", "it has to be a number of the App Store")
    elif not isinstance(value, str) or not 0 < len(value) <= 2_000:  # noqa: PLR2004 - longer is no URL, and no name
        raise _invalid(f"{field_name}.{key}", "it has to be a text")
    elif key == "manifest_url" and not value.startswith("https://"):
        raise _invalid(f"{field_name}.{key}", "devices take manifests over https alone")


def _shown(value: object) -> str:
    return str(value)[:200]


def _invalid(name: str, reason: str, *, code: str = "invalid_field") -> BadRequestError:
    return BadRequestError(f"{name}: {reason}.", code=code, field=name)

"""NanoCMD's names of stored profiles, and its lists of profiles and apps.

A profile is stored once, by its PayloadIdentifier; a name leads to it. Two names for profiles of one identifier would
take turns on devices, so that is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.profile_variables import variables_of
from mdmlib.apple.stored_profile import payload_identifier, payload_uuid
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError
from mdmlib.store.tables import CommandPlan, ProfileName

if TYPE_CHECKING:
    from mdmlib.services.stored_profiles import StoredProfiles

_NAMES: Final = "profile_name"
_PLANS: Final = "command_plan"
_LONGEST: Final = 200
_MAX_ENTRIES: Final = 100


@dataclass(frozen=True)
class NamedProfile:
    """A stored profile by its name."""

    name: str
    identifier: str
    uuid: str


class NamedProfiles:
    """Names of profiles, and command plans."""

    def __init__(self, *, profiles: "StoredProfiles") -> None:
        self._profiles = profiles

    def put(self, name: str, mobileconfig: bytes) -> None:
        """Store a profile under a name.

        Raises :class:`~mdmlib.errors.BadRequestError` for what is no profile, and
        :class:`~mdmlib.errors.ConflictError` when its identifier is that of another name's.
        """
        _check(name)
        identifier = payload_identifier(mobileconfig)
        for other in ProfileName.query(_NAMES, consistent_read=True):
            if other.identifier == identifier and other.name != name:
                raise ConflictError(
                    f"The profile {other.name} has the identifier {identifier}, too.", code="identifier_taken"
                )
        self._profiles.put(identifier, mobileconfig)
        ProfileName(_NAMES, name, identifier=identifier).save()

    def get(self, name: str) -> bytes:
        """Return a profile. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return self._profiles.get(_named(name).identifier).mobileconfig or b""

    def delete(self, name: str) -> None:
        """Forget a profile and its name. One that is not there is gone already."""
        try:
            found = _named(name)
        except NotFoundError:
            return
        self._profiles.delete([found.identifier])
        found.delete()

    def list(self, names: Sequence[str]) -> Iterator[NamedProfile]:
        """Yield the profiles of these names, or all. Raises :class:`~mdmlib.errors.NotFoundError`."""
        found = [_named(name) for name in names] if names else ProfileName.query(_NAMES, consistent_read=True)
        for item in found:
            mobileconfig = self._profiles.get(item.identifier).mobileconfig or b""
            yield NamedProfile(item.name, item.identifier, payload_uuid(mobileconfig))

    def identifier(self, name: str) -> str:
        """Return the identifier of a profile that is called so, or that is its identifier itself.

        Raises :class:`~mdmlib.errors.BadRequestError`: a plan would install what is not there.
        """
        try:
            return str(_named(name).identifier)
        except NotFoundError:
            pass
        try:
            return self._profiles.get(name).identifier
        except NotFoundError:
            raise BadRequestError(
                f"There is no profile {name[:_LONGEST]}.", code="names_what_is_not_there", field="profile"
            ) from None

    def variables(self, identifiers: Sequence[str]) -> frozenset[str]:
        """Return the names of the variables in profiles. Raises :class:`~mdmlib.errors.NotFoundError`."""
        contents = (self._profiles.get(identifier).mobileconfig or b"" for identifier in identifiers)
        return frozenset(name for content in contents for name in variables_of(content))

    # Command plans

    def put_command_plan(self, name: str, definition: Mapping[str, Any]) -> None:
        """Store a list of profiles and apps. Raises :class:`~mdmlib.errors.BadRequestError`."""
        _check(name)
        checked = {
            "profile_names": _texts(definition, "profile_names"),
            "manifest_urls": _texts(definition, "manifest_urls"),
            "device_configured": definition.get("device_configured") is True,
        }
        CommandPlan(_PLANS, name, definition=checked).save()

    def command_plan(self, name: str) -> dict[str, Any]:
        """Return a list of profiles and apps. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            _check(name)
            return dict(CommandPlan.get(_PLANS, name, consistent_read=True).definition)
        except (BadRequestError, DoesNotExist):
            raise NotFoundError(f"There is no command plan {name[:_LONGEST]}.", code="unknown_command_plan") from None


def _named(name: str) -> ProfileName:
    try:
        if 0 < len(name.encode()) <= _LONGEST:
            return ProfileName.get(_NAMES, name, consistent_read=True)
    except DoesNotExist:
        pass
    raise NotFoundError(f"There is no profile {name[:_LONGEST]}.", code="profile_not_found", field="name")


def _check(name: str) -> None:
    if not 0 < len(name.encode()) <= _LONGEST or not name.isprintable():
        raise BadRequestError(f"A name is 1 to {_LONGEST} characters.", code="invalid_field", field="name")


def _texts(definition: Mapping[str, Any], name: str) -> list[str]:
    value = definition.get(name) or []
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES or not all(isinstance(one, str) for one in value):
        raise BadRequestError(f"{name} has to be a list of texts.", code="invalid_field", field=name)
    return value

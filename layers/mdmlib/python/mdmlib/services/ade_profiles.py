"""Profiles of ADE, by the names that administrators give them, and as Apple knows them at each server.

A profile that Apple was told cannot be changed or deleted there, only told anew under another UUID. So what is stored
is the administrator's, and for each server the UUID of what Apple was last told, with a digest of it: where the digest
is another one by now, Apple is told before anybody uses the UUID. It does no harm to tell Apple twice.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from uuid import NAMESPACE_URL, uuid5

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.ade_profile import checked_profile, complete_profile
from mdmlib.errors import (
    AppleRefusedError,
    BadRequestError,
    ConflictError,
    NotFoundError,
    PicoMDMError,
    UnavailableError,
)
from mdmlib.observability import logger
from mdmlib.store.tables import AdeAssignmentRule, AdeProfile, AdeProfileDefinition
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.services.ade_servers import AdeServers
    from mdmlib.settings import Settings

_PROFILES: Final = "ade_profile"
_DEFINITIONS: Final = "ade_profile_definition"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BAD_REQUEST: Final = 400
_TELLING: Final = timedelta(seconds=15)
"""API Gateway gives up after 30 s; whoever is not told by then is told when the profile is used."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A profile at a server."""

    server: str
    profile_uuid: str
    """Apple's."""
    defined_at: datetime
    is_current: bool
    """Whether this is what the profile says now; else Apple is told anew before it is next used."""


@dataclass(frozen=True, kw_only=True)
class StoredAdeProfile:
    """A profile: what was said of it, what Apple is told, and where it was told so."""

    name: str
    document: Mapping[str, Any]
    apple_document: Mapping[str, Any]
    changed_at: datetime
    definitions: Sequence[Definition]
    problems: Mapping[str, PicoMDMError]
    """Of a change: the servers where Apple could not be told, which is tried again when the profile is next used."""


class AdeProfiles:
    """The profiles."""

    def __init__(self, *, servers: "AdeServers", settings: "Settings", now: Callable[[], datetime]) -> None:
        self._servers = servers
        self._settings = settings
        self._now = now

    def put(
        self,
        name: str,
        document: Mapping[str, Any],
        *,
        unknown_skip_items: bool = False,
        only_if: OnlyIf[StoredAdeProfile | None] | None = None,
    ) -> StoredAdeProfile:
        """Store a profile in place of the former one of this name, and tell Apple at every server that has a token.

        Nothing is stored when Apple refuses what it says. Where Apple could not be asked, or lets us in no more, the
        ``problems`` of the answer say so. Raises :class:`~mdmlib.errors.BadRequestError`, and
        :class:`~mdmlib.errors.AppleRefusedError` with Apple's code, and what ``only_if`` raises.
        """
        if not _NAME.fullmatch(name):
            raise BadRequestError(
                "A profile's name has letters, digits, dots, dashes and underscores, at most 64.",
                code="invalid_field",
                field="name",
            )
        item = AdeProfile(
            _PROFILES,
            name,
            document=checked_profile(document, unknown_skip_items=unknown_skip_items),
            changed_at=int(self._now().timestamp()),
        )
        self._complete(item)
        with only_while(AdeProfile, lambda: _find(name), self._as_stored(only_if)) as condition:
            definitions, problems = self._tell_everywhere(item)
            item.save(condition=condition)
        # Behind the profile: where this is not reached, the digest of the former one has Apple told once more.
        for definition in definitions:
            definition.save()
        return self._stored(item, _definitions(), problems)

    def get(self, name: str) -> StoredAdeProfile:
        """Return a profile. Raises :class:`~mdmlib.errors.NotFoundError`."""
        return self._stored(_item(name), _definitions())

    def list(self) -> list[StoredAdeProfile]:
        """Return all profiles, ordered by name."""
        found = AdeProfile.query(_PROFILES, consistent_read=True)
        definitions, hashes = _definitions(), self._consumer_hashes()
        return [self._stored(item, definitions, hashes=hashes) for item in found if isinstance(item, AdeProfile)]

    def delete(self, name: str, *, only_if: OnlyIf[StoredAdeProfile | None] | None = None) -> None:
        """Forget a profile. One that is not there is no error. At Apple it stays, and with it its devices' order.

        Raises :class:`~mdmlib.errors.ConflictError` while a rule gives it to devices, and what ``only_if`` raises.
        """
        rules = AdeAssignmentRule.query("ade_assignment_rule", consistent_read=True)
        wanting = [rule.name for rule in rules if isinstance(rule, AdeAssignmentRule) and rule.profile == name]
        if wanting:
            raise ConflictError(
                f"The rule {wanting[0]!r} gives this profile to devices; change or delete the rule first.",
                code="ade_profile_in_use",
            )
        with only_while(AdeProfile, lambda: _find(name), self._as_stored(only_if)) as condition:
            AdeProfile(_PROFILES, name).delete(condition=condition)
        for definition in _definitions():
            if definition.name.partition("/")[2] == name:
                definition.delete()

    def profile_uuid(self, name: str, server: str) -> str:
        """Return Apple's UUID of a profile at a server; Apple is told first if it does not know what it says now.

        A device that is assigned another UUID of the same profile has an older one. Raises
        :class:`~mdmlib.errors.NotFoundError`, and as :meth:`~mdmlib.services.ade_servers.AdeServers.client` and
        :class:`~mdmlib.clients.ade.AdeClient` do.
        """
        item = _item(name)
        known, digest = _definition(f"{server}/{name}"), self._digest(item, server)
        if known is not None and known.digest == digest:
            return str(known.profile_uuid)
        definition = self._tell(item, server)
        definition.save()
        return str(definition.profile_uuid)

    def define(
        self, server: str, said: Mapping[str, Any], *, devices: Sequence[str], name: str
    ) -> tuple[str, dict[str, str]]:
        """Have Apple know a profile that is not stored here, and give it to devices.

        Of what was left out only ``url``, ``org_magic`` and ``profile_name`` are filled in, which Apple needs; its own
        defaults stay. Return Apple's UUID, and what became of each device. Raises as :meth:`put` does.
        """
        # Other servers never held what their profiles skip against a list, and Apple takes it.
        profile = checked_profile(said, unknown_skip_items=True)
        filled = self.complete({}, name=name)
        profile = {key: filled[key] for key in ("profile_name", "url", "org_magic")} | profile
        return self._servers.client(server).define(profile | ({"devices": list(devices)} if devices else {}))

    def names_at(self, server: str) -> dict[str, str]:
        """Return the names of the profiles that Apple was told at a server, by Apple's UUIDs of them."""
        return {str(each.profile_uuid): each.name.partition("/")[2] for each in _definitions(f"{server}/")}

    def default_url(self) -> str:
        """Return where devices get their enrollment profile, unless a profile says otherwise."""
        return f"{self._settings.device_url}/mdm/enroll"

    def complete(self, said: Mapping[str, Any], *, name: str) -> dict[str, Any]:
        """Return what Apple is told for what was said."""
        # The same for all profiles of a deployment, and for no other deployment.
        org_magic = str(uuid5(NAMESPACE_URL, self._settings.device_url))
        return complete_profile(said, name=name, url=self.default_url(), org_magic=org_magic)

    def _as_stored(self, only_if: OnlyIf[StoredAdeProfile | None] | None) -> OnlyIf[AdeProfile | None] | None:
        if only_if is None:
            return None
        return lambda item: only_if(self._stored(item, _definitions()) if item else None)

    def _complete(self, item: AdeProfile) -> dict[str, Any]:
        return self.complete(item.document, name=item.name)

    def _tell_everywhere(self, item: AdeProfile) -> tuple[Sequence[AdeProfileDefinition], dict[str, PicoMDMError]]:
        definitions: list[AdeProfileDefinition] = []
        problems: dict[str, PicoMDMError] = {}
        begun = self._now()
        for server in self._servers.names():
            if self._now() - begun > _TELLING:
                problems[server] = UnavailableError("There was no time left to ask Apple.", code="not_told_yet")
                continue
            try:
                known = _definition(f"{server}/{item.name}")
                if known is None or known.digest != self._digest(item, server):
                    definitions.append(self._tell(item, server))
            except (AppleRefusedError, UnavailableError, NotFoundError) as error:
                if isinstance(error, AppleRefusedError) and error.status == _BAD_REQUEST:
                    raise
                problems[server] = error
        return definitions, problems

    def _tell(self, item: AdeProfile, server: str) -> AdeProfileDefinition:
        digest = self._digest(item, server)
        profile_uuid = self._servers.client(server).define_profile(self._complete(item))
        logger.info("ADE profile defined", server=server, profile=item.name, profile_uuid=profile_uuid)
        return AdeProfileDefinition(
            _DEFINITIONS,
            f"{server}/{item.name}",
            profile_uuid=profile_uuid,
            digest=digest,
            defined_at=int(self._now().timestamp()),
        )

    def _digest(self, item: AdeProfile, server: str) -> str:
        return _digest(self._complete(item), self._servers.consumer_hash(server))

    def _consumer_hashes(self) -> dict[str, str | None]:
        return {server.name: server.consumer_hash for server in self._servers.list()}

    def _stored(
        self,
        item: AdeProfile,
        definitions: Sequence[AdeProfileDefinition],
        problems: Mapping[str, PicoMDMError] | None = None,
        *,
        hashes: Mapping[str, str | None] | None = None,
    ) -> StoredAdeProfile:
        document = self._complete(item)
        known = self._consumer_hashes() if hashes is None else hashes
        return StoredAdeProfile(
            name=item.name,
            document=item.document,
            apple_document=document,
            changed_at=datetime.fromtimestamp(int(item.changed_at), UTC),
            definitions=[
                Definition(
                    server=server,
                    profile_uuid=each.profile_uuid,
                    defined_at=datetime.fromtimestamp(int(each.defined_at), UTC),
                    is_current=each.digest == _digest(document, known.get(server)),
                )
                for each in definitions
                for server, _, name in [each.name.partition("/")]
                if name == item.name
            ],
            problems=problems or {},
        )


def _digest(document: Mapping[str, Any], consumer_hash: str | None) -> str:
    return sha256(json.dumps([consumer_hash, document], sort_keys=True).encode()).hexdigest()


def _find(name: str) -> AdeProfile | None:
    try:
        # What is no name may be no key of DynamoDB's either.
        return AdeProfile.get(_PROFILES, name, consistent_read=True) if _NAME.fullmatch(name) else None
    except DoesNotExist:
        return None


def _item(name: str) -> AdeProfile:
    item = _find(name)
    if item is None:
        raise NotFoundError(f"There is no ADE profile {name[:64]!r}.", code="ade_profile_not_found")
    return item


def _definition(key: str) -> AdeProfileDefinition | None:
    try:
        return AdeProfileDefinition.get(_DEFINITIONS, key, consistent_read=True)
    except DoesNotExist:
        return None


def _definitions(prefix: str = "") -> Sequence[AdeProfileDefinition]:
    condition = AdeProfileDefinition.name.startswith(prefix) if prefix else None
    found = AdeProfileDefinition.query(_DEFINITIONS, condition, consistent_read=True)
    return [each for each in found if isinstance(each, AdeProfileDefinition)]

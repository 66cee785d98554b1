"""Blueprints: named sets of what devices shall have. What is wrong with one is said before it is stored."""

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import DoesNotExist, PutError

from mdmlib.apple.command_json import command_of
from mdmlib.apple.profile_variables import unknown_variables
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.blueprint_content import Content
from mdmlib.services.plan_document import MAX_STEPS
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Blueprint
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.services.micromdm_users import MicroMDMUsers
    from mdmlib.services.stored_profiles import StoredProfiles

COLLECTION: Final = "blueprint"

_LONGEST_NAME: Final = 200
_MOST_ITEMS: Final = MAX_STEPS - 4
"""Beside the accounts, the two questions what is there, and the end of Setup Assistant."""
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class KnownBlueprint:
    """A blueprint."""

    name: str
    uuid: str
    revision: int
    content: Content = field(repr=False)
    changed_at: int


class Blueprints:
    """The blueprints of this deployment."""

    def __init__(
        self,
        *,
        profiles: "StoredProfiles",
        users: "MicroMDMUsers",
        sealer: Sealer,
        now: Callable[[], datetime],
        has_app: Callable[[str], bool],
        check_ade: Callable[[Content], object],
        tell_ade: Callable[[str, Content | None], object],
    ) -> None:
        """``check_ade`` raises :class:`~mdmlib.errors.BadRequestError` for an ADE profile that cannot be given.

        ``tell_ade`` is told what the blueprint of a UUID says from now on; None: there is none any more.
        """
        self._profiles = profiles
        self._users = users
        self._sealer = sealer
        self._now = now
        self._has_app = has_app
        self._check_ade = check_ade
        self._tell_ade = tell_ade

    def put(
        self,
        name: str,
        content: Content,
        *,
        uuid_: str | None = None,
        only_if: OnlyIf[KnownBlueprint | None] | None = None,
    ) -> KnownBlueprint:
        """Store a blueprint in place of the one of its name. The same content again changes nothing.

        ``uuid_`` is what MicroMDM's clients know it by: one that belongs to a blueprint of another name renames that.
        Raises :class:`~mdmlib.errors.BadRequestError` that names what does not exist or cannot be, and
        :class:`~mdmlib.errors.ConflictError` when the name is that of another UUID.
        """
        _check_name(name)
        content.check()
        self._check_references(name, content)
        former_name = self._renamed(name, uuid_) if uuid_ else None
        for _ in range(_ATTEMPTS):
            former = _item(name)
            if only_if is not None:
                only_if(None if former is None else self._opened(former))
            if former is not None and uuid_ and former.uuid != uuid_:
                raise ConflictError(
                    f"The blueprint {name} has another uuid.", code="blueprint_name_taken", field="uuid"
                )
            if former is not None and self._opened(former).content == Content.decode(content.encode()):
                # Whoever stored it may not have come to this.
                self._tell_ade(former.uuid, content)
                return self._opened(former)
            item = Blueprint(
                COLLECTION,
                name,
                uuid=uuid_ or (former.uuid if former is not None else str(uuid.uuid4())),
                revision=int(former.revision) + 1 if former is not None else 1,
                document=self._sealer.seal(content.encode(), place=_place(name)),
                changed_at=int(self._now().timestamp()),
            )
            unchanged = Blueprint.revision == former.revision if former is not None else Blueprint.name.does_not_exist()
            try:
                item.save(unchanged)
            except PutError as error:
                if not condition_failed(error):
                    raise
                continue
            if former_name is not None:
                Blueprint(COLLECTION, former_name).delete()
            self._tell_ade(item.uuid, content)
            return self._opened(item)
        raise UnavailableError("Others kept changing the blueprint.")

    def get(self, name: str) -> KnownBlueprint:
        """Return a blueprint. Raises :class:`~mdmlib.errors.NotFoundError`."""
        item = _item(name) if 0 < len(name) <= _LONGEST_NAME else None
        if item is None:
            raise NotFoundError(f"There is no blueprint {name[:_LONGEST_NAME]}.", code="unknown_blueprint")
        return self._opened(item)

    def list(self) -> Iterator[KnownBlueprint]:
        """Yield all blueprints, by name."""
        for item in Blueprint.query(COLLECTION, consistent_read=True):
            yield self._opened(item)

    def delete(self, names: Collection[str], *, only_if: OnlyIf[KnownBlueprint | None] | None = None) -> None:
        """Forget blueprints; devices keep what they have. One that is not there is gone already.

        Raises :class:`~mdmlib.errors.ConflictError` for one that another blueprint includes.
        """
        going = frozenset(names)
        everything = list(self.list())
        for other in everything:
            if other.name not in going and (used := going.intersection(other.content.includes)):
                raise ConflictError(f"The blueprint {min(used)} is included by {other.name}.", code="blueprint_in_use")
        uuids = {one.name: one.uuid for one in everything}
        for name in going:
            if 0 < len(name) <= _LONGEST_NAME:
                with only_while(Blueprint, lambda name=name: _item(name), self._held(only_if)) as unchanged:  # type: ignore[misc]  # mypy has no type for the default
                    if name in uuids:
                        self._tell_ade(uuids[name], None)
                    Blueprint(COLLECTION, name).delete(unchanged)

    def _held(self, only_if: OnlyIf[KnownBlueprint | None] | None) -> OnlyIf[Blueprint | None] | None:
        if only_if is None:
            return None
        return lambda item: only_if(None if item is None else self._opened(item))

    def with_included(
        self, names: Sequence[str], known: Mapping[str, KnownBlueprint] | None = None
    ) -> Sequence[KnownBlueprint]:
        """Return blueprints, those that they include before them, each once.

        Raises :class:`~mdmlib.errors.NotFoundError` for one that is not there. What one includes is there when it is
        stored, and no circle; of two that are stored at once, that may be wrong, and stops nobody then.
        """
        everything = known if known is not None else {one.name: one for one in self.list()}
        found: dict[str, KnownBlueprint] = {}
        seen: set[str] = set()

        def add(blueprint: KnownBlueprint) -> None:
            if blueprint.name in seen:
                return
            seen.add(blueprint.name)
            for name in blueprint.content.includes:
                if name in everything:
                    add(everything[name])
                else:
                    logger.warning("Blueprint includes one that is not there", blueprint=blueprint.name, included=name)
            found[blueprint.name] = blueprint

        for name in names:
            if name not in everything:
                raise NotFoundError(f"There is no blueprint {name[:_LONGEST_NAME]}.", code="unknown_blueprint")
            add(everything[name])
        return list(found.values())

    def check(self, names: Sequence[str]) -> None:
        """Look whether all is there that blueprints name: it may have gone since they were stored.

        Raises :class:`~mdmlib.errors.NotFoundError` for a blueprint, and :class:`~mdmlib.errors.BadRequestError` that
        names what is missing.
        """
        for one in self.with_included(names):
            try:
                self._check_references(one.name, one.content)
            except BadRequestError as error:
                raise BadRequestError(
                    f"The blueprint {one.name}: {error.message}", code=error.code, field="blueprints"
                ) from error

    def including(self, name: str) -> Sequence[KnownBlueprint]:
        """Return a blueprint and those that include it, directly or not."""
        everything = {one.name: one for one in self.list()}
        return [
            one
            for one in everything.values()
            if one.name == name or name in {each.name for each in self.with_included([one.name], everything)}
        ]

    def _opened(self, item: Blueprint) -> KnownBlueprint:
        content = Content.decode(self._sealer.open(item.document, place=_place(item.name)))
        return KnownBlueprint(item.name, item.uuid, int(item.revision), content, int(item.changed_at))

    def _renamed(self, name: str, uuid_: str) -> str | None:
        return next((one.name for one in self.list() if one.uuid == uuid_ and one.name != name), None)

    def _check_references(self, name: str, content: Content) -> None:
        """Raise :class:`~mdmlib.errors.BadRequestError` that names what does not exist."""
        for identifier in content.profiles:
            self._check_profile(identifier)
        for user in content.users:
            if self._users.find(user) is None:
                raise _missing("users", f"There is no user {user[:200]}")
        for app in content.apps:
            if "app" in app and not self._has_app(app["app"]):
                raise _missing("apps", f"There is no app {app['app'][:200]}")
        self._check_ade(content)
        for number, command in enumerate(content.commands):
            _check_command(command, f"commands[{number}]")
        self._check_includes(name, content)

    def _check_profile(self, identifier: str) -> None:
        try:
            mobileconfig = self._profiles.get(identifier).mobileconfig
        except NotFoundError:
            raise _missing("profiles", f"There is no profile {identifier[:200]}") from None
        if unknown := unknown_variables(mobileconfig or b""):
            raise BadRequestError(
                f"The profile {identifier[:200]} has the variable {{{{{unknown[0]}}}}}, which there is not.",
                code="unknown_variable",
                field="profiles",
            )

    def _check_includes(self, name: str, content: Content) -> None:
        if not content.includes:
            return
        everything = {one.name: one.content for one in self.list()} | {name: content}
        whole: set[str] = set()

        def follow(one: str, path: tuple[str, ...]) -> None:
            if one in path:
                way = " → ".join([*path[path.index(one) :], one])
                raise BadRequestError(
                    f"The blueprint would depend on itself: {way}.", code="depends_on_itself", field="includes"
                )
            if one not in everything:
                raise _missing("includes", f"There is no blueprint {one[:200]}")
            whole.add(one)
            for included in everything[one].includes:
                follow(included, (*path, one))

        follow(name, ())
        contents = [everything[each] for each in whole]
        items = sum(len(each.profiles) + len(each.apps) + len(each.commands) for each in contents)
        if items > _MOST_ITEMS:
            raise BadRequestError(
                f"With all that it includes the blueprint has {items} profiles, apps and commands; "
                f"a device takes at most {_MOST_ITEMS}.",
                code="too_many_steps",
                field="includes",
            )


def _item(name: str) -> Blueprint | None:
    try:
        return Blueprint.get(COLLECTION, name, consistent_read=True)
    except DoesNotExist:
        return None


def _check_name(name: str) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name.strip() != name:
        raise BadRequestError(
            f"The name of a blueprint is 1 to {_LONGEST_NAME} printable characters.", code="invalid_field", field="name"
        )


def _check_command(command: Mapping[str, Any], place: str) -> None:
    if not isinstance(command, Mapping):
        raise BadRequestError(f"{place} has to be an object.", code="invalid_field", field=place)
    try:
        command_of(command)
    except BadRequestError as error:
        where = f"{place}.{error.field}" if error.field else place
        raise BadRequestError(f"{place}: {error.message}", code=error.code, field=where) from error


def _missing(name: str, what: str) -> BadRequestError:
    return BadRequestError(f"{what}.", code="names_what_is_not_there", field=name)


def _place(name: str) -> str:
    return f"{COLLECTION}/{name}"

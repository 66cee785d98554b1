"""The CAs that issue identities: the one in use, the one that follows it, and those before it.

Each is an item ``scep``, ``scep-2``, ``scep-3`` … of the collection ``ca``, with its key. Which of them is in use
follows from the times when they were, or will be, activated: the last that has come. So a rollover is one attribute of
one item, comes at its time with nobody at work, and needs no two writes to agree. Those before it go on being trusted
(:mod:`mdmlib.services.device_identity` trusts the whole collection) until somebody deletes them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pynamodb.exceptions import DeleteError, PutError, UpdateError

from mdmlib.apple.certificates import CaIdentity, new_certificate_authority
from mdmlib.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.observability import logger
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import CertificateAuthority

if TYPE_CHECKING:
    from pynamodb.expressions.condition import Condition

    from mdmlib.settings import Settings
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "ca"
_FIRST: Final = "scep"
_OURS: Final = re.compile(r"scep(?:-([1-9][0-9]{0,5}))?")

_KEEP: Final = timedelta(minutes=5)
_IN_FLIGHT: Final = timedelta(days=1)
"""For how long after its successor came a CA still answers those who asked for its certificate before."""
_ATTEMPTS: Final = 3


class Phase(StrEnum):
    """Where a CA of ours is in its life."""

    IN_USE = "in_use"
    NEXT = "next"
    """It waits for its activation."""
    FORMER = "former"
    """It issues no more; what it has issued is trusted."""


@dataclass(frozen=True)
class IssuingAuthority:
    """A CA of ours with its private key."""

    name: str
    identity: CaIdentity
    activates_at: int | None
    """Epoch seconds; None as long as nobody said when."""


@dataclass(frozen=True)
class IssuingAuthorities:
    """The CAs of ours at one moment."""

    current: IssuingAuthority
    next: IssuingAuthority | None
    former: Sequence[IssuingAuthority]
    """The latest first."""
    replaced_at: int
    """When the one in use came (epoch seconds)."""

    @property
    def certificates(self) -> list[x509.Certificate]:
        """All their certificates: what any of them has issued is ours."""
        known = [self.current, *self.former, *([self.next] if self.next else [])]
        return [authority.identity.certificate for authority in known]

    def answering(self, *, at: datetime) -> list[CaIdentity]:
        """Return the CAs that a request may be addressed to.

        Who asked for the CA's certificate just before another CA came into use has to be answered by the one that it
        knows; and while some processes know already and others do not, by the next one.
        """
        answering = [self.current, *([self.next] if self.next else [])]
        if at.timestamp() < self.replaced_at + _IN_FLIGHT.total_seconds():
            answering += self.former[:1]
        return [authority.identity for authority in answering]


class IssuingAuthorityStore:
    """Makes, imports, activates and deletes CAs of ours. What was read of them is kept for five minutes."""

    def __init__(self, *, sealer: "Sealer", settings: "Settings", now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._known: list[IssuingAuthority] = []
        self._read_at = now()

    def load(self, *, anew: bool = False) -> IssuingAuthorities:
        """Return the CAs; the first is made if this is the deployment's first use of it. ``anew`` reads them again."""
        self._refresh(anew=anew)
        if not self._known:
            self._remember([self._make_first()])
        return _at(self._known, self._now())

    def waiting(self) -> IssuingAuthority | None:
        """Return the CA that waits to follow, if there is one. Makes none."""
        self._refresh()
        return _at(self._known, self._now()).next if self._known else None

    def find(self, name: str) -> IssuingAuthority | None:
        """Return one of the CAs, if there is one of this name. Makes none."""
        self._refresh()
        return next((each for each in self._known if each.name == name), None)

    def name_of(self, ca: CaIdentity) -> str | None:
        """Return the name of a CA; None when it is gone by now."""
        return next((each.name for each in self._known if each.identity.der == ca.der), None)

    def prepare(self, *, replace_next: bool = False) -> CertificateAuthority:
        """Make the CA that is to follow the one in use; the first of a deployment is in use at once.

        Raises :class:`~mdmlib.errors.ConflictError` while another one waits, unless that is to be replaced.
        """
        return self._add(self._new, replace_next=replace_next)

    def install(self, identity: CaIdentity, *, replace_next: bool = False) -> CertificateAuthority:
        """Store a CA of an administrator's: the first is in use at once, another one waits to follow it.

        The same CA again changes nothing. Raises :class:`~mdmlib.errors.ConflictError` while another one waits, unless
        that is to be replaced.
        """
        der = identity.certificate.public_bytes(Encoding.DER)
        for item in _read():
            if bytes(item.certificate) == der and item.private_key is not None:
                return item
        return self._add(lambda _: identity, replace_next=replace_next)

    def activate(self, name: str, *, at: datetime | None = None) -> CertificateAuthority:
        """Let a CA that waits come into use, now or at a time to come. Safe to repeat.

        Raises :class:`~mdmlib.errors.NotFoundError`, :class:`~mdmlib.errors.ConflictError` for one that was in use
        before, and :class:`~mdmlib.errors.BadRequestError` for a time that is over or beyond the CA's end.
        """
        now = self._now()
        items = _read()
        item = _find(items, name)
        match phase_of(item, items, at=now):
            case Phase.FORMER:
                raise ConflictError(
                    f"{name} was in use before; what is issued from now on needs another CA.", code="ca_former"
                )
            case Phase.IN_USE:
                return item
        when = at or now
        if when < now:
            raise BadRequestError("The time of the activation is over.", code="invalid_field", field="at")
        if when >= x509.load_der_x509_certificate(item.certificate).not_valid_after_utc:
            raise BadRequestError("The CA ends before that.", code="invalid_field", field="at")
        try:
            item.update(
                [CertificateAuthority.activates_at.set(int(when.timestamp()))],
                # A CA of the same name that took its place meanwhile is another one.
                condition=_still(item) & _waits(now),
            )
        except UpdateError as error:
            raise _changed_meanwhile(error) from error
        logger.info("Activation of a CA set", ca=name, at=int(when.timestamp()))
        return item

    def delete(self, name: str) -> None:
        """Delete a CA that waits, or one that was in use before; one that is not there is no error.

        Devices that have a certificate of it are locked out. Raises :class:`~mdmlib.errors.ConflictError` for the one
        in use.
        """
        now = self._now()
        items = _read()
        item = next((each for each in items if each.name == name), None)
        if item is None:
            return
        phase = phase_of(item, items, at=now)
        if phase is Phase.IN_USE:
            raise ConflictError(f"{name} is in use; prepare another CA and activate that.", code="ca_in_use")
        self._delete(item, phase, now)

    def _refresh(self, *, anew: bool = False) -> None:
        if anew or not self._known or self._now() - self._read_at > _KEEP:
            self._remember(_read())

    def _remember(self, items: Sequence[CertificateAuthority]) -> None:
        self._read_at = self._now()
        self._known = [self._open(item) for item in items if item.private_key is not None]
        if items and _in_use(items, at=self._read_at).name not in {each.name for each in self._known}:
            self._known = []
            raise UnavailableError("The SCEP CA is stored without its private key.", code="ca_unusable")

    def _delete(self, item: CertificateAuthority, phase: Phase, now: datetime) -> None:
        condition = _still(item) & _waits(now) if phase is Phase.NEXT else _still(item)
        try:
            item.delete(condition=condition)
        except DeleteError as error:
            raise _changed_meanwhile(error) from error
        logger.warning("CA deleted", ca=item.name, phase=phase.value)

    def _add(self, identity_of: Callable[[int], CaIdentity], *, replace_next: bool = False) -> CertificateAuthority:
        for _ in range(_ATTEMPTS):
            now = self._now()
            items = _read()
            waiting = [item for item in items if phase_of(item, items, at=now) is Phase.NEXT]
            if waiting and not replace_next:
                raise ConflictError(
                    f"{waiting[0].name} waits to follow the CA in use already; activate it or delete it first.",
                    code="ca_next_exists",
                )
            for item in waiting:
                self._delete(item, Phase.NEXT, now)
            number = max((_number(item.name) for item in items), default=0) + 1
            item = self._item(identity_of(number), number, now)
            if _save_new(item):
                logger.info("CA stored", ca=item.name)
                return item
        raise UnavailableError("Other requests kept coming first.")

    def _make_first(self) -> CertificateAuthority:
        """Make the CA and store it, unless somebody else did so first: then theirs is the CA."""
        item = self._item(self._new(1), 1, self._now())
        return item if _save_new(item) else CertificateAuthority.get(_COLLECTION, _FIRST, consistent_read=True)

    def _new(self, number: int) -> CaIdentity:
        return new_certificate_authority(self._settings.organization, number=number, now=self._now())

    def _item(self, identity: CaIdentity, number: int, now: datetime) -> CertificateAuthority:
        name = _FIRST if number == 1 else f"{_FIRST}-{number}"
        return CertificateAuthority(
            _COLLECTION,
            name,
            certificate=identity.certificate.public_bytes(Encoding.DER),
            private_key=self._sealer.seal(identity.private_key_der(), place=_place(name)),
            created_at=int(now.timestamp()),
        )

    def _open(self, item: CertificateAuthority) -> IssuingAuthority:
        key = self._sealer.open(item.private_key, place=_place(item.name))
        return IssuingAuthority(item.name, CaIdentity.decode(item.certificate, key), _activates_at(item))


def is_ours(name: str) -> bool:
    """Say whether an authority of this name is one of the deployment's own."""
    return _OURS.fullmatch(name) is not None


def phase_of(item: CertificateAuthority, items: Iterable[CertificateAuthority], *, at: datetime) -> Phase:
    """Say where one of our CAs is in its life; ``items`` are all that there are, others' too."""
    ours = [each for each in items if is_ours(each.name)]
    current = _in_use(ours, at=at)
    if item.name == current.name:
        return Phase.IN_USE
    activates_at = _activates_at(item)
    return Phase.NEXT if activates_at is None or activates_at > at.timestamp() else Phase.FORMER


def _at(known: Sequence[IssuingAuthority], now: datetime) -> IssuingAuthorities:
    active = [each for each in known if each.activates_at is not None and each.activates_at <= now.timestamp()]
    active.sort(key=lambda each: (each.activates_at or 0, _number(each.name)), reverse=True)
    waiting = [each for each in known if each not in active]
    current, *former = active
    return IssuingAuthorities(current, waiting[0] if waiting else None, former, replaced_at=current.activates_at or 0)


def _in_use(items: Sequence[CertificateAuthority], *, at: datetime) -> CertificateAuthority:
    def key(item: CertificateAuthority) -> tuple[int, int]:
        activates_at = _activates_at(item)
        active = activates_at is not None and activates_at <= at.timestamp()
        return (activates_at or 0 if active else -1, _number(item.name))

    return max(items, key=key)


def _activates_at(item: CertificateAuthority) -> int | None:
    if item.activates_at is not None:
        return int(item.activates_at)
    # The first is in use from the beginning.
    return 0 if item.name == _FIRST else None


def _number(name: str) -> int:
    found = _OURS.fullmatch(name)
    return int(found[1] or 1) if found else 0


def _read() -> list[CertificateAuthority]:
    return [item for item in CertificateAuthority.query(_COLLECTION, consistent_read=True) if is_ours(item.name)]


def _find(items: Sequence[CertificateAuthority], name: str) -> CertificateAuthority:
    for item in items:
        if item.name == name:
            return item
    raise NotFoundError("There is no CA of the deployment's own of this name.", code="ca_not_found")


def _save_new(item: CertificateAuthority) -> bool:
    """Store an item unless there is one of its name: False then."""
    try:
        item.save(condition=CertificateAuthority.name.does_not_exist())
    except PutError as error:
        if not condition_failed(error):
            raise
        return False
    return True


def _still(item: CertificateAuthority) -> "Condition":
    unchanged: Condition = CertificateAuthority.certificate == bytes(item.certificate)
    return unchanged


def _waits(now: datetime) -> "Condition":
    waits: Condition = CertificateAuthority.activates_at.does_not_exist() | (
        CertificateAuthority.activates_at > int(now.timestamp())
    )
    return waits


def _changed_meanwhile(error: UpdateError | DeleteError) -> Exception:
    if not condition_failed(error):
        return error
    return ConflictError("Somebody else changed it meanwhile; look at it again.", code="ca_changed")


def _place(name: str) -> str:
    return f"{_COLLECTION}/{name}"

"""Reading Apple's lists of devices: all of a server's devices once, and from then on what happened to them.

One run at a time has a server's lease, and goes on until there is nothing to do or its function has to end, then the
next one goes on. It does what is most urgent first:

1. Devices that wait for their profile and are due are given it (:mod:`mdmlib.services.ade_wanted_profiles`).
2. When the rules want something else than before, or a whole list was read again, all devices are looked at.
3. The next page is read. Its devices are stored, its events are published, then the cursor moves. Whoever dies in
   between reads the same page again, which changes nothing and publishes the same events.

Nothing is kept in memory but a page. A cursor is written on the condition that the lease is still the same, so a run
that was taken for dead cannot put an old one back.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from pynamodb.exceptions import UpdateError

from mdmlib import metrics
from mdmlib.apple.ade_codes import FOR_EVERYTHING
from mdmlib.errors import AppleRefusedError, NotFoundError, PicoMDMError, UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.ade_assignment_rules import AdeAssignmentRules, RuleSet
from mdmlib.services.ade_device_events import FETCH_TOPIC, SYNC_TOPIC, page_events
from mdmlib.services.ade_device_records import AdeDeviceRecords
from mdmlib.services.ade_sync_vitals import SYNCS
from mdmlib.services.ade_wanted_profiles import SUCCESS, WantedAdeProfiles
from mdmlib.services.events import EventPublisher
from mdmlib.store.ade_devices import AdeDeviceStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import AdeSync

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

    from mdmlib.clients.ade import AdeClient, DevicePage

FETCH, SYNC = "fetch", "sync"

PAGE: Final = 1_000
"""Devices of a page: the most that Apple gives."""

LEASE: Final = timedelta(minutes=6)
"""Longer than a function lives: who holds an old one is dead. Each page that is done renews it."""

STEP_SECONDS: Final = 130.0
"""The longest that a step takes, with an Apple that answers at the last moment: with less left none is begun."""

_ENDED_CURSORS: Final = frozenset({"CURSOR_REQUIRED", "INVALID_CURSOR", "EXPIRED_CURSOR", "EXHAUSTED_CURSOR"})


class _LeaseLostError(Exception):
    """Somebody else has the server's lease by now."""


class AdeSyncs:
    """Reads the lists of all servers, each by itself."""

    def __init__(
        self,
        *,
        names: Callable[[], Iterable[str]],
        client_of: "Callable[[str], AdeClient]",
        run_later: Callable[[str], None],
        rules: AdeAssignmentRules,
        devices: AdeDeviceStore,
        events: EventPublisher,
        now: Callable[[], datetime],
        page: int = PAGE,
    ) -> None:
        """``names`` are those of the servers that have a token; ``client_of`` raises what there is to say of others.

        ``run_later`` has :meth:`run` called for a server, by another invocation.
        """
        self._names = names
        self._client_of = client_of
        self._run_later = run_later
        self._rules = rules
        self._devices = devices
        self._events = events
        self._now = now
        self._page = page

    def start(self) -> None:
        """Have every server's list read. Raises :class:`~mdmlib.errors.UnavailableError`."""
        for name in self._names():
            self._run_later(name)

    def request(self, server: str) -> None:
        """Have a server's list read now, also when a run that is under way has just come to its end.

        Raises :class:`~mdmlib.errors.NotFoundError` for a server that has no token, and
        :class:`~mdmlib.errors.UnavailableError`.
        """
        if server not in self._names():
            raise NotFoundError(
                f"There is no ADE server {server[:64]!r} that has a token.", code="ade_server_not_found"
            )
        asked_ms = int(self._now().timestamp() * 1000)
        AdeSync(SYNCS, server).update([AdeSync.cls.set(AdeSync), AdeSync.requested_ms.set(asked_ms)])
        self._run_later(server)

    def nudge(self, server: str | None = None) -> None:
        """Have the list of a server read soon, or those of all that have a token; none is no error.

        Never raises for AWS' fault: the schedule comes anyway.
        """
        for name in self._names():
            if server in {None, name}:
                try:
                    self.request(name)
                except UnavailableError:
                    logger.warning("Sync of an ADE server is left to the schedule", server=name)

    def state(self, server: str) -> AdeSync:
        """Return how far a server's list was read. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            return AdeSync.get(SYNCS, server, consistent_read=True)
        except AdeSync.DoesNotExist as error:
            raise NotFoundError(
                f"The list of an ADE server {server[:64]!r} was never read.", code="ade_server_not_synced"
            ) from error

    def run(self, server: str, *, seconds_left: Callable[[], float]) -> None:
        """Go on with a server until there is nothing to do, or too little time left: then another run follows.

        Never raises for what Apple says: it is noted, and the next schedule tries again. Raises
        :class:`~mdmlib.errors.UnavailableError` when nobody can be asked to go on.
        """
        sync = self._take_lease(server)
        if sync is None:
            logger.info("ADE server is being synced already", server=server)
            return
        run = _Run(
            sync,
            client_of=self._client_of,
            rules=self._rules,
            devices=self._devices,
            events=self._events,
            now=self._now,
            page=self._page,
        )
        try:
            is_done = run.go_on(seconds_left)
            is_done = run.release(done=is_done) and is_done
        except _LeaseLostError:
            logger.warning("Sync of an ADE server took too long, another one goes on", server=server)
            return
        except PicoMDMError as error:
            run.fail(error)
            return
        if not is_done:
            self._run_later(server)

    def _take_lease(self, server: str) -> AdeSync | None:
        now = int(self._now().timestamp())
        sync = AdeSync(SYNCS, server)
        actions: list[Action] = [
            AdeSync.cls.set(AdeSync),
            AdeSync.token.add(1),
            AdeSync.lease_until.set(now + int(LEASE.total_seconds())),
        ]
        try:
            sync.update(actions, condition=AdeSync.lease_until.does_not_exist() | (AdeSync.lease_until <= now))
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return None
        return sync


class _Run:
    """One invocation's work for a server, under its lease."""

    def __init__(
        self,
        sync: AdeSync,
        *,
        client_of: "Callable[[str], AdeClient]",
        rules: AdeAssignmentRules,
        devices: AdeDeviceStore,
        events: EventPublisher,
        now: Callable[[], datetime],
        page: int,
    ) -> None:
        self._sync = sync
        self._server = str(sync.name)
        self._token = int(sync.token)
        self._client_of = client_of
        self._all_rules = rules
        self._devices = devices
        self._records = AdeDeviceRecords(devices=devices)
        self._profiles = WantedAdeProfiles(devices=devices)
        self._events = events
        self._now = now
        self._page = page
        self._began_ms = int(now().timestamp() * 1000)
        self._asked_with: set[str] = set()
        self._has_begun_anew = False
        self._has_read_all = False
        # What DynamoDB does not have is None, whatever its default.
        self._phase = str(sync.phase or FETCH)
        self._fetch = int(sync.fetch or 1)
        is_new = sync.started_at is None or sync.finished_at is not None
        self._started_at = int(now().timestamp()) if is_new else int(sync.started_at)
        self._counts: Counter[str] = Counter({} if is_new else sync.counts or {})

    def go_on(self, seconds_left: Callable[[], float]) -> bool:
        """Work until there is nothing to do, or too little time; say whether there is nothing."""
        client = self._client_of(self._server)
        rules = self._all_rules.of(self._server)
        self._look_at_all_if_rules_changed(rules)
        while seconds_left() > STEP_SECONDS:
            if self._assign(client, rules):
                continue
            if self._sync.walk:
                self._look_at_page(rules)
            elif not self._has_read_all:
                self._read_page(client, rules)
            else:
                return True
        return self._has_read_all and not self._sync.walk and not self._profiles.are_due(self._server, self._now())

    def release(self, *, done: bool) -> bool:
        """Give the lease back. When all is done, say whether nobody has asked for a sync since the run began."""
        if not done:
            self._write([AdeSync.finished_at.remove()], ends=True)
            return True
        at = int(self._now().timestamp())
        end = [
            AdeSync.synced_at.set(at),
            AdeSync.finished_at.set(at),
            AdeSync.answered_ms.set(self._began_ms),
            AdeSync.error_code.remove(),
            AdeSync.error.remove(),
            AdeSync.failed_at.remove(),
        ]
        if self._counts["devices"]:
            metrics.emit("ADE server synced", {Metric.ADE_DEVICES_READ: self._counts["devices"]}, server=self._server)
        nobody_asked = AdeSync.requested_ms.does_not_exist() | (AdeSync.requested_ms <= self._began_ms)
        if self._try_to_write(end, nobody_asked, ends=True):
            return True
        self._write(end, ends=True)
        return False

    def fail(self, error: PicoMDMError) -> None:
        """Note why the run did not come to its end, and give the lease back."""
        code = error.apple_code if isinstance(error, AppleRefusedError) else error.code
        logger.warning("ADE server not synced", server=self._server, code=code, reason=error.message)
        if code in FOR_EVERYTHING:
            metrics.emit("ADE server needs an administrator", {Metric.ADE_SERVERS_FAILING: 1}, server=self._server)
        at = int(self._now().timestamp())
        actions = [
            AdeSync.finished_at.set(at),
            AdeSync.answered_ms.set(self._began_ms),
            AdeSync.failed_at.set(at),
            AdeSync.error_code.set(code or error.code),
            AdeSync.error.set(error.message[:1_000]),
        ]
        if not self._try_to_write(actions, ends=True):
            logger.warning("Sync of an ADE server took too long, another one goes on", server=self._server)

    # Profiles

    def _assign(self, client: "AdeClient", rules: RuleSet) -> bool:
        answers = self._profiles.work_off(self._server, client, rules, at=self._now())
        if answers is None:
            return False
        assigned = answers.pop(SUCCESS, 0)
        self._counts["assigned"] += assigned
        self._counts["postponed"] += answers.total()
        self._write([])
        return True

    # All devices

    def _look_at_all_if_rules_changed(self, rules: RuleSet) -> None:
        walk = self._sync.walk
        if (walk["digest"] if walk else self._sync.digest) == rules.digest:
            return
        if self._sync.digest is None and self._sync.cursor is None and self._fetch == 1:
            # There is none yet.
            self._write([AdeSync.digest.set(rules.digest), AdeSync.cursor_at.set(self._started_at)])
        else:
            self._begin_walk(rules, absent=bool(walk and walk["absent"]))

    def _begin_walk(self, rules: RuleSet, *, absent: bool) -> None:
        self._write([AdeSync.walk.set({"position": "", "digest": rules.digest, "absent": absent})])

    def _look_at_page(self, rules: RuleSet) -> None:
        """Look at a page of the devices that are known: what the rules want of them, and whether they are there."""
        walk = self._sync.walk
        now = self._now()
        devices, position = self._devices.page(self._server, walk["position"], limit=self._page)
        changed, events = self._records.look_again(
            self._server, devices, rules, fetch=self._fetch if walk["absent"] else None, at=now
        )
        self._devices.save(self._server, changed)
        self._events.publish_all(events)
        self._counts["looked_at"] += len(devices)
        self._counts["deleted"] += len(events)
        if position is None:
            self._write([AdeSync.walk.remove(), AdeSync.digest.set(walk["digest"])])
        else:
            self._write([AdeSync.walk.set({**walk, "position": position})])

    # Apple's list

    def _read_page(self, client: "AdeClient", rules: RuleSet) -> None:
        cursor = self._sync.cursor
        try:
            if self._phase == FETCH:
                page = client.fetch(cursor=cursor, limit=self._page)
            else:
                page = client.sync(cursor=cursor or "", limit=self._page)
        except AppleRefusedError as refused:
            self._cursor_refused(refused, rules)
            return
        self._asked_with.add(cursor or "")
        self._store(page, rules)
        if page.more_to_follow and page.cursor in self._asked_with:
            raise UnavailableError(
                "Apple says that more devices follow, and gives a cursor that it was asked with before.",
                code="ade_cursor_stuck",
            )
        if page.more_to_follow:
            self._move(page.cursor, self._phase)
        elif self._phase == FETCH:
            self._fetch_is_complete(page.cursor, rules)
        else:
            self._has_read_all = True
            self._move(page.cursor, SYNC)

    def _store(self, page: "DevicePage", rules: RuleSet) -> None:
        """Store a page's devices, and tell of them."""
        now, is_sync = self._now(), self._phase == SYNC
        taken = self._records.take(self._server, page.devices, rules, is_sync=is_sync, fetch=self._fetch, at=now)
        self._devices.save(self._server, taken.devices)
        response = {
            "cursor": page.cursor,
            "devices": taken.records,
            "fetched_until": page.fetched_until,
            "more_to_follow": page.more_to_follow,
        }
        for event in page_events(
            SYNC_TOPIC if is_sync else FETCH_TOPIC,
            self._server,
            response,
            asked_with=self._sync.cursor or f"fetch {self._fetch}",
            asked_at=int(self._sync.cursor_at or 0),
            now=now,
        ):
            self._events.publish(event)
        self._events.publish_all(taken.events)
        self._counts.update(taken.counts)
        self._counts["pages"] += 1
        self._counts["devices"] += len(taken.records)

    def _fetch_is_complete(self, cursor: str | None, rules: RuleSet) -> None:
        """Go over to syncs. Devices that a second fetch did not tell of left the list while nobody could see it."""
        absent = self._fetch > 1
        more = [AdeSync.walk.set({"position": "", "digest": rules.digest, "absent": True})] if absent else []
        self._move(cursor, SYNC, *more)

    def _cursor_refused(self, refused: AppleRefusedError, rules: RuleSet) -> None:
        if refused.apple_code not in _ENDED_CURSORS:
            raise refused
        if self._phase == FETCH and refused.apple_code == "EXHAUSTED_CURSOR":
            self._fetch_is_complete(self._sync.cursor, rules)
            return
        if self._has_begun_anew:
            raise refused
        logger.warning("ADE server is fetched anew", server=self._server, code=refused.apple_code)
        self._has_begun_anew = True
        self._fetch += 1
        self._move(None, FETCH)

    def _move(self, cursor: str | None, phase: str, *more: "Action") -> None:
        """Write down how far the list was read. From then on it goes on behind that."""
        self._phase = phase
        self._write(
            [
                AdeSync.cursor.set(cursor) if cursor else AdeSync.cursor.remove(),
                AdeSync.cursor_at.set(int(self._now().timestamp())),
                AdeSync.phase.set(phase),
                AdeSync.fetch.set(self._fetch),
                *more,
            ]
        )

    def _write(self, actions: "Sequence[Action]", *, ends: bool = False) -> None:
        """Write down how far the run is, and renew the lease. Raises when it is somebody else's by now."""
        if not self._try_to_write(actions, ends=ends):
            raise _LeaseLostError

    def _try_to_write(
        self,
        actions: "Sequence[Action]",
        condition: Any = None,  # noqa: ANN401 - pynamodb's
        *,
        ends: bool = False,
    ) -> bool:
        """Say whether the lease was still ours; ``ends`` gives it back."""
        lease_until = 0 if ends else int((self._now() + LEASE).timestamp())
        state = [
            AdeSync.lease_until.set(lease_until),
            AdeSync.started_at.set(self._started_at),
            AdeSync.counts.set(dict(self._counts)),
        ]
        mine = AdeSync.token == self._token
        try:
            self._sync.update([*actions, *state], condition=mine & condition if condition is not None else mine)
        except UpdateError as error:
            if not condition_failed(error):
                raise
            return False
        return True

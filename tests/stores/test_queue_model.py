"""The queue's rules as a model of a page, and devices that do anything in any order, also at once.

The model is spec enough: what waits, in what order, what was deferred, what was finished, and which life of which
channel it all belongs to. Hypothesis makes up the days of two devices and their users, and after each step what the
devices get has to be what the model says. ``MODEL_DAYS=500 pytest tests/stores/test_queue_model.py`` makes up more.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from mdmlib.errors import ConflictError, IdentityError, NotFoundError
from mdmlib.store import tables
from mdmlib.store.tables import CommandResult, EnrollmentItem
from tests.fleet import Fleet, FleetDevice

DAYS = int(os.environ.get("MODEL_DAYS", "7"))
STEPS = 30
CHANNELS = ("D0", "D0:U0", "D1")
FINAL = ("Acknowledged", "Error", "CommandFormatError", "OfTomorrow")

channels = st.sampled_from(CHANNELS)
devices = st.sampled_from([name for name in CHANNELS if ":" not in name])
places = st.integers(0, 4)
"""The how-many-eth of what there is to choose from."""


@dataclass
class Command:
    """A command as it was accepted."""

    uuid: str
    order: tuple[int, int]
    """Priority, the most urgent first; then acceptance."""
    not_before: float
    expires_at: float


@dataclass
class Channel:
    """What the rules say of one channel."""

    device: str
    state: str = "unknown"
    """``unknown``, ``authenticated``, ``enrolled``, ``ended``."""
    tally: int = 0
    waiting: dict[str, Command] = field(default_factory=dict)
    deferred: set[str] = field(default_factory=set)
    results: dict[str, str] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.state in {"authenticated", "enrolled"}

    def begin(self, state: str) -> None:
        self.state = state
        self.drop()

    def drop(self) -> None:
        self.waiting.clear()
        self.deferred.clear()

    def end(self) -> None:
        if self.state != "unknown":
            self.begin("ended")

    def queue(self, command: Command) -> None:
        """What was finished never comes back; what waits already keeps its place."""
        if command.uuid not in self.results:
            self.waiting.setdefault(command.uuid, command)

    def settle(self, uuid: str, status: str, *, exists: bool) -> None:
        """A final status settles a command, the first one counts; NotNow defers it."""
        if status == "NotNow":
            self.deferred |= {uuid} & set(self.waiting)
            return
        self.waiting.pop(uuid, None)
        self.deferred.discard(uuid)
        if exists:
            self.results.setdefault(uuid, status)

    def next(self, now: float, *, answered: str | None = None, status: str = "Idle") -> str | None:
        """The first by priority and acceptance; not what was just answered, nor what is deferred while deferring."""
        if not self.is_live:
            return None
        for command in sorted(self.waiting.values(), key=lambda command: command.order):
            skipped = command.uuid == answered or (status == "NotNow" and command.uuid in self.deferred)
            if not skipped and command.not_before <= now < command.expires_at:
                return command.uuid
        return None


class Days(RuleBasedStateMachine):
    """What may happen."""

    fleet: Fleet
    numbers = count()

    def __init__(self) -> None:
        super().__init__()
        self.day = next(self.numbers)
        self.model = {name: Channel(name.partition(":")[0]) for name in CHANNELS}
        self.commands: dict[str, tuple[Command, dict[str, Any]]] = {}
        self.accepted = count()
        self.real = {name: self.channel(name) for name in CHANNELS}

    def channel(self, name: str) -> FleetDevice:
        """Devices of each day are others."""
        udid, _, user = name.partition(":")
        device = FleetDevice(self.fleet, f"{udid}-{self.day}")
        return device.user(user) if user else device

    @property
    def now(self) -> float:
        return self.fleet.clock().timestamp()

    def new_command(self, priority: int, later: int, lasting: int) -> str:
        """Accept a command that goes out in ``later`` hours and expires in ``lasting``."""
        uuid = f"C{self.day}-{len(self.commands)}"
        at = self.fleet.clock()
        not_before, expires_at = at + timedelta(hours=later), at + timedelta(hours=lasting)
        options = {"priority": priority, "expires_at": expires_at, "not_before": not_before if later else None}
        command = Command(
            uuid, (-priority, next(self.accepted)), not_before.timestamp() if later else 0, expires_at.timestamp()
        )
        self.commands[uuid] = command, options
        return uuid

    def enqueue(self, uuid: str, names: list[str]) -> dict[str, str | None]:
        """Queue a command; return what went wrong, by channel."""
        _, options = self.commands[uuid]
        ids = {name: str(self.real[name]) for name in names}
        outcome = self.fleet.enqueue(list(ids.values()), uuid, push=False, **options)
        errors = {name: outcome.targets[id_].command_error for name, id_ in ids.items()}
        return {name: error.code if error else None for name, error in errors.items()}

    def expected_errors(self, names: list[str]) -> dict[str, str | None]:
        states = {"unknown": "unknown_enrollment", "ended": "enrollment_ended"}
        return {name: states.get(self.model[name].state) for name in names}

    def refused_if(self, condition: object, act: Callable[[], object]) -> None:
        if condition:
            with pytest.raises(IdentityError):
                act()
        else:
            act()

    # Devices enroll and leave

    @initialize()
    def one_is_enrolled_and_has_something_to_do(self) -> None:
        self.authenticate_several_times("D0", 1)
        self.token_update("D0")
        self.user_token_update("D0:U0")
        self.queue_commands(["D0", "D0:U0"], [(5, 0, 2_000)] * 3)

    @rule(name=devices, at_once=st.sampled_from([1, 3]))
    def authenticate_several_times(self, name: str, at_once: int) -> None:
        """One enrollment begins, however often its message comes: answers get lost."""
        number = str(next(self.numbers))
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda _: self.real[name].authenticate(BuildVersion=number), range(at_once)))
        generation = self.real[name].record.generation
        self.real[name].authenticate(BuildVersion=number)
        assert self.real[name].record.generation == generation
        self.begin(name)

    def end(self, name: str) -> None:
        """A device takes its users with it."""
        for other_name, other in self.model.items():
            if name in {other_name, other.device}:
                other.end()

    def begin(self, name: str) -> None:
        self.end(name)
        self.model[name].begin("authenticated")
        self.model[name].tally = 0

    @rule(name=devices)
    def token_update(self, name: str) -> None:
        channel = self.model[name]
        token = next(self.numbers).to_bytes(8, "big")
        self.refused_if(not channel.is_live, lambda: self.real[name].token_update(token))
        if channel.is_live:
            channel.state, channel.tally = "enrolled", channel.tally + 1

    @rule(name=st.just("D0:U0"))
    def user_token_update(self, name: str) -> None:
        channel = self.model[name]
        device_is_live = self.model[channel.device].is_live
        token = next(self.numbers).to_bytes(8, "big")
        self.refused_if(not device_is_live, lambda: self.real[name].token_update(token))
        if device_is_live:
            if not channel.is_live:
                channel.begin("enrolled")
                channel.tally = 0
            channel.tally += 1

    @rule(name=channels)
    def check_out(self, name: str) -> None:
        channel = self.model[name]
        unknown = channel.state == "unknown" or self.model[channel.device].state == "unknown"
        self.refused_if(unknown, self.real[name].check_out)
        self.end(name)

    # Administrators

    @rule(
        names=st.lists(channels, min_size=1, max_size=4),
        commands=st.lists(
            st.tuples(st.sampled_from([5, 5, 5, 1, 9]), st.sampled_from([0, 0, 0, 5]), st.sampled_from([2_000, 8])),
            min_size=1,
            max_size=3,
        ),
    )
    def queue_commands(self, names: list[str], commands: list[tuple[int, int, int]]) -> None:
        for priority, later, lasting in commands:
            uuid = self.new_command(priority, later, lasting)
            assert self.enqueue(uuid, names) == self.expected_errors(names)
            self.note_queued(uuid, names)

    def note_queued(self, uuid: str, names: list[str]) -> None:
        for name in names:
            if self.model[name].is_live:
                self.model[name].queue(self.commands[uuid][0])

    @rule(name=channels, place=places)
    def queue_the_same_again(self, name: str, place: int) -> None:
        """A request that is repeated, or made for another, is resumed. Nobody accepted it if all were refused."""
        uuid, names = self.uuid_at(place), [name]
        command, _ = self.commands.get(uuid, (None, None))
        if command is None or command.expires_at <= self.now or not self.was_accepted(uuid):
            return
        assert self.enqueue(uuid, names) == self.expected_errors(names)
        self.note_queued(uuid, names)

    @rule(name=channels)
    def clear(self, name: str) -> None:
        """One write, which everybody sees at once."""
        error = self.fleet.queues.clear([str(self.real[name])])[str(self.real[name])]
        assert isinstance(error, NotFoundError) == (self.model[name].state == "unknown")
        self.model[name].drop()

    @rule(name=channels, place=places)
    def cancel(self, name: str, place: int) -> None:
        channel, uuid = self.model[name], self.uuid_at(place)
        if not channel.is_live:
            return
        expected = ConflictError if uuid in channel.results else None if uuid in channel.waiting else NotFoundError
        if expected:
            with pytest.raises(expected):
                self.fleet.queues.cancel(str(self.real[name]), uuid)
        else:
            self.fleet.queues.cancel(str(self.real[name]), uuid)
            channel.waiting.pop(uuid)
            channel.deferred.discard(uuid)

    @rule()
    def sweep(self) -> None:
        self.fleet.sweep()

    @rule(hours=st.integers(1, 6))
    def time_goes_by(self, hours: int) -> None:
        self.fleet.clock.advance(hours=hours)

    # Devices connect

    @rule(name=channels)
    def idle(self, name: str) -> None:
        self.report(name, "Idle", None)

    @rule(name=channels, status=st.sampled_from(["NotNow", "NotNow", *FINAL]))
    def answer_what_was_given(self, name: str, status: str) -> None:
        given = self.model[name].next(self.now)
        if given:
            self.report(name, status, given)

    @rule(name=channels, place=places, status=st.sampled_from(["NotNow", *FINAL]))
    def answer_anything(self, name: str, place: int, status: str) -> None:
        """Also what was cleared, answered already, of another enrollment, or never there."""
        self.report(name, status, self.uuid_at(place))

    def report(self, name: str, status: str, uuid: str | None) -> None:
        channel = self.model[name]
        unknown = "unknown" in {channel.state, self.model[channel.device].state}
        if unknown:
            with pytest.raises(IdentityError):
                self.real[name].report(status, uuid)
            return
        if uuid:
            channel.settle(uuid, status, exists=self.was_accepted(uuid))
        assert self.real[name].report(status, uuid) == channel.next(self.now, answered=uuid, status=status)

    # At once

    @rule(name=channels, status=st.sampled_from(FINAL))
    def answer_several_times_at_once(self, name: str, status: str) -> None:
        channel = self.model[name]
        given = channel.next(self.now)
        if not given:
            return
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: self.real[name].report(status, given), range(3)))
        channel.settle(given, status, exists=True)
        assert set(answers) == {channel.next(self.now, answered=given, status=status)}

    @rule(name=channels, status=st.sampled_from(["NotNow", *FINAL]))
    def answer_while_something_is_queued(self, name: str, status: str) -> None:
        channel = self.model[name]
        given = channel.next(self.now)
        if not given:
            return
        uuid = self.new_command(5, 0, 2_000)
        with ThreadPoolExecutor(2) as pool:
            queued = pool.submit(self.enqueue, uuid, [name])
            answer = pool.submit(self.real[name].report, status, given).result()
        channel.settle(given, status, exists=True)
        before = channel.next(self.now, answered=given, status=status)
        assert queued.result() == {name: None}
        self.note_queued(uuid, [name])
        assert answer in {before, channel.next(self.now, answered=given, status=status)}

    @rule(name=channels, how=st.sampled_from(["authenticate", "clear", "check out"]))
    def queue_while_the_queue_ends(self, name: str, how: str) -> None:
        """Whoever queues is told that it was for nothing, unless it was before, or after."""
        channel = self.model[name]
        if not channel.is_live:
            return
        uuid = self.new_command(5, 0, 2_000)
        device = channel.device
        number = str(next(self.numbers))
        ends = {
            "authenticate": lambda: self.real[device].authenticate(BuildVersion=number),
            "clear": lambda: self.fleet.queues.clear([str(self.real[name])]),
            "check out": self.real[device].check_out,
        }
        with ThreadPoolExecutor(2) as pool:
            queued = pool.submit(self.enqueue, uuid, [name])
            pool.submit(ends[how]).result()
        if how == "authenticate":
            self.begin(device)
        elif how == "clear":
            channel.drop()
        else:
            self.end(device)
        error = queued.result()[name]
        assert error in {None, "cleared", "enrollment_ended"}
        found = self.real[name].idle() == uuid
        assert not (found and error), "what goes out was not reported as queued"
        if found:
            self.note_queued(uuid, [name])

    # And then

    @invariant()
    def tallies_and_states_are_as_they_should(self) -> None:
        for name, channel in self.model.items():
            if channel.is_live:
                record = self.real[name].record
                assert (record.state, record.token_update_tally) == (channel.state, channel.tally)

    def teardown(self) -> None:
        """Let the time of everything come, and take it all."""
        self.fleet.clock.advance(hours=6)
        for name, channel in self.model.items():
            while (given := channel.next(self.now)) is not None:
                assert self.real[name].idle() == given
                self.report(name, "Acknowledged", given)
            if channel.state != "unknown":
                stored = EnrollmentItem.query(
                    str(self.real[name]), EnrollmentItem.item.startswith(tables.RESULT), consistent_read=True
                )
                results = {item.command_uuid: item.status for item in stored if isinstance(item, CommandResult)}
                assert results == channel.results

    def uuid_at(self, place: int) -> str:
        """Return one of the last commands, or one that never was."""
        uuids = list(self.commands)
        return uuids[-1 - place] if place < len(uuids) else "NEVER"

    def was_accepted(self, uuid: str) -> bool:
        """Say whether there is such a command: one for nobody is not stored."""
        return any(uuid in {*channel.waiting, *channel.results} for channel in self.model.values()) or (
            uuid in self.commands and self.fleet.queue.result_and_command("-", uuid)[1] is not None
        )


def test_whatever_devices_do_they_get_what_the_rules_say(fleet: Fleet) -> None:
    machine = type("Days", (Days,), {"fleet": fleet})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=DAYS,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Pushing again, and telling of silence: who is woken, who is left alone, and what a second run does."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mdmlib.errors import MalformedBodyError
from mdmlib.services import push_again, stale_enrollments
from mdmlib.services.push_queue import PushMessage
from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from tests.event_schemas import assert_conforms
from tests.fleet import TOPIC, Fleet, FleetDevice


class Site:
    """A fleet, and what housekeeping does for it by the clock."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        tables.PushCertificate(
            "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
        ).save()

    def run(self, task: str = "push_again") -> None:
        self.fleet.housekeeping.run(task)
        self.fleet.sweep()

    def woken(self) -> list[str]:
        """Return who was pushed to since the last call."""
        url, found = self.fleet.settings.push_queue_url, []
        while messages := self.fleet.emulator.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                decoded = PushMessage.decode(message["Body"], self.fleet.sealer)
                found += [target.enrollment_id for target in decoded.targets]
                self.fleet.emulator.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return sorted(found)

    def device(self, udid: str = "D1", **options: Any) -> FleetDevice:
        """Return a device with a command that nobody told it of."""
        device = self.fleet.device(udid)
        self.fleet.enqueue([device], f"C-{udid}", push=False, **options)
        return device

    def hours(self, count: int) -> list[int]:
        """Let so many hours pass; return those in which somebody was woken."""
        woken = []
        for hour in range(1, count + 1):
            self.fleet.clock.advance(hours=1)
            self.run()
            if self.woken():
                woken.append(hour)
        return woken

    def stale(self) -> list[dict[str, Any]]:
        """Look for silence; return the events."""
        self.fleet.bus.take()
        self.run("find_stale")
        events = self.fleet.bus.take()
        for event in events:
            assert_conforms(event)
        return [event["stale_event"] | {"event_id": event["event_id"]} for event in events]


@pytest.fixture
def site(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(tables, "SHARDS", 1)
    site = Site(fleet)
    site.run()
    return site


def test_a_device_is_woken_after_an_hour_after_four_and_then_once_a_day(site: Site) -> None:
    site.device()
    site.fleet.clock.advance(minutes=30)

    # It is noon; the shard's hour is midnight, and a day later is 36 hours later.
    assert site.hours(61) == [1, 4, 36, 60]


def test_who_has_answered_is_left_alone(site: Site) -> None:
    device = site.device()
    device.acknowledge("C-D1")

    assert site.hours(5) == []


def _disabled(device: FleetDevice) -> None:
    device.check_out()


def _blocked(device: FleetDevice) -> None:
    device.record.update([Enrollment.blocked.set(True)])


def _unregistered(device: FleetDevice) -> None:
    device.record.update([Enrollment.push_failure.set("Unregistered")])


def _cleared(device: FleetDevice) -> None:
    device.fleet.queues.clear([str(device)])
    assert device.record.state == "enrolled"


def _deferred(device: FleetDevice) -> None:
    device.not_now(str(device.idle()))


@pytest.mark.parametrize("why", [_disabled, _blocked, _unregistered, _cleared, _deferred])
def test_nobody_is_woken_in_vain(site: Site, why: Callable[[FleetDevice], None]) -> None:
    why(site.device("D1"))
    site.device("D2")
    site.fleet.clock.advance(hours=1)
    site.run()

    assert site.woken() == ["D2"]


def test_a_command_wakes_nobody_before_its_time_nor_after_its_end(site: Site) -> None:
    now = site.fleet.clock()
    site.device("D1", not_before=now + timedelta(hours=3))
    site.device("D2", expires_at=now + timedelta(minutes=50))

    assert site.hours(4) == [4]
    assert site.woken() == []


def test_a_user_channel_is_left_alone_when_its_device_enrolled_anew(site: Site) -> None:
    device = site.fleet.device("D1")
    user = device.user()
    user.token_update()
    site.fleet.enqueue([user], "C1", push=False)
    device.authenticate()
    device.token_update()

    assert site.hours(4) == []


def test_a_run_that_was_left_out_is_made_up_for_and_one_that_comes_twice_is_none(site: Site) -> None:
    site.device()
    site.fleet.clock.advance(hours=2, minutes=30)
    site.run()
    assert site.woken() == ["D1"]
    site.fleet.clock.advance(minutes=5)
    site.run()

    assert site.woken() == []


def test_many_are_woken_page_by_page_and_each_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SHARDS", 4)
    monkeypatch.setattr(push_again, "_PAGE", 1)
    devices = [site.device(f"D{number}") for number in range(10)]
    site.fleet.clock.advance(hours=1)
    site.run()

    assert site.woken() == sorted(map(str, devices))


def test_silence_is_told_of_once_at_each_stage(site: Site) -> None:
    device = site.fleet.device()
    stages = []
    for _ in range(26):
        stages += [event["stage"] for event in site.stale()]
        site.fleet.clock.advance(days=5)
    assert stages == [30, 60, 120]
    device.idle()
    assert site.stale() == []
    site.fleet.clock.advance(days=31)

    (event,) = site.stale()

    assert event["stage"] == 30
    assert event["days_silent"] == 31


def test_an_event_that_is_told_of_again_is_the_same(site: Site) -> None:
    device = site.fleet.device()
    site.fleet.clock.advance(days=30)
    (first,) = site.stale()
    device.record.update([Enrollment.stale_stage.remove(), Enrollment.stale_since.remove()])
    site.fleet.clock.advance(days=1)
    (second,) = site.stale()

    assert first["event_id"] == second["event_id"]


@pytest.mark.parametrize("why", [_disabled, _blocked])
def test_of_who_is_not_managed_any_more_nobody_is_told(site: Site, why: Callable[[FleetDevice], None]) -> None:
    why(site.fleet.device())
    site.fleet.clock.advance(days=40)

    assert site.stale() == []


def test_a_user_channel_may_be_silent(site: Site) -> None:
    device = site.fleet.device()
    device.user().token_update()
    site.fleet.clock.advance(days=40)
    device.idle()

    assert site.stale() == []


def test_nothing_is_told_of_where_that_is_not_wanted(site: Site) -> None:
    site.fleet.settings = replace(site.fleet.settings, stale_days=0)
    site.fleet.device()
    site.fleet.clock.advance(days=40)

    assert site.stale() == []


def test_the_silent_are_found_in_every_shard_page_by_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SHARDS", 4)
    monkeypatch.setattr(stale_enrollments, "_PAGE", 1)
    for number in range(10):
        site.fleet.device(f"D{number}")
    site.fleet.clock.advance(days=30)

    assert len(site.stale()) == 10


@pytest.mark.parametrize(
    "message",
    [
        {"task": "push_again"},
        {"task": "push_again", "shard": "g", "since": 0, "until": 1},
        {"task": "push_again", "shard": "0", "since": "0", "until": 1},
        {"task": "push_again", "shard": "0", "since": 0, "until": 1, "after": "x"},
        {"task": "find_stale"},
        {"task": "find_stale", "shard": "10"},
        {"task": "find_stale", "shard": "0", "after": 1},
    ],
)
def test_a_message_that_names_nothing_stays(fleet: Fleet, message: dict[str, Any]) -> None:
    with pytest.raises(MalformedBodyError):
        fleet.housekeeping.take_up(json.dumps(message))

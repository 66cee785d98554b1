"""Apple's lists of devices, read into the tables: every cursor, two runs at once, and Apple on its bad days."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Literal

import httpx
import pytest

from local.ade.client import AdeSimulator
from local.emulator import Emulator
from mdmlib.clients.ade import AdeClient
from mdmlib.services.ade_assignment_rules import Rule
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from tests.ade_world import AdeWorld
from tests.aws_calls import watch
from tests.deployment import Clock
from tests.event_schemas import assert_conforms
from tests.interruptions import before_next_write


@pytest.fixture
def world(ade: AdeSimulator, aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Iterator[AdeWorld]:
    world = AdeWorld(ade, aws, settings, sealer, clock)
    yield world
    for client in world.made:
        client.close()


def test_a_list_is_fetched_once_and_followed_from_then_on(world: AdeWorld) -> None:
    there = world.server()
    bought = world.control.buy(there, count=7, device_family="Mac")

    world.sync()
    assert world.control.server(there)["fetches"] == 1
    assert {world.device(serial).device_family for serial in bought} == {"Mac"}
    assert world.told() == []

    deadline = "2027-01-31T12:00:00Z"
    world.control.modify(there, bought[:1], mdm_migration_deadline=deadline)
    world.control.remove(there, bought[1:2])
    (new,) = world.control.buy(there)
    world.sync()

    assert world.control.server(there)["fetches"] == 1
    assert world.device(bought[0]).record["mdm_migration_deadline"] == deadline
    assert world.device(bought[1]).deleted_at is not None
    assert world.device(new).deleted_at is None
    assert sorted(world.told()) == [
        ("dep.DeviceAdded", new),
        ("dep.DeviceDeleted", bought[1]),
        ("dep.DeviceModified", bought[0]),
    ]


def test_nanodeps_events_tell_of_each_page_under_the_same_ids_when_it_is_read_again(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=4)
    world.sync()
    world.control.buy(there, count=2)

    before = world.state()
    world.sync()
    first = world.bus.take()
    # As if the function had died when all was stored and told, before the cursor moved.
    tables.AdeSync("ade_sync", "school").update(
        [tables.AdeSync.cursor.set(before.cursor), tables.AdeSync.cursor_at.set(before.cursor_at)]
    )
    world.clock.advance(minutes=15)
    world.sync()
    again = world.bus.take()

    topics = [document["topic"] for document in first]
    assert (topics.count("dep.FetchDevices"), topics.count("dep.SyncDevices")) == (2, 1)
    synced = {document["event_id"] for document in first if document["topic"] != "dep.FetchDevices"}
    assert {document["event_id"] for document in again} == synced
    for document in (*first, *again):
        assert_conforms(document)


class DiedError(Exception):
    pass


Moment = Literal["before", "after"]


@contextmanager
def dying(moment: Moment, number: int) -> Iterator[list[str]]:
    """Let a function die at its so-many-th write: before or after it reached DynamoDB; tell which that was."""
    left, died = [number], list[str]()
    writes = ("UpdateItem", "BatchWriteItem")

    def die(operation: str, _: object) -> None:
        if operation in writes and not died:
            left[0] -= 1
            if left[0] == 0:
                died.append(operation)
                raise DiedError

    forget = watch(tables.dynamodb_client(), **{moment: die})
    yield died
    forget()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_wherever_a_function_dies_the_next_one_makes_up_for_it(
    world: AdeWorld, moment: Literal["before", "after"]
) -> None:
    deaths = []
    for number in count(1):
        name = f"school{number}"
        there = world.server(name)
        uuid = world.define("pupils", name)
        world.rule(f"all of {number}".replace(" ", "-"), server=name, profile="pupils")
        bought = world.control.buy(there, count=4)
        with dying(moment, number) as died, suppress(DiedError):
            world.sync(name)
        world.asked_for.clear()
        world.clock.advance(minutes=10)
        world.sync(name)

        assert {world.control.device(serial)["profile_uuid"] for serial in bought} == {uuid}
        known = world.store.get_many(name, bought)
        assert {serial: device.assignment for serial, device in known.items()} == dict.fromkeys(bought, "assigned")
        assert world.waiting(name) == []
        assert world.state(name).error_code is None
        told: dict[str, list[str]] = {}
        for document in world.bus.take():
            devices = document["device_response_event"]["device_response"]["devices"]
            # Told again, it is the same event about the same devices.
            serials = [device["serial_number"] for device in devices]
            assert told.setdefault(document["event_id"], serials) == serials
        assert sorted(serial for serials in told.values() for serial in serials) == sorted(bought)
        if not died:
            break
        deaths += died
    assert len(deaths) > 8


def test_a_cursor_that_apple_knows_no_more_has_the_list_fetched_anew_and_tells_what_changed_meanwhile(
    world: AdeWorld,
) -> None:
    there = world.server()
    bought = world.control.buy(there, count=5)
    world.sync()
    world.control.remove(there, bought[:1])
    (new,) = world.control.buy(there)
    world.control.expire("cursors")
    world.bus.take()

    world.sync()

    assert world.control.server(there)["fetches"] == 2
    assert world.device(bought[0]).deleted_at is not None
    assert [world.device(serial).deleted_at for serial in (*bought[1:], new)] == [None] * 5
    assert sorted(world.told()) == [("dep.DeviceAdded", new), ("dep.DeviceDeleted", bought[0])]


def test_a_fetch_that_was_broken_off_goes_on_where_it_was(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=8)
    world.control.behave(answer_status=503, answer_times=1, answer_after=True)
    world.sync()
    assert world.state().error_code == "apple_unavailable"
    assert world.state().cursor is None

    calls = iter([300.0, 300.0, 50.0, 50.0])
    world.syncs.run("school", seconds_left=lambda: next(calls))
    assert world.asked_for == ["school"]
    assert world.state().phase == "fetch"

    world.asked_for.clear()
    world.sync()
    assert world.state().phase == "sync"
    assert world.state().error_code is None
    assert world.state().synced_at is not None
    assert world.control.server(there)["fetches"] == 2  # The one whose answer was lost, and this.


def test_an_exhausted_cursor_ends_a_fetch(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=2)
    world.sync()
    # As if the page's answer said that more follows, or nobody noted that it was the last.
    tables.AdeSync("ade_sync", "school").update([tables.AdeSync.phase.set("fetch")])
    world.sync()
    assert world.state().phase == "sync"
    assert world.state().error_code is None
    assert world.control.server(there)["fetches"] == 1


def test_a_cursor_that_does_not_move_ends_the_run_and_is_said(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=2)
    world.sync()
    bought = world.control.buy(there, count=2)
    world.control.behave(stuck_cursor=True)
    before = len(world.control.requests())

    world.sync()

    assert len(world.control.requests()) - before <= 2
    assert world.state().error_code == "ade_cursor_stuck"
    assert set(world.store.get_many("school", bought)) == set(bought)
    world.control.behave()
    world.sync()
    assert world.state().error_code is None


NONSENSE = (
    "7",
    "null",
    '"AAA0"',
    "{}",
    '{"serial_number": 7}',
    '{"serial_number": "A#B"}',
    f'{{"serial_number": "{"A" * 65}"}}',
    f'{{"serial_number": "AAA1", "description": "{"x" * 300_000}"}}',
)
STRANGE = {
    "BBB1": r'"model": "\ud800x", "\uDFFF": 1, "description": "\ud83d\ude00"',
    "BBB2": '"model": NaN, "x": -Infinity',
    "BBB3": '"model": 5, "device_family": [], "op_type": {}, "op_date": [1], "profile_uuid": 7',
    "BBB4": '"op_type": "modified", "op_date": "0001-01-01T00:00:00+14:00", "profile_assign_time": "soon"',
    "BBB5": f'"x": {"[" * 200}{"]" * 200}, "y": 1{"0" * 400}, "": "a\\u0000b"',
}


@pytest.mark.parametrize("path", ["/server/devices", "/devices/sync"])
def test_a_device_that_makes_no_sense_keeps_no_other_from_being_read(
    world: AdeWorld, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    world.server()
    if path == "/devices/sync":
        world.sync()
    exchange, answers = AdeClient._exchange, list[str]()

    def stub(client: AdeClient, method: str, asked: str, **more: Any) -> httpx.Response:
        if asked in {path, "/devices/sync"}:
            return httpx.Response(200, text=answers[0] if asked == path else '{"cursor": "over", "devices": []}')
        return exchange(client, method, asked, **more)

    monkeypatch.setattr(AdeClient, "_exchange", stub)
    # What cannot be read at all is not taken for a page; the cursor stays where it was.
    before = tables.AdeSync.get("ade_sync", "school").cursor if path == "/devices/sync" else None
    answers.append('{"cursor": "over", "devices": ' + "[" * 100_000 + "]" * 100_000 + "}")
    world.sync()
    assert (world.state().error_code, world.state().cursor) == ("apple_unusable", before)

    strange = [f'{{"serial_number": "{serial}", {more}}}' for serial, more in STRANGE.items()]
    devices = ",".join([*NONSENSE, *strange, '{"serial_number": "GOOD1", "model": "iPad"}'])
    answers[0] = f'{{"cursor": "over", "more_to_follow": false, "devices": [{devices}]}}'
    world.sync()

    assert world.state().error_code is None
    assert world.device("GOOD1").model == "iPad"
    assert world.device("BBB1").record["description"] == "\N{GRINNING FACE}"
    assert world.device("BBB2").record["model"] is None
    assert {world.device(serial).model for serial in STRANGE} == {None, "\ufffdx"}
    told = world.bus.take()
    assert {document["topic"] for document in told} >= {f"dep.{'SyncDevices' if 'sync' in path else 'FetchDevices'}"}
    for document in told:
        assert_conforms(document)


def test_two_runs_at_once_do_not_fight(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=7)
    # The second one comes when the first one has the lease and has not read anything yet.
    another = world.another()
    before_next_write(lambda: before_next_write(lambda: another.run("school", seconds_left=lambda: 300)))

    world.sync()

    assert world.control.server(there)["fetches"] == 1
    assert int(world.state().token) == 1


def test_a_run_that_was_taken_for_dead_does_not_put_its_cursor_back(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=7)
    world.sync()
    bought = world.control.buy(there, count=2)

    def sleep() -> None:
        world.clock.advance(minutes=10)
        world.another().run("school", seconds_left=lambda: 300)

    # Its own lease is written first; what it does next it does too late.
    before_next_write(lambda: before_next_write(sleep))
    world.sync()
    behind = world.state().cursor

    assert set(world.store.get_many("school", bought)) == set(bought)
    assert world.state().finished_at is not None
    world.sync()
    assert world.state().error_code is None
    assert behind is not None


def test_somebody_who_asks_while_a_run_ends_is_not_left_out(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there)
    world.syncs.request("school")
    world.asked_for.clear()
    world.clock.advance(seconds=1)
    assert world.sync() == 1

    def ask() -> None:
        world.clock.advance(seconds=1)
        world.syncs.request("school")
        world.asked_for.clear()

    before_next_write(lambda: before_next_write(ask))
    assert world.sync() == 2


def test_terms_and_tokens_are_told_until_somebody_acts_and_nothing_is_lost(world: AdeWorld) -> None:
    there = world.server()
    world.control.sign_terms(there, signed=False)
    bought = world.control.buy(there)
    world.sync()
    assert world.state().error_code == "T_C_NOT_SIGNED"
    assert "accept" in world.state().error
    world.control.sign_terms(there)

    stale = world.clients["school"]
    world.renew("school")
    fresh, world.clients["school"] = world.clients["school"], stale
    world.sync()
    assert world.state().error_code == "TOKEN_REFUSED"
    assert world.state().synced_at is None

    world.clients["school"] = fresh
    world.sync()
    assert world.state().error_code is None
    assert world.device(bought[0]).deleted_at is None


def test_each_server_has_a_list_of_its_own_and_a_device_that_moves_is_kept_in_both(world: AdeWorld) -> None:
    school, office = world.server("school"), world.server("office")
    bought = world.control.buy(school, count=2)
    world.sync()
    world.sync("office")
    world.control.buy(office, bought[:1])
    world.sync()
    world.sync("office")

    assert world.device(bought[0]).deleted_at is not None
    assert world.device(bought[0], "office").deleted_at is None
    found = world.store.of_serial(bought[0], ["school", "office"])
    assert {server: device.deleted_at is None for server, device in found.items()} == {"school": False, "office": True}


def test_a_list_of_many_pages_takes_several_runs_and_no_more_memory(world: AdeWorld) -> None:
    there = world.server()
    world.control.buy(there, count=20)
    left = iter(float(seconds) for seconds in [300, 50] * 30)
    world.asked_for.append("school")
    runs = 0
    while world.asked_for:
        world.syncs.run(world.asked_for.pop(), seconds_left=lambda: next(left))
        runs += 1
    assert runs > 5
    assert world.control.server(there)["fetches"] == 1
    assert (world.state().counts["devices"], world.state().counts["pages"]) == (20, 8)


# Profiles


def test_new_devices_get_the_profile_that_the_rules_want(world: AdeWorld) -> None:
    there = world.server()
    uuid = world.define()
    world.rule(profile="pupils")
    bought = world.control.buy(there, count=5)

    world.sync()

    assert {world.control.device(serial)["profile_uuid"] for serial in bought} == {uuid}
    device = world.device(bought[0])
    assert (device.assignment, device.rule, device.wanted_profile, device.profile_uuid) == (
        "assigned",
        "all",
        "pupils",
        uuid,
    )
    assert world.waiting() == []


def test_a_rule_is_for_devices_that_were_there_before_it_too(world: AdeWorld) -> None:
    there = world.server()
    bought = world.control.buy(there, count=5)
    world.sync()
    assert world.device(bought[0]).assignment == "none"
    uuid = world.define()
    world.rule(profile="pupils")

    world.sync()

    assert {world.control.device(serial)["profile_uuid"] for serial in bought} == {uuid}


def test_a_profile_that_is_defined_anew_is_assigned_anew(world: AdeWorld) -> None:
    there = world.server()
    world.define()
    world.rule(profile="pupils")
    bought = world.control.buy(there, count=4)
    world.sync()
    uuid = world.define()

    world.sync()

    assert {world.control.device(serial)["profile_uuid"] for serial in bought} == {uuid}
    before = len(world.control.requests())
    world.sync()
    assert [each["path"] for each in world.control.requests()[before:]] == ["/devices/sync"]


def test_the_most_precise_rule_decides(world: AdeWorld) -> None:
    there = world.server()
    uuids = {name: world.define(name) for name in ("all", "macs", "air", "one", "school-only")}
    (phone,) = world.control.buy(there)
    (pad,) = world.control.buy(there, device_family="iPad", model="iPad Air")
    mac, another = world.control.buy(there, count=2, device_family="Mac")
    world.rule("z-all", profile="all")
    world.rule("a-school", profile="school-only", server="school")
    world.rule("macs", profile="macs", device_families=["Mac"])
    world.rule("air", profile="air", models=["ipad air"])
    world.rule("one", profile="one", serial_numbers=[mac])

    world.sync()

    found = {serial: world.control.device(serial)["profile_uuid"] for serial in (phone, pad, mac, another)}
    assert found == {
        phone: uuids["school-only"],
        pad: uuids["air"],
        mac: uuids["one"],
        another: uuids["macs"],
    }
    world.rules.delete("one")
    world.rules.put("left-alone", Rule(serial_numbers=[another]))
    world.sync()
    assert world.control.device(mac)["profile_uuid"] == uuids["macs"]
    assert world.device(another).assignment == "none"


def test_a_throttled_device_is_tried_again_when_apple_says_and_not_before(world: AdeWorld) -> None:
    there = world.server()
    uuid = world.define()
    world.rule(profile="pupils")
    throttled, failing, fine = world.control.buy(there, count=3)
    world.control.behave(throttled={throttled: 1}, failing={failing: 2}, retry_after_seconds=7_200)
    world.sync()

    def assigned() -> list[bool]:
        return [world.control.device(serial).get("profile_uuid") == uuid for serial in (throttled, failing, fine)]

    assert assigned() == [False, False, True]
    assert world.device(throttled).refusal == "THROTTLED"
    assert int(world.device(throttled).retry_at) == int(world.clock().timestamp()) + 7_200
    before = len(world.control.requests())
    world.sync()
    assert [each["path"] for each in world.control.requests()[before:]] == ["/devices/sync"]

    world.clock.advance(minutes=6)
    world.sync()
    assert (assigned(), int(world.device(failing).attempts)) == ([False, False, True], 2)
    world.clock.advance(minutes=11)
    world.sync()
    assert assigned() == [False, True, True]
    world.clock.advance(hours=2)
    world.sync()
    assert assigned() == [True, True, True]
    assert world.waiting() == []


def test_an_assignment_that_failed_is_made_up_for(world: AdeWorld) -> None:
    there = world.server()
    uuid = world.define()
    world.rule(profile="pupils")
    bought = world.control.buy(there, count=2)
    calls = iter([300.0, 50.0])
    world.syncs.run("school", seconds_left=lambda: next(calls))
    assert len(world.waiting()) == 2
    world.control.behave(answer_status=500, answer_times=1)
    world.asked_for.clear()
    world.sync()
    assert world.state().error_code == "apple_unavailable"
    assert len(world.waiting()) == 2

    world.sync()

    assert {world.control.device(serial)["profile_uuid"] for serial in bought} == {uuid}
    assert world.waiting() == []


def test_a_profile_that_apple_does_not_know_stops_no_other(world: AdeWorld) -> None:
    there = world.server()
    uuid = world.define()
    world.rule("all", profile="pupils")
    lost, fine = world.control.buy(there, count=2)
    world.rule("lost", server="school", profile_uuid="0" * 32, serial_numbers=[lost])

    world.sync()

    assert world.control.device(fine)["profile_uuid"] == uuid
    assert (world.device(lost).assignment, world.device(lost).refusal) == ("pending", "PROFILE_NOT_FOUND")
    assert world.state().error_code is None
    world.rules.delete("lost")
    world.sync()
    assert world.control.device(lost)["profile_uuid"] == uuid


def test_a_device_that_has_left_meanwhile_is_no_error(world: AdeWorld) -> None:
    there = world.server()
    world.define()
    world.rule(profile="pupils")
    gone, fine = world.control.buy(there, count=2)
    calls = iter([300.0, 50.0])
    world.syncs.run("school", seconds_left=lambda: next(calls))
    world.control.remove(there, [gone])
    world.asked_for.clear()

    world.sync()

    assert world.device(fine).assignment == "assigned"
    assert (world.device(gone).assignment, world.device(gone).deleted_at is None) == ("none", False)
    assert world.waiting() != []  # What led to it leads nowhere now.
    world.clock.advance(days=1, minutes=1)
    world.sync()
    assert world.waiting() == []


def test_what_somebody_else_assigned_since_is_left_alone_until_the_rules_want_something_else(world: AdeWorld) -> None:
    there = world.server()
    world.define()
    world.rule(profile="pupils")
    (serial,) = world.control.buy(there)
    world.sync()
    other = world.define("teachers")
    world.client("school").assign(other, [serial])
    world.control.modify(there, [serial], color="GREEN")
    world.sync()
    assert (world.device(serial).assignment, world.control.device(serial)["profile_uuid"]) == ("other", other)

    uuid = world.define()
    world.sync()
    assert (world.device(serial).assignment, world.control.device(serial)["profile_uuid"]) == ("assigned", uuid)


def test_a_device_whose_profile_was_taken_away_gets_it_again(world: AdeWorld) -> None:
    there = world.server()
    uuid = world.define()
    world.rule(profile="pupils")
    (serial,) = world.control.buy(there)
    world.sync()
    world.client("school").clear([serial])
    world.control.modify(there, [serial], color="GREEN")
    world.sync()
    assert world.control.device(serial)["profile_uuid"] == uuid


def test_a_batch_has_no_more_devices_than_apple_likes(world: AdeWorld) -> None:
    there = world.server()
    world.define()
    world.rule(profile="pupils")
    world.page = 1_000
    world.syncs = world.another()
    world.control.buy(there, count=450)

    world.sync()

    paths = [each["path"] for each in world.control.requests()]
    assert (paths.count("/server/devices"), paths.count("/profile/devices")) == (1, 3)
    assert world.state().counts["assigned"] == 450

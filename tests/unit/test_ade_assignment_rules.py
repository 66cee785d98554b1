"""Which rule decides on a device, what is to be done for it, and events that tell of lists."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mdmlib.services.ade_assignment_rules import RuleSet, Wanted
from mdmlib.services.ade_device_events import SYNC_TOPIC, device_event, page_events
from mdmlib.services.ade_wanted_profiles import decide
from mdmlib.services.events import MAX_DETAIL_BYTES
from mdmlib.store.tables import AdeAssignmentRule, AdeDevice
from tests.event_schemas import assert_conforms

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


def rule(name: str, **fields: Any) -> AdeAssignmentRule:
    return AdeAssignmentRule("ade_assignment_rule", name, changed_at=0, **fields)


def device(serial_number: str = "C02A", **fields: Any) -> AdeDevice:
    return AdeDevice("ade_device#school#0", serial_number, **fields)


def decider(rules: list[AdeAssignmentRule], **fields: Any) -> str | None:
    wanted = RuleSet(rules, lambda profile: f"uuid of {profile}").wanted(device(**fields))
    return wanted.rule if wanted else None


def test_the_most_precise_rule_decides_whatever_its_name() -> None:
    rules = [
        rule("a", profile="p"),
        rule("b", profile="p", device_families=["Mac"]),
        rule("c", profile="p", models=["MacBook Air"]),
        rule("d", profile="p", serial_numbers=["C02A"]),
    ]
    mac = {"device_family": "Mac", "model": "macbook AIR"}
    assert decider(rules, **mac) == "d"
    assert decider(rules, serial_number="C02B", **mac) == "c"
    assert decider(rules, serial_number="C02B", device_family="Mac") == "b"
    assert decider(rules, serial_number="C02B", device_family="iPad", model="iPad Air") == "a"
    assert decider(rules[1:], serial_number="C02B") is None


def test_of_equals_the_one_for_the_server_decides_and_then_the_first_by_name() -> None:
    assert decider([rule("b", profile="p"), rule("a", profile="p")]) == "a"
    assert decider([rule("a", profile="p"), rule("z", profile="p", server="school")]) == "z"
    # What is more precise goes before what is for the server.
    precise = rule("y", profile="p", device_families=["Mac"])
    assert decider([rule("z", profile="p", server="school"), precise], device_family="Mac") == "y"


def test_the_digest_tells_rules_and_their_profiles_apart_and_not_their_order() -> None:
    def digest(*rules: AdeAssignmentRule, uuid: str = "1") -> str:
        return RuleSet(rules, lambda _profile: uuid).digest

    first, second = rule("a", profile="p"), rule("b", profile="q", device_families=["Mac", "iPad"])
    assert digest(first, second) == digest(second, first)
    digests = {digest(), digest(first), digest(first, second), digest(first, second, uuid="2")}
    assert len(digests) == 4
    # A rule that never decides changes nothing.
    assert digest(first) == digest(first, rule("c", profile="p"))


@pytest.mark.parametrize(
    ("before", "at_apple", "wanted", "after"),
    [
        ("none", None, None, "none"),
        ("none", None, "A", "pending"),
        ("none", "B", "A", "pending"),
        ("none", "A", "A", "assigned"),
        ("assigned", None, "A", "pending"),
        ("assigned", "B", "A", "other"),
        ("other", "B", "A", "other"),
        ("other", "A", "A", "assigned"),
        ("other", None, "A", "pending"),
        ("pending", "B", "A", "pending"),
        ("assigned", "A", "C", "pending"),
        ("other", "B", "C", "pending"),
        ("assigned", "A", None, "none"),
    ],
)
def test_what_is_to_be_done_follows_from_what_is_wanted_and_what_apple_says(
    before: str, at_apple: str | None, wanted: str | None, after: str
) -> None:
    known = device(assignment=before, profile_uuid=at_apple, wanted_uuid=None if before == "none" else "A")
    decide(known, Wanted(rule="r", profile=None, uuid=wanted) if wanted else None, at=NOW)
    assert known.assignment == after
    assert (known.retry_at is not None) == (after == "pending" and before != "pending")


def test_a_device_that_came_again_gets_its_profile_whatever_was_before() -> None:
    known = device(assignment="other", profile_uuid="B", wanted_uuid="A")
    decide(known, Wanted(rule="r", profile=None, uuid="A"), at=NOW, anew=True)
    assert known.assignment == "pending"


def test_a_page_that_is_too_large_for_the_bus_comes_in_parts_with_all_its_devices() -> None:
    devices = [{"serial_number": f"C{number:09}", "description": "x" * 900, "model": "M"} for number in range(1_000)]
    response = {"devices": devices, "cursor": "C" * 1_000, "fetched_until": None, "more_to_follow": True}

    def events() -> list[Any]:
        return list(page_events(SYNC_TOPIC, "school", response, asked_with="B", asked_at=1_795_000_000, now=NOW))

    documents = [json.loads(event.detail) for event in events()]
    assert all(len(event.detail) <= MAX_DETAIL_BYTES for event in events())
    parts = [document["device_response_event"] for document in documents]
    assert [each["part"] for each in parts] == list(range(1, parts[0]["parts"] + 1))
    assert [each for part in parts for each in part["device_response"]["devices"]] == devices
    assert len({event.event_id for event in events()}) == len(parts) > 1
    assert [event.event_id for event in events()] == [event.event_id for event in events()]
    for document in documents:
        assert_conforms(document)


def test_an_event_about_a_device_has_the_same_id_each_time_and_another_one_for_another_time() -> None:
    record = {"serial_number": "C02A", "model": "M"}

    def event_id(op_type: str, op_date: str) -> str:
        event = device_event("school", op_type, record, op_date=op_date, now=datetime.now(UTC))
        return event.event_id

    first = event_id("added", "2026-11-29T12:00:00Z")
    assert first == event_id("added", "2026-11-29T12:00:00Z")
    others = {event_id("added", "2026-11-29T12:00:01Z"), event_id("deleted", "2026-11-29T12:00:00Z")}
    others |= {event_id("added", "no time at all"), event_id("added", "2026-11-29T12:00:00")}
    assert len({first, *others}) == 5

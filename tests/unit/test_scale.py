"""How far it goes: the document says what is computed, and the simulation obeys Little's law and the quotas."""

import math
import re
from pathlib import Path

import pytest

from bench.scale import BUSY_SECONDS, SCENARIOS, SPREAD, Quotas, Scenario, quota_rows, scenario_row, simulate, storm

DOCUMENT = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()


def test_the_document_says_which_quota_ends_first() -> None:
    told = re.findall(
        r"^\| (.+?) \| ([\d,]+ .+? a second) \|$", DOCUMENT.partition("## What ends first")[2], re.MULTILINE
    )

    assert told == quota_rows()


def test_the_document_says_what_happens_when_many_come_at_once() -> None:
    scenario = SCENARIOS[1]

    assert f"| {' | '.join(scenario_row(scenario, simulate(scenario)))} |" in DOCUMENT
    assert all(f"| {each.name} | {max(each.rates):,.0f} |" in DOCUMENT for each in SCENARIOS)


def test_as_many_are_busy_as_come_times_how_long_they_take() -> None:
    outcome = simulate(Scenario("even", [200.0] * 40))
    warm = [seconds for seconds in outcome.seconds if seconds < 1]

    assert outcome.served == pytest.approx(8_000, rel=0.05)
    assert sum(warm) / len(warm) == pytest.approx(BUSY_SECONDS * math.exp(SPREAD**2 / 2), rel=0.05)
    assert not outcome.refused


def test_no_more_are_busy_than_there_may_be() -> None:
    outcome = simulate(Scenario("too many", [500.0] * 5, Quotas(concurrency=7)))

    assert outcome.most_at_once == 7
    assert outcome.refused["Lambda"] > 0


def test_no_more_are_let_in_than_the_stage_takes() -> None:
    outcome = simulate(Scenario("too many", [500.0] * 10, Quotas(stage_rate=100, stage_burst=50)))

    assert outcome.served <= 10 * 100 + 50
    assert outcome.refused["DeviceRateLimit"] > 0


def test_a_wave_wakes_each_device_once() -> None:
    rates = storm(1_000, 300)

    assert sum(rates) == pytest.approx(2_000)
    assert max(rates) <= 2 * 300

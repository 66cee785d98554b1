"""What it costs: the document says what the command computes, and the command computes what there is."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mdmlib.metrics import MOST_SERIES
from picomdm.cost import ALARMS, SERIES, Item, Use, bill, server
from tools.template_tables import read_template

DOCUMENT = Path(__file__).parents[2] / "docs" / "cost.md"
ROW = re.compile(r"^\| ([\d,]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)


def dollars(items: list[Item]) -> str:
    return f"{sum(item.dollars for item in items):.2f}"


def test_the_document_says_what_the_command_computes() -> None:
    rows = ROW.findall(DOCUMENT.read_text())

    assert len(rows) == 7
    for devices, connects, ours, cheaper, theirs in rows:
        use = Use(devices=int(devices.replace(",", "")), connects_per_day=int(connects))
        assert ours == dollars(list(bill(use)))
        assert cheaper == dollars(list(bill(replace(use, last_seen_minutes=1440, traced=False))))
        assert theirs == dollars(list(server(use)))


def test_each_item_of_ten_thousand_devices_is_in_the_document() -> None:
    cells = re.findall(r"\| \**([\d.]+)\** \|$", DOCUMENT.read_text().partition("## Ten thousand")[2], re.MULTILINE)
    told = [float(cell) for cell in cells]
    use = Use(devices=10_000, connects_per_day=24)

    # The items, and their sum, of ours and of the server's.
    assert sum(told) == pytest.approx(2 * sum(item.dollars for each in (bill, server) for item in each(use)), abs=0.05)


def test_no_more_is_counted_on_than_there_may_be() -> None:
    alarms = [each for each in read_template()["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]

    assert SERIES == MOST_SERIES
    assert len(alarms) <= ALARMS


def test_what_is_free_is_not_paid_for_and_no_more() -> None:
    assert Item("requests", 3_000_000, "requests", 0.40, 1_000_000, 1_000_000).dollars == pytest.approx(0.80)
    assert Item("requests", 500_000, "requests", 0.40, 1_000_000, 1_000_000).dollars == 0
    assert Item("requests", 500_000, "requests", 0.40, 1_000_000, 1_000_000).listed == pytest.approx(0.20)


@pytest.mark.parametrize(
    "more",
    [{"devices": 20_000}, {"connects_per_day": 48}, {"commands_per_day": 2}, {"webhooks": 2}, {"milliseconds": 90}],
)
def test_more_of_anything_costs_more(more: dict[str, Any]) -> None:
    use = Use(devices=10_000, connects_per_day=24)

    assert sum(item.dollars for item in bill(replace(use, **more))) > sum(item.dollars for item in bill(use))

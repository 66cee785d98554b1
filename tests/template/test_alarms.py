"""Alarms: who is told of what, when, and what then. The dashboard, which shows the same."""

import json
import re
from typing import Any

import pytest

from mdmlib.metrics import DIMENSION, MOST_SERIES, NAMESPACE, Metric
from tests.template import cloudwatch
from tests.template.cloudwatch import Written
from tests.template.document import REPOSITORY, Template, named

MINUTE, HOUR, DAY = 60, 3600, 86_400
RUNBOOKS = REPOSITORY / "docs" / "operations.md"


@pytest.fixture(scope="session")
def alarms(template: Template) -> dict[str, dict[str, Any]]:
    """Return the properties of all alarms by the part of their names that tells one from the others."""
    return {
        each["AlarmName"]["Fn::Sub"].removeprefix("${AWS::StackName}-"): each
        for each in template.of("CloudWatch::Alarm").values()
    }


def each(interval: float, number: float, *, until: float, since: float = 0) -> Written:
    """Return the same number, written again and again."""
    return [(at, number) for at in range(int(since), int(until), int(interval))]


QUIET: Written = []

RINGS: dict[str, list[Written]] = {
    "device-errors": [
        each(MINUTE, 1, until=DAY),
        [(HOUR, 5), (HOUR + 10 * MINUTE, 5)],
        [(HOUR, 500), (70 * MINUTE, 5)],
    ],
    "admin-errors": [each(MINUTE, 1, until=DAY), [(HOUR, 5), (HOUR + 5 * MINUTE, 5)]],
    "functions-throttled": [[(HOUR, 10), (HOUR + 5 * MINUTE, 10)], each(20, 1, until=HOUR)],
    "pushes-late": [each(MINUTE, 901, until=15 * MINUTE), [(at, at) for at in range(0, HOUR, MINUTE)]],
    "pushes-refused": [[(HOUR, 1)]],
    "webhooks-late": [[(at, at) for at in range(0, 3 * HOUR, MINUTE)]],
    "event-bus-down": [[(at, at) for at in range(0, HOUR, MINUTE)]],
    "unrenewed-identities": [[(HOUR, 1)], [(HOUR + shard, 3) for shard in range(16)]],
    "attention": [[(HOUR, 1)], [(hour * HOUR, float(hour == 5)) for hour in range(24)]],
    "schedules-late": [
        QUIET,
        # The hourly measurement stops after a day.
        each(HOUR, 1, until=DAY),
        # It goes on, and what is done every day was not done for more than two.
        [(at, at / DAY) for at in range(0, 3 * DAY, HOUR)],
    ],
}
"""What is written for at most three days, and the alarm goes off."""

KEEPS_QUIET: dict[str, list[Written]] = {
    "device-errors": [
        QUIET,
        # A hiccup of five minutes, however bad; now and then one; two bad moments that are far from each other.
        [(HOUR, 500)],
        each(15 * MINUTE, 4, until=DAY),
        [(HOUR, 50), (2 * HOUR, 50)],
    ],
    "admin-errors": [QUIET, [(HOUR, 500)], each(15 * MINUTE, 4, until=DAY)],
    "functions-throttled": [QUIET, [(HOUR, 500)], each(MINUTE, 1, until=DAY)],
    "pushes-late": [QUIET, each(MINUTE, 899, until=DAY), [(HOUR, 5000)]],
    "pushes-refused": [QUIET],
    "webhooks-late": [QUIET, each(MINUTE, 7199, until=DAY)],
    "event-bus-down": [QUIET, each(MINUTE, 300, until=DAY)],
    "unrenewed-identities": [QUIET, each(DAY, 0, until=3 * DAY)],
    "attention": [QUIET, each(HOUR, 0, until=DAY)],
    "schedules-late": [
        # Each hour, also when one falls out, or slips into the next.
        each(HOUR, 1.02, until=3 * DAY),
        [point for point in each(HOUR, 1.02, until=3 * DAY) if point[0] != 12 * HOUR],
        [(at, 2.3 if at == DAY else 1.0) for at in range(0, 3 * DAY, HOUR)],
    ],
}
"""What is written for three days, and no reason to wake anybody."""


def scenarios(table: dict[str, list[Written]]) -> list[Any]:
    return [
        pytest.param(name, written, id=f"{name}-{number}")
        for name, metrics in table.items()
        for number, written in enumerate(metrics, 1)
    ]


@pytest.mark.parametrize(("name", "written"), scenarios(RINGS))
def test_an_alarm_goes_off_when_it_should(alarms: dict[str, dict[str, Any]], name: str, written: Written) -> None:
    assert cloudwatch.rings(alarms[name], written, seconds=3 * DAY)


@pytest.mark.parametrize(("name", "written"), scenarios(KEEPS_QUIET))
def test_an_alarm_keeps_quiet_when_it_should(alarms: dict[str, dict[str, Any]], name: str, written: Written) -> None:
    assert not cloudwatch.rings(alarms[name], written, seconds=3 * DAY)


def test_every_alarm_was_seen_to_go_off_and_to_keep_quiet(alarms: dict[str, dict[str, Any]]) -> None:
    assert set(RINGS) == set(KEEPS_QUIET) == set(alarms)


@pytest.mark.parametrize(
    ("name", "written", "after"),
    [
        # Within the hour, so that it goes off again for what is new then.
        ("attention", [(0, 3), *each(HOUR, 0, since=HOUR, until=DAY)], 45 * MINUTE),
        ("device-errors", each(MINUTE, 50, until=HOUR), 2 * HOUR),
        ("pushes-refused", each(MINUTE, 50, until=HOUR), 2 * HOUR),
        ("schedules-late", each(HOUR, 1, since=DAY, until=2 * DAY), 28 * HOUR),
    ],
)
def test_an_alarm_ends_when_its_reason_has(
    alarms: dict[str, dict[str, Any]], name: str, written: Written, after: float
) -> None:
    heard = cloudwatch.states(alarms[name], written, seconds=2 * DAY)
    period = alarms[name]["Period"]

    assert "ALARM" in heard
    assert set(heard[int(after // period) :]) == {"OK"}


@pytest.mark.parametrize(
    ("points", "to_alarm", "breaching", "not_breaching"),
    # "X" is beyond the threshold, "0" is not, "-" is missing.
    [
        ("0-X-X", 3, "OK", "OK"),
        ("----0", 3, "OK", "OK"),
        ("-----", 3, "ALARM", "OK"),
        ("0XX-X", 3, "ALARM", "ALARM"),
        ("----X", 3, "ALARM", "OK"),
        ("0-X-X", 2, "ALARM", "ALARM"),
        ("00X0X", 2, "ALARM", "ALARM"),
        ("0-X--", 2, "ALARM", "OK"),
        ("----0", 2, "ALARM", "OK"),
        ("----X", 2, "ALARM", "OK"),
    ],
)
def test_missing_numbers_are_treated_as_cloudwatch_does(
    points: str, to_alarm: int, breaching: str, not_breaching: str
) -> None:
    alarm = {
        "Period": 60,
        "Statistic": "Maximum",
        "EvaluationPeriods": 3,
        "DatapointsToAlarm": to_alarm,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": 0,
    }
    written = [(60 * number, float(point == "X")) for number, point in enumerate(points) if point != "-"]

    for treatment, expected in (("breaching", breaching), ("notBreaching", not_breaching)):
        assert cloudwatch.states(alarm | {"TreatMissingData": treatment}, written, seconds=300)[-1] == expected


def test_cloudwatch_takes_the_alarms(alarms: dict[str, dict[str, Any]]) -> None:
    for name, alarm in alarms.items():
        assert alarm.get("DatapointsToAlarm", 1) <= alarm["EvaluationPeriods"], name
        # Of at most a day; of a week when a period is an hour or more.
        assert alarm["Period"] * alarm["EvaluationPeriods"] <= (7 * DAY if alarm["Period"] >= HOUR else DAY), name


def test_every_alarm_tells_somebody(alarms: dict[str, dict[str, Any]]) -> None:
    for alarm in alarms.values():
        assert [named(action) for action in alarm["AlarmActions"]] == ["AlarmTopic"]
        # That the attention alarm is over says nothing: what it told of may still be there.
        over = [] if alarm["AlarmName"]["Fn::Sub"].endswith("-attention") else ["AlarmTopic"]
        assert [named(action) for action in alarm.get("OKActions", ())] == over


def test_every_alarm_leads_to_its_runbook(alarms: dict[str, dict[str, Any]]) -> None:
    headings = set(re.findall(r"^### (.+)$", RUNBOOKS.read_text(), re.MULTILINE))

    assert set(alarms) <= headings
    for name, alarm in alarms.items():
        words, _, link = alarm["AlarmDescription"].rpartition(" ")
        assert link == f"https://github.com/picomdm/picomdm/blob/main/docs/operations.md#{name}"
        assert words.endswith(".")


def test_alarms_cost_next_to_nothing(alarms: dict[str, dict[str, Any]]) -> None:
    # So many are free in an account; another one is 10 cents a month.
    assert len(alarms) <= 10
    # One metric each, and no expression: that is what the price is for.
    assert not any("Metrics" in alarm for alarm in alarms.values())


def test_alarms_on_metrics_of_ours_look_at_such_as_there_are(alarms: dict[str, dict[str, Any]]) -> None:
    ours = [alarm for alarm in alarms.values() if alarm["Namespace"] == NAMESPACE]

    assert ours
    for alarm in ours:
        assert alarm["MetricName"] in set(Metric)
        assert alarm["Dimensions"] == [{"Name": DIMENSION, "Value": {"Ref": "AWS::StackName"}}]


def test_housekeeping_may_look_into_every_dead_letter_queue(template: Template) -> None:
    (policy,) = template.resources["HousekeepingRole"]["Properties"]["Policies"]
    (looks,) = [each for each in policy["PolicyDocument"]["Statement"] if each["Sid"] == "GivenUp"]

    assert {named(arn) for arn in looks["Resource"]} == {
        name for name in template.of("SQS::Queue") if "DeadLetter" in name
    }


# The dashboard


@pytest.fixture(scope="session")
def widgets(template: Template) -> list[dict[str, Any]]:
    (dashboard,) = template.of("CloudWatch::Dashboard").values()
    found: list[dict[str, Any]] = json.loads(dashboard["DashboardBody"]["Fn::Sub"])["widgets"]
    return found


def test_the_dashboard_shows_every_metric_of_ours_and_no_other(widgets: list[dict[str, Any]]) -> None:
    shown = {
        row[1]
        for widget in widgets
        for row in widget["properties"].get("metrics", ())
        if row[0] == NAMESPACE and row[2:4] == [DIMENSION, "${AWS::StackName}"]
    }

    assert shown == {metric.value for metric in Metric}
    assert len(shown) <= MOST_SERIES


def test_the_dashboard_shows_every_alarm(widgets: list[dict[str, Any]], alarms: dict[str, dict[str, Any]]) -> None:
    (shown,) = [widget["properties"]["alarms"] for widget in widgets if widget["type"] == "alarm"]

    assert {arn.partition("${AWS::StackName}-")[2] for arn in shown} == set(alarms)


def test_no_widget_of_the_dashboard_lies_on_another(widgets: list[dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for widget in widgets:
        place = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not place & taken
        assert widget["x"] + widget["width"] <= 24
        taken |= place


def test_every_widget_says_what_it_shows(widgets: list[dict[str, Any]]) -> None:
    for widget in widgets:
        assert widget["properties"]["title"]
        for row in widget["properties"].get("metrics", ()):
            assert row[-1]["label"] or row[-1]["stat"]

"""What CloudWatch makes of numbers: an alarm of the template, evaluated as its user guide says.

A metric is a list of what was written when, in seconds. Each period of the alarm has what was written in it, brought to
one number by the statistic, or nothing. Of missing periods, only those count for what ``TreatMissingData`` says that
are needed to have enough: CloudWatch looks further back than the evaluation periods for numbers that are there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

Written = Sequence[tuple[float, float]]
"""Seconds, and a number."""

LOOKS_FURTHER_BACK: Final = 2

_STATISTICS: Final[dict[str, Callable[[list[float]], float]]] = {"Sum": sum, "Minimum": min, "Maximum": max}
_BREACHES: Final[dict[str, Callable[[float, float], bool]]] = {
    "GreaterThanThreshold": lambda number, threshold: number > threshold,
    "GreaterThanOrEqualToThreshold": lambda number, threshold: number >= threshold,
    "LessThanThreshold": lambda number, threshold: number < threshold,
    "LessThanOrEqualToThreshold": lambda number, threshold: number <= threshold,
}


def states(alarm: dict[str, Any], written: Written, *, seconds: float) -> list[str]:
    """Return an alarm's state after each of its periods in so many seconds."""
    points = list(_points(alarm, written, seconds))
    return [_state(alarm, points[: end + 1]) for end in range(len(points))]


def rings(alarm: dict[str, Any], written: Written, *, seconds: float) -> bool:
    """Return whether an alarm goes off at any time."""
    return "ALARM" in states(alarm, written, seconds=seconds)


def _points(alarm: dict[str, Any], written: Written, seconds: float) -> Iterator[float | None]:
    period, statistic = alarm["Period"], _STATISTICS[alarm["Statistic"]]
    for number in range(int(seconds // period)):
        values = [value for at, value in written if number * period <= at < (number + 1) * period]
        yield statistic(values) if values else None


def _state(alarm: dict[str, Any], points: Sequence[float | None]) -> str:
    breaches = _BREACHES[alarm["ComparisonOperator"]]
    wanted: int = alarm["EvaluationPeriods"]
    there = [point for point in points[-wanted - LOOKS_FURTHER_BACK :] if point is not None][-wanted:]
    breaching = sum(breaches(point, alarm["Threshold"]) for point in there)
    if alarm["TreatMissingData"] == "breaching":
        breaching += wanted - len(there)
    elif alarm["TreatMissingData"] != "notBreaching":
        raise NotImplementedError(alarm["TreatMissingData"])
    return "ALARM" if breaching >= alarm.get("DatapointsToAlarm", wanted) else "OK"

"""Draws docs/dashboard.svg: the dashboard of template.yaml, with the numbers of docs/dashboard.json.

Usage: ``python tools/dashboard_picture.py [--check]``. With ``--check`` nothing is written: the exit status is 1 when
the picture is not what it should be. The numbers are collected by ``tools/dashboard_numbers.py``; what only AWS counts
has none.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import quantiles
from typing import Any, Final
from xml.sax.saxutils import escape

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TEMPLATE: Final = REPOSITORY / "template.yaml"
NUMBERS: Final = REPOSITORY / "docs" / "dashboard.json"
PICTURE: Final = REPOSITORY / "docs" / "dashboard.svg"

COLUMN: Final = 52
ROW: Final = 31
GAP: Final = 8
NAMESPACE: Final = "PicoMDM"

LIGHT: Final = {"paper": "#f2f3f3", "widget": "#ffffff", "ink": "#1f2328", "note": "#57606a", "rule": "#d5dbdb"}
DARK: Final = {"paper": "#0f141a", "widget": "#161d26", "ink": "#e6edf3", "note": "#9aa4af", "rule": "#3a424c"}
COLOURS: Final = ("#0972d3", "#e07941", "#1d8102", "#d13212", "#7d2105", "#8456ce", "#2ea597", "#c33d69")

_STYLE: Final = """
  text { font: 12px -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; fill: %(ink)s }
  .paper { fill: %(paper)s }
  .widget { fill: %(widget)s; stroke: %(rule)s }
  .title { font-weight: 600 }
  .note { font-size: 10px; fill: %(note)s }
  .number { font-size: 24px }
  .rule { stroke: %(rule)s }
"""

_BODY: Final = re.compile(r"      DashboardBody: !Sub \|\n((?:        .*\n)+)")


@dataclass(frozen=True)
class Line:
    """A line of a chart: what it is called, and its number in each period, or None."""

    label: str
    points: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where on the picture a widget stands."""

    x: float
    y: float
    width: float
    height: float


def main() -> int:
    """Write the picture, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether the picture is up to date")
    arguments = parser.parse_args()
    picture = draw(widgets(TEMPLATE.read_text()), json.loads(NUMBERS.read_text()))
    if not arguments.check:
        PICTURE.write_text(picture)
    elif not PICTURE.exists() or PICTURE.read_text() != picture:
        print(f"{PICTURE.relative_to(REPOSITORY)} is out of date: run `python tools/dashboard_picture.py`.")
        return 1
    return 0


def widgets(template: str) -> list[dict[str, Any]]:
    """Return the widgets of the template's dashboard."""
    body = _BODY.search(template)
    if body is None:
        raise ValueError("The template has no dashboard.")
    found: list[dict[str, Any]] = json.loads(body[1])["widgets"]
    return found


def draw(shown: Sequence[Mapping[str, Any]], numbers: Mapping[str, Any]) -> str:
    """Return the picture."""
    width = 24 * COLUMN + GAP
    height = max(widget["y"] + widget["height"] for widget in shown) * ROW + GAP
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        '<title id="title">The dashboard of a PicoMDM stack</title>',
        f"<style>{_STYLE % LIGHT}  @media (prefers-color-scheme: dark) {{{_STYLE % DARK}  }}\n</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *(part for widget in shown for part in _widget(widget, numbers)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _widget(widget: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[str]:
    properties = widget["properties"]
    frame = Frame(
        x=widget["x"] * COLUMN + GAP,
        y=widget["y"] * ROW + GAP,
        width=widget["width"] * COLUMN - GAP,
        height=widget["height"] * ROW - GAP,
    )
    yield (
        f'<rect class="widget" x="{frame.x}" y="{frame.y}" width="{frame.width}" height="{frame.height}" rx="6"/>'
        f"{_text(frame.x + 12, frame.y + 20, properties['title'], 'title')}"
    )
    if widget["type"] == "alarm":
        yield from _alarms(frame, properties["alarms"])
        return
    lines = [line for line in _lines(properties, numbers) if any(point is not None for point in line.points)]
    if not lines:
        ours = any(row[0] == NAMESPACE for row in properties["metrics"])
        words = "Nothing was counted of:" if ours else "Counted by AWS alone:"
        yield _text(frame.x + 12, frame.y + 44, words, "note")
        for row, label in enumerate(each[-1].get("label", "") for each in properties["metrics"]):
            yield _text(frame.x + 12 + row // 6 * 110, frame.y + 60 + row % 6 * 16, label, "note")
    elif properties.get("view") == "singleValue":
        yield from _numbers(frame, lines)
    else:
        yield from _chart(frame, lines, stacked=properties.get("stacked", False))


def _alarms(frame: Frame, arns: Sequence[str]) -> Iterator[str]:
    columns, room = 7, (frame.width - 24) / 7
    for number, arn in enumerate(arns):
        x = frame.x + 12 + number % columns * room
        y = frame.y + 46 + number // columns * 26
        yield f'<circle cx="{x + 5:.1f}" cy="{y - 4:.1f}" r="4" fill="{COLOURS[2]}"/>'
        yield _text(x + 14, y, arn.partition("${AWS::StackName}-")[2], "note")


def _numbers(frame: Frame, lines: Sequence[Line]) -> Iterator[str]:
    room = (frame.width - 24) / len(lines)
    for number, line in enumerate(lines):
        last = next(point for point in reversed(line.points) if point is not None)
        yield _text(frame.x + 12 + number * room, frame.y + 52, _said(last), "number")
        yield _text(frame.x + 12 + number * room, frame.y + 70, line.label, "note")


def _chart(frame: Frame, lines: Sequence[Line], *, stacked: bool) -> Iterator[str]:
    left, right, top, bottom = frame.x + 40, frame.x + frame.width - 12, frame.y + 34, frame.y + frame.height - 30
    heights = _stacked(lines) if stacked else [list(line.points) for line in lines]
    most = _rounded_up(max((point for points in heights for point in points if point is not None), default=1))
    step = (right - left) / max(len(lines[0].points) - 1, 1)
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        yield f'<line class="rule" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield _text(left - 6, y + 3, _said(most * share), "note", anchor="end")
    floor: Sequence[float | None] = [0] * len(lines[0].points)
    for number, points in enumerate(heights):
        colour = COLOURS[number % len(COLOURS)]
        places = [
            (left + index * step, bottom - point / most * (bottom - top))
            for index, point in enumerate(points)
            if point is not None
        ]
        if stacked:
            under = [
                (left + index * step, bottom - (point or 0) / most * (bottom - top))
                for index, point in enumerate(floor)
            ]
            yield f'<polygon fill="{colour}" fill-opacity="0.55" points="{_points([*places, *reversed(under)])}"/>'
            floor = points
        yield f'<polyline fill="none" stroke="{colour}" stroke-width="1.6" points="{_points(places)}"/>'
        if len(places) == 1:
            yield f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2.5" fill="{colour}"/>'
    x = frame.x + 12.0
    for number, line in enumerate(lines):
        yield f'<rect x="{x:.1f}" y="{frame.y + frame.height - 18}" width="9" height="9" fill="{COLOURS[number % 8]}"/>'
        yield _text(x + 13, frame.y + frame.height - 10, line.label, "note")
        x += 22 + 5.9 * len(line.label)


def _stacked(lines: Sequence[Line]) -> list[list[float | None]]:
    columns = zip(*(line.points for line in lines), strict=True)
    sums = [list(accumulate(point or 0 for point in column)) for column in columns]
    return [list(row) for row in zip(*sums, strict=True)]


def _lines(properties: Mapping[str, Any], numbers: Mapping[str, Any]) -> Iterator[Line]:
    for row in properties["metrics"]:
        *names, options = row
        if names[0] != NAMESPACE:
            continue
        statistic = options.get("stat", properties["stat"])
        counted = numbers["metrics"].get(names[1], {})
        # What is counted is 0 where nothing was; a level is unknown there.
        empty = 0 if statistic == "Sum" and counted else None
        points = [
            _STATISTICS[statistic](counted[str(period)]) if str(period) in counted else empty
            for period in range(numbers["periods"])
        ]
        yield Line(options["label"], points)


def _percentile(percent: int) -> Callable[[Sequence[float]], float]:
    def of(values: Sequence[float]) -> float:
        return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]

    return of


_STATISTICS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "p50": _percentile(50),
    "p95": _percentile(95),
}


def _rounded_up(number: float) -> float:
    """Return the next number that is good to read on an axis."""
    size = 1.0
    while size < number:
        for times in (2, 2.5, 2):
            size *= times
            if size >= number:
                break
    return size


def _said(number: float) -> str:
    if number >= _MANY:
        return f"{number / 1000:g}k"
    return f"{number:.0f}" if number == int(number) else f"{number:.1f}"


_MANY: Final = 10_000


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _text(x: float, y: float, words: str, style: str, *, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    sys.exit(main())

"""Draws docs/architecture.svg: what the template consists of, and who speaks to whom.

Usage: ``python tools/architecture_picture.py [--check]``. With ``--check`` nothing is written: the exit status is 1
when the picture is not what it should be. Where things stand is said here; that nothing is forgotten, or drawn although
it is gone, is held against ``template.yaml``.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TEMPLATE: Final = REPOSITORY / "template.yaml"
PICTURE: Final = REPOSITORY / "docs" / "architecture.svg"

WIDTH: Final = 1254
HEIGHT: Final = 706

_DRAWN: Final = {
    "AWS::ApiGatewayV2::Api": "api",
    "AWS::DynamoDB::Table": "store",
    "AWS::Events::EventBus": "bus",
    "AWS::S3::Bucket": "store",
    "AWS::SQS::Queue": "queue",
    "AWS::SecretsManager::Secret": "store",
    "AWS::Serverless::Function": "function",
}
"""Types of resources that have a box, and its look."""

_RESOURCE: Final = re.compile(r"^  (\w+):\n(?:    #.*\n)*    Type: (AWS::\S+)$", re.MULTILINE)

_STYLE: Final = """
  text { font: 13px -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; fill: %(ink)s }
  .paper { fill: %(paper)s; stroke: %(rule)s }
  .title { font-weight: 600 }
  .note { font-size: 11px; fill: %(note)s }
  .area { fill: none; stroke: %(rule)s; stroke-dasharray: 5 4 }
  .box { stroke-width: 1.4 }
  .actor { fill: %(paper)s; stroke: %(note)s }
  .api { fill: %(api)s; stroke: %(api_edge)s }
  .function { fill: %(function)s; stroke: %(function_edge)s }
  .queue { fill: %(queue)s; stroke: %(queue_edge)s }
  .bus { fill: %(bus)s; stroke: %(bus_edge)s }
  .store { fill: %(store)s; stroke: %(store_edge)s }
  .way { fill: none; stroke: %(way)s; stroke-width: 1.6 }
  .tip { fill: %(way)s }
"""

LIGHT: Final = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "note": "#57606a",
    "rule": "#c4ccd4",
    "way": "#57606a",
    "api": "#e6dcff",
    "api_edge": "#6e40c9",
    "function": "#ffe3c7",
    "function_edge": "#bc5b00",
    "queue": "#ffd9e8",
    "queue_edge": "#bf3989",
    "bus": "#ffd9e8",
    "bus_edge": "#bf3989",
    "store": "#d3e9ff",
    "store_edge": "#0969da",
}
DARK: Final = {
    "paper": "#12161c",
    "ink": "#e6edf3",
    "note": "#9aa4af",
    "rule": "#3a424c",
    "way": "#9aa4af",
    "api": "#2f2154",
    "api_edge": "#a371f7",
    "function": "#4a2c0f",
    "function_edge": "#f0883e",
    "queue": "#4a1e38",
    "queue_edge": "#f778ba",
    "bus": "#4a1e38",
    "bus_edge": "#f778ba",
    "store": "#10304f",
    "store_edge": "#58a6ff",
}


@dataclass(frozen=True, kw_only=True)
class Box:
    """Something with a name. ``x`` and ``y`` are its upper left corner; ``resource`` is its name in the template."""

    x: int
    y: int
    title: str
    note: str = ""
    width: int = 148
    height: int = 46
    look: str = "actor"
    resource: str = ""


@dataclass(frozen=True, kw_only=True)
class Way:
    """An arrow through ``points``, with words at one place beside it."""

    points: Sequence[tuple[int, int]]
    words: str = ""
    at: tuple[int, int] = (0, 0)
    anchor: str = "middle"


# Columns: who is outside, APIs, functions, queues, functions behind queues, who is outside.
BOXES: Final = (
    Box(x=32, y=128, title="Apple devices", note="iPhone, iPad, Mac, …"),
    Box(x=32, y=308, title="Administrators", note="picomdm, curl, scripts"),
    Box(x=32, y=422, title="Apple ADE", note="whose devices are whose"),
    Box(x=1082, y=128, title="Your webhook", note="checks the HMAC"),
    Box(x=1082, y=278, title="Apple APNs", note="wakes devices"),
    Box(resource="DeviceApi", x=226, y=128, title="Device API", note="open, throttled", look="api"),
    Box(resource="AdminApi", x=226, y=308, title="Admin API", note="IAM on every route", look="api"),
    Box(resource="MtlsApi", x=226, y=188, title="mTLS API", note="where it is set up", look="api"),
    Box(resource="EnrollFunction", x=426, y=68, title="enroll", note="profiles, SCEP", look="function"),
    Box(resource="CheckinFunction", x=426, y=128, title="checkin", note="begins, ends enrollments", look="function"),
    Box(resource="ConnectFunction", x=426, y=188, title="connect", note="report in, command out", look="function"),
    Box(resource="CommandsFunction", x=426, y=278, title="commands", note="queues, results, pushes", look="function"),
    Box(resource="AdminFunction", x=426, y=338, title="admin", note="every other resource", look="function"),
    Box(resource="DepSyncFunction", x=226, y=422, title="dep_sync", note="by the clock, or asked", look="function"),
    Box(resource="EventBus", x=672, y=128, title="event bus", note="every event", look="bus"),
    Box(resource="WebhookQueue", x=868, y=68, title="webhook queue", note="a rule per subscription", look="queue"),
    Box(resource="WebhookFunction", x=868, y=128, title="webhook", note="signs, tries for a day", look="function"),
    Box(resource="WorkflowQueue", x=868, y=188, title="workflow queue", note="rules: plans' reports", look="queue"),
    Box(resource="WorkflowFunction", x=868, y=338, title="workflow", note="queues the next steps", look="function"),
    Box(resource="PushQueue", x=672, y=278, title="push queue", note="100 devices a message", look="queue"),
    Box(resource="PushFunction", x=868, y=278, title="push", note="one connection a topic", look="function"),
    Box(resource="SweepQueue", x=672, y=392, title="sweep queue", note="dead commands, renewals", look="queue"),
    Box(resource="EventFallbackQueue", x=672, y=452, title="fallback queue", note="when the bus is down", look="queue"),
    Box(
        resource="HousekeepingFunction",
        x=868,
        y=422,
        title="housekeeping",
        note="also by the clock",
        look="function",
    ),
    Box(
        resource="EnrollmentTable",
        x=224,
        y=604,
        width=296,
        title="Enrollment table",
        note="a partition per enrollment: record, queue, results",
        look="store",
    ),
    Box(
        resource="ResourceTable",
        x=536,
        y=604,
        width=196,
        title="Resource table",
        note="links, webhooks, certificates",
        look="store",
    ),
    Box(resource="PayloadBucket", x=748, y=604, width=126, title="Payload bucket", note="what is large", look="store"),
    Box(resource="Secret", x=890, y=604, width=138, title="Secret", note="the master keys", look="store"),
)

WAYS: Final = (
    Way(points=((180, 151), (226, 151)), words="HTTPS", at=(201, 143)),
    Way(points=((180, 331), (226, 331)), words="SigV4", at=(201, 323)),
    Way(points=((226, 445), (180, 445)), words="OAuth", at=(204, 437)),
    Way(points=((374, 151), (400, 151), (400, 91), (426, 91))),
    Way(points=((374, 151), (426, 151))),
    Way(points=((374, 151), (400, 151), (400, 211), (426, 211))),
    Way(points=((106, 174), (106, 211), (226, 211)), words="mutual TLS", at=(166, 203)),
    Way(points=((374, 211), (426, 211))),
    Way(points=((374, 331), (400, 331), (400, 301), (426, 301))),
    Way(points=((374, 331), (400, 331), (400, 361), (426, 361))),
    Way(points=((574, 145), (672, 145)), words="an event each", at=(621, 138)),
    Way(points=((574, 211), (628, 211), (628, 159), (672, 159))),
    Way(
        points=((574, 290), (646, 290), (646, 244), (724, 244), (724, 174)),
        words="mdm.CommandQueued",
        at=(638, 262),
        anchor="end",
    ),
    Way(points=((942, 278), (942, 244), (768, 244), (768, 174)), words="mdm.PushFailed", at=(855, 236)),
    Way(points=((820, 151), (844, 151), (844, 91), (868, 91))),
    Way(points=((820, 151), (844, 151), (844, 211), (868, 211))),
    Way(points=((1016, 211), (1040, 211), (1040, 361), (1016, 361))),
    Way(points=((942, 114), (942, 128))),
    Way(points=((1016, 151), (1082, 151)), words="POST", at=(1047, 143)),
    Way(points=((574, 308), (672, 308))),
    Way(points=((820, 301), (868, 301))),
    Way(points=((1016, 301), (1082, 301)), words="HTTP/2", at=(1047, 293)),
    Way(
        points=((1156, 324), (1156, 544), (16, 544), (16, 151), (32, 151)),
        words="a push wakes the device, which then connects",
        at=(626, 537),
    ),
    Way(points=((640, 415), (672, 415)), words="from checkin", at=(634, 419), anchor="end"),
    Way(
        points=((640, 475), (672, 475)),
        words="from checkin, connect, commands, push",
        at=(634, 479),
        anchor="end",
    ),
    Way(points=((820, 415), (844, 415), (844, 438), (868, 438))),
    Way(points=((820, 475), (844, 475), (844, 452), (868, 452))),
    Way(points=((942, 468), (942, 498)), words="to the event bus", at=(952, 492), anchor="start"),
)


def resources(template: str) -> dict[str, str]:
    """Return the resources of the template that have to be drawn, with their looks; no dead-letter queues."""
    return {
        name: _DRAWN[kind]
        for name, kind in _RESOURCE.findall(template)
        if kind in _DRAWN and not name.endswith("DeadLetterQueue")
    }


def complaints(template: str) -> list[str]:
    """Return what differs between the template and the picture."""
    wanted, drawn = resources(template), {box.resource: box.look for box in BOXES if box.resource}
    return [
        *(f"{name} is in the template and not in the picture." for name in wanted if name not in drawn),
        *(f"{name} is in the picture and not in the template." for name in drawn if name not in wanted),
        *(f"{name} is drawn as a {drawn[name]}." for name in wanted if name in drawn and drawn[name] != wanted[name]),
    ]


def main() -> int:
    """Write the picture, or check it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only say whether the picture is up to date")
    arguments = parser.parse_args()
    wrong = complaints(TEMPLATE.read_text())
    if not wrong and arguments.check and (not PICTURE.exists() or PICTURE.read_text() != draw()):
        wrong = [f"{PICTURE.relative_to(REPOSITORY)} is out of date: run `python tools/architecture_picture.py`."]
    for complaint in wrong:
        print(complaint)
    if wrong:
        return 1
    if not arguments.check:
        PICTURE.write_text(draw())
    return 0


def draw(*, paper: Mapping[str, str] = LIGHT, dark: Mapping[str, str] | None = DARK) -> str:
    """Return the picture, in the colours of ``paper``; ``dark`` is for who prefers a dark screen."""
    preference = f"  @media (prefers-color-scheme: dark) {{{_STYLE % dark}  }}\n" if dark else ""
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    tip = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
        '<title id="title">The parts of a PicoMDM stack</title>',
        f"<style>{_STYLE % paper}{preference}</style>",
        f'<defs><marker id="tip" {tip}><path class="tip" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="paper" x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="10"/>',
        *_areas(),
        *(_way(way) for way in WAYS),
        *(_box(box) for box in BOXES),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _areas() -> list[str]:
    return [
        '<rect class="area" x="206" y="30" width="840" height="486" rx="8"/>',
        _text(220, 50, "template.yaml", style="note", anchor="start"),
        '<rect class="area" x="206" y="566" width="840" height="98" rx="8"/>',
        _text(
            220,
            588,
            "State: what is secret is sealed; each function may do only what it needs",
            style="note",
            anchor="start",
        ),
        _text(
            206,
            686,
            "Not drawn: a dead-letter queue behind each queue, logs, alarms, dashboard",
            style="note",
            anchor="start",
        ),
    ]


def _box(box: Box) -> str:
    middle = box.x + box.width // 2
    lines = [f'<rect class="box {box.look}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="6"/>']
    if box.note:
        lines.append(_text(middle, box.y + 20, box.title, style="title"))
        lines.append(_text(middle, box.y + 36, box.note, style="note"))
    else:
        lines.append(_text(middle, box.y + box.height // 2 + 5, box.title, style="title"))
    return "\n".join(lines)


def _way(way: Way) -> str:
    points = " ".join(f"{x},{y}" for x, y in way.points)
    lines = [f'<polyline class="way" points="{points}" marker-end="url(#tip)"/>']
    if way.words:
        lines.append(_text(*way.at, way.words, style="note", anchor=way.anchor))
    return "\n".join(lines)


def _text(x: int, y: int, words: str, *, style: str, anchor: str = "middle") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'


if __name__ == "__main__":
    sys.exit(main())

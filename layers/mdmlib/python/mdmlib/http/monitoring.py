"""What monitors ask for: Prometheus' text, and whether all is well."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

from aws_lambda_powertools.event_handler import Response

from mdmlib import __version__
from mdmlib.http.admin_edge import answer_v2
from mdmlib.services.vitals import INTERVALS, Report

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

EXPIRES_SOON: Final = timedelta(days=30)
LATE: Final = 2.0
"""A schedule that is later, in its own intervals, has been left out. The alarms' thresholds are the same."""

Samples = Iterable[tuple[Mapping[str, str], float]]


def metrics(report: Report) -> Response[str]:
    """Answer in Prometheus' text format. All are gauges: what is counted, is counted by CloudWatch."""
    return Response(HTTPStatus.OK, content_type=PROMETHEUS, body="".join(_families(report)))


def health(report: Report) -> Response[str]:
    """Answer whether all is well, and if not, what is not."""
    checks = list(_checks(report))
    well = all(check["well"] for check in checks)
    return answer_v2(HTTPStatus.OK, {"well": well, "version": __version__, "checks": checks})


def _families(report: Report) -> Iterator[str]:
    yield _family("info", "The release that is deployed.", [({"version": __version__}, 1)])
    yield _family(
        "certificate_not_after_seconds",
        "When a certificate ends, in seconds since 1970.",
        [({"kind": each.kind, "name": each.name}, each.not_after.timestamp()) for each in report.expiries],
    )
    yield _family(
        "schedule_last_run_seconds",
        "When a scheduled task was last done, in seconds since 1970.",
        [({"task": each.task}, each.ran_at.timestamp()) for each in report.schedules],
    )
    yield _family(
        "schedule_interval_seconds",
        "How often a scheduled task has to be done.",
        [({"task": task}, interval.total_seconds()) for task, interval in INTERVALS.items()],
    )
    yield _family(
        "queue_messages",
        "Messages that wait, that are worked on, and that were given up.",
        [
            ({"queue": queue.name, "state": state}, getattr(queue, state))
            for queue in report.queues
            for state in ("waiting", "in_flight", "given_up")
        ],
    )
    yield _family(
        "ade_list_read_seconds",
        "When Apple's list of an ADE server was last read to its end, in seconds since 1970; 0: never.",
        [({"server": each.server}, each.read_at.timestamp() if each.read_at else 0) for each in report.ade_lists],
    )
    if report.devices_enrolled is not None:
        yield _family(
            "devices_enrolled", "Devices that are enrolled, counted every hour.", [({}, report.devices_enrolled)]
        )
    yield _family(
        "looked_at_seconds", "When all of this was looked at, in seconds since 1970.", [({}, report.at.timestamp())]
    )


def _family(name: str, words: str, samples: Samples) -> str:
    lines = [f"# HELP picomdm_{name} {words}", f"# TYPE picomdm_{name} gauge"]
    for labels, number in samples:
        said = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
        lines.append(f"picomdm_{name}{f'{{{said}}}' if said else ''} {number:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _checks(report: Report) -> Iterator[dict[str, Any]]:
    for expiry in report.expiries:
        left = expiry.not_after - report.at
        yield {
            "what": expiry.kind,
            "name": expiry.name,
            "well": left >= EXPIRES_SOON,
            "found": f"ends {expiry.not_after:%Y-%m-%d}, in {left.days} days",
        }
    for schedule in report.schedules:
        delay = schedule.delay(report.at)
        yield {
            "what": "schedule",
            "name": schedule.task,
            "well": delay <= LATE,
            "found": f"last done {schedule.ran_at:%Y-%m-%dT%H:%M:%SZ}, every {_spelled(INTERVALS[schedule.task])}",
        }
    for queue in report.queues:
        yield {
            "what": "queue",
            "name": queue.name,
            "well": not queue.given_up,
            "found": f"{queue.given_up} given up, {queue.waiting} waiting, {queue.in_flight} in work",
        }
    for each in report.ade_lists:
        read = f"last read {each.read_at:%Y-%m-%dT%H:%M:%SZ}" if each.read_at else "not read yet"
        yield {
            "what": "ade_list",
            "name": each.server,
            "well": each.problem is None,
            "found": f"{read}, {each.problem}" if each.problem else read,
        }


def _spelled(interval: timedelta) -> str:
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if count := interval // length:
            return unit if count == 1 else f"{count} {unit}s"
    return f"{interval.seconds} seconds"

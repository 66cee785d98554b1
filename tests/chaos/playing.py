"""Playing faults: each call of a request with each fault, and what became of it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from local.aws_proxy import AwsProxy, Call
from local.device import DeviceError
from tests.chaos.faults import FAULTS, Fault, Point
from tests.chaos.kinds import Kind


@dataclass(frozen=True)
class Played:
    """One fault that was injected; ``wrong`` says what did not survive it."""

    kind: str
    fault: str
    call: str
    wrong: str | None = None


def play(kind: Kind, *, faults: Sequence[Fault] = FAULTS) -> list[Played]:
    """Play a kind of request: once to warm up, once to learn its calls, and once for each of these and each fault."""
    proxy = kind.site.proxies[kind.function]
    kind.start()
    _once(kind)
    played = []
    for point in points(record(kind, proxy), first_ones=kind.only_first_calls):
        for fault in (one for one in faults if one.concerns(point)):
            try:
                kind.prepare()
                disturbance = fault.befall(proxy, point, mark=kind.mark)
                kind.lives_with(disturbance)
                try:
                    kind.ask()
                finally:
                    kind.patience.wait()
                kind.check()
                if not disturbance.fired:
                    continue  # What the function read it has kept: there is no such call this time.
                wrong = None
            except (AssertionError, DeviceError) as error:
                wrong = f"{type(error).__name__}: {error}".strip()
                kind.start()
            played.append(Played(kind.name, fault.name, point.name, wrong))
    try:
        kind.finish()
    except AssertionError as error:
        played.append(Played(kind.name, "", "", str(error)))
    return played


def record(kind: Kind, proxy: AwsProxy) -> list[Call]:
    """Make a request undisturbed and return its calls."""
    kind.prepare()
    mark, since = kind.mark, len(proxy.calls)
    kind.ask()
    calls = proxy.calls[since:] if mark is None else proxy.calls_about(mark, since=since)
    kind.check()
    return calls


def points(calls: Sequence[Call], *, first_ones: bool) -> list[Point]:
    """Number calls by their names; ``first_ones`` leaves out all but the first of a name."""
    seen: Counter[str] = Counter()
    found = []
    for call in calls:
        if not (first_ones and seen[call.name]):
            found.append(Point(call.name, seen[call.name]))
        seen[call.name] += 1
    return found


def _once(kind: Kind) -> None:
    kind.prepare()
    kind.ask()
    kind.check()

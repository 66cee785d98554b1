"""How far a deployment goes: which quota of AWS ends first, and what happens when many devices come at once.

``python -m bench.scale`` prints two tables. The first divides each quota by what a request takes of it (the call
budgets). The second plays scenarios, request by request: when devices come, how long a function is busy, how fast
Lambda adds environments, and who is refused by what. Nothing of AWS is asked; ``docs/scale.md`` tells what it is good
for.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final

from rich.console import Console
from rich.table import Table

BUSY_SECONDS: Final = 0.060
"""The median of what a request takes its function, as ``docs/cost.md`` assumes it."""
SPREAD: Final = 0.5
"""Of the logarithm: one request in a hundred takes more than three times as long."""
COLD_SECONDS: Final = 1.0
"""What a new environment takes longer."""


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What AWS gives an account, or a parameter gives a deployment."""

    stage_rate: float = 1_000
    """``DeviceRateLimit``."""
    stage_burst: float = 2_000
    """``DeviceBurstLimit``."""
    concurrency: int = 1_000
    scaling: float = 100
    """Environments a second that a function gets: 1,000 every 10 seconds."""


@dataclass(frozen=True)
class Quota:
    """A quota, and how much of it one unit of work takes."""

    name: str
    limit: float
    takes: float
    of: str = "requests"

    @property
    def most(self) -> float:
        """Return how many units of work a second it is enough for."""
        return self.limit / self.takes


QUOTAS: Final = (
    Quota("Lambda: concurrency of a new account, 10", 10, BUSY_SECONDS * math.exp(SPREAD**2 / 2)),
    Quota("EventBridge: PutEvents in the smallest regions, 400 a second", 400, 1),
    Quota("The template's DeviceRateLimit, 1,000", 1_000, 1),
    Quota("DynamoDB: writes of a fresh table, 4,000 units a second", 4_000, 3),
    Quota("EventBridge: PutEvents in us-east-2, 2,400 a second", 2_400, 1),
    Quota("EventBridge: PutEvents in us-east-1, 10,000 a second", 10_000, 1),
    Quota("API Gateway: 10,000 a second in an account", 10_000, 1),
    Quota("DynamoDB: 40,000 write units a second of a table", 40_000, 3),
    Quota("Lambda: concurrency of 1,000", 1_000, BUSY_SECONDS * math.exp(SPREAD**2 / 2)),
    Quota("DynamoDB: index of lists, 16 keys of 1,000 write units", 16_000, 1),
    Quota("DynamoDB: 40,000 read units a second of a table", 40_000, 1),
    Quota("DynamoDB: 3,000 read units a second of one partition", 3_000, 1, "requests of one device"),
    Quota("DynamoDB: index of waiting commands, 16 keys of 1,000 units", 16_000, 1, "commands queued"),
    Quota("SQS: 120,000 messages in flight, each for 6 minutes at most", 120_000, 360, "deliveries that hang"),
)
"""A request takes at most three write units, when it is written that a device was seen; a final report seven more."""


@dataclass(frozen=True)
class Scenario:
    """Devices come: so many a second, second by second."""

    name: str
    rates: Sequence[float]
    quotas: Quotas = field(default_factory=Quotas)


@dataclass
class Outcome:
    """What became of a scenario."""

    served: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    environments: int = 0
    busy_seconds: float = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def slow(self) -> float:
        """Return how long the slowest of a hundred requests takes."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)] if self.seconds else 0


def storm(devices: int, per_second: float, *, requests: int = 2, beside: float = 0) -> list[float]:
    """Return the rates of a wave of pushes: each device that is woken makes two requests, within half a minute."""
    seconds = math.ceil(devices / per_second)
    pushed = [min(per_second, devices - second * per_second) for second in range(seconds)] + [0.0] * 30
    return [beside + requests * sum(pushed[max(second - 29, 0) : second + 1]) / 30 for second in range(len(pushed))]


HOURLY: Final = 1_000_000 / 3_600

SCENARIOS: Final = (
    Scenario("a million devices, each hour, evenly", [HOURLY] * 120),
    Scenario("the same, in an account with concurrency 10", [HOURLY] * 60, Quotas(concurrency=10, scaling=10)),
    Scenario("nine o'clock: five times as many for a minute", [HOURLY] * 20 + [5 * HOURLY] * 60 + [HOURLY] * 20),
    Scenario("a wave of pushes at 500 a second, 50,000 devices", storm(50_000, 500, beside=HOURLY)),
    Scenario(
        "the same, with DeviceRateLimit 5,000",
        storm(50_000, 500, beside=HOURLY),
        Quotas(stage_rate=5_000, stage_burst=5_000),
    ),
    Scenario(
        "a wave of pushes at 4,000 a second, with DeviceRateLimit 10,000",
        storm(100_000, 4_000, beside=HOURLY),
        Quotas(stage_rate=10_000, stage_burst=5_000),
    ),
)


def simulate(scenario: Scenario, *, seed: int = 1) -> Outcome:
    """Play a scenario; the same one comes out the same."""
    chance, quotas, outcome = random.Random(seed), scenario.quotas, Outcome()  # noqa: S311 - no secret
    tokens, at = quotas.stage_burst, 0.0
    busy: list[float] = []
    room = float(min(quotas.concurrency, 1_000))
    for now in _arrivals(scenario.rates, chance):
        tokens = min(quotas.stage_burst, tokens + (now - at) * quotas.stage_rate)
        room = min(float(quotas.concurrency), room + (now - at) * quotas.scaling)
        at = now
        while busy and busy[0] <= now:
            heappop(busy)
        if tokens < 1:
            outcome.refused["DeviceRateLimit"] += 1
            continue
        tokens -= 1
        if len(busy) >= min(room, quotas.concurrency):
            outcome.refused["Lambda"] += 1
            continue
        seconds = BUSY_SECONDS * math.exp(chance.gauss(0, SPREAD))
        if len(busy) >= outcome.environments:
            outcome.environments += 1
            seconds += COLD_SECONDS
        heappush(busy, now + seconds)
        outcome.served += 1
        outcome.busy_seconds += seconds
        outcome.seconds.append(seconds)
        outcome.most_at_once = max(outcome.most_at_once, len(busy))
    return outcome


def _arrivals(rates: Sequence[float], chance: random.Random) -> Iterator[float]:
    """Yield the times at which devices come: independently of each other."""
    for second, rate in enumerate(rates):
        at = float(second)
        while rate > 0 and (at := at + chance.expovariate(rate)) < second + 1:
            yield at


def quota_rows() -> list[tuple[str, str]]:
    """Return each quota with what it is enough for, the first to end first."""
    return [
        (quota.name, f"{quota.most:,.0f} {quota.of} a second")
        for quota in sorted(QUOTAS, key=lambda quota: (quota.of != "requests", quota.most))
    ]


def scenario_row(scenario: Scenario, outcome: Outcome) -> tuple[str, ...]:
    """Return what became of a scenario, in words."""
    refused = ", ".join(f"{number:,} by {who}" for who, number in outcome.refused.items()) or "none"
    return (
        scenario.name,
        f"{max(scenario.rates):,.0f}",
        f"{outcome.served:,}",
        refused,
        f"{outcome.most_at_once:,}",
        f"{outcome.slow * 1000:,.0f}",
    )


def main() -> None:
    """Print both tables."""
    say = Console(width=150).print
    table = Table("quota", "is enough for", title="What ends first")
    for row in quota_rows():
        table.add_row(*row)
    say(table)
    table = Table("scenario", "most a second", "served", "refused", "most at once", "p99 (ms)", title="What happens")
    for scenario in SCENARIOS:
        table.add_row(*scenario_row(scenario, simulate(scenario)))
    say(table)


if __name__ == "__main__":
    main()

"""``picomdm cost``: what a deployment costs a month, from its call budgets and AWS' published prices.

What each request asks of AWS stands in ``docs/architecture.md`` (call budgets), and tests hold it; how many units that
is, is computed here from the sizes of items. Beside it stands the smallest deployment of a server that survives the
loss of a zone. ``docs/cost.md`` tells what is assumed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from picomdm.context import JSON, operator_of

PRICES_OF: Final = "us-east-1, as published in June 2026"

SERIES: Final = 40
"""As many as there may be: a quiet deployment has fewer."""
SERIES_OF_IDLE: Final = 5
"""What is measured every hour, whatever happens."""
ALARMS: Final = 10

MILLION: Final = 1_000_000
DAYS: Final = 30.4
HOURS: Final = 730
_EVENT_KILOBYTES: Final = 2
"""Of an event, on the average: most are of a device that reports to be idle, or to have done something."""
_KILOBYTES: Final = 1e6
"""In a gigabyte, as it is priced."""


@dataclass(frozen=True, kw_only=True)
class Use:
    """How a deployment is used."""

    devices: int
    connects_per_day: float
    commands_per_day: float = 1
    """To each device."""
    webhooks: int = 1
    """Subscriptions to all events."""
    milliseconds: float = 60
    """How long a request takes its function; nobody has measured that on AWS yet."""
    last_seen_minutes: int = 60
    traced: bool = True
    archive_days: float = 14

    @property
    def commands(self) -> float:
        """Commands a month."""
        return self.devices * self.commands_per_day * DAYS

    @property
    def requests(self) -> float:
        """Requests of devices a month: each command is one more to fetch it and one more to report on it."""
        return self.devices * self.connects_per_day * DAYS + 2 * self.commands

    @property
    def per_second(self) -> float:
        """Requests of devices a second, on the average."""
        return self.requests / (DAYS * 86_400)

    @property
    def seen(self) -> float:
        """How often it is written that a device was seen."""
        return self.devices * min(self.connects_per_day, 24 * 60 / self.last_seen_minutes) * DAYS

    @property
    def events(self) -> float:
        """Events a month: one a request, one a command that is queued."""
        return self.requests + self.commands


@dataclass(frozen=True)
class Item:
    """A line of the bill. ``free`` of it is always free in an account."""

    what: str
    amount: float
    unit: str
    price: float
    """Dollars for ``per`` of the unit."""
    per: float = 1
    free: float = 0

    @property
    def listed(self) -> float:
        """Dollars, nothing of it free."""
        return self.amount / self.per * self.price

    @property
    def dollars(self) -> float:
        """Dollars, when nothing else in the account uses what is free."""
        return max(self.amount - self.free, 0) / self.per * self.price


def bill(use: Use) -> Iterator[Item]:
    """Yield what a month costs."""
    sqs = 4 * 650_000 + 3 * use.commands + 3 * use.events * use.webhooks
    invocations = use.requests + use.commands + use.events * use.webhooks + 10_000
    seconds = use.requests * use.milliseconds / 1000
    seconds += (use.commands * 100 + use.events * use.webhooks * 100 + 10_000 * 200) / 1000
    # A strong read of the record, with a command beside it two units; a command is read for and again after queueing.
    reads = use.requests + use.commands * (1 + 2)
    # last_seen: the record has up to 2 KB, and its entry in the index of lists changes with it. A command: its item,
    # the pending one with its index; then, in a transaction, which counts twice, that one deleted and the result put.
    writes = use.seen * 3 + use.commands * (2 + 3 + 7)
    stored = use.devices * (8 + use.commands_per_day * 90 * 1.2) / _KILOBYTES
    logged = (use.requests * 0.6 + use.commands * 1.2 + use.events * use.webhooks * 0.5) / _KILOBYTES
    traces = min(use.per_second, 1) * DAYS * 86_400 + 0.05 * max(use.per_second - 1, 0) * DAYS * 86_400
    yield Item("API Gateway, HTTP API: requests", use.requests + use.commands, "requests", 1.00, MILLION)
    yield Item("Lambda: invocations", invocations, "invocations", 0.20, MILLION, MILLION)
    yield Item("Lambda: 1 GB on arm64", seconds, "GB seconds", 13.3334, MILLION, 400_000)
    yield Item("DynamoDB: reads", reads, "read units", 0.125, MILLION)
    yield Item("DynamoDB: writes", writes, "write units", 0.625, MILLION)
    yield Item("DynamoDB: storage", stored, "GB", 0.25, free=25)
    yield Item("DynamoDB: point-in-time recovery", stored, "GB", 0.20)
    yield Item("EventBridge: events", use.events, "events", 1.00, MILLION)
    archived = use.events * _EVENT_KILOBYTES / _KILOBYTES if use.archive_days else 0
    yield Item("EventBridge: archive, what goes in", archived, "GB", 0.10)
    yield Item("EventBridge: archive, what lies there", archived * use.archive_days / DAYS, "GB", 0.023)
    yield Item("SQS: requests", sqs, "requests", 0.40, MILLION, MILLION)
    yield Item("CloudWatch: logs", logged, "GB", 0.50, free=5)
    yield Item("CloudWatch: metrics", SERIES if use.devices else SERIES_OF_IDLE, "series", 0.30, free=10)
    yield Item("CloudWatch: alarms", ALARMS, "alarms", 0.10, free=10)
    yield Item("CloudWatch: dashboard", 1, "dashboard", 3.00, free=3)
    yield Item("Secrets Manager", 1, "secret", 0.40)
    if use.traced:
        yield Item("X-Ray: traces", traces, "traces", 5.00, MILLION, 100_000)


def server(use: Use) -> Iterator[Item]:
    """Yield what the smallest server costs that outlives a zone: two tasks, a balancer, a database with a standby."""
    capacity = max(use.per_second / 25, 0.04)
    logged = use.requests * 0.3 / _KILOBYTES
    yield Item("Fargate on arm64: two tasks of 1/4 vCPU", 2 * 0.25 * HOURS, "vCPU hours", 0.03238)
    yield Item("Fargate: their 1/2 GB", 2 * 0.5 * HOURS, "GB hours", 0.00356)
    yield Item("Load balancer", HOURS, "hours", 0.0225)
    yield Item("Load balancer: capacity units", capacity * HOURS, "LCU hours", 0.008)
    yield Item("MySQL, db.t4g.micro with a standby", HOURS, "hours", 0.032)
    yield Item("MySQL: storage with a standby", 20, "GB", 0.23)
    yield Item("Public addresses: two tasks, two of the balancer", 4 * HOURS, "hours", 0.005)
    yield Item("CloudWatch: logs", logged, "GB", 0.50, free=5)


def cost(
    context: typer.Context,
    *,
    devices: Annotated[int, typer.Option(min=0, help="How many devices are enrolled.")] = 1000,
    connects_per_day: Annotated[
        float, typer.Option(min=0, help="How often a device connects for nothing: most do so when they are woken.")
    ] = 24,
    commands_per_day: Annotated[float, typer.Option(min=0, help="How many commands a device gets.")] = 1,
    webhooks: Annotated[int, typer.Option(min=0, help="How many webhooks get all events.")] = 1,
    milliseconds: Annotated[float, typer.Option(min=1, help="How long a request takes its function.")] = 60,
    last_seen_minutes: Annotated[int, typer.Option(min=1, help="The template's LastSeenMinutes.")] = 60,
    archive_days: Annotated[float, typer.Option(min=0, help="The template's ArchiveDays.")] = 14,
    tracing: Annotated[bool, typer.Option(help="Whether X-Ray traces the functions (the template's Tracing).")] = True,
    _json: JSON = False,
) -> None:
    """Estimate what a deployment costs a month, and what a server would."""
    terminal = operator_of(context).terminal
    use = Use(
        devices=devices,
        connects_per_day=connects_per_day,
        commands_per_day=commands_per_day,
        webhooks=webhooks,
        milliseconds=milliseconds,
        last_seen_minutes=last_seen_minutes,
        traced=tracing,
        archive_days=archive_days,
    )
    ours, theirs = list(bill(use)), list(server(use))
    idle = sum(item.dollars for item in bill(replace(use, devices=0)))
    total, of_server = (sum(item.dollars for item in items) for items in (ours, theirs))

    def show() -> None:
        rows = [(item.what, f"{item.amount:,.0f} {item.unit}", _dollars(item.dollars)) for item in ours]
        terminal.table(("A MONTH OF PICOMDM", "AMOUNT", "DOLLARS"), [*rows, ("in all", "", _dollars(total))], empty="")
        terminal.say("")
        rows = [(item.what, f"{item.amount:,.0f} {item.unit}", _dollars(item.dollars)) for item in theirs]
        terminal.table(
            ("A MONTH OF A SERVER", "AMOUNT", "DOLLARS"), [*rows, ("in all", "", _dollars(of_server))], empty=""
        )
        terminal.say("")
        terminal.say(
            f"{use.per_second:.1f} requests a second on the average. With no device: {_dollars(idle)}. "
            f"Prices of {PRICES_OF}, less what is always free in an account; data transfer and taxes are not in it."
        )

    terminal.answer(
        {
            "prices_of": PRICES_OF,
            "requests_per_second": round(use.per_second, 3),
            "picomdm": {item.what: round(item.dollars, 2) for item in ours},
            "picomdm_total": round(total, 2),
            "picomdm_total_without_free_tier": round(sum(item.listed for item in ours), 2),
            "picomdm_idle": round(idle, 2),
            "server": {item.what: round(item.dollars, 2) for item in theirs},
            "server_total": round(of_server, 2),
        },
        show,
    )


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}"

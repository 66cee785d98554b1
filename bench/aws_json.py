"""What one call of AWS costs: the SDK with its defaults, and signed requests, in turns, against emulated AWS.

Run it with ``make bench`` or ``python -m bench.aws_json``; why it matters: ``docs/decisions/signed-requests.md``.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import boto3
from rich.console import Console
from rich.table import Table

from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from tests import deployment

ROUNDS: Final = 20
CALLS: Final = 50


def main() -> None:
    """Measure, and print the table."""
    with tempfile.TemporaryDirectory() as directory:
        emulator = Emulator.start(Path(directory))
        try:
            os.environ.update(emulator.environment)
            settings = deployment.Resources(emulator).settings(deployment.create_tables(emulator))
            os.environ.update(deployment.environment_of(settings))
            runtime.forget()
            table = Table(title=f"One call: CPU, medians of {ROUNDS} rounds (ms)", title_justify="left")
            for column in ("call", "the SDK", "signed request", "share"):
                table.add_column(column, justify="left" if column == "call" else "right")
            for name, sdk, ours in _calls(settings):
                rounds = [(_cpu(sdk), _cpu(ours)) for _ in range(ROUNDS + 1)][1:]
                one, other = (statistics.median(costs) for costs in zip(*rounds, strict=True))
                share = statistics.median(cost / of for of, cost in rounds)
                table.add_row(name, f"{one:.2f}", f"{other:.2f}", f"{share:.2f}")
        finally:
            emulator.stop()
    Console(width=120).print(table)


def _calls(settings: Settings) -> list[tuple[str, Callable[[], object], Callable[[], object]]]:
    key = {"enrollment_id": {"S": "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"}, "item": {"S": "!"}}
    item = key | {f"attribute_{number}": {"S": "of thirty characters, or so it is"} for number in range(20)}
    clients: list[tuple[Any, Any]] = [
        (boto3.client("dynamodb"), boto3.client("events")),
        (runtime.dynamodb_client(), runtime.events_client()),
    ]
    clients[0][0].put_item(TableName=settings.enrollment_table, Item=item)
    entries = [{"Source": "bench", "DetailType": "bench", "Detail": "{}", "EventBusName": settings.event_bus}]

    def get_item(client: Any) -> Callable[[], object]:  # noqa: ANN401 - the SDK's or ours
        return lambda: client.get_item(TableName=settings.enrollment_table, Key=key)

    def put_events(client: Any) -> Callable[[], object]:  # noqa: ANN401 - as above
        return lambda: client.put_events(Entries=entries)

    (sdk, sdk_events), (ours, our_events) = clients
    return [
        ("GetItem", get_item(sdk), get_item(ours)),
        ("PutEvents", put_events(sdk_events), put_events(our_events)),
    ]


def _cpu(call: Callable[[], object]) -> float:
    begun = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - begun) / CALLS * 1000


if __name__ == "__main__":
    main()

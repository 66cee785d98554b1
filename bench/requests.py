"""What each device request costs: CPU, wall time and AWS calls, beside the bare SDK calls that it makes.

The handlers run in this process, the emulated AWS in another. Handler and bare calls take turns in short batches, so
that a machine that slows down slows both, and the ratio holds on a noisy one. ``bare`` is boto3 making the very calls
that the handler made (recorded, with conditions that always hold), alone in a loop, with nothing around them.

Run it with ``make bench``.
"""

import os
import plistlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import count, repeat
from pathlib import Path
from typing import Any, Final

import boto3
from botocore import xform_name
from botocore.model import OperationModel
from rich.console import Console
from rich.table import Table

from functions.checkin import app as checkin_app
from functions.connect import app as connect_app
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.command import Command
from mdmlib.observability import logger
from tests import deployment
from tests.gateway import FunctionContext
from tests.signed_device import SignedDevice, trusted_authority

UDID: Final = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
BATCHES: Final = int(os.environ.get("BENCH_BATCHES", "20"))
BATCH: Final = int(os.environ.get("BENCH_BATCH", "25"))
WARM_UP: Final = BATCH
REQUESTS: Final = WARM_UP + 1 + BATCHES * BATCH


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one batch, per request."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Row:
    """One request, beside its bare SDK calls."""

    name: str
    calls: str
    handler: Sequence[Cost]
    bare: Sequence[Cost]


def main() -> None:
    """Measure every request and print the table."""
    with tempfile.TemporaryDirectory() as directory:
        emulator = Emulator.start(Path(directory))
        try:
            _prepare(emulator)
            rows = _measure()
        finally:
            emulator.stop()
    _print(rows, _cold_starts())


def _prepare(emulator: Emulator) -> None:
    os.environ.update(emulator.environment)
    os.environ["POWERTOOLS_SERVICE_NAME"] = "bench"
    settings = deployment.create_settings(emulator, deployment.create_tables(emulator))
    os.environ.update(deployment.environment_of(settings))
    runtime.forget()
    runtime.bind_tables()
    # The handlers' log goes where Lambda's would: out of the way.
    for handler in logger.registered_handler, *logger.handlers:
        handler.setStream(Path(os.devnull).open("w"))  # type: ignore[attr-defined]  # noqa: SIM115


def _measure() -> list[Row]:
    device = SignedDevice(trusted_authority(), UDID)
    numbers = count()

    def checkin(message_type: str, **fields: Any) -> Signed:  # noqa: ANN401 - plist values
        """Make a request whose body is new each time: a repeated one would be answered as a repeat."""

        def request() -> dict[str, Any]:
            return device.checkin(message_type, BuildVersion=str(next(numbers)), **fields)

        return Signed(checkin_app.lambda_handler, request)

    def report(status: str, uuids: Iterator[str] | None = None) -> Signed:
        def request() -> dict[str, Any]:
            return device.report(status, next(uuids) if uuids else None)

        return Signed(connect_app.lambda_handler, request)

    authenticate = checkin("Authenticate", SerialNumber="C02XXXX", OSVersion="26.1", Model="MacBookPro18,3")
    token_update = checkin("TokenUpdate", Token=b"t" * 32, PushMagic="magic", UnlockToken=b"u" * 1000)
    rows = [_row("checkin: Authenticate", authenticate), _row("checkin: TokenUpdate", token_update)]
    rows.append(_row("connect: Idle, nothing to send", report("Idle")))
    rows.append(_row("enqueue to one enrollment", _enqueue(numbers)))
    authenticate()
    token_update()
    queued = [f"00000000-0000-4000-8000-{number:012}" for number in range(REQUESTS + 10)]
    for uuid in queued:
        _enqueue(iter([uuid]))()
    rows.append(_row("connect: Idle, command to send", report("Idle")))
    rows.append(_row("connect: NotNow", report("NotNow", repeat(queued[0]))))
    rows.append(_row("connect: result, next command", report("Acknowledged", iter(queued))))
    return rows


class Signed:
    """Calls ``handler`` with events that were signed beforehand: the device's work is not ours."""

    def __init__(self, handler: Callable[..., dict[str, Any]], request: Callable[[], dict[str, Any]]) -> None:
        self._handler = handler
        self._request = request
        self._ready: list[dict[str, Any]] = []

    def prepare(self, requests: int) -> None:
        """Sign as many events."""
        self._ready = [self._request() for _ in range(requests)]

    def __call__(self) -> None:
        """Handle one event."""
        if not self._ready:
            self.prepare(1)
        answer = self._handler(self._ready.pop(), FunctionContext())
        if answer["statusCode"] != 200:  # noqa: PLR2004 - the protocol's only success
            raise RuntimeError(f"the handler answered {answer['statusCode']}")


def _enqueue(uuids: Iterator[object]) -> Callable[[], object]:
    service = runtime.enqueue_service()

    def call() -> None:
        command = {"RequestType": "DeviceInformation", "Queries": ["OSVersion", "SerialNumber"]}
        body = plistlib.dumps({"CommandUUID": str(next(uuids)), "Command": command})
        service.enqueue(Command.decode(body), [UDID], push=False)

    return call


class Recorder:
    """Writes down which SDK calls a request makes, and makes the same ones bare."""

    def __init__(self, request: Callable[[], object]) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        ours = [
            runtime.dynamodb_client(),
            runtime.events_client(),
            runtime.sqs_client(),
            runtime.dynamodb_batch_client(),
        ]
        for client in ours:
            client.meta.events.register("provide-client-params.*.*", self._record)
        request()
        for client in ours:
            client.meta.events.unregister("provide-client-params.*.*", self._record)
        self._bare = {service: _plain_client(service) for service in {service for service, _, _ in self.calls}}
        self._methods = [
            (getattr(self._bare[service], xform_name(operation)), params) for service, operation, params in self.calls
        ]

    def __call__(self) -> None:
        """Make the calls."""
        for method, params in self._methods:
            method(**params)

    def _record(self, params: dict[str, Any], model: OperationModel, **_: object) -> None:
        copy = deepcopy(params)
        copy.pop("ClientRequestToken", None)
        _always_true(copy)
        self.calls.append((str(model.service_model.service_name), str(model.name), copy))


@cache
def _plain_client(service: str) -> Any:  # noqa: ANN401 - of any service
    return boto3.client(service)  # type: ignore[call-overload]


def _always_true(params: Any) -> None:  # noqa: ANN401 - any part of a request
    """Keep each condition at its length, but let it hold: the same write is made many times."""
    if isinstance(params, dict):
        if "ConditionExpression" in params:
            params["ConditionExpression"] += " OR attribute_exists(cls) OR attribute_not_exists(cls)"
        for value in params.values():
            _always_true(value)
    elif isinstance(params, list):
        for value in params:
            _always_true(value)


def _row(name: str, handler: Callable[[], object]) -> Row:
    for _ in range(WARM_UP):
        handler()
    bare = Recorder(handler)
    for _ in range(WARM_UP):
        bare()
    ours, theirs = [], []
    for _ in range(BATCHES):
        if isinstance(handler, Signed):
            handler.prepare(BATCH)
        ours.append(_batch(handler))
        theirs.append(_batch(bare))
    return Row(name, ", ".join(operation for _, operation, _ in bare.calls), ours, theirs)


def _batch(request: Callable[[], object]) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(BATCH):
        request()
    return Cost((time.process_time() - cpu) / BATCH * 1000, (time.perf_counter() - wall) / BATCH * 1000)


def _cold_starts() -> dict[str, float]:
    """Return the median milliseconds of importing a function and making its clients, in fresh interpreters."""
    program = (
        "import time; start = time.perf_counter(); import functions.{name}.app; from mdmlib import runtime; "
        "runtime.{name}_service(); runtime.device_identity(); runtime.events_client(); "
        "print((time.perf_counter() - start) * 1000)"
    )
    return {
        name: statistics.median(
            float(
                subprocess.run(
                    [sys.executable, "-c", program.format(name=name)], check=True, capture_output=True
                ).stdout
            )
            for _ in range(7)
        )
        for name in ("connect", "checkin")
    }


def _print(rows: Sequence[Row], cold_starts: dict[str, float]) -> None:
    console = Console(width=120)
    table = Table(title="One request: handler beside its bare SDK calls (medians, ms)", title_justify="left")
    for column in ("request", "AWS calls"):
        table.add_column(column, overflow="fold")
    for column in ("CPU", "bare CPU", "SDK share", "ratio", "wall", "bare wall"):
        table.add_column(column, justify="right")
    for row in rows:
        cpu = statistics.median(cost.cpu for cost in row.handler)
        bare = statistics.median(cost.cpu for cost in row.bare)
        ratio = statistics.median(ours.cpu / theirs.cpu for ours, theirs in zip(row.handler, row.bare, strict=True))
        table.add_row(
            row.name,
            row.calls,
            f"{cpu:.2f}",
            f"{bare:.2f}",
            f"{bare / cpu:.0%}",
            f"{ratio:.2f}",
            f"{statistics.median(cost.wall for cost in row.handler):.2f}",
            f"{statistics.median(cost.wall for cost in row.bare):.2f}",
        )
    console.print(table)
    for name, milliseconds in cold_starts.items():
        console.print(f"cold start of {name} (imports and clients): {milliseconds:.0f} ms")


if __name__ == "__main__":
    main()

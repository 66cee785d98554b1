"""What a request of a device or an administrator costs: CPU, wall time, AWS calls, beside bare SDK calls and RSA.

The handlers run in this process, the emulated AWS in another. How that is measured: :mod:`bench.measure`; how to read
the table: ``docs/testing.md``. Run it with ``make bench``, or ``python -m bench.requests connect`` for some rows.
"""

import json
import os
import plistlib
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.measure import BATCHES, Cost, Request, Row, RsaOperations, measure
from functions.admin import app as admin_app
from functions.checkin import app as checkin_app
from functions.commands import app as commands_app
from functions.connect import app as connect_app
from functions.enroll import app as enroll_app
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.command import Command
from mdmlib.observability import logger
from mdmlib.services.push_info import PushInfo
from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from tests import deployment
from tests.gateway import FunctionContext, Gateway, http_event
from tests.long_queues import fill_queue
from tests.scep_client import ScepClient
from tests.signed_device import TOPIC, SignedDevice

COLD_STARTS: Final = 7
LONG_QUEUE: Final = 10_000
THOUSAND: Final = 1_000
THOUSAND_BATCHES: Final = {"batches": min(BATCHES, 7), "batch": 3}
# The emulator's Query takes time in proportion to its partition: 0.2 s here. AWS' does not.
LONG_QUEUE_BATCHES: Final = {"batches": min(BATCHES, 7), "batch": 7}

SIGNED: Final = RsaOperations(verify=2)
"""Mdm-Signature: the device's signature over the body, and the CA's over the device's certificate."""

SCEP: Final = RsaOperations(verify=3, decrypt=1, sign=2, encrypt=1)
"""Verified are the message, its signer's own certificate and the CSR; decrypted is the envelope; signed are the new
certificate and the answer, which is encrypted to the client."""

NONE: Final = RsaOperations()


def main() -> None:
    """Measure the requests whose names begin with an argument, or all, and print the table."""
    names = tuple(sys.argv[1:])
    with tempfile.TemporaryDirectory() as directory:
        emulator = Emulator.start(Path(directory))
        try:
            _prepare(emulator)
            # The log goes where Lambda's would: out of the way. Writing it is measured.
            with Path(os.devnull).open("w") as log, redirect_stdout(log):
                rows = [_measured(request) for request in _requests(names)]
        finally:
            emulator.stop()
    _print(rows, {} if names else _cold_starts())


def _measured(request: Request) -> Row:
    print(f"Measuring {request.name}", file=sys.stderr, flush=True)
    return measure(request)


def _prepare(emulator: Emulator) -> None:
    os.environ.update(emulator.environment)
    os.environ["POWERTOOLS_SERVICE_NAME"] = "bench"
    settings = deployment.Resources(emulator).settings(deployment.create_tables(emulator))
    os.environ.update(deployment.environment_of(settings))
    runtime.forget()
    runtime.bind_tables()
    # The logger has a stream of its own.
    for handler in logger.registered_handler, *logger.handlers:
        handler.setStream(Path(os.devnull).open("w"))  # type: ignore[attr-defined]  # noqa: SIM115


def _requests(names: tuple[str, ...]) -> Iterator[Request]:
    """Yield the requests whose names begin with one of ``names``, each with a device of its own."""
    requests: dict[str, Callable[[], dict[str, Any]]] = {
        "Authenticate": lambda: _Device().authenticate(),
        "TokenUpdate": lambda: _Device().token_update(),
        "CheckOut": lambda: _Device().check_out(),
        "SCEP issue": _scep_issue,
        "connect: Idle, nothing waits": lambda: _Device().idle(),
        "connect: Idle, a command waits": lambda: _Device(waiting=1).idle(),
        "connect: NotNow": lambda: _Device(waiting=2).not_now(),
        "connect: result, the next waits": lambda: _Device(waiting=1).result(),
        "enqueue to one enrollment": lambda: _Device().enqueue(),
        "enqueue to 1,000 enrollments": lambda: _Thousand().enqueue(),
        "list 10,000 enrollments, 100 a page": lambda: _TenThousand().list(),
        "10,000 wait: Authenticate": lambda: _LongQueue().authenticate(),
        "10,000 wait: TokenUpdate": lambda: _LongQueue().token_update(),
        "10,000 wait: connect: Idle": lambda: _LongQueue().idle(),
        "10,000 wait: connect: result": lambda: _LongQueue().result(),
    }
    for name, request in requests.items():
        if not names or name.startswith(names):
            yield Request(name, **request())


class _Device:
    """An enrolled device and the requests that it makes."""

    numbers = count()

    def __init__(self, *, waiting: int = 0) -> None:
        self.udid = f"A5EF1BA1-0000-4000-8000-{next(self.numbers):012}"
        self._signed = SignedDevice(runtime.certificate_authority().load(), self.udid)
        self._authenticate()()
        self._token_update()()
        self.queued = [self._enqueue() for _ in range(waiting)]

    def authenticate(self) -> dict[str, Any]:
        return {"make": self._authenticate, "rsa": SIGNED}

    def token_update(self) -> dict[str, Any]:
        return {"make": self._token_update, "rsa": SIGNED}

    def check_out(self) -> dict[str, Any]:
        def enroll() -> None:
            self._authenticate()()

        return {"make": lambda: self._checkin("CheckOut"), "rsa": SIGNED, "before": enroll}

    def idle(self) -> dict[str, Any]:
        return {"make": lambda: self._report("Idle"), "rsa": SIGNED}

    def not_now(self) -> dict[str, Any]:
        return {"make": lambda: self._report("NotNow", self.queued[0]), "rsa": SIGNED}

    def result(self) -> dict[str, Any]:
        # Each is queued when its report is made, so that few wait at a time.
        return {"make": lambda: self._report("Acknowledged", self._queue_next()), "rsa": SIGNED}

    def enqueue(self) -> dict[str, Any]:
        return {"make": self._enqueueing, "rsa": NONE}

    def _queue_next(self) -> str:
        self.queued.append(self._enqueue())
        return self.queued[-2]

    def _checkin(self, message_type: str, **fields: Any) -> Callable[[], None]:  # noqa: ANN401 - plist values
        """Return a message whose body is new each time: a repeated one would be answered as a repeat."""
        return _handling(
            checkin_app.lambda_handler,
            self._signed.checkin(message_type, BuildVersion=str(next(self.numbers)), **fields),
        )

    def _authenticate(self) -> Callable[[], None]:
        return self._checkin("Authenticate", SerialNumber="C02XXXX", OSVersion="26.1", Model="MacBookPro18,3")

    def _token_update(self) -> Callable[[], None]:
        return self._checkin("TokenUpdate", Token=b"t" * 32, PushMagic="magic", UnlockToken=b"u" * 1000)

    def _report(self, status: str, uuid: str | None = None) -> Callable[[], None]:
        return _handling(connect_app.lambda_handler, self._signed.report(status, uuid))

    def _enqueueing(self) -> Callable[[], str]:
        return self._enqueue

    def _enqueue(self) -> str:
        uuid = f"00000000-0000-4000-8000-{next(self.numbers):012}"
        command = {"RequestType": "DeviceInformation", "Queries": ["OSVersion", "SerialNumber"]}
        body = plistlib.dumps({"CommandUUID": uuid, "Command": command})
        runtime.enqueue_service().enqueue(Command.decode(body), [self.udid], push=False)
        return uuid


class _Thousand:
    """A thousand enrolled Macs, as records: to queue a command for them takes no device."""

    numbers = count()

    def __init__(self) -> None:
        tables.PushCertificate(
            "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
        ).save()
        self._ids = [f"7948D478-0000-4000-8000-{number:012}" for number in range(THOUSAND)]
        push = PushInfo(token="7f" * 32, magic="A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD")
        with tables.EnrollmentItem.batch_write() as batch:
            for id_ in self._ids:
                batch.save(
                    Enrollment(
                        id_,
                        tables.RECORD,
                        type="Device",
                        state="enrolled",
                        generation=tables.FIRST_GENERATION,
                        epoch=1,
                        topic=TOPIC,
                        product_name="Mac14,2",
                        os_version="26.1",
                        push=push.seal(runtime.sealer(), id_),
                    )
                )

    def enqueue(self) -> dict[str, Any]:
        return {"make": lambda: self._enqueue, "rsa": NONE} | THOUSAND_BATCHES

    def _enqueue(self) -> None:
        command = {"request_type": "DeviceInformation", "queries": ["OSVersion", "SerialNumber"]}
        body = json.dumps({"ids": self._ids, "command": command})
        _handling(commands_app.lambda_handler, http_event("POST", "/v2/commands", body.encode()), status=201)()


class _TenThousand:
    """Ten thousand enrolled Macs, as records."""

    def __init__(self) -> None:
        with tables.EnrollmentItem.batch_write() as batch:
            for number in range(LONG_QUEUE):
                id_ = f"9C1B6A52-0000-4000-8000-{number:012}"
                batch.save(
                    Enrollment(
                        id_,
                        tables.RECORD,
                        type="Device",
                        state="enrolled",
                        listing_shard=tables.shard_of(id_),
                        serial_number=f"C02{number:08}",
                        product_name="Mac14,2",
                        os_version="26.1",
                        generation=tables.FIRST_GENERATION,
                        epoch=1,
                    )
                )

    def list(self) -> dict[str, Any]:
        return {"make": lambda: self._list, "rsa": NONE, "batches": min(BATCHES, 3), "batch": 1, "target": None}

    def _list(self) -> None:
        query, count = {"limit": "100"}, 0
        while True:
            event = http_event("GET", "/v2/enrollments", query=query)
            page = Gateway(admin_app.lambda_handler).answer(event).document
            count += len(page["enrollments"])
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        if count < LONG_QUEUE:
            raise RuntimeError(f"{count} enrollments were listed")


class _LongQueue(_Device):
    """A device for which 10,000 commands wait, whatever it does."""

    def __init__(self) -> None:
        super().__init__()
        self._record = Enrollment.get(self.udid, "!")
        self.uuids = iter(fill_queue(self.udid, LONG_QUEUE, client=runtime.dynamodb_client()))

    def authenticate(self) -> dict[str, Any]:
        def revive() -> None:
            # What Authenticate clears by counting on comes back by counting back.
            Enrollment(self.udid, "!").update([Enrollment.generation.set(self._record.generation)])

        return super().authenticate() | LONG_QUEUE_BATCHES | {"before": revive}

    def token_update(self) -> dict[str, Any]:
        return super().token_update() | LONG_QUEUE_BATCHES

    def idle(self) -> dict[str, Any]:
        return super().idle() | LONG_QUEUE_BATCHES

    def result(self) -> dict[str, Any]:
        make = {"make": lambda: self._report("Acknowledged", next(self.uuids)), "rsa": SIGNED}
        return make | LONG_QUEUE_BATCHES


def _scep_issue() -> dict[str, Any]:
    """Return the request of a client with a good challenge, as each enrollment begins."""
    ca = runtime.certificate_authority().load()
    challenges = runtime.scep_challenges()

    def make() -> Callable[[], None]:
        challenge = challenges.new(None, datetime.now(UTC) + timedelta(hours=1))
        message = ScepClient(ca.certificate).request(challenge)
        event = http_event("POST", "/scep", message, headers={"Content-Type": "application/x-pki-message"})
        event["rawQueryString"] = "operation=PKIOperation"
        return _handling(enroll_app.lambda_handler, event)

    return {"make": make, "rsa": SCEP}


def _handling(
    handler: Callable[..., dict[str, Any]], event: dict[str, Any], *, status: int = 200
) -> Callable[[], None]:
    """Return what handles an event: what the device did for it is not ours."""

    def handle() -> None:
        answer = handler(event, FunctionContext())
        if answer["statusCode"] != status:
            raise RuntimeError(f"the handler answered {answer['statusCode']}")

    return handle


def _cold_starts() -> dict[str, Cost]:
    """Return what importing a function and making its clients takes, in fresh interpreters; the SDK alone comes first.

    CPU beside wall: on a machine that others use, only the CPU says something.
    """
    made = {
        "the SDK alone": "import boto3; boto3.client('dynamodb'); boto3.client('events')",
        "connect": _function("connect", "runtime.connect_service(); runtime.device_identity()"),
        "checkin": _function("checkin", "runtime.checkin_service(); runtime.device_identity()"),
        "enroll": _function("enroll", "runtime.certificate_authority(); runtime.enrollment_links()"),
        "commands": _function(
            "commands",
            "runtime.enqueue_service(); import mdmlib.apple.command_fields as f; f.fields_of('DeviceLock')",
        ),
    }
    return {name: _cold_start(program) for name, program in made.items()}


def _function(name: str, services: str) -> str:
    return f"import functions.{name}.app; from mdmlib import runtime; {services}; runtime.events_client()"


def _cold_start(made: str) -> Cost:
    program = (
        "import time; cpu, wall = time.process_time(), time.perf_counter(); "
        f"{made}; print(time.process_time() - cpu, time.perf_counter() - wall)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
        for _ in range(COLD_STARTS)
    ]
    return Cost(*(statistics.median(float(run[column]) * 1000 for run in runs) for column in (0, 1)))


def _calls(names: Sequence[str]) -> str:
    """Return the calls of a request, those that it makes often counted."""
    return ", ".join(f"{number} {name}" if number > 1 else name for name, number in Counter(names).items())


def _print(rows: Sequence[Row], cold_starts: Mapping[str, Cost]) -> None:
    console = Console(width=120)
    table = Table(
        title="One request: handler beside its bare SDK calls and RSA operations (medians, ms)", title_justify="left"
    )
    for column in ("request", "AWS calls"):
        table.add_column(column, overflow="fold")
    for column in ("items", "CPU", "bare", "RSA", "bare + RSA", "ratio", "target", "wall", "wall ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        target = row.request.target
        bare, operations = (statistics.median(cost.cpu for cost in costs) for costs in (row.bare, row.rsa))
        table.add_row(
            row.request.name,
            _calls(row.calls),
            str(row.written or ""),
            f"{statistics.median(cost.cpu for cost in row.handler):.2f}",
            f"{bare:.2f}",
            f"{operations:.2f}",
            f"{bare + operations:.2f}",
            f"{'' if target is None or row.ratio.cpu <= target else '[bold red]'}{row.ratio.cpu:.2f}",
            "" if target is None else f"{target:.2f}",
            f"{statistics.median(cost.wall for cost in row.handler):.2f}",
            f"{row.ratio.wall:.2f}",
        )
    console.print(table)
    for name, cost in cold_starts.items():
        console.print(f"cold start (imports and clients), {name}: {cost.cpu:.0f} ms CPU, {cost.wall:.0f} ms")


if __name__ == "__main__":
    main()

"""How a long list of devices is read: pages, calls, time, and memory that does not grow with it.

A simulated Apple has a list of 100,000 devices; ``functions/dep_sync``'s service reads it into emulated DynamoDB, once
without a rule and, in a list of its own, with one that gives each device a profile. Each run has the time that Lambda
gives it, and asks for the next one. Time is that of this machine and its emulator; calls are what AWS would see.

Run it with ``python -m bench.ade``; ``BENCH_ADE_DEVICES=10000`` reads a shorter list.
"""

import json
import os
import resource
import tempfile
import time
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from rich.console import Console
from rich.table import Table

from local.ade.client import AdeControl, AdeSimulator
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.observability import logger
from mdmlib.services.ade_assignment_rules import Rule
from mdmlib.services.ade_sync import AdeSyncs
from mdmlib.store.ade_devices import AdeDeviceStore
from tests.aws_calls import watch
from tests.deployment import Resources, create_tables, environment_of

DEVICES: Final = int(os.environ.get("BENCH_ADE_DEVICES", "100000"))
LAMBDA_SECONDS: Final = 300.0
PARTS: Final = 4
"""In so many parts the way through a list is shown."""
PLAIN, WITH_RULE = "read", "read, and given a profile"


@dataclass
class Stretch:
    """A part of a list: what it took."""

    what: str
    devices: int
    runs: int
    calls: Counter[str]
    cpu: float
    wall: float
    memory: float
    """The most that the process ever had, in MiB."""


@dataclass
class Reader:
    """Reads a list, run by run, and looks at the clock, the calls and the memory on the way."""

    server: str
    what: str
    control: AdeControl
    asked_for: list[str] = field(default_factory=list)
    stretches: list[Stretch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.syncs = AdeSyncs(
            names=lambda: [self.server],
            client_of=runtime.ade_servers().client,
            run_later=self.asked_for.append,
            rules=runtime.ade_assignment_rules(),
            devices=AdeDeviceStore(),
            events=runtime.events(),
            now=runtime.now,
        )
        self._calls: Counter[str] = Counter()
        self._marks = [DEVICES * part // PARTS for part in range(1, PARTS)]
        self._runs = 0
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> list[Stretch]:
        """Read the list to its end, and give devices their profiles if a rule says so."""
        clients = [runtime.dynamodb_client(), runtime.events_client()]
        ends = [watch(client, after=self._look) for client in clients]
        asked = self.control.requests()
        self.asked_for.append(self.server)
        while self.asked_for:
            self._runs += 1
            until = time.monotonic() + LAMBDA_SECONDS
            self.syncs.run(self.asked_for.pop(), seconds_left=partial(_seconds_until, until))
        for end in ends:
            end()
        self._calls["Apple"] = len(self.control.requests(after=asked[-1]["number"] if asked else 0))
        self._note(DEVICES)
        return self.stretches

    def _look(self, operation: str, answer: dict[str, Any]) -> None:
        """Count a call; what is written of how far the list was read tells how far that is."""
        self._calls[operation] += 1
        counts = answer.get("Attributes", {}).get("counts", {}).get("S")
        if counts and self._marks and json.loads(counts).get("devices", 0) >= self._marks[0]:
            self._note(self._marks.pop(0))

    def _note(self, devices: int) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        self.stretches.append(Stretch(self.what, devices, self._runs, self._calls.copy(), cpu, wall, memory))


def _seconds_until(moment: float) -> float:
    return moment - time.monotonic()


def main() -> None:
    """Read both lists, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator.start(Path(folder, "aws"))
        simulator = AdeSimulator.start(Path(folder, "ade"))
        try:
            settings = Resources(emulator).settings(create_tables(emulator))
            # The logger has a stream of its own.
            for handler in logger.registered_handler, *logger.handlers:
                handler.setStream(Path(os.devnull).open("w"))  # type: ignore[attr-defined]  # noqa: SIM115
            os.environ.update(emulator.environment | environment_of(settings) | {"ADE_URL": simulator.url})
            # What Lambda would log is of no interest here.
            with Path(os.devnull).open("w") as log, redirect_stdout(log):
                stretches = [*read(simulator, "plain", PLAIN), *read(simulator, "ruled", WITH_RULE, profile="staff")]
            if violations := simulator.control.violations():
                raise RuntimeError(f"The simulated Apple complains: {violations[0]}")
            runtime.ade_servers().close()
        finally:
            simulator.stop()
            emulator.stop()
    console = Console(width=150)
    console.print(table(stretches))


def read(simulator: AdeSimulator, server: str, what: str, *, profile: str | None = None) -> list[Stretch]:
    """Buy devices for a server, and read its list."""
    pem = runtime.ade_servers().stage(server).public_bytes(Encoding.PEM).decode()
    runtime.ade_servers().import_file(server, simulator.control.make_server(server, pem))
    simulator.control.buy(server, count=DEVICES)
    if profile:
        runtime.ade_profiles().put(profile, {"profile_name": profile})
        runtime.ade_assignment_rules().put(profile, Rule(server=server, profile=profile))
    return Reader(server, what, simulator.control).read()


def table(stretches: list[Stretch]) -> Table:
    """Return what each stretch took, from the beginning of its list."""
    shown = Table(title=f"Apple's list of {DEVICES:,} devices", title_justify="left")
    shown.add_column("devices")
    for name in ("until", "runs", "asked Apple", "calls of AWS", "CPU s", "wall s", "memory, MiB at most"):
        shown.add_column(name, justify="right")
    for stretch in stretches:
        calls = stretch.calls.copy()
        apple = calls.pop("Apple", 0)
        shown.add_row(
            stretch.what,
            f"{stretch.devices:,}",
            str(stretch.runs),
            f"{apple:,}" if apple else "",
            f"{calls.total():,}",
            f"{stretch.cpu:.1f}",
            f"{stretch.wall:.0f}",
            f"{stretch.memory:.0f}",
        )
    return shown


if __name__ == "__main__":
    main()

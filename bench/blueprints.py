"""What it takes to bring many devices to a blueprint: calls of AWS and CPU time, of devices' requests and of plans.

Devices enroll, and a blueprint of ten items (seven profiles, two apps, a command) is applied to all of them. Then they
do what they are told, in rounds, as events and messages come in. It is applied once more, when nothing differs, and
once more after one of the profiles has changed. Services and tables are the real ones, AWS is emulated; time is that of
this machine, calls are what AWS would see. Calls of Lambda's pollers, which read queues, are none of ours.

Run it with ``python -m bench.blueprints``; ``BENCH_DEVICES=100`` has fewer of them.
"""

import os
import plistlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.observability import logger
from mdmlib.services.blueprint_content import Content
from mdmlib.services.blueprint_plans import Wanted
from tests.aws_calls import watch
from tests.deployment import Clock, Resources, create_sealer, create_tables
from tests.fleet import Fleet, FleetDevice
from tests.workflows import Works

DEVICES: Final = int(os.environ.get("BENCH_DEVICES", "1000"))
NAME: Final = "classroom"
_PROFILES: Final = 7
_POLLERS: Final = frozenset({"ReceiveMessage", "DeleteMessage", "DeleteMessageBatch"})


@dataclass
class Side:
    """What one side took: the requests of devices, or the plans."""

    calls: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0


@dataclass
class Chapter:
    """One application of the blueprint."""

    what: str
    requests: int = 0
    """Of devices."""
    messages: int = 0
    """That the function ``workflow`` was given."""
    commands: Counter[str] = field(default_factory=Counter)
    devices: Side = field(default_factory=Side)
    plans: Side = field(default_factory=Side)
    wall: float = 0.0


class Meter:
    """Counts calls and CPU time for whoever is at work."""

    def __init__(self, emulator: Emulator) -> None:
        self._side: Side | None = None
        for client in (runtime.dynamodb_client(), emulator.events, emulator.s3, emulator.sqs):
            watch(client, after=self._count)

    @contextmanager
    def on(self, side: Side) -> Iterator[None]:
        """Count for a side."""
        self._side, begun = side, time.process_time()
        try:
            yield
        finally:
            self._side = None
            side.cpu += time.process_time() - begun

    def _count(self, operation: str, _: object) -> None:
        if self._side is not None and operation not in _POLLERS:
            self._side.calls[operation] += 1


class Mac:
    """A device that does what it is told."""

    def __init__(self, device: FleetDevice) -> None:
        self.device = device
        self.profiles: dict[str, str] = {}

    def obey(self, chapter: Chapter) -> bool:
        """Connect once, as after a push, and do what waits; say whether anything did."""
        command = self._ask(chapter, "Idle")
        had_some = command is not None
        while command is not None:
            kind = command["Command"]["RequestType"]
            chapter.commands[kind] += 1
            command = self._ask(chapter, "Acknowledged", command["CommandUUID"], **self._do(kind, command["Command"]))
        return had_some

    def _ask(self, chapter: Chapter, *report: str, **fields: Any) -> dict[str, Any] | None:  # noqa: ANN401 - what a report says
        chapter.requests += 1
        return self.device.command(*report, **fields)

    def _do(self, kind: str, command: dict[str, Any]) -> dict[str, Any]:
        match kind:
            case "InstallProfile":
                installed = plistlib.loads(command["Payload"])
                self.profiles[installed["PayloadIdentifier"]] = installed["PayloadUUID"]
            case "ProfileList":
                listed = [{"PayloadIdentifier": name, "PayloadUUID": uuid} for name, uuid in self.profiles.items()]
                return {"ProfileList": listed}
            case "InstalledApplicationList":
                return {"InstalledApplicationList": []}
        return {}


class Bench:
    """The devices and the plans."""

    def __init__(self, emulator: Emulator) -> None:
        settings = Resources(emulator).settings(create_tables(emulator))
        fleet = Fleet(emulator, settings, create_sealer(emulator, settings), Clock(datetime.now(UTC)))
        fleet.batch_client = lambda: emulator.dynamodb
        self.works = Works(fleet)
        self.meter = Meter(emulator)
        self.macs = []
        for number in range(DEVICES):
            device = FleetDevice(fleet, f"MAC-{number:06}")
            device.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber=f"C02{number:06}")
            device.token_update()
            self.macs.append(Mac(device))
        self.works.work()
        for number in range(_PROFILES):
            self.store(number, "1")
        self.works.blueprints.put(
            NAME,
            Content(
                profiles=[_identifier(number) for number in range(_PROFILES)],
                apps=[{"manifest_url": f"https://apps.example.org/{name}.plist"} for name in ("one", "two")],
                commands=[{"request_type": "RestartDevice"}],
                apply_on_enrollment=False,
            ),
        )

    def store(self, number: int, version: str) -> None:
        """Store a profile of the blueprint; it is another one on each device."""
        payload = {"PayloadType": "com.example", "PayloadIdentifier": f"p{number}", "PayloadUUID": f"P{number}"}
        profile = {
            "PayloadType": "Configuration",
            "PayloadIdentifier": _identifier(number),
            "PayloadUUID": f"PROFILE-{number}-{version}",
            "PayloadVersion": 1,
            "PayloadDisplayName": "{{serial_number}}",
            "PayloadContent": [payload],
        }
        self.works.profiles.put(_identifier(number), plistlib.dumps(profile))

    def apply(self, what: str) -> Chapter:
        """Apply the blueprint, and let everybody do what they are told until nothing is left."""
        chapter, begun = Chapter(what), time.perf_counter()
        ids = [str(mac.device) for mac in self.macs]
        with self.meter.on(chapter.plans):
            self.works.jobs.start(Wanted((NAME,)), ids=ids)
        waiting = self.macs
        while waiting:
            self._move_plans(chapter)
            with self.meter.on(chapter.devices):
                waiting = [mac for mac in waiting if mac.obey(chapter)]
        states = Counter(self.works.plan(mac.device).state for mac in self.macs)
        if states != {"done": DEVICES}:
            raise RuntimeError(f"Plans that are not done: {states}")
        chapter.wall = time.perf_counter() - begun
        return chapter

    def _move_plans(self, chapter: Chapter) -> None:
        while messages := self.works.messages():
            chapter.messages += len(messages)
            with self.meter.on(chapter.plans):
                for message in messages:
                    self.works.workflow.receive(message)


def _identifier(number: int) -> str:
    return f"com.example.classroom.{number}"


def main() -> None:
    """Apply the blueprint three times, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        emulator = Emulator.start(Path(folder, "aws"))
        try:
            os.environ.update(emulator.environment)
            # The logger has a stream of its own. What Lambda would log is of no interest here.
            with Path(os.devnull).open("w") as log, redirect_stdout(log):
                for handler in logger.registered_handler, *logger.handlers:
                    handler.setStream(log)  # type: ignore[attr-defined]
                bench = Bench(emulator)
                chapters = [bench.apply("nothing is there yet"), bench.apply("everything is there")]
                bench.store(0, "2")
                chapters.append(bench.apply("one profile has changed"))
        finally:
            emulator.stop()
    console = Console(width=150)
    console.print(table(chapters))
    for chapter in chapters:
        calls = ", ".join(f"{name} {count / DEVICES:.2f}" for name, count in chapter.plans.calls.most_common())
        console.print(f"{chapter.what}, calls of the plans for each device: {calls}")


def table(chapters: list[Chapter]) -> Table:
    """Return what each application took, for each device."""
    shown = Table(
        title=f"A blueprint of 10 items, applied to {DEVICES:,} enrollments: for each of them", title_justify="left"
    )
    shown.add_column("when")
    for name in (
        "commands",
        "requests",
        "calls",
        "CPU ms",
        "messages",
        "calls of plans",
        "CPU ms of plans",
        "wall s, of all",
    ):
        shown.add_column(name, justify="right")
    for chapter in chapters:
        shown.add_row(
            chapter.what,
            f"{chapter.commands.total() / DEVICES:.1f}",
            f"{chapter.requests / DEVICES:.1f}",
            f"{chapter.devices.calls.total() / DEVICES:.1f}",
            f"{chapter.devices.cpu * 1000 / DEVICES:.1f}",
            f"{chapter.messages / DEVICES:.1f}",
            f"{chapter.plans.calls.total() / DEVICES:.1f}",
            f"{chapter.plans.cpu * 1000 / DEVICES:.1f}",
            f"{chapter.wall:.0f}",
        )
    return shown


if __name__ == "__main__":
    main()

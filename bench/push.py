"""What a push costs: our client on h2 beside httpx, which speaks HTTP/2 too.

The simulated APNs runs in another process, on another core if there is one; it is slower than our client, so that the
column to look at is the CPU time: ``a core`` is what one core would push if nothing held it up. ``at 30 ms`` has APNs
answer late by so much, as it does from far away: there, streams under way at once are what counts.

Both clients take turns in rounds, so that a machine that slows down slows both.

Run it with ``python -m bench.push``.
"""

import asyncio
import os
import ssl
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from rich.table import Table

from local.apns.process import ApnsSimulator
from mdmlib.apple.certificates import PushIdentity
from mdmlib.clients.apns import ApnsClient, Notification, Verdict

TOPIC: Final = "com.apple.mgmt.External.0f5a3f0e-0000-4000-8000-00000000bead"
DEVICES: Final = 100
PUSHES: Final = int(os.environ.get("BENCH_PUSHES", "1000"))
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "7"))
FAR_AWAY_SECONDS: Final = 0.03


@dataclass
class Row:
    """One way to push, and what its rounds cost: seconds a push."""

    name: str
    latency: float
    send: Callable[[list[Notification]], int]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def run(self, notifications: list[Notification]) -> None:
        """Push once and take the time. Raises ``RuntimeError`` unless all were accepted."""
        wall, cpu = time.perf_counter(), time.process_time()
        accepted = self.send(notifications)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if accepted != len(notifications):
            raise RuntimeError(f"{self.name}: {accepted} of {len(notifications)} pushes were accepted.")
        self.cpu.append(cpu / len(notifications))
        self.wall.append(wall / len(notifications))


class Httpx:
    """The same pushes as anybody would send them with httpx: as many at once as it takes on one connection."""

    def __init__(self, simulator: ApnsSimulator, pem: bytes, folder: Path) -> None:
        chain = folder / "push.pem"
        chain.write_bytes(pem)
        context = ssl.create_default_context(cadata=simulator.trust_anchor)
        context.load_cert_chain(chain)
        self._loop = asyncio.new_event_loop()
        self._streams = asyncio.Semaphore(300)
        self._client = httpx.AsyncClient(
            base_url=simulator.url, http2=True, verify=context, limits=httpx.Limits(max_connections=1), timeout=60
        )

    def send(self, notifications: list[Notification]) -> int:
        """Push; return how many were accepted."""

        async def send_all() -> int:
            return sum(await asyncio.gather(*map(self._send, notifications)))

        return self._loop.run_until_complete(send_all())

    async def _send(self, notification: Notification) -> bool:
        async with self._streams:
            response = await self._client.post(
                f"/3/device/{notification.token}",
                json={"mdm": notification.magic},
                headers={
                    "apns-topic": TOPIC,
                    "apns-push-type": "mdm",
                    "apns-priority": "10",
                    "apns-expiration": str(notification.expiration),
                    "apns-id": notification.apns_id,
                },
            )
        return response.is_success

    def close(self) -> None:
        """Close the connection."""
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        simulator = ApnsSimulator.start(Path(folder, "apns"))
        try:
            pem = simulator.control.issue(TOPIC)
            ours = ApnsClient(PushIdentity.decode(pem), url=simulator.url, trust_anchor=simulator.trust_anchor)
            theirs = Httpx(simulator, pem, Path(folder))
            rows = measure(simulator, ours, theirs)
            ours.close()
            theirs.close()
            if violations := simulator.control.violations():
                raise RuntimeError(f"The simulated APNs complains: {violations[0]}")
        finally:
            simulator.stop()
    Console().print(table(rows))


def measure(simulator: ApnsSimulator, ours: ApnsClient, theirs: Httpx) -> list[Row]:
    """Let both push in turns."""

    def send(notifications: list[Notification]) -> int:
        return sum(outcome.verdict is Verdict.ACCEPTED for outcome in ours.send(notifications))

    for number in range(DEVICES):
        simulator.control.register(f"{number:064x}", topic=TOPIC, magic=f"{number:032x}")
    rows = [
        Row("ours, on h2", 0, send),
        Row("httpx", 0, theirs.send),
        Row("ours, on h2, at 30 ms", FAR_AWAY_SECONDS, send),
        Row("httpx, at 30 ms", FAR_AWAY_SECONDS, theirs.send),
    ]
    for number in range(ROUNDS + 1):
        for row in rows:
            simulator.control.behave(latency=row.latency)
            row.run(notifications(PUSHES))
            if not number:
                row.cpu.clear()  # connecting and warming up
                row.wall.clear()
    return rows


def notifications(count: int) -> list[Notification]:
    """Return pushes to all devices in turn."""
    expiration = int(time.time()) + 604_800
    return [
        Notification(f"{number % DEVICES:064x}", f"{number % DEVICES:032x}", str(uuid.uuid4()), expiration)
        for number in range(count)
    ]


def table(rows: list[Row]) -> Table:
    """Return the medians."""
    shown = Table(title=f"Pushes: medians of {ROUNDS} rounds of {PUSHES}", title_justify="left")
    shown.add_column("client")
    for name in ("CPU ms a push", "a core, pushes/s", "wall, pushes/s"):
        shown.add_column(name, justify="right")
    for row in rows:
        cpu, wall = statistics.median(row.cpu), statistics.median(row.wall)
        shown.add_row(row.name, f"{cpu * 1000:.3f}", f"{1 / cpu:,.0f}", f"{1 / wall:,.0f}")
    return shown


if __name__ == "__main__":
    main()

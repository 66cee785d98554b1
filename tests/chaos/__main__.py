"""``make chaos``: every fault at every call of all that functions do, against the deployed stack, and a table of it."""

import argparse
import secrets
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from local.administrator import Administrator
from local.device import SimulatedApns
from local.life import World
from local.processes import Program
from local.stack import Stack
from tests.chaos.admin_requests import ADMIN_REQUESTS
from tests.chaos.device_requests import DEVICE_REQUESTS
from tests.chaos.faults import FAULTS
from tests.chaos.outside import APNS, RECEIVER, play_outside
from tests.chaos.playing import Played, play
from tests.chaos.site import Site
from tests.chaos.workers import WORKERS

LANES = 5
FUNCTIONS = ("enroll", "checkin", "connect", "commands")
WORKING_FUNCTIONS = ("push", "webhook", "housekeeping", "workflow")


@contextmanager
def open_site(directory: Path) -> Iterator[Site]:
    """Deploy a stack, with all that is around it."""
    with ExitStack() as parts:
        key_file = directory / "hmac-key"
        key_file.write_text(hmac_key := secrets.token_urlsafe(32))
        listener = Program.start(
            "webhook-listener", "local.webhook_listener", ["--hmac-key-file", key_file], directory=directory
        )
        parts.callback(listener.stop)
        stack = Stack.start(directory / "stack", report=lambda step: print(f"{step} …", flush=True))
        parts.callback(stack.stop)
        parts.callback(_write_logs, stack)
        world = World(
            admin_url=stack.admin_url,
            device_url=stack.device_url,
            keys=stack.administrator,
            trust=stack.trust_anchor,
            apns_control=stack.apns.control_url,
            ade_control=stack.ade.control_url,
            webhook_url=listener.ready["url"],
            webhook_control=listener.ready["control"],
            hmac_key=hmac_key,
            topic=f"com.apple.mgmt.External.{uuid.uuid4()}",
            directory=directory,
        )
        administrator = parts.enter_context(Administrator(world.admin_url, world.keys))
        pushes = SimulatedApns(world.apns_control)
        parts.callback(pushes.close)
        administrator.request("PUT", "/v1/pushcert", body=stack.apns.control.issue(world.topic)).raise_for_status()
        subscription = {"url": world.webhook_url, "hmac_key": hmac_key}
        administrator.request("POST", "/v2/webhooks", document=subscription).raise_for_status()
        yield Site(stack, world, administrator, pushes)


@contextmanager
def _directory(kept: Path | None) -> Iterator[Path]:
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with TemporaryDirectory(prefix="picomdm-chaos-") as directory:
        yield Path(directory)


def _write_logs(stack: Stack) -> None:
    for name, log in stack.logs().items():
        (stack.directory / f"function-{name}.log").write_text(log)


def main(argv: Sequence[str] | None = None) -> int:
    """Play everything; return how many faults were not survived, as an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", default="", help="what has this in its name")
    parser.add_argument("--keep", type=Path, help="a directory for all logs; by default none is kept")
    arguments = parser.parse_args(argv)
    kinds = [kind for kind in (*DEVICE_REQUESTS, *ADMIN_REQUESTS) if arguments.only in kind.name]
    workers = [kind for kind in WORKERS if arguments.only in kind.name]
    played: list[Played] = []
    with _directory(arguments.keep) as directory, open_site(directory) as site:
        begun = time.monotonic()
        site.hurry()
        with site.proxied(*FUNCTIONS), ThreadPoolExecutor(LANES) as lanes:
            for kind, part in zip(kinds, lanes.map(lambda kind: play(kind(site)), kinds), strict=True):
                played += part
                print(f"{time.monotonic() - begun:6.1f} s  {kind.name}: {len(part)}", flush=True)
        # One after the other: what they do for themselves is told apart from what they do for others by its time alone.
        with site.proxied("connect", *WORKING_FUNCTIONS):
            for worker in workers:
                played += (part := play(worker(site)))
                print(f"{time.monotonic() - begun:6.1f} s  {worker.name}: {len(part)}", flush=True)
        if arguments.only in "APNs and receivers":
            played += (part := play_outside(site))
            print(f"{time.monotonic() - begun:6.1f} s  APNs and receivers: {len(part)}", flush=True)
        # Housekeeping leaves events of the last minute to those who have just committed them.
        lost = site.ledger.settle(seconds=150, meanwhile=site.publish_leftovers)
        for finding in (*lost, *site.undrained(seconds=60)):
            played.append(Played("in the end", "", "", finding))
    return report(played)


def report(played: Sequence[Played]) -> int:
    """Print the table; return 1 when something was not survived."""
    columns = [*(fault.name for fault in FAULTS), APNS, RECEIVER]
    width = max(len(one.kind) for one in played)
    print(" " * width, *(f"{column:>10}" for column in columns))
    for kind in dict.fromkeys(one.kind for one in played):
        cells = []
        for column in columns:
            cell = [one for one in played if (one.kind, one.fault) == (kind, column)]
            survived = sum(one.wrong is None for one in cell)
            cells.append("-" if not cell else str(survived) if survived == len(cell) else f"{survived}/{len(cell)}")
        print(f"{kind:{width}}", *(f"{cell:>10}" for cell in cells))
    wrong = [one for one in played if one.wrong]
    for one in wrong:
        print(f"NOT SURVIVED  {one.kind}, {one.call} {one.fault}: {one.wrong}")
    injected = sum(bool(one.fault) for one in played)
    print(f"chaos: {injected} faults injected, {injected - len(wrong)} survived")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

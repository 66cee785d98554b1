"""``make chaos``: every fault at every call of every kind of request, against the deployed stack, and a table of it."""

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
from tests.chaos.playing import Played, play
from tests.chaos.site import Site

LANES = 5
FUNCTIONS = ("enroll", "checkin", "connect", "commands")


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


def main(argv: Sequence[str] | None = None) -> int:
    """Play everything; return how many faults were not survived, as an exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", default="", help="kinds of requests whose names have this in them")
    arguments = parser.parse_args(argv)
    kinds = [kind for kind in (*DEVICE_REQUESTS, *ADMIN_REQUESTS) if arguments.only in kind.name]
    played: list[Played] = []
    with TemporaryDirectory(prefix="picomdm-chaos-") as directory, open_site(Path(directory)) as site:
        begun = time.monotonic()
        with site.proxied(*FUNCTIONS), ThreadPoolExecutor(LANES) as lanes:
            for kind, part in zip(kinds, lanes.map(lambda kind: play(kind(site)), kinds), strict=True):
                played += part
                print(f"{time.monotonic() - begun:6.1f} s  {kind.name}: {len(part)}", flush=True)
        for finding in site.ledger.settle(seconds=60):
            played.append(Played("events", "", "", finding))
    return report(played)


def report(played: Sequence[Played]) -> int:
    """Print the table; return 1 when something was not survived."""
    columns = [fault.name for fault in FAULTS]
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

"""``python -m local.ade``: see the package's docstring."""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from aiohttp import web

from local.ade.control import Control
from local.ade.devices import Catalogue
from local.ade.memory import load, save
from local.ade.service import Service


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m local.ade", description="A simulated device enrollment service.")
    parser.add_argument("--port", type=int, default=0, help="of the service's side; 0: a free one")
    parser.add_argument("--control-port", type=int, default=0, help="of the control interface; 0: a free one")
    parser.add_argument("--state", type=Path, help="where to find all of it again, and to keep it at the end")
    asyncio.run(_serve(parser.parse_args()))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    catalogue = load(options.state) if options.state else Catalogue()
    service = Service(catalogue)
    runners = []
    urls = []
    for application, port in (
        (service.application(), options.port),
        (Control(service, catalogue).application(), options.control_port),
    ):
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, shutdown_timeout=0.5).start()
        runners.append(runner)
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    print(json.dumps({"url": urls[0], "control": urls[1]}), flush=True)
    await stop.wait()
    for runner in runners:
        await runner.cleanup()
    if options.state:
        save(catalogue, options.state)


if __name__ == "__main__":
    main()

"""``python -m local.apns``: see the package's docstring."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from aiohttp import web

from local.apns.control import Control
from local.apns.devices import Devices
from local.apns.portal import Portal
from local.apns.server import Service


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(prog="python -m local.apns", description="A simulated APNs and its portal.")
    commands = parser.add_subparsers(dest="command", required=True)

    serve = commands.add_parser("serve", help="run the service until it is interrupted")
    serve.add_argument("--state", type=Path, required=True, help="folder that keeps authorities and devices")
    serve.add_argument("--port", type=int, default=0, help="of the provider's side; 0: a free one")
    serve.add_argument("--control-port", type=int, default=0, help="of the control interface; 0: a free one")
    serve.add_argument("--ready-file", type=Path, help="written, in one piece, once both are listening")
    serve.add_argument("--stop-with-stdin", action="store_true", help="end when standard input is closed")

    certificate = commands.add_parser("certificate", help="issue a push certificate: PEM with its key on stdout")
    certificate.add_argument("--state", type=Path, required=True)
    certificate.add_argument("--topic", required=True, help="com.apple.mgmt.External.<uuid>")
    certificate.add_argument("--days", type=int, default=365)

    options = parser.parse_args(arguments)
    if options.command == "serve":
        asyncio.run(_serve(options))
    else:
        sys.stdout.buffer.write(Portal(options.state).push.issue_push(options.topic, days=options.days))


class _UntilClosed(asyncio.Protocol):
    """Ends the program with whoever holds the other end of its standard input, however that one ends."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, _exc: Exception | None) -> None:
        self._stop.set()


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.stop_with_stdin:
        await loop.connect_read_pipe(lambda: _UntilClosed(stop), sys.stdin)

    portal = Portal(options.state)
    service = Service(portal, Devices(options.state / "devices.json"))
    url = f"https://127.0.0.1:{await service.start(port=options.port)}"
    runner = web.AppRunner(Control(service, url).application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.control_port, shutdown_timeout=0.5)
    await site.start()
    control = f"http://127.0.0.1:{runner.addresses[0][1]}"

    trust_anchor = options.state / "trust-anchor.pem"
    trust_anchor.write_bytes(portal.servers.certificate_pem)
    ready = json.dumps({"url": url, "control": control, "trust_anchor": str(trust_anchor)})
    print(ready, flush=True)
    if options.ready_file:
        temporary = options.ready_file.with_suffix(".new")
        temporary.write_text(ready)
        temporary.replace(options.ready_file)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    main()

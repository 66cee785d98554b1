"""Collects docs/dashboard.json: what a deployment on this machine counts while simulated devices live.

Usage: ``python tools/dashboard_numbers.py [--seconds SECONDS]``. The template is deployed onto emulated AWS; devices
enroll, get commands, put some off, fail at some, leave; a receiver breaks down for a while. The numbers are those of
the lines that the functions write to their logs, as CloudWatch would read them. With ``--logs DIRECTORY`` nothing is
deployed: the logs (``function-*.log``) are those that the end-to-end tests have left there.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import httpx

from local.administrator import Administrator
from local.device import Hardware, SimulatedApns, SimulatedDevice
from local.stage import Stage

REPOSITORY: Final = Path(__file__).resolve().parent.parent
NUMBERS: Final = REPOSITORY / "docs" / "dashboard.json"

_PERIODS: Final = 30
_SECONDS: Final = 180
_LAST_DELIVERIES: Final = 10
_DEVICES: Final = 8
_REQUEST_TYPES: Final = ("DeviceInformation", "SecurityInfo", "InstalledApplicationList", "ProfileList")


def main() -> None:
    """Let devices live, and write down what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="for how long devices live")
    parser.add_argument("--logs", type=Path, help="take the logs of this directory instead")
    arguments = parser.parse_args()
    if arguments.logs:
        logs = {path.name: path.read_text() for path in sorted(arguments.logs.glob("function-*.log"))}
    else:
        logs = _lived(arguments.seconds)
    document = collected(line for log in logs.values() for line in log.splitlines())
    NUMBERS.write_text(json.dumps(document, sort_keys=True) + "\n")
    print(
        f"{len(document['metrics'])} metrics in {document['periods']} periods of {document['period_seconds']} seconds"
    )


def _lived(seconds: int) -> dict[str, str]:
    """Return the logs of a deployment on which devices lived for so long."""
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage.set(Path(directory))
        try:
            _live(stage, seconds)
            time.sleep(_LAST_DELIVERIES)
            return stage.stack.logs()
        finally:
            stage.strike()


def collected(lines: Iterable[str]) -> dict[str, Any]:
    """Return the numbers of each metric by the period in which they were written, from the first to the last."""
    written = sorted((at, name, number) for line in lines for name, at, number in _read(line))
    began, ended = written[0][0], written[-1][0]
    seconds = max(math.ceil((ended - began) / _PERIODS), 1)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for at, name, number in written:
        found[name][str(int((at - began) // seconds))].append(number)
    periods = int((ended - began) // seconds) + 1
    metrics = {name: dict(each) for name, each in found.items()}
    return {"period_seconds": seconds, "periods": periods, "metrics": metrics}


def _read(line: str) -> Iterator[tuple[str, float, float]]:
    """Yield name, time and number of the metrics in a line of a log, as CloudWatch does."""
    if '"_aws"' not in line:
        return
    document = json.loads(line)
    for described in document["_aws"]["CloudWatchMetrics"]:
        for metric in described["Metrics"]:
            yield metric["Name"], document["_aws"]["Timestamp"] / 1000, document[metric["Name"]]


def _live(stage: Stage, seconds: int) -> None:
    world, chance, until = stage.world, random.Random(1), time.time() + seconds  # noqa: S311 - no secret
    with ExitStack() as parts:
        administrator = parts.enter_context(Administrator(world.admin_url, world.keys))
        _ask(administrator, "PUT", "/v1/pushcert", body=stage.stack.apns.control.issue(world.topic))
        _ask(administrator, "POST", "/v2/webhooks", document={"url": world.webhook_url, "hmac_key": world.hmac_key})
        link = _ask(administrator, "POST", "/v2/enrollment-links", document={})["url"]
        pushes = parts.enter_context(closing(SimulatedApns(world.apns_control)))
        devices: list[SimulatedDevice] = []
        while (left := until - time.time()) > 0:
            if len(devices) < _DEVICES and chance.random() < 0.15:  # noqa: PLR2004 - how lively it is
                hardware = chance.choice((Hardware.iphone, Hardware.mac, Hardware.ipad))()
                device = parts.enter_context(SimulatedDevice(hardware, push=pushes, trust=world.trust))
                device.enroll(link)
                devices.append(device)
            elif devices:
                _act(chance.choice(devices), administrator, chance)
            _misbehave(world.webhook_control, broken=seconds * 0.4 < left < seconds * 0.6)
            if chance.random() < 0.05:  # noqa: PLR2004 - how lively it is
                stage.stack.emulator.lambda_.invoke(
                    FunctionName=f"{stage.stack.name}-housekeeping", Payload=b'{"task": "measure"}'
                )
            time.sleep(chance.random() * 0.4)
        for device in devices[::2]:
            device.check_out()


def _act(device: SimulatedDevice, administrator: Administrator, chance: random.Random) -> None:
    what = chance.random()
    if what < 0.35:  # noqa: PLR2004 - how lively it is
        # Not each of them is for each device: what is refused is seen on the dashboard, too.
        document = {"udid": device.udid, "request_type": chance.choice(_REQUEST_TYPES)}
        administrator.request("POST", "/v1/commands", document=document)
    elif what < 0.45:  # noqa: PLR2004
        device.defer()
    elif what < 0.5:  # noqa: PLR2004
        device.fail()
    elif what < 0.55:  # noqa: PLR2004
        device.update_token()
    elif what < 0.6 and device.hardware.platform.value == "macOS":  # noqa: PLR2004
        device.escrow_bootstrap_token()
    else:
        device.connect()


def _misbehave(control: str, *, broken: bool) -> None:
    url = f"{control}/behaviour"
    if broken:
        httpx.put(url, json={"status": 503, "times": 2}, trust_env=False)
    else:
        httpx.delete(url, trust_env=False)


def _ask(administrator: Administrator, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - decoded JSON
    answer = administrator.request(method, path, **more)
    answer.raise_for_status()
    return answer.json() if answer.content else None


if __name__ == "__main__":
    main()

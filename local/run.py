"""``make run`` and ``make demo``: PicoMDM deployed on this machine, and one life of a device for you to watch.

``python -m local.run`` stays up after the life, with a simulated iPhone that obeys, until Ctrl-C; started again, it
goes on with the state that it left in ``.local/run``, and plays no life: what somebody has set up meanwhile would get
into its way. ``--demo`` plays the life on a fresh stage and ends; its exit
status is 0 when every step passed.
"""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from types import FrameType
from typing import Final, Self

from rich.table import Table
from rich.text import Text

from local import configured, life, zero_touch
from local.administrator import Administrator
from local.customer import Customer
from local.device import Hardware, SimulatedApns, SimulatedDevice
from local.device.memory import hardware_of, recall, remember
from local.emulator import REPOSITORY, ROOT_KEYS
from local.life import Life, Step, World, title_of
from local.progress import Progress
from local.sight import seen_exchange, seen_push
from local.stage import Stage

STATE: Final = REPOSITORY / ".local"
CHAPTERS: Final[tuple[tuple[str, tuple[Step, ...]], ...]] = (
    ("One life of a device", life.STEPS),
    ("A device that nobody touches", zero_touch.STEPS),
    ("A Mac that has what it needs before anybody uses it", configured.STEPS),
)
STEPS: Final = tuple(step for _, steps in CHAPTERS for step in steps)
_LOG_LINES: Final = 12
_COMPLAINTS: Final = ('"WARNING"', '"ERROR"', '"CRITICAL"', "Traceback", "Task timed out")
_LOOK_SECONDS: Final = 0.2
_INTERRUPTED: Final = 130
"""What a shell says of a program that Ctrl-C ended."""


class Setting:
    """Shows the setting of the stage: each report of a step ends the one before."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._step = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> bool | None:
        return self._step.__exit__(*ended)  # type: ignore[arg-type]  # what `with` passes is passed on

    def report(self, step: str) -> None:
        """Begin a step."""
        self._step.close()
        self._step.enter_context(self._progress.step(step))


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m local.run", description="PicoMDM on this machine.")
    parser.add_argument("--demo", action="store_true", help="play one life of a device on a fresh stage, then end")
    parser.add_argument("--state", type=Path, help="where it keeps its state and logs (default: a folder in .local)")
    arguments = parser.parse_args(argv)
    directory = (arguments.state or STATE / ("demo" if arguments.demo else "run")).absolute()
    progress = Progress()
    interruption = _Interruption()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interruption)
    try:
        with _alone(directory):
            return _run(directory, progress, demo=arguments.demo)
    except BlockingIOError:
        progress.say(f"Another one is running with its state in {_short(directory)}: stop that one first, with Ctrl-C.")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED if arguments.demo else 0


def _run(directory: Path, progress: Progress, *, demo: bool) -> int:
    known = not demo and directory.exists()
    progress.headline(f"PicoMDM on this machine{', as it was left' if known else ''}")
    try:
        with Setting(progress) as setting:
            stage = Stage.set(directory, keep_state=not demo, report=setting.report)
    except Exception as error:  # noqa: BLE001  # whatever it is, a person wants to read it and not a traceback
        begin_anew = "" if demo else f" Without {_short(directory)} it would begin anew."
        progress.say("", str(error), f"Logs are in {_short(directory)}.{begin_anew}")
        return 1
    played, passed = directory / "played", 0
    try:
        if known and played.exists():
            progress.say("", f"Its lives were played when it was new. Without {_short(directory)} they would be again.")
        else:
            before = {function: len(log) for function, log in stage.stack.logs().items()}
            passed = play(stage.world, progress)
            if passed < len(STEPS):
                _explain(stage, progress, before)
            if demo or passed < len(STEPS):
                return 0 if passed == len(STEPS) else 1
            played.touch()
        _stay(stage, progress)
    finally:
        progress.say("")
        with progress.step("Stopping everything that was started"):
            stage.strike()
        if demo:
            progress.say("", tally(passed))
    return 0


def play(world: World, progress: Progress) -> int:
    """Play one life; return how many steps passed. The first one that does not is the last one that is tried."""
    played = Life(world, observer=progress.message)
    passed = 0
    try:
        for chapter, steps in CHAPTERS:
            progress.headline(chapter)
            for step in steps:
                try:
                    with progress.step(title_of(step), number=passed + 1) as shown:
                        shown.outcome = played.play(step)
                except Exception:  # noqa: BLE001  # the step has shown it
                    return passed
                passed += 1
    finally:
        played.close()
    return passed


def tally(passed: int) -> str:
    """Return the line that a demo ends with."""
    if passed == len(STEPS):
        return f"demo: {len(STEPS)} steps, {passed} passed"
    return f"demo: {len(STEPS)} steps, {passed} passed, 1 failed, {len(STEPS) - passed - 1} not tried"


def _explain(stage: Stage, progress: Progress, before: Mapping[str, int]) -> None:
    """Show what the functions complained of last, behind what stood in their logs ``before``."""
    complaints = [
        f"{function}: {line}"
        for function, log in stage.stack.logs().items()
        for line in log[before.get(function, 0) :].splitlines()
        if any(word in line for word in _COMPLAINTS)
    ]
    progress.say("", f"Logs are in {_short(stage.stack.directory)}. What the functions complained of last:")
    for complaint in complaints[-_LOG_LINES:]:
        progress.say(Text(f"  {complaint}", style="dim"))


# Staying up


def _stay(stage: Stage, progress: Progress) -> None:
    """Keep an iPhone that obeys and show what happens, until interrupted."""
    world, apns = stage.world, stage.stack.apns.control
    state = stage.stack.directory / "iphone"
    memory = state.read_bytes() if state.exists() else None
    hardware = hardware_of(memory) if memory else Hardware.iphone()
    with (
        Administrator(world.admin_url, world.keys) as administrator,
        closing(SimulatedApns(world.apns_control)) as pushes,
        closing(Customer(world.webhook_control, path=world.webhook_path, observer=progress.message)) as customer,
        SimulatedDevice(
            hardware,
            push=pushes,
            trust=world.trust,
            observer=lambda exchange: progress.message(seen_exchange(exchange, hardware.device_name)),
        ) as device,
    ):
        customer.skip()
        seen = max((push["number"] for push in apns.pushes()), default=0)
        if memory:
            with progress.step("The iPhone that stayed the last time comes back"):
                recall(device, memory)
                device.connect()
        else:
            with progress.step("Another iPhone enrolls, to stay and obey"):
                device.enroll(administrator.picomdm("enroll", "link", "--max-uses", "1")["url"])
        try:
            _keep(device, state)
            _guide(stage, device.udid, progress)
            with device.listening():
                while True:
                    for push in apns.pushes(after=seen):
                        seen = push["number"]
                        progress.message(seen_push(push))
                    customer.left_over()
                    time.sleep(_LOOK_SECONDS)
        finally:
            _keep(device, state)


def _keep(device: SimulatedDevice, state: Path) -> None:
    if device.is_enrolled:
        state.touch(mode=0o600)
        state.write_bytes(remember(device))
    else:
        state.unlink(missing_ok=True)


def _guide(stage: Stage, udid: str, progress: Progress) -> None:
    world, stack = stage.world, stage.stack
    environment = stack.directory / "environment"
    environment.touch(mode=0o600)
    variables = {
        "PICOMDM_ADMIN_URL": world.admin_url,
        "PICOMDM_STACK": stack.name,
        "AWS_ENDPOINT_URL": stack.emulator.url,
        "AWS_REGION": world.keys.region,
        "AWS_ACCESS_KEY_ID": world.keys.access_key,
        "AWS_SECRET_ACCESS_KEY": world.keys.secret_key,
    }
    environment.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))
    facts = Table.grid(padding=(0, 2))
    for name, value in {
        "Admin API": world.admin_url,
        "  access key": world.keys.access_key,
        "  secret key": f"{world.keys.secret_key}  (an IAM user with the stack's AdministratorPolicy)",
        "Device API": f"{world.device_url}  (root certificate: {_short(world.trust)})",
        "APNs, simulated": f"{stack.apns.url}  (control: {stack.apns.control_url})",
        "Webhook": f"{world.webhook_url}  (what it received: {world.webhook_control}/deliveries)",
        "AWS, emulated": f"{stack.emulator.url}  (root user: {'/'.join(ROOT_KEYS)})",
        "State and logs": _short(stack.directory),
    }.items():
        facts.add_row(Text(name, style="bold"), Text(value))
    python = _short(Path(sys.executable))
    command = _short(Path(sys.executable).with_name("picomdm"))
    body = json.dumps({"udid": udid, "request_type": "ProfileList"})
    progress.headline("It stays up until Ctrl-C")
    progress.console.print(facts, soft_wrap=True)
    progress.headline("Things to try in another terminal, in this directory")
    for comment, line in {
        "The administrator's keys, once:": f". {_short(environment)}",
        "Ask the iPhone that stays for its profiles, as MicroMDM's scripts would, and see here what happens:": (
            f'curl --aws-sigv4 "aws:amz:{world.keys.region}:execute-api" '
            f'--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" '
            f"\"$PICOMDM_ADMIN_URL/v1/commands\" -d '{body}'"
        ),
        "Lock it, and wait for its answer:": f"{command} commands send {udid} DeviceLock message='Hello' --wait 1m",
        "Ask it all that there is to know:": f"{command} inventory refresh {udid} --wait 1m",
        "See what it told:": f"{command} inventory show {udid} --apps",
        "Let the deployment be examined, by AWS' root user, who may look everywhere:": (
            f"AWS_ACCESS_KEY_ID={ROOT_KEYS[0]} AWS_SECRET_ACCESS_KEY={ROOT_KEYS[1]} "
            f"SSL_CERT_FILE={_short(world.trust)} {command} doctor"
        ),
        "Enroll another simulated device, that stays until Ctrl-C:": (
            f"{python} -m local.device --model mac --trust {_short(world.trust)} --apns {world.apns_control} "
            f'--enroll "$({command} enroll link)"'
        ),
    }.items():
        progress.say(Text(f"# {comment}", style="dim"), Text(line, style="cyan"), "")


# Being the only one, and leaving nothing behind


class _Interruption:
    """The first signal interrupts, the others are ignored: half a clean-up would leave programs running."""

    def __init__(self) -> None:
        self._came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self._came:
            self._came = True
            raise KeyboardInterrupt


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold ``directory`` for this process. Raises ``BlockingIOError`` while another one has it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX | LOCK_NB)
        yield


def _short(path: Path) -> str:
    """Return a path as one types it in the repository."""
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)


if __name__ == "__main__":
    sys.exit(main())

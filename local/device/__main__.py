"""The simulated device as a program.

It enrolls, prints one line of JSON that says who it is, and then listens for pushes until SIGTERM or SIGINT. What goes
over the wire is told on stderr. Exit status: 0, or 1 when it could not enroll or the server broke a rule.
"""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, get_args

from local.device import (
    DeviceError,
    Exchange,
    Habits,
    Hardware,
    MessageForm,
    NoPushes,
    ScepDialect,
    SignatureForm,
    SimulatedApns,
    SimulatedDevice,
    Unenrolled,
)
from local.device.envelope import Cipher
from local.device.memory import hardware_of, recall, remember

_MODELS: Final[dict[str, Callable[[], Hardware]]] = {
    "iphone": Hardware.iphone,
    "ipad": Hardware.ipad,
    "mac": Hardware.mac,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one device; return the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    memory = arguments.state.read_bytes() if arguments.state and arguments.state.exists() else None
    if memory is None and arguments.enroll is None:
        parser.error("Say with --enroll where it enrolls.")
    device = SimulatedDevice(
        hardware_of(memory) if memory else _MODELS[arguments.model](),
        push=SimulatedApns(arguments.apns) if arguments.apns else NoPushes(),
        trust=arguments.trust,
        habits=_habits(arguments),
        observer=None if arguments.quiet else _tell,
        sleep=stop.wait,
    )
    with device:
        try:
            _live(device, arguments, stop, memory)
        except DeviceError as error:
            if error not in device.violations:
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return 1
        for violation in device.violations:
            print(f"The server broke a rule. {violation}", file=sys.stderr)
        return 1 if device.violations else 0


def _live(device: SimulatedDevice, arguments: argparse.Namespace, stop: threading.Event, memory: bytes | None) -> None:
    if memory:
        recall(device, memory)
    else:
        device.enroll(arguments.enroll)
    hardware = device.hardware
    told = {
        "udid": hardware.udid,
        "serial_number": hardware.serial_number,
        "model": hardware.product_name,
        "topic": device.profile.topic,
        "server_url": device.profile.server_url,
        "apns": arguments.apns,
    }
    print(json.dumps(told), flush=True)
    device.defer(arguments.defer)
    device.fail(arguments.fail)
    device.lose_answers(arguments.lose_answers)
    try:
        if arguments.once:
            device.connect()
        else:
            device.serve(stop)
    except Unenrolled as error:
        print(error, file=sys.stderr)
    if arguments.check_out and device.is_enrolled:
        device.check_out()
    if arguments.state:
        _keep(device, arguments.state)


def _keep(device: SimulatedDevice, state: Path) -> None:
    if device.is_enrolled:
        state.touch(mode=0o600)
        state.write_bytes(remember(device))
    else:
        state.unlink(missing_ok=True)


def _habits(arguments: argparse.Namespace) -> Habits:
    return Habits(
        message=MessageForm(
            signature=arguments.signature,
            digest=arguments.digest,
            binary=arguments.plist == "binary",
            byte_order_mark=arguments.byte_order_mark,
            connect_content_type=not arguments.no_content_type,
            optional_keys=not arguments.sparse,
        ),
        scep=ScepDialect(cipher=arguments.scep_cipher, digest=arguments.scep_digest, use_get=arguments.scep_get),
    )


def _tell(exchange: Exchange) -> None:
    outcome = exchange.failure or str(exchange.status)
    print(
        f"{exchange.device}  {exchange.method:<4} {exchange.path.partition('?')[0]:<16} "
        f"{exchange.what:<32} {outcome:<4} {exchange.milliseconds:7.1f} ms "
        f"{len(exchange.request_body):>7} B out {len(exchange.response_body):>7} B in",
        file=sys.stderr,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local.device", description="A simulated Apple device that rejects what a real one rejects."
    )
    parser.add_argument("--enroll", metavar="URL", help="where its enrollment profile is downloaded")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="keep who it is here, and go on as that device if the file is there"
    )
    parser.add_argument("--trust", type=Path, metavar="PEM", help="roots of the servers (default: the system's)")
    parser.add_argument("--apns", metavar="URL", help="control interface of the simulated APNs (default: never woken)")
    parser.add_argument("--model", choices=sorted(_MODELS), default="iphone", help="what it is (default: iphone)")
    parser.add_argument("--once", action="store_true", help="connect once instead of listening for pushes")
    parser.add_argument("--check-out", action="store_true", help="remove the management before it ends")
    parser.add_argument("--quiet", action="store_true", help="do not tell what goes over the wire")

    habits = parser.add_argument_group("habits")
    forms = [form.value for form in SignatureForm]
    habits.add_argument(
        "--signature", type=SignatureForm, default=SignatureForm.DER_WITH_ATTRIBUTES, help=f"{' or '.join(forms)}"
    )
    habits.add_argument("--digest", choices=["sha1", "sha256"], default="sha256", help="of the signature")
    habits.add_argument("--plist", choices=["xml", "binary"], default="xml", help="form of the messages")
    habits.add_argument("--byte-order-mark", action="store_true", help="before XML messages")
    habits.add_argument("--no-content-type", action="store_true", help="on reports")
    habits.add_argument("--sparse", action="store_true", help="send only the keys that Apple requires")
    habits.add_argument("--scep-cipher", choices=get_args(Cipher), help="default: the best that the server offers")
    habits.add_argument("--scep-digest", choices=["sha1", "sha256", "sha512"], help="default: as above")
    habits.add_argument("--scep-get", action="store_true", help="PKIOperation by GET")

    trouble = parser.add_argument_group("trouble")
    trouble.add_argument("--defer", type=int, default=0, metavar="N", help="answer NotNow to the first N commands")
    trouble.add_argument("--fail", type=int, default=0, metavar="N", help="answer Error to N commands after those")
    trouble.add_argument(
        "--lose-answers", type=int, default=0, metavar="N", help="lose the first N answers after the enrollment"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

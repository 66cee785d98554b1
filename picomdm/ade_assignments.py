"""``picomdm ade assign``, ``disown``, ``lock``: what becomes of single devices at Apple."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.ade_servers import SERVER, ask, path_of
from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import RefusedError
from picomdm.files import read_lines

_LOCKS: Final = "/v2/activation-locks"
_AT_ONCE: Final = 1_000
_SUCCESS: Final = "SUCCESS"

_SERIALS = Annotated[list[str] | None, typer.Argument(help="Serial numbers.")]
_FILE = Annotated[Path | None, typer.Option(help="A text file with one in each line.")]
_SERIAL = Annotated[str, typer.Argument(help="A serial number.")]


def assign(
    context: typer.Context,
    *,
    name: SERVER,
    profile: Annotated[str, typer.Argument(help="As `picomdm ade profiles list` shows it.")],
    serial_numbers: _SERIALS = None,
    file: _FILE = None,
    _json: JSON = False,
) -> None:
    """Give devices a profile for their next activation."""
    operator = operator_of(context)
    _ask_apple(operator, f"{path_of(name)}/assignments", _devices(serial_numbers, file), {"profile": profile})


def unassign(
    context: typer.Context,
    *,
    name: SERVER,
    serial_numbers: _SERIALS = None,
    file: _FILE = None,
    _json: JSON = False,
) -> None:
    """Take their profile away from devices."""
    operator = operator_of(context)
    _ask_apple(operator, f"{path_of(name)}/unassignments", _devices(serial_numbers, file), {})


def disown(
    context: typer.Context,
    *,
    name: SERVER,
    serial_numbers: _SERIALS = None,
    file: _FILE = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    _json: JSON = False,
) -> None:
    """Let devices leave the organization for ever. Only Apple or a seller can bring them back."""
    operator = operator_of(context)
    devices = _devices(serial_numbers, file)
    if not yes:
        ask(f"{len(devices)} devices leave the organization for ever. Type how many", str(len(devices)))
    _ask_apple(operator, f"{path_of(name)}/disownments", devices, {"confirm": True}, repeatable=False)


def lock(
    context: typer.Context,
    *,
    name: SERVER,
    serial_number: _SERIAL,
    message: Annotated[str | None, typer.Option(help="Shown on the device.")] = None,
    _json: JSON = False,
) -> None:
    """Lock a device that is lost through Apple, and print the code that ends the lock, which is kept."""
    operator = operator_of(context)
    document = {"serial_number": serial_number, "lost_message": message}
    # The same request again has the same code.
    locked = operator.api.request("POST", f"{path_of(name)}/activation-locks", document=document, repeatable=True)
    _show_lock(operator, locked)
    if locked["response_status"] != _SUCCESS:
        raise RefusedError(f"Apple did not lock it: {locked['response_status']}.", code="not_locked")


def bypass_code(
    context: typer.Context,
    *,
    serial_number: _SERIAL,
    reason: Annotated[str | None, typer.Option(help="Why; it is published, with who asks.")] = None,
    _json: JSON = False,
) -> None:
    """Show the code that ends a lock that was put on from here. The event mdm.SecretRevealed tells who saw it."""
    operator = operator_of(context)
    query = {"reason": reason} if reason else {}
    _show_lock(operator, operator.api.get(f"{_LOCKS}/{path_part(serial_number)}", **query))


def unlock(
    context: typer.Context,
    *,
    serial_number: _SERIAL,
    product_type: Annotated[
        str | None, typer.Option(help="Such as iPhone17,1; for a device that never enrolled here.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Of the push certificate by which Apple knows us.")] = None,
    code: Annotated[
        str | None,
        typer.Option(help="The device's own bypass code, for a lock that a person has put on; else the one kept here."),
    ] = None,
    _json: JSON = False,
) -> None:
    """Have Apple end a lock that was put on from here, or by a person."""
    operator = operator_of(context)
    document = {"bypass_code": code, "product_type": product_type, "topic": topic}
    answer = operator.api.request("POST", f"{_LOCKS}/{path_part(serial_number)}/unlock", document=document)
    if not answer["unlocked"]:
        raise RefusedError(
            f"Apple did not end the lock: {answer['apple_status']} {answer['apple_answer'][:200]}", code="not_unlocked"
        )
    operator.terminal.answer(answer, lambda: operator.terminal.say("Unlocked."))


def _devices(serial_numbers: list[str] | None, file: Path | None) -> list[str]:
    devices = [*(serial_numbers or []), *(read_lines(file) if file else [])]
    if not devices:
        raise typer.BadParameter("none are given", param_hint="SERIAL_NUMBERS")
    return devices


def _ask_apple(
    operator: Operator, path: str, devices: list[str], what: dict[str, Any], *, repeatable: bool = True
) -> None:
    """Ask about devices, as many at a time as fit one request, and tell what became of each."""
    outcomes: dict[str, Any] = {"devices": {}, "retry_after_seconds": None, "problem": None}
    with operator.terminal.progress("Asking Apple …"):
        for start in range(0, len(devices), _AT_ONCE):
            document = {**what, "serial_numbers": devices[start : start + _AT_ONCE]}
            answer = operator.api.request("POST", path, document=document, repeatable=repeatable)
            seconds = [value for value in (outcomes["retry_after_seconds"], answer["retry_after_seconds"]) if value]
            outcomes = {
                **answer,
                "devices": outcomes["devices"] | answer["devices"],
                "retry_after_seconds": max(seconds, default=None),
            }
            if outcomes["problem"]:
                break
    left = {serial: status for serial, status in outcomes["devices"].items() if status != _SUCCESS}

    def say() -> None:
        terminal = operator.terminal
        terminal.say(f"Done for {len(outcomes['devices']) - len(left)} devices.")
        if left:
            terminal.table(("SERIAL NUMBER", "NOT DONE"), list(left.items()), empty="")
        if outcomes["retry_after_seconds"]:
            terminal.note(f"[dim]Those that are THROTTLED: again in {outcomes['retry_after_seconds']} seconds.[/dim]")
        if outcomes["problem"]:
            terminal.note(f"[yellow]{outcomes['problem']['detail']}[/yellow]")

    operator.terminal.answer(outcomes, say)
    if left:
        raise RefusedError(f"Not done for {len(left)} devices.", code="not_done_for_all")


def _show_lock(operator: Operator, lock: dict[str, Any]) -> None:
    facts = {
        "serial number": lock["serial_number"],
        "server": lock["server"],
        "Apple says": lock["response_status"],
        "bypass code": lock["bypass_code"],
        "locked": lock["locked_at"],
        "unlocked": lock["unlocked_at"],
    }
    operator.terminal.answer(lock, lambda: operator.terminal.facts(facts))

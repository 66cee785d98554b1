"""``picomdm ade``: which devices may enroll by Automated Device Enrollment, and what they have to run."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.files import read_lines

app: Final = typer.Typer(
    help="Automated Device Enrollment: Apple's servers, profiles, and who may enroll.", no_args_is_help=True
)
serials: Final = typer.Typer(
    help="The devices that may enroll; as long as there are none, every genuine device may.", no_args_is_help=True
)
minimum_os: Final = typer.Typer(help="What devices have to run before they may enroll.", no_args_is_help=True)
app.add_typer(serials, name="serials")
app.add_typer(minimum_os, name="minimum-os")

_SERIALS: Final = "/v2/ade-serial-numbers"
_MINIMUM: Final = "/v2/minimum-os-versions"
_AT_ONCE: Final = 500


@serials.command()
def add(
    context: typer.Context,
    *,
    serial_numbers: Annotated[list[str] | None, typer.Argument(help="Serial numbers.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file with one in each line.")] = None,
    note: Annotated[str | None, typer.Option(help="Whose they are, or where they come from.")] = None,
    _json: JSON = False,
) -> None:
    """Let devices enroll. As soon as there is one in the list, no others may."""
    operator = operator_of(context)
    asked = [*(serial_numbers or []), *(read_lines(file) if file else [])]
    if not asked:
        raise typer.BadParameter("none are given", param_hint="SERIAL_NUMBERS")
    added: list[dict[str, Any]] = []
    with operator.terminal.progress("Adding serial numbers …"):
        for start in range(0, len(asked), _AT_ONCE):
            document = {"serial_numbers": asked[start : start + _AT_ONCE], "note": note}
            answer = operator.api.request("POST", _SERIALS, document=document, repeatable=True)
            added += answer["ade_serial_numbers"]
    operator.terminal.answer(
        {"ade_serial_numbers": added}, lambda: operator.terminal.say(f"{len(added)} devices may enroll by ADE.")
    )


@serials.command("list")
def list_serials(context: typer.Context, *, _json: JSON = False) -> None:
    """List the devices that may enroll."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_SERIALS, "ade_serial_numbers"))
    terminal.answer(
        {"ade_serial_numbers": found},
        lambda: terminal.table(
            ("SERIAL NUMBER", "ADDED", "NOTE"),
            [(entry["serial_number"], terminal.ago(entry["added_at"]), entry["note"]) for entry in found],
            empty="The list is empty: every genuine device may enroll.",
        ),
    )


@serials.command("remove")
def remove_serials(
    context: typer.Context,
    *,
    serial_numbers: Annotated[list[str], typer.Argument(help="Serial numbers.")],
    _json: JSON = False,
) -> None:
    """Take devices out of the list. Those that enrolled stay enrolled."""
    operator = operator_of(context)
    for serial_number in serial_numbers:
        operator.api.request("DELETE", f"{_SERIALS}/{path_part(serial_number)}", repeatable=True)
    operator.terminal.answer({"removed": serial_numbers}, lambda: operator.terminal.say("Removed."))


@minimum_os.command("set")
def set_minimum(
    context: typer.Context,
    *,
    platform: Annotated[str, typer.Argument(help="iOS, iPadOS or macOS.")],
    os_version: Annotated[str, typer.Argument(help="Such as 17.4.1.")],
    build_version: Annotated[str | None, typer.Option(help="For a version that only a seed has.")] = None,
    _json: JSON = False,
) -> None:
    """Let devices of a platform update in Setup Assistant first."""
    operator = operator_of(context)
    document = {"os_version": os_version, "build_version": build_version}
    stored = operator.api.request("PUT", f"{_MINIMUM}/{path_part(platform)}", document=document, repeatable=True)
    operator.terminal.answer(stored, lambda: operator.terminal.facts(stored))


@minimum_os.command("list")
def list_minimum(context: typer.Context, *, _json: JSON = False) -> None:
    """List what devices have to run."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_MINIMUM, "minimum_os_versions"))
    terminal.answer(
        {"minimum_os_versions": found},
        lambda: terminal.table(
            ("PLATFORM", "VERSION", "BUILD"),
            [(entry["platform"], entry["os_version"], entry["build_version"]) for entry in found],
            empty="Devices may run anything.",
        ),
    )


@minimum_os.command("remove")
def remove_minimum(
    context: typer.Context,
    *,
    platform: Annotated[str, typer.Argument(help="As `picomdm ade minimum-os list` shows it.")],
    _json: JSON = False,
) -> None:
    """Let devices of a platform enroll with any OS."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_MINIMUM}/{path_part(platform)}", repeatable=True)
    operator.terminal.answer({"platform": platform, "removed": True}, lambda: operator.terminal.say("Removed."))

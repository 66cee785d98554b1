"""``picomdm enroll``: links by which devices enroll."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.durations import seconds_of
from picomdm.files import read_lines

app: Final = typer.Typer(help="Make, list and revoke enrollment links.", no_args_is_help=True)
_PATH: Final = "/v2/enrollment-links"


@app.command()
def link(
    context: typer.Context,
    *,
    expires_in: Annotated[str, typer.Option(help="How long devices may enroll by it: 30m, 12h, 7d, 2w.")] = "7d",
    max_uses: Annotated[int | None, typer.Option(min=1, help="How many devices may; else as many as want.")] = None,
    topic: Annotated[str | None, typer.Option(help="The push topic, where there are several.")] = None,
    serial: Annotated[
        list[str] | None, typer.Option(help="Only for the device of this serial number; may be repeated.")
    ] = None,
    serials_file: Annotated[Path | None, typer.Option(help="A text file with one in each line.")] = None,
    note: Annotated[str | None, typer.Option(help="Whom or what it is for.")] = None,
    _json: JSON = False,
) -> None:
    """Make a link. Whoever has it may enroll; it is shown only now."""
    operator = operator_of(context)
    terminal = operator.terminal
    serial_numbers = [*(serial or []), *(read_lines(serials_file) if serials_file else [])]
    asked = {
        "expires_in": seconds_of(expires_in),
        "max_uses": max_uses,
        "topic": topic,
        "serial_numbers": serial_numbers or None,
        "note": note,
    }
    with terminal.progress("Making an enrollment link …"):
        made = operator.api.request("POST", _PATH, document=asked)

    def show() -> None:
        most = made["max_uses"]
        uses = f"{most} device{'' if most == 1 else 's'}" if most else "any number of devices"
        terminal.note(f"Open this on a device; it is good for {uses} and ends {terminal.ago(made['expires_at'])}:")
        terminal.plain(made["url"])
        terminal.note(f"[dim]Revoke it with: picomdm enroll revoke {made['id']}[/dim]")

    terminal.answer(made, show)


@app.command()
def links(context: typer.Context, *, _json: JSON = False) -> None:
    """List the links, also those that are over."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_PATH, "enrollment_links"))
    # A topic is long, and most deployments have one.
    topics = ("TOPIC",) if len({entry["topic"] for entry in found}) > 1 else ()
    terminal.answer(
        {"enrollment_links": found},
        lambda: terminal.table(
            ("ID", "STATE", "ENDS", "USES", "NOTE", "ONLY FOR", *topics),
            [
                (
                    entry["id"],
                    _state(entry, terminal.now()),
                    terminal.ago(entry["expires_at"]),
                    f"{entry['uses']} of {entry['max_uses'] or 'any'}",
                    entry["note"],
                    _devices(entry["serial_numbers"]),
                    *(entry[name.lower()] for name in topics),
                )
                for entry in found
            ],
            empty="No enrollment links. Make one with: picomdm enroll link",
        ),
    )


@app.command()
def revoke(
    context: typer.Context,
    *,
    link_id: Annotated[str, typer.Argument(help="As `picomdm enroll links` shows it.")],
    _json: JSON = False,
) -> None:
    """End a link: nobody enrolls by it any more. Devices that did so stay enrolled."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_PATH}/{path_part(link_id)}", repeatable=True)
    answer: dict[str, Any] = {"id": link_id, "revoked": True}
    operator.terminal.answer(answer, lambda: operator.terminal.say("Revoked."))


def _devices(serial_numbers: list[str] | None) -> str | None:
    if not serial_numbers:
        return None
    return serial_numbers[0] if len(serial_numbers) == 1 else f"{len(serial_numbers)} devices"


def _state(entry: dict[str, Any], now: datetime) -> str:
    if entry["revoked"]:
        return "revoked"
    if datetime.fromisoformat(entry["expires_at"]) <= now:
        return "expired"
    if entry["max_uses"] is not None and entry["uses"] >= entry["max_uses"]:
        return "used up"
    return "open"

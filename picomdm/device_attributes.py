"""``picomdm device-attributes``: tags of devices, and values for the variables of profiles."""

from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of

app: Final = typer.Typer(help="Give devices tags, and values for their profiles.", no_args_is_help=True)
_PATH: Final = "/v2/device-attributes"
Serial = Annotated[str, typer.Argument(metavar="SERIAL", help="The device's serial number; it need not be enrolled.")]


@app.command("set")
def set_(
    context: typer.Context,
    *,
    serial: Serial,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    values: Annotated[
        list[str] | None, typer.Option("--value", metavar="NAME=TEXT", help="A value; may be repeated.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Say what a device's tags and values are, in place of those before."""
    operator = operator_of(context)
    pairs = [value.partition("=") for value in values or ()]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("A value is NAME=TEXT.")
    document = {"tags": tags or [], "values": {name: text for name, _, text in pairs}}
    stored = operator.api.request("PUT", f"{_PATH}/{path_part(serial)}", document=document, repeatable=True)
    operator.terminal.answer(stored, lambda: operator.terminal.facts(_facts(stored)))


@app.command()
def show(context: typer.Context, *, serial: Serial, _json: JSON = False) -> None:
    """Show a device's tags and values."""
    operator = operator_of(context)
    known = operator.api.get(f"{_PATH}/{path_part(serial)}")
    operator.terminal.answer(known, lambda: operator.terminal.facts(_facts(known)))


@app.command("list")
def list_attributes(
    context: typer.Context,
    *,
    tag: Annotated[str | None, typer.Option(help="Only devices with it.")] = None,
    _json: JSON = False,
) -> None:
    """List the devices that have tags or values."""
    operator = operator_of(context)
    query = {"tag": tag} if tag else {}
    found = list(operator.api.entries(_PATH, "device_attributes", **query))
    operator.terminal.answer(
        {"device_attributes": found},
        lambda: operator.terminal.table(
            ("SERIAL", "TAGS", "VALUES"),
            [(entry["serial_number"], ", ".join(entry["tags"]), ", ".join(entry["values"])) for entry in found],
            empty="No device has any.",
        ),
    )


@app.command()
def delete(context: typer.Context, *, serial: Serial, _json: JSON = False) -> None:
    """Take a device's tags and values away."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_PATH}/{path_part(serial)}", repeatable=True)
    operator.terminal.answer({"serial_number": serial}, lambda: operator.terminal.say("They are gone."))


def _facts(known: dict[str, Any]) -> dict[str, Any]:
    return {
        "serial number": known["serial_number"],
        "tags": ", ".join(known["tags"]) or None,
        **{f"values.{name}": value for name, value in known["values"].items()},
    }

"""``picomdm ade profiles``: what devices do when they are switched on."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.command_fields import fields_of
from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import SetupError
from picomdm.files import read_file

app: Final = typer.Typer(
    help="What devices of Automated Device Enrollment do when they are switched on.", no_args_is_help=True
)
_PROFILES: Final = "/v2/ade-profiles"
_NAME = Annotated[str, typer.Argument(help="As `picomdm ade profiles list` shows it.")]


@app.command("set")
def set_profile(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            help="Apple's keys: department=IT, is_mdm_removable:=false, skip_setup_items+=Siri. What is left out has "
            "its default; nothing stays of the former profile of this name."
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A JSON file with the keys; FIELDS go before it.")] = None,
    anchor: Annotated[
        list[Path] | None, typer.Option(help="A certificate to trust for the deployment's address, PEM or DER.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Skip also panes that this release does not know.")
    ] = False,
    _json: JSON = False,
) -> None:
    """Store a profile, and tell Apple at every server."""
    operator = operator_of(context)
    document = (_read(file) if file else {}) | fields_of(fields or [])
    if anchor:
        document["anchor_certs"] = [_certificate(each) for each in anchor]
    query = {"allow_unknown": "true"} if allow_unknown else {}
    with operator.terminal.progress("Telling Apple …"):
        stored = operator.api.request("PUT", _path(name), document=document, query=query, repeatable=True)
    _show(operator, stored)


@app.command("list")
def list_profiles(context: typer.Context, *, _json: JSON = False) -> None:
    """List the profiles."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_PROFILES, "ade_profiles"))
    terminal.answer(
        {"ade_profiles": found},
        lambda: terminal.table(
            ("NAME", "AT", "SKIPS", "CHANGED"),
            [
                (
                    entry["name"],
                    ", ".join(each["server"] for each in entry["definitions"]) or None,
                    ", ".join(entry["profile"].get("skip_setup_items") or []) or None,
                    terminal.ago(entry["changed_at"]),
                )
                for entry in found
            ],
            empty="None. Make one with: picomdm ade profiles set NAME",
        ),
    )


@app.command()
def show(context: typer.Context, *, name: _NAME, _json: JSON = False) -> None:
    """Show what Apple is told, and its UUIDs of it."""
    operator = operator_of(context)
    _show(operator, operator.api.get(_path(name)))


@app.command()
def delete(context: typer.Context, *, name: _NAME, _json: JSON = False) -> None:
    """Forget a profile. Devices that have it keep it."""
    operator = operator_of(context)
    operator.api.request("DELETE", _path(name), repeatable=True)
    operator.terminal.answer({"name": name, "deleted": True}, lambda: operator.terminal.say("Forgotten."))


def _path(name: str) -> str:
    return f"{_PROFILES}/{path_part(name)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_file(file))
    except ValueError as error:
        raise SetupError(f"{file} is no JSON.", code="file_unreadable") from error
    if not isinstance(document, dict):
        raise SetupError(f"{file} is JSON, but no object.", code="file_unreadable")
    return document


def _certificate(file: Path) -> str:
    content = read_file(file)
    return content.decode() if b"-----BEGIN" in content else b64encode(content).decode()


def _show(operator: Operator, stored: dict[str, Any]) -> None:
    def say() -> None:
        told = {
            name: ", ".join(value) if isinstance(value, list) else value
            for name, value in stored["apple_profile"].items()
            if name not in {"anchor_certs", "supervising_host_certs"}
        }
        operator.terminal.facts(told)
        for each in stored["definitions"]:
            operator.terminal.facts({f"at {each['server']}": each["profile_uuid"]})
        for each in stored["problems"]:
            operator.terminal.note(f"[yellow]{each['server']}: {each['detail']}[/yellow]")

    operator.terminal.answer(stored, say)

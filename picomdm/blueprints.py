"""``picomdm blueprints``: what devices shall have, and bringing them to it."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm import users
from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.devices import ONE, by_serial_number
from picomdm.durations import seconds_of
from picomdm.errors import RefusedError, SetupError
from picomdm.files import read_file
from picomdm.plan_progress import Wait, await_plans, failed, show_plans

app: Final = typer.Typer(help="Say what devices shall have, and bring them to it.", no_args_is_help=True)
PATH: Final = "/v2/blueprints"
APPLICATIONS: Final = "/v2/blueprint-applications"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The blueprint's name.")]
_SETTABLE: Final = (
    "profiles",
    "apps",
    "users",
    "commands",
    "includes",
    "ade_profile",
    "conditions",
    "apply_on_enrollment",
    "apply_on_change",
    "remove_what_left",
    "skip_primary_setup_account_creation",
    "set_primary_setup_account_as_regular_user",
)
_POLL_SECONDS: Final = 1.0


@app.command("list")
def list_blueprints(context: typer.Context, *, _json: JSON = False) -> None:
    """List the blueprints."""
    operator = operator_of(context)
    found = list(operator.api.entries(PATH, "blueprints"))
    operator.terminal.answer(
        {"blueprints": found},
        lambda: operator.terminal.table(
            ("NAME", "PROFILES", "APPS", "COMMANDS", "WHEN", "FOR"),
            [
                (
                    entry["name"],
                    len(entry["profiles"]),
                    len(entry["apps"]),
                    len(entry["commands"]),
                    _when(entry),
                    _for_whom(entry),
                )
                for entry in found
            ],
            empty="No blueprints. Make one with: picomdm blueprints set NAME FILE",
        ),
    )


@app.command()
def show(context: typer.Context, *, name: Name, _json: JSON = False) -> None:
    """Show a blueprint as it can be set again."""
    operator = operator_of(context)
    entry = operator.api.get(f"{PATH}/{path_part(name)}")
    settable = {key: entry[key] for key in _SETTABLE}
    operator.terminal.answer(entry, lambda: operator.terminal.plain(json.dumps(settable, indent=2, ensure_ascii=False)))


@app.command("set")
def set_(  # noqa: PLR0913 - an option for each thing that a blueprint says
    context: typer.Context,
    *,
    name: Name,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="JSON as `picomdm blueprints show` has it; - is stdin.")
    ] = None,
    profiles: Annotated[
        list[str] | None, typer.Option("--profile", help="PayloadIdentifier of a stored profile; may be repeated.")
    ] = None,
    apps: Annotated[list[str] | None, typer.Option("--app", help="An uploaded app; may be repeated.")] = None,
    manifests: Annotated[
        list[str] | None, typer.Option("--manifest-url", help="URL of an app's manifest; may be repeated.")
    ] = None,
    accounts: Annotated[
        list[str] | None,
        typer.Option("--user", help="An account of `picomdm users`, which Macs get while set up; may be repeated."),
    ] = None,
    platforms: Annotated[
        list[str] | None, typer.Option("--platform", help="Only for devices of it, such as macOS; may be repeated.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="Only for devices that have it; may be repeated.")
    ] = None,
    serials: Annotated[
        list[str] | None, typer.Option("--serial", help="Only for this serial number; may be repeated.")
    ] = None,
    ade_profile: Annotated[
        str | None, typer.Option("--ade-profile", help="The ADE profile that its devices get before they enroll.")
    ] = None,
    ade_servers: Annotated[
        list[str] | None, typer.Option("--ade-server", help="Only for devices of this server's list; may be repeated.")
    ] = None,
    on_change: Annotated[bool, typer.Option(help="Bring devices to it whenever it changes.")] = False,
    _json: JSON = False,
) -> None:
    """Say what devices shall have, in place of what the blueprint said before."""
    operator = operator_of(context)
    document = _read(file) if file else {}
    given = {
        "profiles": profiles,
        "apps": [*({"app": app} for app in apps or ()), *({"manifest_url": url} for url in manifests or ())],
        "users": _uuids_of(operator, accounts) if accounts else None,
        "ade_profile": ade_profile,
        "apply_on_change": on_change,
    }
    document |= {key: value for key, value in given.items() if value}
    conditions = {"platforms": platforms, "tags": tags, "serial_numbers": serials, "ade_servers": ade_servers}
    if chosen := {key: value for key, value in conditions.items() if value}:
        document["conditions"] = {**document.get("conditions", {}), **chosen}
    stored = operator.api.request("PUT", f"{PATH}/{path_part(name)}", document=document, repeatable=True)
    operator.terminal.answer(stored, lambda: operator.terminal.say(f"Stored, revision {stored['revision']}."))


@app.command()
def delete(context: typer.Context, *, name: Name, _json: JSON = False) -> None:
    """Forget a blueprint. Devices keep what they have."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{PATH}/{path_part(name)}", repeatable=True)
    operator.terminal.answer({"name": name}, lambda: operator.terminal.say("Deleted."))


@app.command()
def apply(
    context: typer.Context,
    *,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Blueprints; none: all that are a device's.")
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="ID", callback=by_serial_number, help=f"{ONE} May be repeated."),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="All devices that meet the conditions.")] = False,
    remove: Annotated[bool, typer.Option(help="Take away what is in the blueprints no more.")] = False,
    again: Annotated[bool, typer.Option(help="Send also what does not differ.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    wait: Wait = None,
    _json: JSON = False,
) -> None:
    """Bring devices to blueprints."""
    operator = operator_of(context)
    terminal = operator.terminal
    if bool(devices) == everybody:
        raise typer.BadParameter("Name devices with --to, or say --all.")
    if wait and not devices:
        raise typer.BadParameter("--wait waits for devices that are named with --to.")
    seconds = seconds_of(wait) if wait else None
    document = {
        "blueprints": names or None,
        "ids": devices or None,
        "all": everybody,
        "remove": remove,
        "again": again,
        "dry_run": dry_run,
    }
    answer = operator.api.request("POST", APPLICATIONS, document=document)
    if dry_run:
        terminal.answer(answer, lambda: _show_previews(operator, answer["previews"]))
        if any(preview["problems"] for preview in answer["previews"]):
            raise typer.Exit(1)
        return
    with terminal.progress("Plans are being begun …") as tell:
        while answer["state"] == "running":
            time.sleep(_POLL_SECONDS)
            answer = operator.api.get(f"{APPLICATIONS}/{path_part(answer['id'])}")
            tell(f"Plans are being begun: {answer['begun']} …")

    if seconds and devices:
        ended = await_plans(operator, devices, run=answer["id"], most=answer["begun"], seconds=seconds)
        terminal.answer(answer | {"plans": ended}, lambda: show_plans(terminal, ended))
        if failed(ended):
            raise typer.Exit(1)
        return

    def show() -> None:
        plans, of = answer["begun"], answer["examined"]
        terminal.say(f"{plans} plan{'' if plans == 1 else 's'}, of {of} enrollment{'' if of == 1 else 's'}.")
        one = f"show {devices[0]}" if devices and len(devices) == 1 else "list"
        terminal.note(f"[dim]How {'it is' if plans == 1 else 'they are'} getting on: picomdm plans {one}[/dim]")

    terminal.answer(answer, show)


def _show_previews(operator: Operator, previews: list[dict[str, Any]]) -> None:
    for preview in previews:
        operator.terminal.plain(
            f"{preview['enrollment_id']}: {', '.join(preview['blueprints']) or 'nothing is for it'}"
        )
        for step in preview["steps"]:
            operator.terminal.plain(f"  {step}")
        for problem in preview["problems"]:
            operator.terminal.plain(f"  ! {problem}")


def _uuids_of(operator: Operator, names: list[str]) -> list[str]:
    uuids = []
    for name, user in users.named(operator.api, names).items():
        if user is None:
            raise RefusedError(f"There is no account {name}. Make it: picomdm users set {name}", code="unknown_user")
        uuids.append(str(user["uuid"]))
    return uuids


def _read(file: str) -> dict[str, Any]:
    content = sys.stdin.read().encode() if file == "-" else read_file(Path(file))
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise SetupError(f"{file} holds no JSON object.", code="no_json")
    return {key: value for key, value in document.items() if key not in {"name", "uuid", "revision", "changed_at"}}


def _when(entry: dict[str, Any]) -> str:
    moments = {"enrollment": entry["apply_on_enrollment"], "change": entry["apply_on_change"]}
    return ", ".join(moment for moment, is_one in moments.items() if is_one) or "on request"


def _for_whom(entry: dict[str, Any]) -> str:
    conditions = {key: value for key, value in entry["conditions"].items() if value}
    return "; ".join(
        f"{key} {', '.join(value) if isinstance(value, list) else value}" for key, value in conditions.items()
    )

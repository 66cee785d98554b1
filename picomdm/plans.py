"""``picomdm plans``: what devices are being brought to, step by step."""

import json
from itertools import islice
from typing import Annotated, Any, Final

import typer

from picomdm import inventory
from picomdm.context import JSON, operator_of
from picomdm.devices import Id, Ids
from picomdm.plan_progress import PATH, Wait, show_plans

app: Final = typer.Typer(help="See what devices are being brought to.", no_args_is_help=True)
_MOST: Final = 1_000


@app.command("list")
def list_plans(
    context: typer.Context,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Those that have failed, not those that run.")] = False,
    _json: JSON = False,
) -> None:
    """List the plans that are running, or have failed, of all devices."""
    operator = operator_of(context)
    state = "failed" if failed else "running"
    found = list(islice(operator.api.entries(PATH, "plans", state=state), _MOST + 1))
    more, found = len(found) > _MOST, found[:_MOST]

    def tell() -> None:
        operator.terminal.table(
            ("ID", "KIND", "BLUEPRINTS", "STEPS", "MOVED", "NEXT"),
            [
                (
                    plan["enrollment_id"],
                    plan["kind"],
                    ", ".join(plan["blueprints"]),
                    _progress(plan),
                    operator.terminal.ago(plan["changed_at"]),
                    _first(plan, failed=failed),
                )
                for plan in found
            ],
            empty="No plan has failed." if failed else "No plan is running.",
        )
        if more:
            operator.terminal.note(f"[dim]There are more than these {_MOST}.[/dim]")

    operator.terminal.answer({"plans": found, "more": more}, tell)


@app.command()
def show(
    context: typer.Context,
    *,
    enrollment_id: Id,
    _json: JSON = False,
) -> None:
    """Show the plans of a device, with their steps."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(PATH, "plans", enrollment_id=enrollment_id))

    def tell() -> None:
        if not found:
            terminal.say("[dim]It has no plan.[/dim]")
        show_plans(terminal, found)

    terminal.answer({"plans": found}, tell)


@app.command("start")
def start_plans(
    context: typer.Context,
    *,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="inventory, device_information, filevault_enable, filevault_rotate, lock, profiles, "
            "certificate_profile or command_plan.",
        ),
    ],
    enrollment_ids: Ids,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help='Text, or JSON: message=…, install=["wifi"]; may be repeated.'
        ),
    ] = None,
    wait: Wait = None,
    _json: JSON = False,
) -> None:
    """Begin plans that need no blueprint."""
    pairs = [option.partition("=") for option in options or ()]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("An option is NAME=VALUE.")
    inventory.start(context, kind, enrollment_ids, {name: _value(text) for name, _, text in pairs}, wait=wait)


def _value(text: str) -> Any:  # noqa: ANN401 - whatever JSON it is
    try:
        return json.loads(text)
    except ValueError:
        return text


def _progress(plan: dict[str, Any]) -> str:
    over = [step for step in plan["steps"] if step["state"] in {"done", "unneeded", "failed"}]
    return f"{len(over)}/{len(plan['steps'])}"


def _first(plan: dict[str, Any], *, failed: bool) -> str | None:
    wanted = {"failed"} if failed else {"queued", "waiting"}
    step = next((step for step in plan["steps"] if step["state"] in wanted), None)
    if step is None:
        return None
    return f"{step['title']}: {step['reason']}" if step["reason"] else str(step["title"])

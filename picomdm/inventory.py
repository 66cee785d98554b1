"""``picomdm inventory``, ``picomdm escrow``: what devices tell of themselves, and what is kept for them."""

from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.devices import Id, Ids
from picomdm.durations import seconds_of
from picomdm.errors import RefusedError
from picomdm.plan_progress import Wait, await_plans, failed, show_plans

app: Final = typer.Typer(help="See what devices have told of themselves.", no_args_is_help=True)
escrow: Final = typer.Typer(help="Read recovery keys and PINs that are escrowed.", no_args_is_help=True)
_PATH: Final = "/v2/inventory"
_ESCROW: Final = "/v2/escrow"
Owner = Annotated[str, typer.Argument(metavar="SERIAL", help="The device's serial number; where it has none, its ID.")]


@app.command()
def show(
    context: typer.Context,
    *,
    enrollment_id: Id,
    apps: Annotated[bool, typer.Option("--apps", help="List its apps, too.")] = False,
    certificates: Annotated[bool, typer.Option("--certificates", help="List its certificates, too.")] = False,
    _json: JSON = False,
) -> None:
    """Show what is known of a device."""
    operator = operator_of(context)
    terminal = operator.terminal
    try:
        known = operator.api.get(f"/v2/enrollments/{path_part(enrollment_id)}/inventory")
    except RefusedError as refused:
        if refused.code != "no_inventory":
            raise
        raise RefusedError(
            f"It has told nothing yet. Ask it: picomdm inventory refresh {enrollment_id}", code=refused.code
        ) from refused

    def tell() -> None:
        keys = {name.replace("_", " "): value for name, value in known["keys"].items() if name != "modified"}
        terminal.facts(
            keys
            | {
                "apps": len(known["apps"]),
                "certificates": len(known["certificates"]),
                "collected": terminal.ago(known["collected_at"]),
            }
        )
        if apps:
            terminal.table(
                ("APP", "VERSION", "NAME"),
                [(one["identifier"], one["version"], one["name"]) for one in known["apps"]],
                empty="It has told of no apps.",
            )
        if certificates:
            terminal.table(
                ("CERTIFICATE", "ENDS", "IDENTITY", "SHA-256"),
                [
                    (one["common_name"], terminal.ago(one["not_after"]), one["is_identity"], one["sha256"])
                    for one in known["certificates"]
                ],
                empty="It has told of no certificates.",
            )

    terminal.answer(known, tell)


@app.command()
def changes(context: typer.Context, *, enrollment_id: Id, _json: JSON = False) -> None:
    """Show how that changed, the newest first."""
    operator = operator_of(context)
    terminal = operator.terminal
    path = f"/v2/enrollments/{path_part(enrollment_id)}/inventory-changes"
    found = list(operator.api.entries(path, "inventory_changes"))
    terminal.answer(
        {"inventory_changes": found},
        lambda: terminal.table(
            ("WHEN", "WHAT", "BEFORE", "NOW"),
            [
                (terminal.ago(entry["changed_at"]), what, _said(before), _said(now))
                for entry in found
                for what, (before, now) in entry["changes"].items()
            ],
            empty="Nothing has changed since it first told.",
        ),
    )


@app.command()
def search(
    context: typer.Context,
    *,
    filters: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE", help="All have to fit: app=com.example.app@2.0, fde_enabled=false …"),
    ],
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000,
    _json: JSON = False,
) -> None:
    """Find devices, in the whole fleet."""
    operator = operator_of(context)
    pairs = [one.partition("=") for one in filters]
    if not all(sign for _, sign, _ in pairs):
        raise typer.BadParameter("A filter is NAME=VALUE.")
    query = {name: value for name, _, value in pairs}
    found: dict[str, dict[str, Any]] = {}
    examined, cursor = 0, ""
    with operator.terminal.progress("Looking") as say:
        while cursor is not None and len(found) < limit:
            page = operator.api.get(_PATH, **query, **({"cursor": cursor} if cursor else {}))
            # A device that told anew meanwhile comes once more.
            found |= {entry["enrollment_id"]: entry for entry in page["inventory"]}
            examined, cursor = examined + page["examined"], page["next_cursor"]
            say(f"{examined} looked at, {len(found)} fit")
    entries = list(found.values())[:limit]
    more = cursor is not None or len(found) > limit

    def tell() -> None:
        operator.terminal.table(
            ("ID", "SERIAL", "MODEL", "OS", "APPS", "COLLECTED"),
            [
                (
                    entry["enrollment_id"],
                    _said(entry["keys"].get("serial_number")),
                    _said(entry["keys"].get("model_name") or entry["keys"].get("model")),
                    _said(entry["keys"].get("os_version")),
                    entry["apps"],
                    operator.terminal.ago(entry["collected_at"]),
                )
                for entry in entries
            ],
            empty="No device fits.",
        )
        operator.terminal.note(
            f"{examined} inventories were looked at." + (" There may be more: see --limit." if more else "")
        )

    operator.terminal.answer({"inventory": entries, "examined": examined, "more": more}, tell)


@app.command()
def refresh(
    context: typer.Context,
    *,
    enrollment_ids: Ids,
    wait: Wait = None,
    _json: JSON = False,
) -> None:
    """Ask devices anew."""
    start(context, "inventory", enrollment_ids, {}, wait=wait)


@escrow.command("list")
def list_escrow(context: typer.Context, *, owner: Owner, _json: JSON = False) -> None:
    """List which keys and PINs of a device are escrowed, without them."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(f"{_ESCROW}/{path_part(owner)}", "escrowed_secrets"))
    terminal.answer(
        {"escrowed_secrets": found},
        lambda: terminal.table(
            ("KIND", "ESCROWED", "LAST READ", "ENROLLMENT"),
            [
                (
                    entry["kind"],
                    terminal.ago(entry["escrowed_at"]),
                    terminal.ago(entry["revealed_at"]),
                    entry["enrollment_id"],
                )
                for entry in found
            ],
            empty="Nothing is escrowed.",
        ),
    )


@escrow.command()
def reveal(
    context: typer.Context,
    *,
    owner: Owner,
    kind: Annotated[str, typer.Argument(metavar="KIND", help="filevault_key or lock_pin.")],
    reason: Annotated[str, typer.Option(help="Why; it is published with who you are.")],
    _json: JSON = False,
) -> None:
    """Read the newest one. The event mdm.SecretRevealed tells who did, and why."""
    operator = operator_of(context)
    path = f"{_ESCROW}/{path_part(owner)}/{path_part(kind)}/reveal"
    revealed = operator.api.request("POST", path, document={"reason": reason})
    operator.terminal.answer(revealed, lambda: operator.terminal.plain(revealed["value"]))


def start(
    context: typer.Context, kind: str, enrollment_ids: list[str], options: dict[str, Any], *, wait: str | None
) -> None:
    """Have plans of a kind begin, and tell for whom they do not."""
    operator = operator_of(context)
    terminal = operator.terminal
    seconds = seconds_of(wait) if wait else None
    document = {"kind": kind, "ids": enrollment_ids, "options": options}
    answer = operator.api.request("POST", "/v2/plans", document=document)
    begun = [target["id"] for target in answer["targets"] if target["begun"]]
    refused = [target for target in answer["targets"] if not target["begun"]]
    ended = (
        await_plans(operator, begun, run=answer["run"], most=len(begun), seconds=seconds) if seconds and begun else []
    )

    def tell() -> None:
        if ended:
            show_plans(terminal, ended)
        elif begun:
            terminal.say(f"Begun for {len(begun)} device{'' if len(begun) == 1 else 's'}.")
            one = f"show {begun[0]}" if len(begun) == 1 else "list"
            terminal.note(f"[dim]How it is getting on: picomdm plans {one}[/dim]")
        for target in refused:
            terminal.plain(f"{target['id']}: {target['error']['detail']}")

    terminal.answer(answer | ({"plans": ended} if seconds else {}), tell)
    if refused or failed(ended):
        raise typer.Exit(1)


def _said(value: Any) -> str | None:  # noqa: ANN401 - text, number or yes and no
    if value is None:
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)

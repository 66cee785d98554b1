"""``picomdm enrollments``, ``picomdm push``: enrollments, and waking them."""

import time
from itertools import islice
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.devices import ONE, Id, Ids, by_serial_number
from picomdm.errors import RefusedError, SetupError

app: Final = typer.Typer(help="List enrollments, block them, forget them.", no_args_is_help=True)
_PATH: Final = "/v2/enrollments"
_PUSHED: Final = frozenset({207, 500})
_PUSHES_AT_ONCE: Final = 100
_POLL_SECONDS: Final = 1.0


@app.command("list")
def list_enrollments(
    context: typer.Context,
    *,
    serial: Annotated[str | None, typer.Option(help="Only those of this serial number.")] = None,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only this type (Device, User, …); may be repeated.")
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", help="Only this state (authenticated, enrolled, checked_out); may be repeated."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000,
    _json: JSON = False,
) -> None:
    """List the enrollments: devices and their user channels."""
    operator = operator_of(context)
    terminal = operator.terminal
    query = {"serial_number": serial, "type": ",".join(types or ()), "state": ",".join(states or ())}
    given = {name: value for name, value in query.items() if value}
    with terminal.progress("Reading the enrollments …") as tell:
        found = []
        # One more than is shown tells whether there are more.
        for entry in islice(operator.api.entries(_PATH, "enrollments", **given), limit + 1):
            found.append(entry)
            tell(f"Reading the enrollments: {len(found)} …")
    more, found = len(found) > limit, found[:limit]

    def show() -> None:
        terminal.table(
            ("ID", "TYPE", "SERIAL", "MODEL", "OS", "STATE", "LAST SEEN"),
            [
                (
                    entry["id"],
                    entry["type"],
                    entry["serial_number"],
                    entry["product_name"] or entry["model"],
                    entry["os_version"],
                    _state(entry),
                    terminal.ago(entry["last_seen_at"]),
                )
                for entry in found
            ],
            empty="No enrollments. Make a link and open it on a device: picomdm enroll link",
        )
        if more:
            terminal.note(f"[dim]There are more than these {limit}; see --limit.[/dim]")

    terminal.answer({"enrollments": found, "more": more}, show)


@app.command()
def show(
    context: typer.Context,
    *,
    enrollment_id: Id,
    _json: JSON = False,
) -> None:
    """Show what is known of one enrollment."""
    operator = operator_of(context)
    terminal = operator.terminal
    entry = operator.api.get(f"{_PATH}/{path_part(enrollment_id)}")
    facts = {
        "id": entry["id"],
        "type": entry["type"],
        "device": entry["parent_id"],
        "state": _state(entry),
        "serial number": entry["serial_number"],
        "model": entry["model_name"] or entry["model"],
        "product": entry["product_name"],
        "OS": " ".join(filter(None, (entry["os_version"], _bracketed(entry["build_version"])))),
        "device name": entry["device_name"],
        "IMEI": entry["imei"],
        "MEID": entry["meid"],
        "user": " ".join(filter(None, (entry["user_short_name"], _bracketed(entry["user_long_name"])))) or None,
        "awaits configuration": entry["awaiting_configuration"],
        "enrolled": terminal.ago(entry["enrolled_at"]),
        "last seen": terminal.ago(entry["last_seen_at"]),
        "checked out": terminal.ago(entry["checked_out_at"]),
        "enrollment link": entry["enrollment_link"],
        "push topic": entry["push"]["topic"],
        "push token": entry["push"]["failure"] or ("known" if entry["push"]["token_known"] else "not known yet"),
        "certificate": entry["identity"]["sha256"],
        "certificate ends": terminal.ago(entry["identity"]["not_after"]),
        "renewal queued": terminal.ago(entry["identity"]["renewal_queued_at"]),
    }
    terminal.answer(entry, lambda: terminal.facts(facts))


@app.command()
def block(context: typer.Context, *, enrollment_id: Id, _json: JSON = False) -> None:
    """Have a device un-enroll, and let it in no more."""
    _set_block(context, "PUT", enrollment_id, blocked=True)


@app.command()
def unblock(context: typer.Context, *, enrollment_id: Id, _json: JSON = False) -> None:
    """Let a device come back that was blocked; it has to enroll again."""
    _set_block(context, "DELETE", enrollment_id, blocked=False)


@app.command()
def delete(
    context: typer.Context,
    *,
    enrollment_ids: Ids,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    _json: JSON = False,
) -> None:
    """Forget devices, with their users and what waits for them. They are not told, and can enroll anew."""
    operator = operator_of(context)
    if not yes:
        try:
            typer.confirm(f"Forget {', '.join(enrollment_ids)}?", abort=True, err=True)
        except typer.Abort:
            raise SetupError("Nothing was deleted; to be asked nothing, say --yes.", code="not_confirmed") from None
    options = {"Opts": {"udids": enrollment_ids}}
    operator.api.request("DELETE", "/v1/devices", document=options, repeatable=True)
    operator.terminal.answer(
        {"ids": enrollment_ids, "deleted": True}, lambda: operator.terminal.say(f"Forgot {', '.join(enrollment_ids)}.")
    )


def push(
    context: typer.Context,
    *,
    enrollment_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", callback=by_serial_number, help=ONE)
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Wake all that may receive commands.")] = False,
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Wake those of this type (Device, User, …); may be repeated.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Wake those of this push topic.")] = None,
    _json: JSON = False,
) -> None:
    """Wake enrollments, so that they connect."""
    operator = operator_of(context)
    terminal = operator.terminal
    many = {"all": everybody or None, "types": types, "topic": topic}
    if bool(enrollment_ids) == any(many.values()):
        raise typer.BadParameter("Name enrollments, or say --all, --type or --topic.")
    if not enrollment_ids:
        job = operator.api.request("POST", "/v2/pushes", document={name: each for name, each in many.items() if each})
        if not terminal.as_json:
            job = _await_pushes(operator, job)
        terminal.answer(job, lambda: terminal.say(f"Woken: {job['woken']}. Not woken: {job['not_woken']}."))
        return
    status: dict[str, dict[str, Any]] = {}
    with terminal.progress("Waking …"):
        for start in range(0, len(enrollment_ids), _PUSHES_AT_ONCE):
            path = "/v1/push/" + ",".join(map(path_part, enrollment_ids[start : start + _PUSHES_AT_ONCE]))
            answer = operator.api.request("GET", path, accept=_PUSHED)
            if "status" not in answer:
                raise RefusedError(answer["error"], code=answer.get("code"))
            status |= answer["status"]
    terminal.answer(
        {"status": status},
        lambda: terminal.table(
            ("ID", "APNS ID", "ERROR"),
            [(id_, outcome.get("push_result"), outcome.get("push_error")) for id_, outcome in status.items()],
            empty="Nobody was woken.",
        ),
    )
    if any("push_error" in outcome for outcome in status.values()):
        raise typer.Exit(1)


def _await_pushes(operator: Operator, job: dict[str, Any]) -> dict[str, Any]:
    with operator.terminal.progress("Waking …") as tell:
        while job["state"] == "running":
            time.sleep(_POLL_SECONDS)
            job = operator.api.get(f"/v2/pushes/{path_part(job['id'])}")
            tell(f"Waking: {job['progress']:.0%}, {job['woken']} enrollments …")
    return job


def _set_block(context: typer.Context, method: str, enrollment_id: str, *, blocked: bool) -> None:
    operator = operator_of(context)
    operator.api.request(method, f"{_PATH}/{path_part(enrollment_id)}/block", repeatable=True)
    operator.terminal.answer(
        {"id": enrollment_id, "blocked": blocked},
        lambda: operator.terminal.say("Blocked." if blocked else "Blocked no more."),
    )


def _state(entry: dict[str, Any]) -> str:
    if entry["blocked"]:
        return "blocked"
    if entry["state"] == "enrolled" and not entry["enabled"]:
        return "ended with its device"
    return str(entry["state"]).replace("_", " ")


def _bracketed(text: str | None) -> str | None:
    return f"({text})" if text else None

"""``picomdm commands send``: one sub-command a request type, and beside them a form for all of them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from typer.core import TyperGroup

from picomdm.admin_api import AdminAPI
from picomdm.context import JSON, operator_of
from picomdm.durations import seconds_of
from picomdm.errors import CommandLineError
from picomdm.request_types import FieldOption, did_you_mean, request_types
from picomdm.results import await_result, show_result
from picomdm.terminal import Terminal

BY_FIELDS: Final = "by-fields"
"""The hidden sub-command that takes an enrollment, a request type and fields."""

_MAX_SERIAL_NUMBERS: Final = 20
"""So many are looked up here, one by one; for more the server has a job."""

_TO: Final = (
    "Whom it is for, repeated for several: an enrollment's id, serial:C02XXXX, type:Device (Device, User, …), or all."
)
_COMMON: Final[dict[str, Any]] = {
    "to": Annotated[list[str], typer.Option("--to", metavar="WHOM", help=_TO)],
    "wait": Annotated[
        str | None, typer.Option(help="Wait so long (30s, 10m) for the device's final report, and show it.")
    ],
    "command_uuid": Annotated[str | None, typer.Option("--command-uuid", help="The CommandUUID; else a new one.")],
    "priority": Annotated[int | None, typer.Option("--priority", min=0, max=9, help="9 goes out first; else 5.")],
    "not_before": Annotated[
        str | None, typer.Option("--not-before", metavar="TIME", help="Hand it out not sooner: 2026-11-20T12:00:00Z.")
    ],
    "expires_at": Annotated[
        str | None, typer.Option("--expires-at", metavar="TIME", help="Hand it out not any more from then on.")
    ],
    "dedup_key": Annotated[
        str | None, typer.Option("--dedup-key", help="Refuse it where a command with the same key waits.")
    ],
    "no_push": Annotated[bool, typer.Option("--no-push", help="Wake nobody.")],
    "anyway": Annotated[
        bool, typer.Option("--anyway", help="Queue it also for those that are known to be unable to do it.")
    ],
    "_json": JSON,
}
_DEFAULTS: Final = {"no_push": False, "anyway": False, "_json": False}


class RequestTypes(TyperGroup):
    """The sub-commands of ``send``; what names none of them is an enrollment, and the form for all takes it."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's click is private
        """Return the names of all request types."""
        return [*super().list_commands(ctx), *request_types()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - see above
        """Make a request type's sub-command, when it is asked for: nobody needs all of them."""
        if cmd_name in request_types():
            return _sub_command(cmd_name)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - see above
        """Find the sub-command that the arguments begin with."""
        if args and self.get_command(ctx, args[0]) is None:
            if "--to" in args:
                # The form for all has no such option: a sub-command was meant.
                suggestion = did_you_mean(args[0], request_types())
                raise typer.BadParameter(f"There is no request type {args[0]}.{suggestion}", ctx=ctx)
            args = [BY_FIELDS, *args]
        return super().resolve_command(ctx, args)


def _sub_command(name: str) -> Any:  # noqa: ANN401 - see above
    request_type, fields = request_types()[name]
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name, help=f"Queue {request_type}.")(_function(request_type, fields))
    return typer.main.get_command(app)


def _function(request_type: str, fields: Sequence[FieldOption]) -> Callable[..., None]:
    """Return a function with a parameter for each field: typer reads its signature."""

    def send(context: typer.Context, **given: Any) -> None:  # noqa: ANN401 - what typer makes of each option
        document = {
            field.name: field.value(given[f"field_{field.name}"])
            for field in fields
            if given[f"field_{field.name}"] not in (None, [])
        }
        send_to(context, {"request_type": request_type} | document, given)

    annotations = {f"field_{field.name}": field.annotation for field in fields} | _COMMON
    keyword = inspect.Parameter.KEYWORD_ONLY
    send.__annotations__ = {"context": typer.Context} | annotations
    send.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # functions have it, says inspect
        [
            inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *(
                inspect.Parameter(
                    name,
                    keyword,
                    annotation=annotation,
                    default=inspect.Parameter.empty if name == "to" else _DEFAULTS.get(name),
                )
                for name, annotation in annotations.items()
            ),
        ]
    )
    return send


def send_to(context: typer.Context, command: dict[str, Any], given: dict[str, Any]) -> None:
    """Queue a command for whom ``to`` names, and tell what became of it."""
    operator = operator_of(context)
    terminal = operator.terminal
    targets = _targets(operator.api, given["to"])
    seconds = seconds_of(given["wait"]) if given["wait"] else None
    if seconds is not None and len(targets.get("ids", ())) != 1:
        raise typer.BadParameter("--wait waits for one enrollment.")
    # Named here, so that a request whose answer was lost can be sent again and queues no second command.
    command["command_uuid"] = given["command_uuid"] or str(uuid4())
    options = {
        "priority": given["priority"],
        "not_before": given["not_before"],
        "expires_at": given["expires_at"],
        "dedup_key": given["dedup_key"],
        "no_push": given["no_push"] or None,
        "force": given["anyway"] or None,
    }
    document = {"command": command} | targets | {name: value for name, value in options.items() if value is not None}
    with terminal.progress(f"Queueing {command['request_type']} …"):
        answer = operator.api.request("POST", "/v2/commands", document=document, repeatable=True)
    if "state" in answer:
        terminal.answer(answer, lambda: show_job(terminal, answer))
        return
    if seconds is None or answer["queued"] == 0:
        terminal.answer(answer, lambda: _show_outcome(terminal, answer))
        if answer["queued"] < len(answer["targets"]):
            raise typer.Exit(1)
        return
    enrollment_id = answer["targets"][0]["id"]
    terminal.note(f"[dim]Queued {answer['request_type']} as {answer['command_uuid']}.[/dim]")
    result = await_result(operator.api, terminal, enrollment_id, answer["command_uuid"], seconds)
    terminal.answer(answer | {"result": result}, lambda: show_result(terminal, result))
    if result["status"] != "Acknowledged":
        raise typer.Exit(1)


def show_job(terminal: Terminal, job: dict[str, Any]) -> None:
    """Show how a job is getting on."""
    terminal.facts(
        {
            "job": job["id"],
            "command": f"{job['request_type']} {job['command_uuid']}",
            "state": f"{job['state']}, {job['progress']:.0%}",
            "queued": job["queued"],
            "refused": job["refused"],
        }
    )
    if job["errors"]:
        terminal.table(
            ("TARGET", "CODE", "REASON"),
            [(error["target"], error["code"], error["detail"]) for error in job["errors"]],
            empty="",
        )
    if job["state"] == "running":
        terminal.note(f"[dim]It goes on; see: picomdm commands jobs {job['id']}[/dim]")


def _show_outcome(terminal: Terminal, answer: dict[str, Any]) -> None:
    terminal.facts({"queued": answer["request_type"], "uuid": answer["command_uuid"]})
    terminal.table(
        ("ENROLLMENT", "QUEUED", "WHY NOT"),
        [
            (target["id"], target["queued"], (target["error"] or {}).get("detail") or target["push_error"])
            for target in answer["targets"]
        ],
        empty="",
    )


def _targets(api: AdminAPI, to: Sequence[str]) -> dict[str, Any]:
    """Return the targets as the API takes them: ids, or what a job is for."""
    kinds = {name: [each.removeprefix(f"{name}:") for each in to if each.startswith(f"{name}:")] for name in _KINDS}
    ids = [each for each in to if each != "all" and not each.startswith(tuple(f"{name}:" for name in _KINDS))]
    if "all" in to or kinds["type"]:
        if ids or kinds["serial"] or ("all" in to and kinds["type"]):
            raise typer.BadParameter("--to all and --to type:… are for themselves: name nobody beside them.")
        return {"all": True} if "all" in to else {"types": kinds["type"]}
    if len(kinds["serial"]) > _MAX_SERIAL_NUMBERS:
        if ids:
            raise typer.BadParameter(f"More than {_MAX_SERIAL_NUMBERS} serial numbers are for themselves.")
        return {"serial_numbers": kinds["serial"]}
    return {"ids": [*ids, *(id_ for serial_number in kinds["serial"] for id_ in _ids_of(api, serial_number))]}


def _ids_of(api: AdminAPI, serial_number: str) -> list[str]:
    found = api.entries("/v2/enrollments", "enrollments", serial_number=serial_number)
    ids = [entry["id"] for entry in found if entry["enabled"] and entry["parent_id"] is None]
    if not ids:
        raise CommandLineError(
            f"No device with the serial number {serial_number} is enrolled.", code="unknown_serial_number"
        )
    return ids


_KINDS: Final = ("serial", "type")

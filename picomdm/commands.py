"""``picomdm commands``: queueing commands, and what became of them."""

import json
import sys
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from picomdm.admin_api import path_part
from picomdm.command_fields import FORMS, fields_of, is_field
from picomdm.context import JSON, Operator, operator_of
from picomdm.devices import Id, Ids
from picomdm.durations import seconds_of
from picomdm.errors import CommandLineError, RefusedError, SetupError
from picomdm.request_types import did_you_mean, request_types
from picomdm.results import await_result, find_result, first_error, readable, show_result
from picomdm.send import BY_FIELDS, RequestTypes, show_job

app: Final = typer.Typer(help="Queue commands, list those that wait, and what became of them.", no_args_is_help=True)
send_app: Final = typer.Typer(
    cls=RequestTypes,
    help="""Queue a command and wake its devices: one sub-command a request type, its fields are options.

    picomdm commands send device-lock --pin 123456 --to serial:C02XXXX

    Or in the form that takes every request type, with its fields behind it:

    picomdm commands send UDID DeviceInformation queries+=OSVersion --wait 5m
    """,
    no_args_is_help=True,
    # What begins with an option of the form for all is for that.
    context_settings={"ignore_unknown_options": True},
)
app.add_typer(send_app, name="send")


@send_app.command(BY_FIELDS, hidden=True)
def send(
    context: typer.Context,
    *,
    enrollment_id: Id,
    request_type: Annotated[
        str | None, typer.Argument(help="Apple's name of the command, such as DeviceInformation.")
    ] = None,
    fields: Annotated[list[str] | None, typer.Argument(metavar="FIELD", help=FORMS)] = None,
    file: Annotated[
        str | None, typer.Option(help="JSON file with the command in MicroMDM's form; - is stdin. FIELDs add to it.")
    ] = None,
    command_uuid: Annotated[str | None, typer.Option("--uuid", help="The CommandUUID; else a new one.")] = None,
    wait: Annotated[
        str | None, typer.Option(help="Wait so long (30s, 10m) for the device's final report, and show it.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Queue a command and wake its device.

    picomdm commands send UDID DeviceInformation queries+=OSVersion queries+=SerialNumber

    picomdm commands send UDID InstallProfile payload@wifi.mobileconfig --wait 5m
    """
    operator = operator_of(context)
    terminal = operator.terminal
    document = _read_document(file) if file else {}
    fields = fields or []
    if request_type and is_field(request_type):
        # With --file, the first field stands where the request type would.
        fields = [request_type, *fields]
        request_type = None
    document |= {"udid": enrollment_id} | fields_of(fields)
    if request_type:
        document["request_type"] = request_type
    if "request_type" not in document:
        raise typer.BadParameter("Say which command: a REQUEST_TYPE, or a --file that has one.")
    seconds = seconds_of(wait) if wait else None
    # Named here, so that a request whose answer was lost can be sent again and queues no second command.
    document["command_uuid"] = command_uuid or document.get("command_uuid") or str(uuid4())
    with terminal.progress(f"Queueing {document['request_type']} …"):
        queued = _queue(operator, document)
    payload = queued["payload"]
    sent = {"id": enrollment_id, "command_uuid": payload["command_uuid"], "request_type": document["request_type"]}
    if seconds is None:
        terminal.answer(sent, lambda: terminal.facts({"queued": sent["request_type"], "uuid": sent["command_uuid"]}))
        return
    terminal.note(f"[dim]Queued {sent['request_type']} as {sent['command_uuid']}.[/dim]")
    result = await_result(operator.api, terminal, enrollment_id, sent["command_uuid"], seconds)
    terminal.answer(sent | {"result": result}, lambda: show_result(terminal, result))
    if result["status"] != "Acknowledged":
        raise typer.Exit(1)


def _queue(operator: Operator, document: dict[str, Any]) -> Any:  # noqa: ANN401 - MicroMDM's JSON
    try:
        return operator.api.request("POST", "/v1/commands", document=document, repeatable=True)
    except RefusedError as refused:
        if refused.code != "unknown_request_type":
            raise
        known = [request_type for request_type, _ in request_types().values()]
        message = refused.message + "." + did_you_mean(str(document["request_type"]), known)
        raise RefusedError(message, code=refused.code, field=refused.field, status=refused.status) from refused


@app.command("list")
def list_commands(
    context: typer.Context,
    *,
    enrollment_id: Id,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000,
    _json: JSON = False,
) -> None:
    """List the commands that wait, in the order in which they go out."""
    operator = operator_of(context)
    terminal = operator.terminal
    path = f"/v2/enrollments/{path_part(enrollment_id)}/commands"
    found = list(islice(operator.api.entries(path, "commands", payloads="false"), limit))
    terminal.answer(
        {"commands": found},
        lambda: terminal.table(
            ("UUID", "REQUEST TYPE", "STATE", "QUEUED", "EXPIRES"),
            [
                (
                    entry["command_uuid"],
                    entry["request_type"],
                    _state(entry),
                    terminal.ago(entry["enqueued_at"]),
                    terminal.ago(entry["expires_at"]),
                )
                for entry in found
            ],
            empty="Nothing waits.",
        ),
    )


@app.command()
def jobs(
    context: typer.Context,
    *,
    job_id: Annotated[str | None, typer.Argument(metavar="JOB", help="One job; else the newest 100.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it. What it has queued stays queued.")] = False,
    _json: JSON = False,
) -> None:
    """Show how commands for many are getting on: those for all, for types, and for many serial numbers."""
    operator = operator_of(context)
    terminal = operator.terminal
    if job_id is None:
        if stop:
            raise typer.BadParameter("Say which JOB to stop.")
        found = operator.api.get("/v2/command-jobs")["command_jobs"]
        terminal.answer(
            {"command_jobs": found},
            lambda: terminal.table(
                ("JOB", "REQUEST TYPE", "STATE", "DONE", "QUEUED", "REFUSED", "BEGUN"),
                [
                    (
                        job["id"],
                        job["request_type"],
                        job["state"],
                        f"{job['progress']:.0%}",
                        job["queued"],
                        job["refused"],
                        terminal.ago(job["created_at"]),
                    )
                    for job in found
                ],
                empty="No jobs.",
            ),
        )
        return
    method = "DELETE" if stop else "GET"
    job = operator.api.request(method, f"/v2/command-jobs/{path_part(job_id)}", repeatable=True)
    terminal.answer(job, lambda: show_job(terminal, job))


@app.command()
def cancel(
    context: typer.Context,
    *,
    enrollment_id: Id,
    command_uuid: Annotated[str, typer.Argument(help="As `picomdm commands list` shows it.")],
    _json: JSON = False,
) -> None:
    """Take back a command that waits. A device that was given it already may do it all the same."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"/v2/enrollments/{path_part(enrollment_id)}/commands/{path_part(command_uuid)}")
    answer = {"id": enrollment_id, "command_uuid": command_uuid, "cancelled": True}
    operator.terminal.answer(answer, lambda: operator.terminal.say("Cancelled."))


@app.command()
def clear(
    context: typer.Context,
    *,
    enrollment_ids: Ids,
    with_users: Annotated[bool, typer.Option("--with-users", help="Also what waits for the users of devices.")] = False,
    _json: JSON = False,
) -> None:
    """Take back all commands that wait for enrollments. User channels have queues of their own."""
    operator = operator_of(context)
    query = {"user_channels": "true"} if with_users else None
    for enrollment_id in enrollment_ids:
        path = f"/v2/enrollments/{path_part(enrollment_id)}/commands"
        operator.api.request("DELETE", path, query=query, repeatable=True)
    operator.terminal.answer(
        {"ids": enrollment_ids, "cleared": True}, lambda: operator.terminal.say("Nothing waits any more.")
    )


@app.command()
def results(
    context: typer.Context,
    *,
    enrollment_id: Id,
    command_uuid: Annotated[
        str | None, typer.Argument(help="One command: its whole report is shown, which may hold secrets.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    payloads: Annotated[
        bool, typer.Option("--payloads", help="With --json: the whole reports too, which may hold secrets.")
    ] = False,
    _json: JSON = False,
) -> None:
    """List what a device reported, or show its report on one command."""
    operator = operator_of(context)
    terminal = operator.terminal
    path = f"/v2/enrollments/{path_part(enrollment_id)}/results"
    if command_uuid:
        result = find_result(operator.api, enrollment_id, command_uuid)
        if result is None:
            raise CommandLineError(
                f"There is no result of {command_uuid} (yet); see: picomdm commands list {enrollment_id}",
                code="no_result",
            )
        terminal.answer(result | {"report": readable(result)}, lambda: show_result(terminal, result))
        return
    found = _newest(operator.api.entries(path, "results", payloads="true" if payloads else "false"), limit)
    terminal.answer(
        {"results": found},
        lambda: terminal.table(
            ("UUID", "REQUEST TYPE", "STATUS", "REPORTED", "ERROR"),
            [
                (
                    entry["command_uuid"],
                    entry["request_type"],
                    entry["status"],
                    terminal.ago(entry["reported_at"]),
                    first_error(entry),
                )
                for entry in found
            ],
            empty="No results.",
        ),
    )


def _read_document(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.", code="file_unreadable") from error
    except ValueError:
        raise SetupError(f"{file} holds no JSON.", code="file_unreadable") from None
    if not isinstance(document, dict):
        raise SetupError(f"{file} holds JSON, but no object.", code="file_unreadable")
    return document


def _newest(entries: Iterable[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    # The server lists by UUID, for that is what it finds results by.
    return sorted(entries, key=lambda entry: str(entry["reported_at"]), reverse=True)[:limit]


def _state(entry: dict[str, Any]) -> str:
    if entry["state"] == "not_now":
        return f"not now ({entry['not_now_tally']}x)"
    return f"from {entry['not_before']}" if entry["state"] == "scheduled" else str(entry["state"])

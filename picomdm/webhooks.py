"""``picomdm webhooks``: who hears of events."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.errors import SetupError

app: Final = typer.Typer(help="Subscribe URLs to events.", no_args_is_help=True)
PATH: Final = "/v2/webhooks"
Id = Annotated[str, typer.Argument(metavar="ID", help="As `picomdm webhooks list` shows it.")]


KeyFile = Annotated[
    str | None, typer.Option("--hmac-key-file", help="A file with the key, without its line end; - is stdin.")
]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Only events of this topic, such as mdm.Connect or dep.*; may be repeated."),
]
EnrollmentTypes = Annotated[
    list[str] | None,
    typer.Option("--enrollment-type", help="Only events of this type of enrollments, such as Device; may be repeated."),
]
RequestTypes = Annotated[
    list[str] | None,
    typer.Option("--request-type", help="Only events about commands of this type; may be repeated."),
]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="Only reports with this status, such as Error; may be repeated.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header", help="'Name: value', sent with each delivery; may be repeated. @FILE reads it from a file."
    ),
]
Redact = Annotated[
    str | None,
    typer.Option(help="Leave raw messages out that hold something secret (secrets), or all (payload), or none (none)."),
]


@app.command()
def create(
    context: typer.Context,
    *,
    url: Annotated[str, typer.Argument(help="Where events are posted to; https.")],
    topics: Topics = None,
    enrollment_types: EnrollmentTypes = None,
    request_types: RequestTypes = None,
    statuses: Statuses = None,
    headers: Headers = None,
    redact: Redact = None,
    hmac_key: Annotated[
        str | None,
        typer.Option(
            envvar="PICOMDM_HMAC_KEY",
            show_envvar=True,
            help="The key that deliveries are signed with (X-Hmac-Signature). Others on this machine see it here: "
            "better use --hmac-key-file.",
        ),
    ] = None,
    hmac_key_file: KeyFile = None,
    _json: JSON = False,
) -> None:
    """Post events to a URL. The same URL and filters again replaces key and headers."""
    operator = operator_of(context)
    terminal = operator.terminal
    document = {
        "url": url,
        "topics": topics or None,
        "enrollment_types": enrollment_types or None,
        "request_types": request_types or None,
        "statuses": statuses or None,
        "headers": _headers(headers),
        "redact": None if redact == "none" else redact,
        "hmac_key": read_key(hmac_key_file) if hmac_key_file else hmac_key or None,
    }
    with terminal.progress("Subscribing …"):
        made = operator.api.request("POST", PATH, document=document, repeatable=True)

    def show() -> None:
        terminal.facts(facts_of(made))
        if not made["signed"]:
            terminal.note("[yellow]Deliveries are not signed: the receiver cannot tell them from forged ones.[/yellow]")

    terminal.answer(made, show)


@app.command("list")
def list_webhooks(context: typer.Context, *, _json: JSON = False) -> None:
    """List the subscriptions."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(PATH, "webhooks"))
    terminal.answer(
        {"webhooks": found},
        lambda: terminal.table(
            ("ID", "URL", "EVENTS", "SIGNED", "STATE"),
            [(entry["id"], entry["url"], _events(entry), entry["signed"], _state(entry)) for entry in found],
            empty="No webhooks. Subscribe a URL with: picomdm webhooks create URL",
        ),
    )


@app.command()
def show(context: typer.Context, *, subscription_id: Id, _json: JSON = False) -> None:
    """Show one subscription."""
    operator = operator_of(context)
    found = operator.api.get(path_of(subscription_id))
    operator.terminal.answer(found, lambda: operator.terminal.facts(facts_of(found)))


@app.command()
def change(
    context: typer.Context,
    *,
    subscription_id: Id,
    url: Annotated[str | None, typer.Option(help="Where events are posted to from now on.")] = None,
    topics: Topics = None,
    enrollment_types: EnrollmentTypes = None,
    request_types: RequestTypes = None,
    statuses: Statuses = None,
    every: Annotated[bool, typer.Option("--all-events", help="Take away the filters that are not named here.")] = False,
    headers: Headers = None,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Send no headers of your own any more.")] = False,
    redact: Redact = None,
    hmac_key_file: KeyFile = None,
    _json: JSON = False,
) -> None:
    """Change a subscription; what is not named stays. To change the key step by step: rotate-key."""
    filters = {
        "topics": topics,
        "enrollment_types": enrollment_types,
        "request_types": request_types,
        "statuses": statuses,
    }
    document: dict[str, Any] = {name: values or None for name, values in filters.items() if values or every}
    if url:
        document["url"] = url
    if headers or no_headers:
        document["headers"] = _headers(headers)
    if redact:
        document["redact"] = None if redact == "none" else redact
    if hmac_key_file:
        document["hmac_key"] = read_key(hmac_key_file)
    if not document:
        raise typer.BadParameter("Nothing is to be changed.")
    _patch(context, subscription_id, document)


@app.command()
def pause(
    context: typer.Context,
    *,
    subscription_id: Id,
    drop: Annotated[bool, typer.Option("--drop", help="Forget the events of the pause.")] = False,
    _json: JSON = False,
) -> None:
    """Post nothing until `resume`. Events wait meanwhile, for two weeks at most, unless --drop is said."""
    _patch(context, subscription_id, {"paused": True, "drop_events": drop})


@app.command()
def resume(context: typer.Context, *, subscription_id: Id, _json: JSON = False) -> None:
    """End a pause, or a hold after failures. What waited comes within 15 minutes."""
    _patch(context, subscription_id, {"paused": False})


@app.command("rotate-key")
def rotate_key(
    context: typer.Context,
    *,
    subscription_id: Id,
    hmac_key_file: KeyFile = None,
    finish: Annotated[bool, typer.Option("--finish", help="The new key takes over, the old one is forgotten.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Forget the new key.")] = False,
    _json: JSON = False,
) -> None:
    """Change the HMAC key: first with the new one, then, when the receiver knows it, with --finish."""
    if [bool(hmac_key_file), finish, abandon].count(True) != 1:
        raise typer.BadParameter("Say one of --hmac-key-file, --finish, --abandon.")
    if hmac_key_file:
        _patch(context, subscription_id, {"next_hmac_key": read_key(hmac_key_file)})
    else:
        _patch(context, subscription_id, {"promote_next_hmac_key": True} if finish else {"next_hmac_key": None})


@app.command()
def delete(
    context: typer.Context,
    *,
    subscription_id: Id,
    _json: JSON = False,
) -> None:
    """End a subscription; events that still wait for it are dropped."""
    operator = operator_of(context)
    operator.api.request("DELETE", path_of(subscription_id))
    operator.terminal.answer({"id": subscription_id, "deleted": True}, lambda: operator.terminal.say("Deleted."))


def path_of(subscription_id: str) -> str:
    """Return the path of a subscription in the API."""
    return f"{PATH}/{path_part(subscription_id)}"


def read_key(file: str) -> str:
    """Read a key from a file, for everybody sees the command line of a process. The line end is none of the key."""
    text = _read(file)
    key = text.removesuffix("\n").removesuffix("\r")
    if not key:
        raise SetupError(f"{file} is empty.", code="file_empty")
    return key


def facts_of(entry: dict[str, Any]) -> dict[str, str | None]:
    """Return what a person wants to know of a subscription."""
    test = entry["last_test"]
    return {
        "id": entry["id"],
        "url": entry["url"],
        "events": _events(entry),
        "redacted": entry["redact"],
        "headers": ", ".join(entry["header_names"]) or None,
        "signed": "with two keys" if entry["next_key_waits"] else "yes" if entry["signed"] else "no",
        "state": _state(entry),
        "last test": f"{outcome_of(test)}, at {test['at']}" if test else None,
    }


def outcome_of(test: dict[str, Any]) -> str:
    """Return what became of a test, in words."""
    if test["status"] is None:
        return str(test["error"])
    taken = "taken" if test["delivered"] else "not taken"
    return f"{taken}, answered {test['status']} after {test['seconds']} s"


def _patch(context: typer.Context, subscription_id: str, document: dict[str, Any]) -> None:
    operator = operator_of(context)
    if document.get("paused") is False or not document.get("drop_events", True):
        document.pop("drop_events", None)
    changed = operator.api.request("PATCH", path_of(subscription_id), document=document, repeatable=True)
    operator.terminal.answer(changed, lambda: operator.terminal.facts(facts_of(changed)))


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} cannot be read as UTF-8.", code="file_unreadable") from error


def _headers(lines: list[str] | None) -> dict[str, str] | None:
    headers = {}
    for line in lines or ():
        text = _read(line[1:]).strip() if line.startswith("@") else line
        name, colon, value = text.partition(":")
        if not colon:
            raise typer.BadParameter("A header is written 'Name: value'.")
        headers[name.strip()] = value.strip()
    return headers or None


def _events(entry: dict[str, Any]) -> str:
    names = ("topics", "enrollment_types", "request_types", "statuses")
    return "; ".join(", ".join(entry[name]) for name in names if entry[name]) or "all"


def _state(entry: dict[str, Any]) -> str:
    if entry["paused_at"]:
        return f"paused since {entry['paused_at']}" + (", drops events" if entry["drops_events"] else "")
    if entry["held_until"]:
        return f"on hold until {entry['held_until']}"
    if entry["failures"]:
        return f"{entry['failures']} failures in a row"
    return "slow" if entry["slow"] else "ok"

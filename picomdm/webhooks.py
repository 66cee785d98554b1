"""``picomdm webhooks``: who hears of events."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.errors import SetupError

app: Final = typer.Typer(help="Subscribe URLs to events.", no_args_is_help=True)
_PATH: Final = "/v2/webhooks"


@app.command()
def create(
    context: typer.Context,
    *,
    url: Annotated[str, typer.Argument(help="Where events are posted to; https.")],
    topics: Annotated[
        list[str] | None,
        typer.Option("--topic", help="Only events of this topic, such as mdm.Connect or dep.*; may be repeated."),
    ] = None,
    hmac_key: Annotated[
        str | None,
        typer.Option(
            envvar="PICOMDM_HMAC_KEY",
            show_envvar=True,
            help="The key that deliveries are signed with (X-Hmac-Signature). Others on this machine see it here: "
            "better use --hmac-key-file.",
        ),
    ] = None,
    hmac_key_file: Annotated[
        str | None, typer.Option(help="A file with the key, without its line end; - is stdin.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Post events to a URL. The same URL and topics again replaces the key."""
    operator = operator_of(context)
    terminal = operator.terminal
    key = _read_key(hmac_key_file) if hmac_key_file else hmac_key or None
    with terminal.progress("Subscribing …"):
        made = operator.api.request(
            "POST", _PATH, document={"url": url, "topics": topics or None, "hmac_key": key}, repeatable=True
        )

    def show() -> None:
        terminal.facts(
            {"id": made["id"], "url": made["url"], "topics": _topics(made), "signed": "yes" if made["signed"] else "no"}
        )
        if not made["signed"]:
            terminal.note("[yellow]Deliveries are not signed: the receiver cannot tell them from forged ones.[/yellow]")

    terminal.answer(made, show)


@app.command("list")
def list_webhooks(context: typer.Context, *, _json: JSON = False) -> None:
    """List the subscriptions."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_PATH, "webhooks"))
    terminal.answer(
        {"webhooks": found},
        lambda: terminal.table(
            ("ID", "URL", "TOPICS", "SIGNED", "STATE"),
            [(entry["id"], entry["url"], _topics(entry), entry["signed"], _state(entry)) for entry in found],
            empty="No webhooks. Subscribe a URL with: picomdm webhooks create URL",
        ),
    )


@app.command()
def delete(
    context: typer.Context,
    *,
    subscription_id: Annotated[str, typer.Argument(metavar="ID", help="As `picomdm webhooks list` shows it.")],
    _json: JSON = False,
) -> None:
    """End a subscription; events that still wait for it are dropped."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_PATH}/{path_part(subscription_id)}")
    operator.terminal.answer({"id": subscription_id, "deleted": True}, lambda: operator.terminal.say("Deleted."))


def _read_key(file: str) -> str:
    """Read a key from a file, for everybody sees the command line of a process. The line end is none of the key."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} cannot be read as UTF-8.", code="file_unreadable") from error
    key = text.removesuffix("\n").removesuffix("\r")
    if not key:
        raise SetupError(f"{file} is empty.", code="file_empty")
    return key


def _topics(entry: dict[str, Any]) -> str:
    return ", ".join(entry["topics"]) if entry["topics"] else "all"


def _state(entry: dict[str, Any]) -> str:
    if entry["held_until"]:
        return f"on hold until {entry['held_until']}"
    return f"{entry['failures']} failures in a row" if entry["failures"] else "ok"

"""``picomdm ade servers``, ``ade token``, ``ade account`` and what else is about one of Apple's servers."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import SetupError
from picomdm.files import read_file

SERVERS: Final = "/v2/ade-servers"
_SOON: Final = timedelta(days=30)
"""As the alarm has it."""

SERVER = Annotated[str, typer.Argument(help="As `picomdm ade servers list` shows it.")]

servers: Final = typer.Typer(
    help="The servers of Apple Business and School Manager that devices are bought for.", no_args_is_help=True
)
token: Final = typer.Typer(help="By which Apple lets this deployment in.", no_args_is_help=True)
discovery: Final = typer.Typer(
    help="Where Apple leads devices whose users sign in with an account of the organization.", no_args_is_help=True
)


def path_of(server: str) -> str:
    """Return the path of a server."""
    return f"{SERVERS}/{path_part(server)}"


@servers.command("list")
def list_servers(context: typer.Context, *, _json: JSON = False) -> None:
    """List the servers, and until when their tokens are good."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(SERVERS, "ade_servers"))
    terminal.answer(
        {"ade_servers": found},
        lambda: terminal.table(
            ("NAME", "ORGANIZATION", "AT APPLE", "TOKEN UNTIL", "PROBLEM"),
            [
                (
                    entry["name"],
                    (entry["account"] or {}).get("org_name"),
                    (entry["account"] or {}).get("server_name"),
                    _until(operator, entry),
                    (entry["problem"] or {}).get("detail"),
                )
                for entry in found
            ],
            empty="None. Make one with: picomdm ade token certificate NAME",
        ),
    )


@servers.command()
def show(context: typer.Context, *, name: SERVER, _json: JSON = False) -> None:
    """Show a server."""
    operator = operator_of(context)
    _show(operator, operator.api.get(path_of(name)))


@servers.command()
def delete(
    context: typer.Context,
    *,
    name: SERVER,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    _json: JSON = False,
) -> None:
    """Forget a server with its keys and its token. At Apple everything stays."""
    operator = operator_of(context)
    if not yes:
        ask(f"This forgets the keys and the token of {name}. Type its name", name)
    operator.api.request("DELETE", path_of(name), repeatable=True)
    operator.terminal.answer({"name": name, "deleted": True}, lambda: operator.terminal.say("Forgotten."))


@token.command()
def certificate(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="What to call the server; one that is not there is made.")],
    file: Annotated[Path | None, typer.Option(help="Where to write it.")] = None,
    _json: JSON = False,
) -> None:
    """Print the certificate to upload for a server in Apple's portal (PEM); the same one until its token is here."""
    operator = operator_of(context)
    with operator.terminal.progress("Making a key …"):
        operator.api.request("PUT", path_of(name), repeatable=True)
        # Asking for it again brings the same.
        made = operator.api.request("POST", f"{path_of(name)}/certificate", repeatable=True)
    if file is not None:
        _write(file, made["certificate"])

    def say() -> None:
        if file is None:
            operator.terminal.plain(made["certificate"].rstrip("\n"))
        operator.terminal.note(
            "[dim]In Apple Business or School Manager, under Preferences, add or edit an MDM server, upload this, and "
            f"download its token. Then: picomdm ade token import {name} FILE[/dim]"
        )

    operator.terminal.answer({"name": name, **made}, say)


@token.command("import")
def import_token(
    context: typer.Context,
    *,
    name: SERVER,
    file: Annotated[
        Path,
        typer.Argument(help="What Apple's portal let you download: it ends in .p7m. Or another server's token, JSON."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Also the token of another server in the portal, or an older one.")
    ] = False,
    _json: JSON = False,
) -> None:
    """Import a server's token, the first or a renewed one, or one that another server of yours has decrypted."""
    operator = operator_of(context)
    query = {"force": "true"} if force else {}
    content = read_file(file)
    is_decrypted = content.lstrip().startswith(b"{")
    # A repeated import changes nothing.
    with operator.terminal.progress("Importing the token, and asking Apple with it …"):
        if is_decrypted:
            path = f"/v1/tokens/{path_part(name)}"
            operator.api.request("PUT", path, body=content, query=query, repeatable=True)
            stored = operator.api.get(path_of(name))
        else:
            path = f"{path_of(name)}/token"
            stored = operator.api.request("PUT", path, body=content, query=query, repeatable=True)
    _show(operator, stored)
    if is_decrypted and not stored["certificate"]:
        operator.terminal.note(
            "[dim]Its key did not come with it. Before you renew the token, or want com.apple.maid: "
            f"picomdm ade token certificate {name}[/dim]"
        )


def account(context: typer.Context, *, name: SERVER, _json: JSON = False) -> None:
    """Ask Apple for the organization and the server."""
    operator = operator_of(context)
    answer = operator.api.get(f"{path_of(name)}/account")
    facts = {field: value for field, value in answer["account"].items() if isinstance(value, str)}
    operator.terminal.answer(answer, lambda: operator.terminal.facts(facts))


def beta_tokens(context: typer.Context, *, name: SERVER, _json: JSON = False) -> None:
    """List the tokens by which devices of the organization join Apple's beta programs."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = operator.api.get(f"{path_of(name)}/beta-tokens")["beta_tokens"]
    terminal.answer(
        {"beta_tokens": found},
        lambda: terminal.table(
            ("PROGRAM", "OS", "TOKEN"),
            [(entry["title"], entry["os"], entry["token"]) for entry in found],
            empty="None: the organization takes part in no beta program.",
        ),
    )


@discovery.command("show")
def show_discovery(context: typer.Context, *, name: SERVER, _json: JSON = False) -> None:
    """Show where."""
    operator = operator_of(context)
    _show_discovery(operator, operator.api.get(f"{path_of(name)}/account-driven-enrollment"))


@discovery.command("set")
def set_discovery(
    context: typer.Context,
    *,
    name: SERVER,
    url: Annotated[str, typer.Argument(help="https://…/.well-known/com.apple.remotemanagement")],
    _json: JSON = False,
) -> None:
    """Say where."""
    operator = operator_of(context)
    document = {"service_discovery_url": url}
    path = f"{path_of(name)}/account-driven-enrollment"
    _show_discovery(operator, operator.api.request("PUT", path, document=document, repeatable=True))


@discovery.command("off")
def end_discovery(context: typer.Context, *, name: SERVER, _json: JSON = False) -> None:
    """Lead them nowhere: devices look at the account's own domain."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{path_of(name)}/account-driven-enrollment", repeatable=True)
    _show_discovery(operator, {"service_discovery_url": None})


def ask(prompt: str, expected: str) -> None:
    """Ask a person to type something; raise :class:`~picomdm.errors.SetupError` if it is anything else."""
    try:
        typed = str(typer.prompt(prompt, err=True))
    except typer.Abort:
        raise SetupError("Nobody answers; say --yes.", code="not_confirmed") from None
    if typed != expected:
        raise SetupError("That is not it; nothing was done.", code="not_confirmed")


def _show_discovery(operator: Operator, answer: dict[str, Any]) -> None:
    operator.terminal.answer(answer, lambda: operator.terminal.plain(answer["service_discovery_url"] or "nowhere"))


def _show(operator: Operator, server: dict[str, Any]) -> None:
    account, problem = server["account"] or {}, server["problem"] or {}

    def say() -> None:
        operator.terminal.facts(
            {
                "name": server["name"],
                "organization": account.get("org_name"),
                "at Apple": account.get("server_name"),
                "token until": _until(operator, server),
                "asked at": server["base_url"],
                "problem": problem.get("detail"),
            }
        )
        if server["staged_certificate"]:
            operator.terminal.note(
                f"[dim]A certificate waits for its token: picomdm ade token certificate {server['name']}[/dim]"
            )

    operator.terminal.answer(server, say)


def _until(operator: Operator, server: dict[str, Any]) -> str | None:
    """Return until when a server's token is good, and a warning when that is soon or over."""
    if server["token_expires_at"] is None:
        return None
    end = datetime.fromisoformat(server["token_expires_at"])
    left = end - operator.terminal.now()
    warning = " (ended: renew it)" if left.days < 0 else f" (in {left.days} days: renew it)"
    return f"{end:%Y-%m-%d}{warning if left < _SOON else ''}"


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text)
    except OSError as error:
        raise SetupError(f"{file} cannot be written: {error.strerror}.", code="file_unwritable") from error

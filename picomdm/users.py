"""``picomdm users``: accounts that are made on Macs while these are set up."""

import hashlib
import os
import plistlib
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import AdminAPI
from picomdm.context import JSON, operator_of
from picomdm.errors import RefusedError, SetupError
from picomdm.files import read_file

app: Final = typer.Typer(help="Keep accounts that are made on Macs while these are set up.", no_args_is_help=True)
_PATH: Final = "/v1/users"
_PAGE: Final = 500
# As macOS makes them; a hundred thousand rounds take a tenth of a second.
_ITERATIONS: Final = 100_000
_SALT_BYTES: Final = 32
_HASH_BYTES: Final = 128


@app.command("set")
def set_(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's short name.")],
    full_name: Annotated[str | None, typer.Option("--full-name", help="What people call it; else its NAME.")] = None,
    password_file: Annotated[
        str | None,
        typer.Option(
            "--password-file", help="Where its password is, - is stdin; else you are asked. Its hash alone is kept."
        ),
    ] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="The login window does not show it.")] = False,
    _json: JSON = False,
) -> None:
    """Keep an account, in place of the one of its name (or UUID). Macs that have it keep theirs as it is."""
    operator = operator_of(context)
    password = _password(password_file)
    known = named(operator.api, [name])[name]
    short_name = known["user_shortname"] if known else name
    user = {
        "user_shortname": short_name,
        "user_longname": full_name or short_name,
        "password_hash": b64encode(_hashed(password)).decode(),
        "hidden": hidden,
    }
    if known:
        user["uuid"] = known["uuid"]
    # Without a UUID, the same request again would make another account.
    answer = operator.api.request("PUT", _PATH, document={"user": user}, repeatable=known is not None)

    def show() -> None:
        operator.terminal.say(f"Kept {short_name}.")
        operator.terminal.note("[dim]Give it to Macs: picomdm blueprints set NAME --user …[/dim]")

    operator.terminal.answer(_told(answer["user"]), show)


@app.command("list")
def list_users(context: typer.Context, *, _json: JSON = False) -> None:
    """List the accounts."""
    operator = operator_of(context)
    found = [_told(user) for user in stored(operator.api)]
    operator.terminal.answer(
        {"users": found},
        lambda: operator.terminal.table(
            ("NAME", "FULL NAME", "PASSWORD", "HIDDEN", "UUID"),
            [(user["name"], user["full_name"], user["password"], user["hidden"], user["uuid"]) for user in found],
            empty="No accounts. Make one with: picomdm users set NAME",
        ),
    )


@app.command()
def delete(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The account's short name, or its UUID.")],
    _json: JSON = False,
) -> None:
    """Forget an account. Macs that have it keep it."""
    operator = operator_of(context)
    known = named(operator.api, [name])[name]
    if known is None:
        raise RefusedError(f"There is no account {name}.", code="unknown_user")
    operator.api.request("DELETE", _PATH, document={"uuids": [known["uuid"]]}, repeatable=True)
    operator.terminal.answer(_told(known), lambda: operator.terminal.say("Deleted."))


def named(api: AdminAPI, names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """Return by each short name, or UUID, the account that has it, or None.

    Raises :class:`~picomdm.errors.RefusedError` where several are called alike, as MicroMDM's API lets them.
    """
    known = list(stored(api))
    found: dict[str, dict[str, Any] | None] = {}
    for name in names:
        fitting = [user for user in known if name in (user["user_shortname"], user["uuid"])]
        if len(fitting) > 1:
            raise RefusedError(
                f"{len(fitting)} accounts are called {name}: say which by its UUID, as `picomdm users list` shows it.",
                code="several_users",
            )
        found[name] = fitting[0] if fitting else None
    return found


def stored(api: AdminAPI) -> Iterator[dict[str, Any]]:
    """Yield the accounts as MicroMDM's API has them, without the users of devices, which it lists behind them."""
    page = 0
    while True:
        asked = {"page": page, "per_page": _PAGE}
        found = api.request("POST", _PATH, document=asked, repeatable=True)["users"] or []
        for user in found:
            if user["udid"]:
                return
            yield user
        if len(found) < _PAGE:
            return
        page += 1


def _told(user: dict[str, Any]) -> dict[str, Any]:
    return {
        "uuid": user["uuid"],
        "name": user["user_shortname"],
        "full_name": user["user_longname"],
        "password": bool(user["password_hash"]),
        "hidden": user["hidden"],
    }


def _password(file: str | None) -> str:
    if file is None:
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    text = sys.stdin.read() if file == "-" else read_file(Path(file)).decode(errors="replace")
    password = text.rstrip("\r\n")
    if not password:
        raise SetupError("The password is empty.", code="no_password")
    return password


def _hashed(password: str) -> bytes:
    salt = os.urandom(_SALT_BYTES)
    entropy = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ITERATIONS, dklen=_HASH_BYTES)
    hashed = {"entropy": entropy, "salt": salt, "iterations": _ITERATIONS}
    return plistlib.dumps({"SALTED-SHA512-PBKDF2": hashed})

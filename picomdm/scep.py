"""``picomdm scep``: challenges for devices whose profile somebody else makes."""

from pathlib import Path
from typing import Annotated, Final

import typer

from picomdm.context import JSON, operator_of
from picomdm.durations import seconds_of
from picomdm.files import read_file

app: Final = typer.Typer(
    help="SCEP challenges for profiles that others make; enrollment links need none.", no_args_is_help=True
)
static: Final = typer.Typer(help="One challenge for everybody who knows it. Off by default.", no_args_is_help=True)
app.add_typer(static, name="static")
_PATH: Final = "/v2/scep-challenges"
_STATIC: Final = f"{_PATH}/static"


@app.command()
def challenge(
    context: typer.Context,
    *,
    expires_in: Annotated[str, typer.Option(help="How long it is good: 30m, 12h, 7d; at most 30d.")] = "1d",
    serial: Annotated[str | None, typer.Option(help="The only device that may enroll with its identity.")] = None,
    _json: JSON = False,
) -> None:
    """Make a challenge that is good for one identity, and print it."""
    operator = operator_of(context)
    document = {"expires_in": seconds_of(expires_in), "serial_number": serial}
    made = operator.api.request("POST", _PATH, document=document, repeatable=True)
    operator.terminal.answer(made, lambda: operator.terminal.plain(made["challenge"]))


@static.command("set")
def set_static(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="Where the challenge is, 8 to 255 characters.")],
    _json: JSON = False,
) -> None:
    """Let whoever knows this challenge get identities, without a link and without end."""
    operator = operator_of(context)
    text = read_file(file).decode(errors="replace").rstrip("\r\n")
    answer = operator.api.request("PUT", _STATIC, document={"challenge": text}, repeatable=True)
    operator.terminal.answer(answer, lambda: operator.terminal.say("Set."))


@static.command()
def show(context: typer.Context, *, _json: JSON = False) -> None:
    """Say whether there is one. Nobody is told which."""
    operator = operator_of(context)
    found = operator.api.get(_STATIC)
    text = f"Set {operator.terminal.ago(found['set_at'])}." if found["set_at"] else "None."
    operator.terminal.answer(found, lambda: operator.terminal.say(text))


@static.command()
def off(context: typer.Context, *, _json: JSON = False) -> None:
    """Let nobody get an identity by it any more."""
    operator = operator_of(context)
    operator.api.request("DELETE", _STATIC, repeatable=True)
    operator.terminal.answer({"set_at": None}, lambda: operator.terminal.say("Off."))

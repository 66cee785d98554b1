"""``picomdm profiles``: profiles that are kept here, to be installed on devices."""

import plistlib
import re
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Annotated, Any, Final
from xml.parsers.expat import ExpatError

import typer

from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import SetupError
from picomdm.files import read_file

app: Final = typer.Typer(help="Keep profiles here, by their PayloadIdentifiers.", no_args_is_help=True)
_PATH: Final = "/v1/profiles"
_SIGNED: Final = re.compile(rb"\x30.{1,200}?(<\?xml.+</plist>\s*).+", re.DOTALL)
_ID: Final = typer.Argument(metavar="IDENTIFIER", help="The profile's PayloadIdentifier.")


@app.command()
def upload(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="The .mobileconfig.")],
    identifier: Annotated[
        str | None,
        typer.Option(help="Its PayloadIdentifier, where it is not to be found in a signed one."),
    ] = None,
    _json: JSON = False,
) -> None:
    """Keep a profile, in place of the one with its PayloadIdentifier."""
    operator = operator_of(context)
    content = read_file(file)
    name = identifier or _identifier_of(content, file)
    stored = {"Identifier": name, "Mobileconfig": b64encode(content).decode()}
    with operator.terminal.progress(f"Uploading {name} …"):
        operator.api.request("PUT", _PATH, document={"profile": stored}, repeatable=True)
    operator.terminal.answer({"identifier": name, "size": len(content)}, lambda: operator.terminal.say(f"Kept {name}."))


@app.command("list")
def list_profiles(context: typer.Context, *, _json: JSON = False) -> None:
    """List the profiles."""
    operator = operator_of(context)
    found = [
        {"identifier": each["Identifier"], "size": None if content is None else len(b64decode(content))}
        for each in _asked(operator, {})
        for content in [each["Mobileconfig"]]
    ]
    operator.terminal.answer(
        {"profiles": found},
        lambda: operator.terminal.table(
            ("IDENTIFIER", "BYTES"), [(each["identifier"], each["size"]) for each in found], empty="No profiles."
        ),
    )


@app.command()
def show(context: typer.Context, *, identifier: Annotated[str, _ID], _json: JSON = False) -> None:
    """Print a profile as it was uploaded; it may hold passwords."""
    operator = operator_of(context)
    (profile,) = _asked(operator, {"id": identifier})
    operator.terminal.answer(
        {"identifier": profile["Identifier"], "mobileconfig": profile["Mobileconfig"]},
        lambda: operator.terminal.plain(b64decode(profile["Mobileconfig"]).decode(errors="replace")),
    )


@app.command()
def delete(context: typer.Context, *, identifier: Annotated[str, _ID], _json: JSON = False) -> None:
    """Keep a profile no more. Devices that have it keep it."""
    operator = operator_of(context)
    operator.api.request("DELETE", _PATH, document={"ids": [identifier]}, repeatable=True)
    operator.terminal.answer({"identifier": identifier, "deleted": True}, lambda: operator.terminal.say("Deleted."))


def _asked(operator: Operator, document: dict[str, Any]) -> list[dict[str, Any]]:
    # Reading by POST: as repeatable as any GET.
    found: list[dict[str, Any]] | None = operator.api.request("POST", _PATH, document=document, repeatable=True)[
        "profiles"
    ]
    return found or []


def _identifier_of(content: bytes, file: Path) -> str:
    try:
        profile = plistlib.loads(_unsigned(content))
    except (ValueError, ExpatError, plistlib.InvalidFileException):
        raise SetupError(
            f"{file} is no profile, or signed in a way that hides its PayloadIdentifier: say its --identifier.",
            code="identifier_unknown",
        ) from None
    name = profile.get("PayloadIdentifier") if isinstance(profile, dict) else None
    if not isinstance(name, str) or not name:
        raise SetupError(f"{file} has no PayloadIdentifier: it is no profile.", code="no_profile")
    return name


def _unsigned(content: bytes) -> bytes:
    """Return what is likely to be the profile in a signed one. It only tells its name: the server reads it anew."""
    signed = _SIGNED.fullmatch(content)
    return signed[1] if signed else content

"""``picomdm apps``: packages that devices install."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import httpx
import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import CommandLineError, SetupError, UnreachableError

app: Final = typer.Typer(help="Keep packages that devices install.", no_args_is_help=True)
PATH: Final = "/v2/apps"
UPLOADS: Final = "/v2/app-uploads"
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `picomdm apps list` shows it.")]
_MAGIC: Final = b"xar!"
_PART: Final = 1024 * 1024
_SECONDS: Final = 3_600.0
_POLL_SECONDS: Final = 0.5


@app.command()
def upload(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="An installer package, .pkg, of up to 5 GiB.")],
    name: Annotated[str | None, typer.Option(help="What it is called here; else the file's name.")] = None,
    _json: JSON = False,
) -> None:
    """Upload a package. It takes the place of the one of its name when it is complete."""
    operator = operator_of(context)
    size = _size(file)
    begun = operator.api.request("POST", UPLOADS, document={"name": name or file.name, "size": size})
    _put(operator, file, begun["url"], size)
    state = operator.api.request("POST", f"{UPLOADS}/{path_part(begun['id'])}/finished", document={}, repeatable=True)
    with operator.terminal.progress("Hashes are being made …"):
        while state["state"] == "hashing":
            time.sleep(_POLL_SECONDS)
            state = operator.api.get(f"{UPLOADS}/{path_part(begun['id'])}")
    if state["state"] != "ready":
        raise CommandLineError(state["reason"] or f"The upload is {state['state']}.", code="not_stored")
    stored = operator.api.get(f"{PATH}/{path_part(state['app'])}")

    def show() -> None:
        operator.terminal.say(f"Stored: {stored['title']} {stored['version']}.")
        operator.terminal.note("[dim]Give it to devices: picomdm blueprints set NAME --app …[/dim]")

    operator.terminal.answer(stored, show)


@app.command("list")
def list_apps(context: typer.Context, *, _json: JSON = False) -> None:
    """List the apps."""
    operator = operator_of(context)
    found = list(operator.api.entries(PATH, "apps"))
    operator.terminal.answer(
        {"apps": found},
        lambda: operator.terminal.table(
            ("NAME", "TITLE", "VERSION", "MB", "UPLOADED"),
            [
                (
                    entry["name"],
                    entry["title"],
                    entry["version"],
                    f"{entry['size'] / 1_000_000:.1f}",
                    operator.terminal.ago(entry["uploaded_at"]),
                )
                for entry in found
            ],
            empty="No apps. Upload one with: picomdm apps upload FILE",
        ),
    )


@app.command()
def show(context: typer.Context, *, name: Name, _json: JSON = False) -> None:
    """Show an app."""
    operator = operator_of(context)
    entry = operator.api.get(f"{PATH}/{path_part(name)}")
    facts = {
        "name": entry["name"],
        "kind": entry["kind"],
        "identifier": entry["identifier"],
        "version": entry["version"],
        "title": entry["title"],
        "bytes": entry["size"],
        "installs": ", ".join(f"{bundle} {version}" for bundle, version in entry["bundles"].items()) or None,
        "manifest": entry["manifest_url"],
        "uploaded": operator.terminal.ago(entry["uploaded_at"]),
    }
    operator.terminal.answer(entry, lambda: operator.terminal.facts(facts))


@app.command()
def delete(context: typer.Context, *, name: Name, _json: JSON = False) -> None:
    """Forget an app. Devices keep theirs."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{PATH}/{path_part(name)}", repeatable=True)
    operator.terminal.answer({"name": name}, lambda: operator.terminal.say("Deleted."))


def _size(file: Path) -> int:
    """Return a package's size; what is none need not be sent anywhere to learn that."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(len(_MAGIC))
        size = file.stat().st_size
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}.", code="file_unreadable") from error
    if beginning != _MAGIC:
        raise SetupError(f"{file} is no installer package.", code="not_a_package")
    return size


def _put(operator: Operator, file: Path, url: str, size: int) -> None:
    with operator.terminal.transfer(size) as advance:

        def parts() -> Iterator[bytes]:
            with file.open("rb") as opened:
                while part := opened.read(_PART):
                    yield part
                    advance(len(part))

        try:
            headers = {"Content-Length": str(size)}
            answer = httpx.put(url, content=parts(), headers=headers, timeout=_SECONDS)
        except httpx.TransportError as error:
            raise UnreachableError(f"The bucket does not take the package: {error}") from error
    if not answer.is_success:
        raise CommandLineError(f"The bucket answered {answer.status_code}.", code="not_uploaded")

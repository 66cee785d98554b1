"""``picomdm device-ca``: the authorities by which genuine devices are known."""

from pathlib import Path
from typing import Annotated, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.files import read_file

app: Final = typer.Typer(
    help="Upload the authorities whose devices are genuine: Apple's. Without them nobody enrolls by ADE.",
    no_args_is_help=True,
)
_PATH: Final = "/v2/device-certificate-authorities"


@app.command()
def upload(
    context: typer.Context,
    *,
    files: Annotated[list[Path], typer.Argument(help="Certificates, PEM or DER, one in each file.")],
    name: Annotated[
        str | None, typer.Option(help="What to call a single one; else the file's name without its ending.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Upload authorities' certificates; each replaces the one of its name."""
    operator = operator_of(context)
    if name is not None and len(files) > 1:
        raise typer.BadParameter("one name is for one file", param_hint="--name")
    contents = [(name or file.stem, read_file(file)) for file in files]
    stored = [
        operator.api.request("PUT", f"{_PATH}/{path_part(each)}", body=content, repeatable=True)
        for each, content in contents
    ]

    def show() -> None:
        for entry in stored:
            operator.terminal.facts({"name": entry["name"], "subject": entry["subject"], "sha256": entry["sha256"]})

    operator.terminal.answer({"device_certificate_authorities": stored}, show)


@app.command("list")
def list_authorities(context: typer.Context, *, _json: JSON = False) -> None:
    """List the authorities."""
    operator = operator_of(context)
    terminal = operator.terminal
    found = list(operator.api.entries(_PATH, "device_certificate_authorities"))
    terminal.answer(
        {"device_certificate_authorities": found},
        lambda: terminal.table(
            ("NAME", "SUBJECT", "SHA-256", "UPLOADED"),
            [(entry["name"], entry["subject"], entry["sha256"], terminal.ago(entry["uploaded_at"])) for entry in found],
            empty="No authorities: nobody can enroll by ADE. Upload Apple's with: picomdm device-ca upload FILE",
        ),
    )


@app.command()
def delete(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="As `picomdm device-ca list` shows it.")],
    _json: JSON = False,
) -> None:
    """Trust an authority's devices no more. Those that enrolled stay enrolled."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_PATH}/{path_part(name)}", repeatable=True)
    operator.terminal.answer({"name": name, "deleted": True}, lambda: operator.terminal.say("Deleted."))

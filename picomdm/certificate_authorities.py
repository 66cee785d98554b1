"""``picomdm ca``: the authorities whose certificates prove who a device is."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.files import read_file

app: Final = typer.Typer(
    help="Upload, show and delete the authorities whose certificates devices may have; the deployment has one itself.",
    no_args_is_help=True,
)
_PATH: Final = "/v2/certificate-authorities"


@app.command()
def upload(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="What to call it.")],
    files: Annotated[
        list[Path], typer.Argument(help="PEM files that together hold the authority and its intermediates.")
    ],
    _json: JSON = False,
) -> None:
    """Trust devices' certificates that this authority or its intermediates issued; it replaces the one of its name."""
    operator = operator_of(context)
    bundle = b"\n".join(read_file(file) for file in files) if len(files) > 1 else read_file(files[0])
    stored = operator.api.request("PUT", f"{_PATH}/{path_part(name)}", body=bundle, repeatable=True)

    def show() -> None:
        for certificate in stored["certificates"]:
            operator.terminal.facts({"subject": certificate["subject"], "sha256": certificate["sha256"]})

    operator.terminal.answer(stored, show)


@app.command("list")
def list_authorities(context: typer.Context, *, _json: JSON = False) -> None:
    """List the authorities, with all their certificates."""
    operator = operator_of(context)
    terminal = operator.terminal
    found: list[dict[str, Any]] = list(operator.api.entries(_PATH, "certificate_authorities"))
    terminal.answer(
        {"certificate_authorities": found},
        lambda: terminal.table(
            ("NAME", "SUBJECT", "SHA-256", "ENDS"),
            [
                (entry["name"], certificate["subject"], certificate["sha256"], terminal.ago(certificate["not_after"]))
                for entry in found
                for certificate in entry["certificates"]
            ],
            empty="None yet; the deployment's own is made with the first enrollment link: picomdm enroll link",
        ),
    )


@app.command()
def show(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="As `picomdm ca list` shows it; the deployment's own is scep.")],
    _json: JSON = False,
) -> None:
    """Print an authority's certificates, PEM."""
    operator = operator_of(context)
    found = operator.api.get(f"{_PATH}/{path_part(name)}")
    operator.terminal.answer(found, lambda: operator.terminal.plain(found["pem"].rstrip("\n")))


@app.command()
def delete(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="As `picomdm ca list` shows it.")],
    _json: JSON = False,
) -> None:
    """Trust an authority no more. Devices that have a certificate of it are locked out within minutes."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"{_PATH}/{path_part(name)}", repeatable=True)
    operator.terminal.answer({"name": name, "deleted": True}, lambda: operator.terminal.say("Deleted."))

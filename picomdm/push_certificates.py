"""``picomdm push-cert``: the certificates that Apple's Push Certificates Portal gave."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.context import JSON, operator_of
from picomdm.files import read_file

app: Final = typer.Typer(help="Upload and show push certificates.", no_args_is_help=True)


@app.command()
def upload(
    context: typer.Context,
    *,
    files: Annotated[
        list[Path], typer.Argument(help="PEM files which together hold the certificate and its unencrypted key.")
    ],
    _json: JSON = False,
) -> None:
    """Upload a push certificate with its key; it replaces the former one of its topic."""
    operator = operator_of(context)
    pem = b"\n".join(read_file(file) for file in files)
    with operator.terminal.progress("Uploading the push certificate …"):
        stored = operator.api.request("PUT", "/v1/pushcert", body=pem, repeatable=True)
    operator.terminal.answer(
        stored, lambda: operator.terminal.facts({"topic": stored["topic"], "good until": stored["not_after"]})
    )


@app.command()
def show(
    context: typer.Context,
    *,
    topic: Annotated[str | None, typer.Argument(help="One topic; else all.")] = None,
    _json: JSON = False,
) -> None:
    """Show the push certificates, and until when they are good."""
    operator = operator_of(context)
    terminal = operator.terminal
    found: list[dict[str, Any]] = (
        [operator.api.get("/v1/pushcert", topic=topic)]
        if topic
        else list(operator.api.entries("/v2/push-certificates", "push_certificates"))
    )
    terminal.answer(
        {"push_certificates": found},
        lambda: terminal.table(
            ("TOPIC", "GOOD UNTIL", ""),
            [(entry["topic"], entry["not_after"], terminal.ago(entry["not_after"])) for entry in found],
            empty="No push certificates. Upload yours with: picomdm push-cert upload CERTIFICATE KEY",
        ),
    )

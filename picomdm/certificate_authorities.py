"""``picomdm ca``: the authorities whose certificates prove who a device is."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.files import read_file

app: Final = typer.Typer(
    help="The authorities whose certificates devices may have: those of others, and the deployment's own, which issue.",
    no_args_is_help=True,
)
_PATH: Final = "/v2/certificate-authorities"
_REVOCATIONS: Final = "/v2/certificate-revocations"


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


@app.command()
def prepare(
    context: typer.Context,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Delete one that waits already.")] = False,
    _json: JSON = False,
) -> None:
    """Make the deployment's next authority. It waits, and is trusted, until it is activated."""
    _add(context, {"replace_next": replace})


@app.command("import")
def import_authority(
    context: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(help="PEM with the certificate and its key, or a .p12 file.")],
    password_file: Annotated[
        Path | None, typer.Option(help="Where the password of the key is, if it is encrypted.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Delete one that waits already.")] = False,
    _json: JSON = False,
) -> None:
    """Let an authority of yours, with its key, issue identities: the first at once, another when it is activated."""
    content = read_file(file)
    document: dict[str, Any] = {"replace_next": replace}
    if b"-----BEGIN" in content:
        document["pem"] = content.decode(errors="replace")
    else:
        document["pkcs12"] = b64encode(content).decode()
    if password_file is not None:
        document["password"] = read_file(password_file).decode(errors="replace").rstrip("\r\n")
    _add(context, document)


def _add(context: typer.Context, document: dict[str, Any]) -> None:
    operator = operator_of(context)
    stored = operator.api.request("POST", _PATH, document=document)

    def show() -> None:
        operator.terminal.facts({"name": stored["name"], "subject": stored["certificates"][0]["subject"]})
        if stored["phase"] == "next":
            operator.terminal.say(f"It waits. When it is to issue: picomdm ca activate {stored['name']}")

    operator.terminal.answer(stored, show)


@app.command()
def activate(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="Of an authority that waits, as `picomdm ca list` shows it.")],
    at: Annotated[str | None, typer.Option(help="When, such as 2027-01-31T12:00:00Z; default: now.")] = None,
    _json: JSON = False,
) -> None:
    """Let an authority that waits issue from now on. What the one before it has issued goes on being trusted."""
    operator = operator_of(context)
    path = f"{_PATH}/{path_part(name)}/activation"
    stored = operator.api.request("PUT", path, document={"at": at}, repeatable=True)

    def show() -> None:
        waits = stored["phase"] == "next"
        operator.terminal.say(f"It issues {'from ' + stored['activates_at'] if waits else 'within five minutes'}.")

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
            ("NAME", "ISSUES", "SUBJECT", "SHA-256", "ENDS"),
            [
                (
                    entry["name"],
                    _issues(entry),
                    certificate["subject"],
                    certificate["sha256"],
                    terminal.ago(certificate["not_after"]),
                )
                for entry in found
                for certificate in entry["certificates"]
            ],
            empty="None yet; the deployment's own is made with the first enrollment link: picomdm enroll link",
        ),
    )


@app.command()
def revoke(
    context: typer.Context,
    *,
    device: Annotated[
        str | None, typer.Argument(metavar="ID", help="All certificates of this enrollment of a device.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="One certificate, by its SHA-256.")] = None,
    serial_number: Annotated[str | None, typer.Option(help="One, by its own serial number, hex.")] = None,
    reason: Annotated[str | None, typer.Option(help="Such as key_compromise or cessation_of_operation.")] = None,
    _json: JSON = False,
) -> None:
    """Revoke certificates of a device, for good: it is refused at once, and comes back only by enrolling anew."""
    operator = operator_of(context)
    document = {"enrollment_id": device, "sha256": sha256, "serial_number": serial_number, "reason": reason}
    answer = operator.api.request("POST", _REVOCATIONS, document=document, repeatable=True)
    revoked: list[dict[str, Any]] = answer["certificate_revocations"]

    def show() -> None:
        for certificate in revoked:
            operator.terminal.say(f"Revoked: {certificate['sha256']}")

    operator.terminal.answer({"certificate_revocations": revoked}, show)


@app.command()
def revoked(context: typer.Context, *, _json: JSON = False) -> None:
    """List the certificates that are revoked and have not ended yet."""
    operator = operator_of(context)
    terminal = operator.terminal
    found: list[dict[str, Any]] = list(operator.api.entries(_REVOCATIONS, "certificate_revocations"))
    terminal.answer(
        {"certificate_revocations": found},
        lambda: terminal.table(
            ("SHA-256", "SERIAL NUMBER", "ENROLLMENT", "REASON", "REVOKED"),
            [
                (
                    entry["sha256"],
                    entry["serial_number"] or "",
                    entry["enrollment_id"] or "",
                    entry["reason"],
                    terminal.ago(entry["revoked_at"]),
                )
                for entry in found
            ],
            empty="None.",
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


def _issues(entry: dict[str, Any]) -> str:
    """Say in a word whether an authority issues identities."""
    if entry["phase"] == "next":
        return f"from {entry['activates_at']}" if entry["activates_at"] else "next"
    return {"in_use": "now", "former": "no more", None: ""}[entry["phase"]]

"""``picomdm push-cert``: the certificates that Apple's Push Certificates Portal gave."""

from base64 import b64encode
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import CommandLineError, UnreachableError
from picomdm.files import read_file

app: Final = typer.Typer(help="Ask for, upload and show push certificates.", no_args_is_help=True)
_REQUESTS: Final = "/v2/push-certificate-requests"
_MDMCERT_URL: Final = "https://mdmcert.download/api/v1/signrequest"
_SECONDS: Final = 30


@app.command()
def upload(
    context: typer.Context,
    *,
    files: Annotated[
        list[Path],
        typer.Argument(help="PEM with the certificate and its key, the certificate of a request, or a .p12 file."),
    ],
    password_file: Annotated[
        Path | None, typer.Option(help="Where the password of the key is, if it is encrypted; - is stdin.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also one of another topic, or one that has ended.")] = False,
    _json: JSON = False,
) -> None:
    """Upload a push certificate; it replaces the former one of its topic."""
    operator = operator_of(context)
    content = b"\n".join(read_file(file) for file in files) if len(files) > 1 else read_file(files[0])
    document: dict[str, Any] = {"force": force}
    if b"-----BEGIN" in content:
        document["pem"] = content.decode(errors="replace")
    else:
        document["pkcs12"] = b64encode(content).decode()
    if password_file is not None:
        document["password"] = read_file(password_file).decode(errors="replace").rstrip("\r\n")
    with operator.terminal.progress("Uploading the push certificate …"):
        stored = operator.api.request("POST", "/v2/push-certificates", document=document)
    operator.terminal.answer(
        stored, lambda: operator.terminal.facts({"topic": stored["topic"], "good until": stored["not_after"]})
    )


@app.command()
def delete(
    context: typer.Context,
    *,
    topic: Annotated[str, typer.Argument(help="As `picomdm push-cert show` shows it.")],
    _json: JSON = False,
) -> None:
    """Forget a topic whose certificate has ended, so that nothing warns of it any more."""
    operator = operator_of(context)
    operator.api.request("DELETE", f"/v2/push-certificates/{path_part(topic)}", repeatable=True)
    operator.terminal.answer({"topic": topic, "deleted": True}, lambda: operator.terminal.say("Deleted."))


@app.command()
def request(
    context: typer.Context,
    *,
    email: Annotated[str, typer.Argument(help="Who is to be told when the certificate ends.")],
    common_name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    country: Annotated[str | None, typer.Option(help="Two letters, such as US.")] = None,
    _json: JSON = False,
) -> None:
    """Make a key, which stays in the deployment, and print the request for its certificate (PEM)."""
    made = _make_request(context, email, common_name, country)
    operator = operator_of(context)

    def show() -> None:
        operator.terminal.plain(made["csr"].rstrip("\n"))
        operator.terminal.note(
            f"[dim]Request {made['id']}. A vendor has to vouch for it (picomdm push-cert sign), then "
            f"identity.apple.com/pushcert takes it.[/dim]"
        )

    operator.terminal.answer(made, show)


@app.command()
def requests(context: typer.Context, *, _json: JSON = False) -> None:
    """List the requests whose certificates are not there yet."""
    operator = operator_of(context)
    terminal = operator.terminal
    found: list[dict[str, Any]] = list(operator.api.entries(_REQUESTS, "push_certificate_requests"))
    terminal.answer(
        {"push_certificate_requests": found},
        lambda: terminal.table(
            ("ID", "SUBJECT", "MADE"),
            [(entry["id"], entry["subject"], terminal.ago(entry["created_at"])) for entry in found],
            empty="None. Make one with: picomdm push-cert request EMAIL",
        ),
    )


@app.command()
def sign(
    context: typer.Context,
    *,
    csr: Annotated[Path, typer.Argument(help="The customer's request, PEM.")],
    vendor: Annotated[
        list[Path], typer.Argument(help="PEM files with the vendor's certificate, its key, and Apple's above it.")
    ],
    password_file: Annotated[Path | None, typer.Option(help="Where the password of the vendor's key is.")] = None,
    _json: JSON = False,
) -> None:
    """Vouch, as an MDM vendor, for a customer's request; print what Apple's portal takes."""
    operator = operator_of(context)
    document = {
        "csr": read_file(csr).decode(errors="replace"),
        "vendor": b"\n".join(read_file(file) for file in vendor).decode(errors="replace"),
    }
    if password_file is not None:
        document["password"] = read_file(password_file).decode(errors="replace").rstrip("\r\n")
    signed = operator.api.request("POST", "/v2/signed-push-certificate-requests", document=document, repeatable=True)
    _show_push_request(operator, signed)


@app.command("ask-mdmcert")
def ask_mdmcert(
    context: typer.Context,
    *,
    email: Annotated[str, typer.Argument(help="Registered at mdmcert.download; the answer is mailed there.")],
    api_key: Annotated[
        str, typer.Option(envvar="MDMCERT_API_KEY", help="By which mdmcert.download knows the client that asks.")
    ],
    url: Annotated[str, typer.Option(help="Where requests are sent to.", hidden=True)] = _MDMCERT_URL,
    _json: JSON = False,
) -> None:
    """Make a request, and ask mdmcert.download to vouch for it."""
    operator = operator_of(context)
    made = _make_request(context, email, None, None)
    asked = {
        "csr": b64encode(made["csr"].encode()).decode(),
        "email": email,
        "key": api_key,
        "encrypt": b64encode(made["encryption_certificate"].encode()).decode(),
    }
    try:
        answer = httpx.post(url, json=asked, timeout=_SECONDS)
    except httpx.HTTPError as error:
        raise UnreachableError(f"mdmcert.download does not answer: {error}") from error
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if not answer.is_success or said.get("result") != "success":
        reason = said.get("reason") or f"{answer.status_code}"
        raise CommandLineError(f"mdmcert.download refuses: {reason}.", code="mdmcert_refused")
    operator.terminal.answer(
        made,
        lambda: operator.terminal.say(
            f"Asked. When its mail is there: picomdm push-cert open-mdmcert {made['id']} FILE"
        ),
    )


@app.command("open-mdmcert")
def open_mdmcert(
    context: typer.Context,
    *,
    request_id: Annotated[str, typer.Argument(metavar="ID", help="As `picomdm push-cert requests` shows it.")],
    file: Annotated[Path, typer.Argument(help="What mdmcert.download mailed.")],
    _json: JSON = False,
) -> None:
    """Print what Apple's portal takes, from the file that mdmcert.download mailed."""
    operator = operator_of(context)
    path = f"{_REQUESTS}/{path_part(request_id)}/opened"
    document = {"answer": b64encode(read_file(file)).decode()}
    _show_push_request(operator, operator.api.request("POST", path, document=document, repeatable=True))


def _make_request(context: typer.Context, email: str, common_name: str | None, country: str | None) -> dict[str, Any]:
    document = {"email": email, "common_name": common_name, "country": country}
    made: dict[str, Any] = operator_of(context).api.request("POST", _REQUESTS, document=document)
    return made


def _show_push_request(operator: Operator, signed: dict[str, Any]) -> None:
    operator.terminal.answer(signed, lambda: operator.terminal.plain(signed["push_request"]))
    operator.terminal.note("[dim]Save it as a file, and upload it at https://identity.apple.com/pushcert.[/dim]")


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

"""``picomdm enrollment-profile``: how the profiles look that devices enroll by."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from picomdm.context import JSON, Operator, operator_of
from picomdm.files import read_file

app: Final = typer.Typer(help="Show and set how enrollment profiles look.", no_args_is_help=True)
_PATH: Final = "/v2/enrollment-profile"
_KEPT_ELSEWHERE: Final = ("template", "signing_identity")


@app.command()
def show(context: typer.Context, *, _json: JSON = False) -> None:
    """Show how enrollment profiles look."""
    operator = operator_of(context)
    profile = operator.api.get(_PATH)
    operator.terminal.answer(profile, _shown(operator, profile))


@app.command("set")
def set_profile(  # noqa: PLR0913 - each parameter is an option
    context: typer.Context,
    *,
    organization: Annotated[str | None, typer.Option(help='The sender that people see; "" for the stack\'s.')] = None,
    display_name: Annotated[str | None, typer.Option(help='The profile\'s name; "" for the usual one.')] = None,
    description: Annotated[str | None, typer.Option(help='What it says of itself; "" for the usual.')] = None,
    identifier: Annotated[
        str | None, typer.Option(help="PayloadIdentifier: devices replace the profile that has it.")
    ] = None,
    access_rights: Annotated[int | None, typer.Option(help="The sum of Apple's bits; 8191 is all.")] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="A server capability; may be repeated. Others are taken away.")
    ] = None,
    key_size: Annotated[int | None, typer.Option(help="Of devices' RSA keys: 2048 or 4096.")] = None,
    trust: Annotated[
        list[Path] | None, typer.Option(help="PEM of certificates to trust, in place of the former; may be repeated.")
    ] = None,
    no_trust: Annotated[bool, typer.Option("--no-trust", help="Trust no certificates any more.")] = False,
    topic: Annotated[str | None, typer.Option(help='The push topic where no link says one; "" for none.')] = None,
    template: Annotated[Path | None, typer.Option(help="Make profiles from this unsigned .mobileconfig.")] = None,
    no_template: Annotated[bool, typer.Option("--no-template", help="Make profiles without a template.")] = False,
    sign_with: Annotated[
        list[Path] | None,
        typer.Option(help="PEM of a certificate, its unencrypted key and its chain; may be repeated."),
    ] = None,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Sign profiles no more.")] = False,
    _json: JSON = False,
) -> None:
    """Change how enrollment profiles look; what is not named stays. Enrolled devices keep the profile they have."""
    operator = operator_of(context)
    asked = {
        "organization": organization,
        "display_name": display_name,
        "description": description,
        "identifier": identifier,
        "access_rights": access_rights,
        "server_capabilities": capability or None,
        "key_size": key_size,
        "trust_certificates": _pem(trust),
        "topic": topic,
    }
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if no_trust:
        changes["trust_certificates"] = None
    # All files are read before anything is changed.
    template_body = read_file(template) if template else None
    identity = b"\n".join(read_file(file) for file in sign_with) if sign_with else None
    api = operator.api
    if changes:
        api.change(
            _PATH,
            lambda profile: {name: value for name, value in profile.items() if name not in _KEPT_ELSEWHERE} | changes,
        )
    if template_body is not None:
        api.request("PUT", f"{_PATH}/template", body=template_body, repeatable=True)
    elif no_template:
        api.request("DELETE", f"{_PATH}/template", repeatable=True)
    if identity is not None:
        api.request("PUT", f"{_PATH}/signing-identity", body=identity, repeatable=True)
    elif unsigned:
        api.request("DELETE", f"{_PATH}/signing-identity", repeatable=True)
    profile = api.get(_PATH)
    operator.terminal.answer(profile, _shown(operator, profile))


def _shown(operator: Operator, profile: dict[str, Any]) -> Callable[[], None]:
    template, signing = profile["template"], profile["signing_identity"]
    certificates = (profile["trust_certificates"] or "").count("-----BEGIN CERTIFICATE-----")
    facts = {
        "identifier": profile["identifier"],
        "organization": profile["organization"] or "the stack's",
        "display name": profile["display_name"],
        "description": profile["description"],
        "access rights": profile["access_rights"],
        "capabilities": ", ".join(profile["server_capabilities"]) or "none",
        "key size": profile["key_size"],
        "trusted certificates": certificates,
        "topic": profile["topic"],
        "template": f"uploaded {operator.terminal.ago(template['uploaded_at'])}" if template else "none",
        "signed by": f"{signing['subject']}, good until {signing['not_after']}" if signing else "nobody",
    }
    return lambda: operator.terminal.facts(facts)


def _pem(files: list[Path] | None) -> str | None:
    if not files:
        return None
    return "\n".join(read_file(file).decode(errors="replace") for file in files)

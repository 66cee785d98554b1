"""``picomdm account-driven``: people enroll their devices by signing in."""

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from picomdm.context import JSON, Operator, operator_of

app: Final = typer.Typer(help="Let people enroll by signing in with a Managed Apple Account.", no_args_is_help=True)
_PATH: Final = "/v2/account-driven-enrollment"


@app.command("set")
def set_up(
    context: typer.Context,
    *,
    issuer: Annotated[str, typer.Argument(help="The OpenID Connect issuer, exactly as it calls itself.")],
    audience: Annotated[list[str], typer.Option(help="Whom tokens have to be for; may be repeated.")],
    sign_in_url: Annotated[
        str | None,
        typer.Option(help="A page that signs people in and ends with apple-remotemanagement-user-login://…"),
    ] = None,
    client_id: Annotated[
        str | None, typer.Option(help="Instead of a page: a public OAuth 2 client at the issuer.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="What the client asks for.")] = None,
    account_claim: Annotated[str, typer.Option(help="The claim that names the Managed Apple Account.")] = "email",
    domain: Annotated[list[str] | None, typer.Option(help="Of accounts that may enroll; may be repeated.")] = None,
    mode: Annotated[str, typer.Option(help="user (people's own devices) or device (the organization's).")] = "user",
    mode_for: Annotated[
        list[str] | None, typer.Option(help="Another one for a model family, such as Mac=device; may be repeated.")
    ] = None,
    _json: JSON = False,
) -> None:
    """Let people enroll; it replaces what was set before."""
    operator = operator_of(context)
    if (sign_in_url is None) == (client_id is None):
        raise typer.BadParameter("either --sign-in-url or --client-id", param_hint="--sign-in-url")
    document = {
        "issuer": issuer,
        "audiences": audience,
        "method": "apple-as-web" if sign_in_url else "apple-oauth2",
        "sign_in_url": sign_in_url,
        "client_id": client_id,
        "scope": scope or ("openid email" if client_id else None),
        "account_claim": account_claim,
        "domains": domain or None,
        "mode": mode,
        "mode_by_model_family": dict(_family_and_mode(text) for text in mode_for or ()),
    }
    with operator.terminal.progress("Asking the issuer …"):
        stored = operator.api.request("PUT", _PATH, document=document, repeatable=True)
    operator.terminal.answer(stored, _shown(operator, stored))


@app.command()
def show(context: typer.Context, *, _json: JSON = False) -> None:
    """Show who may enroll by signing in."""
    operator = operator_of(context)
    stored = operator.api.get(_PATH)
    operator.terminal.answer(stored, _shown(operator, stored))


@app.command()
def off(context: typer.Context, *, _json: JSON = False) -> None:
    """Let nobody enroll by signing in any more. Those who did stay enrolled."""
    operator = operator_of(context)
    operator.api.request("DELETE", _PATH, repeatable=True)
    operator.terminal.answer({"off": True}, lambda: operator.terminal.say("Off."))


def _family_and_mode(text: str) -> tuple[str, str]:
    family, separator, mode = text.partition("=")
    if not separator:
        raise typer.BadParameter("a model family and its mode, such as Mac=device", param_hint="--mode-for")
    return family, mode


def _shown(operator: Operator, stored: dict[str, Any]) -> Callable[[], None]:
    modes = {"all others" if stored["mode_by_model_family"] else "all": stored["mode"]}
    facts = {
        "issuer": stored["issuer"],
        "audiences": ", ".join(stored["audiences"]),
        "people sign in": stored["sign_in_url"] or f"as {stored['client_id']}, for {stored['scope']}",
        "account": f"claim {stored['account_claim']}",
        "domains": ", ".join(stored["domains"]) or "any",
        "modes": ", ".join(f"{name}: {mode}" for name, mode in (stored["mode_by_model_family"] | modes).items()),
    }
    return lambda: operator.terminal.facts(facts)

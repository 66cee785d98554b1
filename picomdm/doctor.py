"""``picomdm doctor``: whether this deployment can do its work, and if not, what helps."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import typer
from rich.markup import escape

from picomdm.context import JSON, Operator, operator_of
from picomdm.errors import CommandLineError, RefusedError
from picomdm.queues import count_messages

_MARKS: Final = {True: "[green]ok [/green]", False: "[red]FIX[/red]", None: "[yellow]?  [/yellow]"}
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException"})
"""How AWS says that whoever asks may not look; to use the admin API, nobody needs to see the queues."""

_RENEW_BEFORE: Final = timedelta(days=30)
_ROLL_OVER_BEFORE: Final = timedelta(days=400)
"""An identity is good for a year, by default."""


@dataclass(frozen=True)
class Finding:
    """What one examination found; ``well`` is None when it could not look. ``advice`` is for what is not well."""

    what: str
    well: bool | None
    found: str
    advice: str | None = None


def doctor(context: typer.Context, *, _json: JSON = False) -> None:
    """Examine the deployment: reachable, certificates, schedules, webhooks, messages that were given up."""
    operator = operator_of(context)
    terminal = operator.terminal
    findings = []
    with terminal.progress("Examining …") as tell:
        for what, examine in _EXAMINATIONS.items():
            tell(f"Examining: {what} …")
            try:
                findings += list(examine(operator))
            except RefusedError as error:
                well = None if error.code in _DENIED else False
                findings.append(Finding(what, well=well, found=error.message))
            except CommandLineError as error:
                findings.append(Finding(what, well=False, found=error.message))
    well = all(finding.well is not False for finding in findings)

    def show() -> None:
        for finding in findings:
            terminal.say(f"{_MARKS[finding.well]} [bold]{finding.what}[/bold]: {escape(finding.found)}")
            if finding.well is False and finding.advice:
                terminal.say(f"     {finding.advice}")

    terminal.answer({"well": well, "findings": [asdict(finding) for finding in findings]}, show)
    if not well:
        raise typer.Exit(1)


def _examine_api(operator: Operator) -> Iterator[Finding]:
    version = operator.api.get("/version")["version"]
    yield Finding("admin API", well=True, found=f"release {version} at {operator.deployment.admin_url}")


def _examine_push_certificates(operator: Operator) -> Iterator[Finding]:
    known: list[dict[str, Any]] = list(operator.api.entries("/v2/push-certificates", "push_certificates"))
    if not known:
        yield Finding(
            "push certificate",
            well=False,
            found="none, so no device can enroll",
            advice="Upload one: picomdm push-cert upload CERTIFICATE KEY",
        )
    for certificate in known:
        left = datetime.fromisoformat(certificate["not_after"]) - operator.terminal.now()
        yield Finding(
            "push certificate",
            well=left > _RENEW_BEFORE,
            found=f"{certificate['topic']}, ends {operator.terminal.ago(certificate['not_after'])}",
            advice="Renew it (do not make a new one: its topic would be another) at identity.apple.com/pushcert, "
            "with the Apple Account that made it.",
        )


def _examine_issuing_authorities(operator: Operator) -> Iterator[Finding]:
    known = list(operator.api.entries("/v2/certificate-authorities", "certificate_authorities"))
    in_use = next((entry for entry in known if entry["phase"] == "in_use"), None)
    if in_use is None:
        yield Finding("authority", well=True, found="none yet; the first enrollment link makes it")
        return
    ends = datetime.fromisoformat(in_use["certificates"][0]["not_after"])
    successor = next((entry for entry in known if entry["phase"] == "next"), None)
    found = f"{in_use['name']}, ends {operator.terminal.ago(in_use['certificates'][0]['not_after'])}"
    if successor is not None:
        comes = f"at {successor['activates_at']}" if successor["activates_at"] else "when it is activated"
        found += f"; {successor['name']} follows {comes}"
    in_time = successor is not None and successor["activates_at"] is not None
    yield Finding(
        "authority",
        # No identity outlives who issued it: from then on devices get shorter and shorter ones.
        well=in_time or ends - operator.terminal.now() > _ROLL_OVER_BEFORE,
        found=found,
        advice=f"Activate it: picomdm ca activate {successor['name']}"
        if successor is not None
        else "Make the next one, and activate it: picomdm ca prepare",
    )


def _examine_vital_signs(operator: Operator) -> Iterator[Finding]:
    """Tell of what the deployment looks after itself; of queues and push certificates the others tell more."""
    for check in operator.api.get("/health")["checks"]:
        if check["what"] not in _TOLD_BY_OTHERS:
            yield Finding(
                f"{check['what'].replace('_', ' ')} {check['name']}",
                well=check["well"],
                found=check["found"],
                advice=_ADVICE.get(check["what"]),
            )


_TOLD_BY_OTHERS: Final = frozenset({"push_certificate", "queue"})
_ADVICE: Final = {
    "certificate_authority": "Upload its successor: picomdm ca upload",
    "profile_signer": "Sign with another: picomdm enrollment-profile set --sign-with",
    "schedule": "See the log of housekeeping, and the stack's rules in EventBridge, which somebody may have disabled.",
}


def _examine_webhooks(operator: Operator) -> Iterator[Finding]:
    for webhook in operator.api.entries("/v2/webhooks", "webhooks"):
        failures = webhook["failures"]
        yield Finding(
            f"webhook {webhook['id']}",
            well=not failures,
            found=f"{failures} failures in a row at {webhook['url']}" if failures else f"delivers to {webhook['url']}",
            advice="See what the receiver answers; what was given up meanwhile: picomdm redrive webhook",
        )


def _examine_queues(operator: Operator) -> Iterator[Finding]:
    for queue in count_messages(operator):
        yield Finding(
            f"queue {queue['name']}",
            well=not queue["given_up"],
            found=f"{queue['given_up']} messages given up ({queue['what']})"
            if queue["given_up"]
            else "nothing given up",
            advice=f"When the cause is mended: picomdm redrive {queue['name']}",
        )


_EXAMINATIONS: Final[dict[str, Callable[[Operator], Iterator[Finding]]]] = {
    "admin API": _examine_api,
    "push certificate": _examine_push_certificates,
    "authority": _examine_issuing_authorities,
    "certificates and schedules": _examine_vital_signs,
    "webhooks": _examine_webhooks,
    "queues": _examine_queues,
}

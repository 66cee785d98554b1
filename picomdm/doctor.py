"""``picomdm doctor``: whether this deployment can do its work, and if not, what helps."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import typer
from rich.markup import escape

from picomdm.basic import LOOPBACK
from picomdm.context import JSON, Operator, operator_of
from picomdm.device_address import look_at
from picomdm.errors import CommandLineError
from picomdm.queues import count_messages
from picomdm.quotas import alarms_in_alarm, concurrency, may_do, rules_on_bus

_MARKS: Final = {True: "[green]ok [/green]", False: "[red]FIX[/red]", None: "[yellow]?  [/yellow]"}
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "needs_aws"})
"""How it is said that whoever asks may not look; to use the admin API, nobody needs to see the queues."""
_WHY_NOT: Final = dict.fromkeys(_DENIED - {"needs_aws"}, "these keys are for the admin API alone")

_RENEW_BEFORE: Final = timedelta(days=30)
_ROLL_OVER_BEFORE: Final = timedelta(days=400)
"""An identity is good for a year, by default."""
_SKEW: Final = timedelta(minutes=1)
"""Signatures are good for five minutes, and what is told of times here is wrong by as much."""
_CONCURRENCY: Final = 100
"""At most so many requests at a time, of all functions of an account in a region: a new account has 10."""
_RULES: Final = 280
"""Of the 300 that a bus has room for; each webhook is one."""


@dataclass(frozen=True)
class Finding:
    """What one examination found; ``well`` is None when it could not look. ``advice`` is for what is not well."""

    what: str
    well: bool | None
    found: str
    advice: str | None = None


def doctor(context: typer.Context, *, _json: JSON = False) -> None:
    """Examine the deployment, and say what helps: certificates, topics, clock, quotas, queues, alarms, permissions."""
    operator = operator_of(context)
    terminal = operator.terminal
    findings = []
    with terminal.progress("Examining …") as tell:
        for what, examine in _EXAMINATIONS.items():
            tell(f"Examining: {what} …")
            try:
                findings += list(examine(operator))
            except CommandLineError as error:
                not_asked = error.code in _DENIED
                found = f"not asked: {_WHY_NOT.get(error.code, error.message)}" if not_asked else error.message
                findings.append(Finding(what, well=None if not_asked else False, found=found))
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


def _examine_clock(operator: Operator) -> Iterator[Finding]:
    """Tell what the last answer said of the time; also one that refused a signature for its time."""
    skew = operator.api.clock_skew
    if skew is None:
        yield Finding("clock", well=None, found="no answer has told the time")
        return
    seconds = round(abs(skew.total_seconds()))
    told = (
        f"{seconds} second{'' if seconds == 1 else 's'} {'ahead of' if skew > timedelta(0) else 'behind'} the server's"
    )
    yield Finding(
        "clock",
        well=abs(skew) <= _SKEW,
        found=told if seconds else "as the server's",
        advice="Set this machine's clock, or let NTP do it: AWS refuses what was signed more than five minutes ago.",
    )


def _examine_device_address(operator: Operator) -> Iterator[Finding]:
    deployment = operator.deployment
    address = deployment.basic.url if deployment.basic else deployment.outputs.get("DeviceUrl")
    if address is None:
        return
    found = look_at(address)
    if found.not_trusted and urlsplit(address).hostname in LOOPBACK:
        authority = "its certificate is of an authority of this machine's own: SSL_CERT_FILE would name it"
        yield Finding("device address", well=None, found=f"{address}: {authority}")
        return
    left = found.not_after - operator.terminal.now() if found.not_after else None
    well = found.status == HTTPStatus.OK and (left is None or left > _RENEW_BEFORE)
    ends = f", certificate ends in {left.days} days" if left else ""
    yield Finding(
        "device address",
        well=well,
        found=f"{address}: {found.trouble or f'answers {found.status}{ends}'}",
        advice="Devices take no certificate that is over or that they do not trust: renew it (in ACM, or at your "
        "proxy), and let DNS lead to the output DeviceDomainTarget.",
    )


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


def _examine_topics(operator: Operator) -> Iterator[Finding]:
    known = {entry["topic"] for entry in operator.api.entries("/v2/push-certificates", "push_certificates")}
    chosen = operator.api.get("/v2/enrollment-profile")["topic"]
    if chosen is not None and chosen not in known:
        yield Finding(
            "topic",
            well=False,
            found=f"devices enroll for {chosen}, which has no push certificate: none of them can be woken",
            advice="Upload its certificate (picomdm push-cert upload), or choose another topic: "
            "picomdm enrollment-profile set --topic",
        )
    elif chosen is None and len(known) > 1:
        yield Finding(
            "topic",
            well=False,
            found=f"{len(known)} push certificates, and none is chosen: links without a --topic are refused",
            advice="Choose one: picomdm enrollment-profile set --topic",
        )
    elif known:
        yield Finding("topic", well=True, found=f"devices enroll for {chosen or next(iter(known))}")


def _examine_uploaded_authorities(operator: Operator) -> Iterator[Finding]:
    for entry in operator.api.entries("/v2/certificate-authorities", "certificate_authorities"):
        if entry["own"]:
            continue
        ends = min(certificate["not_after"] for certificate in entry["certificates"])
        yield Finding(
            f"authority {entry['name']}",
            well=datetime.fromisoformat(ends) - operator.terminal.now() > _RENEW_BEFORE,
            found=f"ends {operator.terminal.ago(ends)}",
            advice=f"Upload its successor beside it in one file: picomdm ca upload {entry['name']} FILE",
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
    "ade_token": "Renew it: picomdm ade token import",
    "ade_list": "See why, and what helps: picomdm ade sync --status, and ade-servers in docs/operations.md",
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


def _examine_alarms(operator: Operator) -> Iterator[Finding]:
    ringing = alarms_in_alarm(operator.deployment)
    yield Finding(
        "alarms",
        well=not ringing,
        found=", ".join(ringing) or "none",
        advice="See the dashboard (picomdm open), and what each alarm means: docs/operations.md",
    )


def _examine_quotas(operator: Operator) -> Iterator[Finding]:
    most, free = concurrency(operator.deployment)
    yield Finding(
        "Lambda concurrency",
        well=free >= _CONCURRENCY,
        found=f"{most} at a time in this account and region, {free} of them unreserved",
        advice="Ask AWS for 1,000: aws service-quotas request-service-quota-increase --service-code lambda "
        f"--quota-code L-B99A9384 --desired-value 1000 --region {operator.deployment.region}",
    )
    rules = rules_on_bus(operator.deployment)
    yield Finding(
        "event rules",
        well=rules <= _RULES,
        found=f"{rules} of 300 on the bus",
        advice="Each webhook is one: delete some (picomdm webhooks list), or ask AWS for more, in Service Quotas: "
        "Amazon EventBridge, Number of rules",
    )


def _examine_permissions(operator: Operator) -> Iterator[Finding]:
    """Tell which commands whoever asks cannot use; the admin API has told already that they may use that."""
    denied = [command for command, may in may_do(operator.deployment).items() if not may]
    yield Finding(
        "permissions",
        well=None if denied else True,
        found=f"not for {', '.join(denied)}; everything else needs no more than AdministratorPolicy"
        if denied
        else "for every command",
    )


_EXAMINATIONS: Final[dict[str, Callable[[Operator], Iterator[Finding]]]] = {
    "admin API": _examine_api,
    "clock": _examine_clock,
    "device address": _examine_device_address,
    "push certificate": _examine_push_certificates,
    "topic": _examine_topics,
    "authority": _examine_issuing_authorities,
    "uploaded authorities": _examine_uploaded_authorities,
    "certificates and schedules": _examine_vital_signs,
    "webhooks": _examine_webhooks,
    "queues": _examine_queues,
    "alarms": _examine_alarms,
    "quotas": _examine_quotas,
    "permissions": _examine_permissions,
}

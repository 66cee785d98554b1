"""Metrics in CloudWatch's embedded format: a line of the log is the metric, and no call is made for it.

Such a line is the log of a request, too: beside the numbers it has ids (request, enrollment, command), a request type,
a code, whatever tells one request from the others. Only the numbers that :class:`Metric` lists become series, each with
one dimension, the stack's name: what would multiply them is a field, to be searched for in the log. A series costs
$0.30 a month, or as much of it as there were hours in which anything was written.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Final

from mdmlib.observability import logger

NAMESPACE: Final = "PicoMDM"
DIMENSION: Final = "Stack"

MOST_SERIES: Final = 40


class Metric(StrEnum):
    """All series that there are; the dashboard shows each."""

    CONNECT_IDLE = "ConnectIdle"
    """A device asked for a command."""
    CONNECT_ACKNOWLEDGED = "ConnectAcknowledged"
    """A device did what a command says."""
    CONNECT_FAILED = "ConnectFailed"
    """A device could not do what a command says, or did not understand it."""
    CONNECT_NOT_NOW = "ConnectNotNow"
    """A device put a command off."""
    COMMANDS_SENT = "CommandsSent"
    """A command was handed to a device, for the first time or again."""
    COMMANDS_QUEUED = "CommandsQueued"
    """A command was queued; one for 100 enrollments is 100."""

    CHECKIN_AUTHENTICATE = "CheckinAuthenticate"
    CHECKIN_TOKEN_UPDATE = "CheckinTokenUpdate"  # noqa: S105 - Apple's name of the message
    CHECKIN_CHECK_OUT = "CheckinCheckOut"
    CHECKIN_DECLARATIVE = "CheckinDeclarativeManagement"
    CHECKIN_OTHER = "CheckinOther"
    ENROLLMENTS = "Enrollments"
    """An enrollment was completed: the first TokenUpdate of a device."""
    CERTIFICATES_ISSUED = "CertificatesIssued"
    """SCEP issued a certificate, for an enrollment or a renewal."""

    PUSHES_ACCEPTED = "PushesAccepted"
    PUSHES_POSTPONED = "PushesPostponed"
    """They are tried again: APNs was busy, or not reached."""
    PUSHES_REFUSED = "PushesRefused"
    """APNs refuses the push certificate, or there is none: an administrator has to look."""
    PUSH_TOKENS_REFUSED = "PushTokensRefused"
    """The device is gone, or the token is another by now."""

    WEBHOOKS_DELIVERED = "WebhooksDelivered"
    WEBHOOKS_FAILED = "WebhooksFailed"
    """An attempt failed; more follow."""
    WEBHOOKS_GIVEN_UP = "WebhooksGivenUp"
    WEBHOOK_SECONDS = "WebhookSeconds"
    """How old an event was when it was delivered."""
    EVENTS_DETOURED = "EventsDetoured"
    """The bus did not take an event; it waits in the fallback queue or the outbox."""

    CALLS_THROTTLED = "CallsThrottled"
    """A service of AWS refused a call because there were too many, and went on refusing."""

    ADE_DEVICES_READ = "AdeDevicesRead"
    """Apple told of a device in a server's list, at first or because something happened to it."""
    ADE_SERVERS_FAILING = "AdeServersFailing"
    """Servers of Apple Business or School Manager whose lists are not read: an administrator has to look."""

    UNRENEWED_IDENTITIES = "UnrenewedIdentities"
    """Identities that end within 7 days, or have ended."""
    RENEWALS_QUEUED = "RenewalsQueued"
    PUSH_CERTIFICATE_DAYS = "PushCertificateDaysLeft"
    """Of the push certificate that ends first."""
    CERTIFICATE_DAYS = "CertificateDaysLeft"
    """Of whichever ends first: the SCEP CA, an uploaded CA, the signer of profiles, the token of an ADE server."""
    SCHEDULE_DELAY = "ScheduleDelay"
    """How late the latest of the schedules is, in times of its own interval."""
    NEEDS_ATTENTION = "NeedsAttention"
    """What an administrator has to look at and was not yet told of: certificates, dead letters, lists of Apple's."""
    DEVICES_ENROLLED = "DevicesEnrolled"
    """How many enrollments there are, those of user channels too."""


_UNITS: Final = {Metric.WEBHOOK_SECONDS: "Seconds"}
_THROTTLED: Final = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "ThrottlingException",
    }
)
_JSON: Final = json.JSONEncoder(separators=(",", ":"))
"""Made once: json.dumps would make one for each line."""
_REQUEST_FIELDS: Final = ("function_request_id", "correlation_id", "cold_start")
"""What the logger knows of the request, as its own lines have it."""


def emit(phrase: str, numbers: Mapping[Metric, float], **fields: object) -> None:
    """Write a line with a fixed phrase, numbers for CloudWatch and fields for whoever searches the log.

    The fields are ids, codes and names, as in any line of the log: never a body, a token, a PIN or a key. The line is
    written whatever the logger's level is. The stack's name comes from the environment, as the service's name
    does for the logger: each service would have to carry it for nothing else.
    """
    known = logger.get_current_keys()
    line: dict[str, object] = {
        "_aws": {
            "Timestamp": int(time.time() * 1000),
            "CloudWatchMetrics": [_described(tuple(numbers))],
        },
        DIMENSION: os.environ.get("STACK_NAME", ""),
        "level": "INFO",
        "message": phrase,
        "service": logger.service,
        **{name: known[name] for name in _REQUEST_FIELDS if known.get(name)},
        **{name: value for name, value in fields.items() if value is not None},
        **{metric.value: number for metric, number in numbers.items()},
    }
    sys.stdout.write(_JSON.encode(line) + "\n")


def count_if_throttled(error: BaseException) -> None:
    """Count an error that says, itself or by its cause, that an AWS service was asked too often."""
    cause: BaseException | None = error
    while cause is not None:
        code = _aws_code(cause)
        if code in _THROTTLED:
            emit("Call to AWS throttled", {Metric.CALLS_THROTTLED: 1}, code=code)
            return
        cause = cause.__cause__


def _aws_code(error: BaseException) -> str | None:
    """Return AWS' code of an error, of botocore's form or of pynamodb's."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return code or getattr(error, "cause_response_code", None)


@cache
def _described(names: tuple[Metric, ...]) -> dict[str, object]:
    return {
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": [{"Name": name.value, "Unit": _UNITS.get(name, "Count")} for name in names],
    }

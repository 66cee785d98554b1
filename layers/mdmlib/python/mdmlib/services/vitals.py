"""Vital signs: what an operator has to hear of before it stops the deployment, though nothing has failed yet.

Certificates end, schedules may have stopped, and nobody notices from outside. Housekeeping looks once an hour
(:meth:`Vitals.measure`) and writes metrics for the alarms; ``GET /metrics`` and ``GET /health`` look when they are
asked.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError
from cryptography import x509
from pynamodb.exceptions import PutError, PynamoDBException

from mdmlib import metrics
from mdmlib.errors import UnavailableError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.ade_sync_vitals import AdeList, ade_lists
from mdmlib.services.device_identity import certificates_of
from mdmlib.services.issuing_authorities import Phase, is_ours, phase_of
from mdmlib.store import tables
from mdmlib.store.tables import (
    AdeServer,
    CertificateAuthority,
    Enrollment,
    EnrollmentProfileDesign,
    Measurement,
    PushCertificate,
    ScheduleRun,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.literals import QueueAttributeNameType

PUBLISH_LEFTOVERS: Final = "publish_leftovers"
RENEW_IDENTITIES: Final = "renew_identities"
MEASURE: Final = "measure"
PUSH_AGAIN: Final = "push_again"
FIND_STALE: Final = "find_stale"
RELEASE_DEVICES: Final = "release_devices"
LOOK_AFTER_PLANS: Final = "look_after_plans"

INTERVALS: Final = {
    PUBLISH_LEFTOVERS: timedelta(minutes=5),
    RENEW_IDENTITIES: timedelta(days=1),
    MEASURE: timedelta(hours=1),
    PUSH_AGAIN: timedelta(hours=1),
    FIND_STALE: timedelta(days=1),
    RELEASE_DEVICES: timedelta(minutes=5),
    LOOK_AFTER_PLANS: timedelta(hours=1),
}
"""How often the template has each task done."""

PUSH_CERTIFICATE: Final = "push_certificate"

_SCHEDULES: Final = "schedule"
_MEASUREMENTS: Final = "measurement"
_NAME: Final = "default"
_DAY: Final = 86_400
_KEEP: Final = timedelta(minutes=1)

_PUSH_CERTIFICATE_WARNINGS: Final = (60, 30, 7)
_WARNINGS: Final = (30, 7)
"""Days before an end, each of which is said anew: a mail that is weeks old is forgotten."""


@dataclass(frozen=True)
class Expiry:
    """Something that ends.

    ``kind`` is ``push_certificate``, ``certificate_authority``, ``profile_signer`` or ``ade_token``.
    """

    kind: str
    name: str
    not_after: datetime

    def days_left(self, now: datetime) -> float:
        """Return how many days are left; what has ended has less than none."""
        return (self.not_after - now).total_seconds() / _DAY


@dataclass(frozen=True)
class Schedule:
    """A task that is done by the clock, and when it was last done."""

    task: str
    ran_at: datetime

    def delay(self, now: datetime) -> float:
        """Return how long ago that was, in times of the task's interval: beyond 2 it was left out."""
        return (now - self.ran_at) / INTERVALS[self.task]


@dataclass(frozen=True)
class QueueDepth:
    """How many messages wait in a queue, are being worked on, and were given up."""

    name: str
    waiting: int
    in_flight: int
    given_up: int


@dataclass(frozen=True)
class Report:
    """All vital signs at one time."""

    at: datetime
    expiries: Sequence[Expiry]
    schedules: Sequence[Schedule]
    queues: Sequence[QueueDepth]
    ade_lists: Sequence[AdeList]
    devices_enrolled: int | None
    """As of the last measurement; None before the first."""


class Vitals:
    """Looks at certificates, schedules, queues and Apple's lists of devices.

    ``queues`` has each queue's URL, None where there is none, and its dead-letter queue's. What was found for a report
    is kept for a minute: whoever asks every second costs no more than who asks every minute.
    """

    def __init__(
        self,
        sqs_client: "Callable[[], SQSClient]",
        *,
        queues: Mapping[str, tuple[str | None, str]],
        ade_sync_every: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._sqs = sqs_client
        self._ade_sync_every = ade_sync_every
        self._queues = queues
        self._now = now
        self._kept: Report | None = None

    def note_run(self, task: str) -> None:
        """Note that a task was done. Never raises: the task is done, and one that is not noted is only told of late."""
        try:
            ScheduleRun(_SCHEDULES, task, ran_at=int(self._now().timestamp())).save()
        except PynamoDBException as error:
            logger.warning("Run of a schedule not noted", task=task, error=type(error).__name__)

    def last_run(self, task: str) -> datetime | None:
        """Return when a task was last done, or None."""
        try:
            run = ScheduleRun.get(_SCHEDULES, task, consistent_read=True)
        except ScheduleRun.DoesNotExist:
            return None
        return datetime.fromtimestamp(int(run.ran_at), UTC)

    def measure(self) -> None:
        """Write the metrics that are levels: days that are left, delays of schedules, devices; and what is new.

        What was said to need attention is kept until it needs none. It is kept after it was said: a run that breaks
        in between says it again.
        """
        now = self._now()
        expiries = list(self.expiries())
        for expiry in expiries:
            metric = Metric.PUSH_CERTIFICATE_DAYS if expiry.kind == PUSH_CERTIFICATE else Metric.CERTIFICATE_DAYS
            days = round(expiry.days_left(now), 2)
            metrics.emit("Certificate looked at", {metric: days}, kind=expiry.kind, name=expiry.name)
        latest = max(self.schedules(), key=lambda schedule: schedule.delay(now))
        metrics.emit("Schedules looked at", {Metric.SCHEDULE_DELAY: round(latest.delay(now), 2)}, task=latest.task)
        lists = list(ade_lists(now, every=self._ade_sync_every))
        if lists:
            failing = {each.server: each.problem for each in lists if each.problem}
            metrics.emit("ADE servers looked at", {Metric.ADE_SERVERS_FAILING: len(failing)}, failing=failing or None)
        devices = sum(_devices(shard) for shard in range(tables.SHARDS))
        metrics.emit("Devices counted", {Metric.DEVICES_ENROLLED: devices})
        unwell = {problem for expiry in expiries for problem in _warnings(expiry, now)}
        unwell |= {f"ade_list {each.server}" for each in lists if each.problem}
        unwell |= {f"queue {name}" for name, (_, url) in self._queues.items() if sum(self._messages(url))}
        new = sorted(unwell - _known_as_unwell())
        metrics.emit("Vital signs looked at", {Metric.NEEDS_ATTENTION: len(new)}, new=new or None)
        at = int(now.timestamp())
        Measurement(_MEASUREMENTS, _NAME, devices_enrolled=devices, unwell=unwell or None, measured_at=at).save()

    def report(self) -> Report:
        """Return all vital signs, as they were at most a minute ago.

        Raises :class:`~mdmlib.errors.UnavailableError` when SQS is not to be asked, and what pynamodb raises.
        """
        now = self._now()
        if self._kept is None or now - self._kept.at >= _KEEP:
            self._kept = Report(
                now,
                list(self.expiries()),
                self.schedules(),
                [self._depth(name, *urls) for name, urls in self._queues.items()],
                list(ade_lists(now, every=self._ade_sync_every)),
                _devices_measured(),
            )
        return self._kept

    def expiries(self) -> Iterator[Expiry]:
        """Yield what ends: push certificates, our CAs and uploaded ones, whoever signs profiles, tokens of ADE servers.

        A CA of ours that another one has followed issues no more: that it ends is nobody's matter.
        """
        for item in PushCertificate.query(PUSH_CERTIFICATE):
            yield Expiry(PUSH_CERTIFICATE, item.name, datetime.fromtimestamp(int(item.not_after), UTC))
        authorities, now = list(CertificateAuthority.query("ca")), self._now()
        for authority in authorities:
            if is_ours(authority.name) and phase_of(authority, authorities, at=now) is Phase.FORMER:
                continue
            yield _first_to_end("certificate_authority", authority.name, certificates_of(authority))
        for design in EnrollmentProfileDesign.query("enrollment_profile"):
            if design.signing_certificates is not None:
                chain = x509.load_pem_x509_certificates(bytes(design.signing_certificates))
                yield _first_to_end("profile_signer", design.name, chain)
        for server in AdeServer.query("ade_server"):
            if server.token_expires_at is not None:
                yield Expiry("ade_token", server.name, datetime.fromtimestamp(int(server.token_expires_at), UTC))

    def schedules(self) -> list[Schedule]:
        """Return when each task was last done.

        One that never was counts from the first time that somebody looked: a new deployment has done nothing yet.
        """
        known = {item.name: int(item.ran_at) for item in ScheduleRun.query(_SCHEDULES)}
        for task in INTERVALS:
            if task not in known:
                known[task] = int(self._now().timestamp())
                try:
                    ScheduleRun(_SCHEDULES, task, ran_at=known[task]).save(ScheduleRun.name.does_not_exist())
                except PutError:
                    logger.info("First look at a schedule not noted", task=task)
        return [Schedule(task, datetime.fromtimestamp(known[task], UTC)) for task in INTERVALS]

    def _depth(self, name: str, url: str | None, dead_letter_url: str) -> QueueDepth:
        waiting, in_flight = self._messages(url) if url else (0, 0)
        return QueueDepth(name, waiting, in_flight, sum(self._messages(dead_letter_url)))

    def _messages(self, url: str) -> tuple[int, int]:
        """Return how many messages of a queue wait, and how many somebody works on."""
        names: tuple[QueueAttributeNameType, ...] = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
        )
        try:
            answer = self._sqs().get_queue_attributes(QueueUrl=url, AttributeNames=names)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("SQS does not say how many messages wait.", code="queue_unavailable") from error
        waiting, in_flight = (int(answer["Attributes"][name]) for name in names)
        return waiting, in_flight


def _first_to_end(kind: str, name: str, certificates: Sequence[x509.Certificate]) -> Expiry:
    return Expiry(kind, name, min(certificate.not_valid_after_utc for certificate in certificates))


def _warnings(expiry: Expiry, now: datetime) -> Iterator[str]:
    """Yield what is to be said of something that ends: for each of the times that have come."""
    days = expiry.days_left(now)
    for warning in _PUSH_CERTIFICATE_WARNINGS if expiry.kind == PUSH_CERTIFICATE else _WARNINGS:
        if days < warning:
            yield f"{expiry.kind} {expiry.name}: {warning} days"


def _known_as_unwell() -> set[str]:
    try:
        return set(Measurement.get(_MEASUREMENTS, _NAME, consistent_read=True).unwell or ())
    except Measurement.DoesNotExist:
        return set()


def _devices(shard: int) -> int:
    return int(
        Enrollment.listing.count(
            f"{shard:x}", filter_condition=(Enrollment.state == "enrolled") & Enrollment.parent_id.does_not_exist()
        )
    )


def _devices_measured() -> int | None:
    try:
        return int(Measurement.get(_MEASUREMENTS, _NAME).devices_enrolled)
    except Measurement.DoesNotExist:
        return None

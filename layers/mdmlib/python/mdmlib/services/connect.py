"""A device connects: it reports on one command and receives the next."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mdmlib import metrics
from mdmlib.apple import event as documents
from mdmlib.apple.command_report import ACKNOWLEDGED, IDLE, NOT_NOW, CommandReport
from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.errors import IdentityError
from mdmlib.metrics import Metric
from mdmlib.observability import logger
from mdmlib.services.admission import check_auth_token, refuse_blocked
from mdmlib.services.associations import Associations
from mdmlib.services.command_targets import target_of
from mdmlib.services.device_facts import bring_up_to_date, device_facts
from mdmlib.services.device_identity import Role
from mdmlib.services.events import EventPublisher
from mdmlib.services.unsent_commands import UnsentCommands
from mdmlib.settings import Settings
from mdmlib.store.command_queue import (
    CONFIGURED,
    NOT_SENT,
    RENEWAL_PROFILE,
    CommandQueueStore,
    FirstPage,
    place_of,
    renewal_dedup_key,
)
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.tables import CommandResult, Enrollment, PendingCommand
from mdmlib.store.transactions import ConditionsFailedError, Delete, Put, transact

if TYPE_CHECKING:
    from mdmlib.services.renewal_profiles import RenewalProfiles

_DAY: Final = 86_400
_MINUTE: Final = 60
_REPORTS: Final = {
    IDLE: Metric.CONNECT_IDLE,
    NOT_NOW: Metric.CONNECT_NOT_NOW,
    ACKNOWLEDGED: Metric.CONNECT_ACKNOWLEDGED,
}
"""Every other status says that a command failed."""


class ConnectService:
    """Takes reports and hands out commands.

    The state is committed, then the event is published, then the device is answered: a device that does not get its
    answer reports again, which changes nothing and publishes the same event under the same id.
    """

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        queue: CommandQueueStore,
        events: EventPublisher,
        renewal_profiles: "Callable[[], RenewalProfiles]",
        settings: Settings,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
    ) -> None:
        """``renewal_profiles`` is asked for when a renewal is handed out: what it imports, few requests need."""
        self._enrollments = enrollments
        self._associations = Associations(enrollments=enrollments, settings=settings)
        self._queue = queue
        self._events = events
        self._renewal_profiles = renewal_profiles
        self._refused = UnsentCommands(queue=queue, events=events, settings=settings, new_event_id=new_event_id)
        self._settings = settings
        self._now = now
        self._new_event_id = new_event_id

    def report(
        self, certificate: VerifiedCertificate, report: CommandReport, url_params: Mapping[str, str]
    ) -> bytes | None:
        """Take a report; return the raw plist of the oldest command that waits, or None.

        A command stays pending until a report settles it, so a device that drops the connection receives it again. A
        NotNow keeps its command in its place, to be handed out again at the next Idle; while the device answers NotNow,
        commands that it has deferred are skipped. Every other status is final. A report on a command that was cleared
        leaves its result; one on a command that never existed is only published.

        Raises :class:`~mdmlib.errors.IdentityError` when the certificate is not the enrollment's, and
        :class:`~mdmlib.errors.BlockedError` when the device is blocked: its queue stays as it is.
        """
        now = self._now()
        page = self._queue.first_page(report.enrollment_id.value)
        record = page.record
        device = self._enrollments.get(report.enrollment_id.parent) if report.enrollment_id.parent else record
        device, role = self._associations.role(certificate, device, at=now)
        refuse_blocked(device)
        if record is None:
            raise IdentityError("The user channel is not enrolled.", code="unknown_enrollment")
        check_auth_token(record, report.fields)
        if role is Role.PREVIOUS and report.is_idle:
            raise IdentityError("A replaced certificate may only report results.", code="certificate_replaced")

        event_id, request_type = self._settle(record, page, report, now)
        live = role is Role.CURRENT and is_live(record, device)
        if live and now.timestamp() - (record.last_seen_at or 0) >= self._settings.last_seen_minutes * _MINUTE:
            self._enrollments.touch(record, at=int(now.timestamp()))
        payload = self._next(record, device, page, report, certificate, now) if live else None
        document = documents.mdm_event(
            report,
            event_id=event_id,
            created_at=documents.uuid7_time(event_id),
            url_params=url_params,
            request_type=request_type,
            serial_number=record.serial_number,
        )
        self._events.publish(self._events.prepare(document, report.body))
        numbers = {_REPORTS.get(report.status, Metric.CONNECT_FAILED): 1}
        if payload is not None:
            numbers[Metric.COMMANDS_SENT] = 1
        metrics.emit(
            "Device connected",
            numbers,
            enrollment_id=record.enrollment_id,
            status=report.status,
            command_uuid=report.command_uuid,
            request_type=request_type,
            event_id=event_id,
        )
        return payload

    def _settle(
        self, record: Enrollment, page: FirstPage, report: CommandReport, now: datetime
    ) -> tuple[str, str | None]:
        """Commit what the report says; return the event's id and the command's request type."""
        event_id = self._new_event_id()
        if report.is_idle or report.command_uuid is None:
            return event_id, None
        pending = next((item for item in page.pending if item.command_uuid == report.command_uuid), None)
        if pending is None:
            return self._settle_elsewhere(record, report, event_id, now)
        if report.is_not_now:
            self._queue.defer(pending, at=int(now.timestamp()))
            return event_id, pending.request_type
        return self._finish(record, pending, report, event_id, pending.request_type, now), pending.request_type

    def _settle_elsewhere(
        self, record: Enrollment, report: CommandReport, event_id: str, now: datetime
    ) -> tuple[str, str | None]:
        """Settle a command that is not in the first page: a repeat, a cleared one, or one further back."""
        uuid = str(report.command_uuid)
        result, command = self._queue.result_and_command(record.enrollment_id, uuid)
        if result is not None and result.status != NOT_SENT:
            request_type = result.request_type
            return (event_id if report.is_not_now else result.event_id), request_type
        if command is None:
            logger.warning("Report on an unknown command", enrollment_id=record.enrollment_id, command_uuid=uuid)
            return event_id, None
        pending = self._queue.pending(record, command.order)
        pending.command_uuid, pending.request_type = uuid, command.request_type
        pending.dedup_key = command.dedup_key
        if report.is_not_now:
            self._queue.defer(pending, at=int(now.timestamp()))
            return event_id, command.request_type
        return self._finish(record, pending, report, event_id, command.request_type, now), command.request_type

    def _finish(
        self,
        record: Enrollment,
        pending: PendingCommand,
        report: CommandReport,
        event_id: str,
        request_type: str,
        now: datetime,
    ) -> str:
        """Delete the pending command and put its result, together; return the id of the event to publish."""
        result = self._queue.result(record.enrollment_id, pending.command_uuid, report.body)
        result.request_type = request_type
        result.status = report.status
        result.event_id = event_id
        result.error_chain = list(report.error_chain) if report.error_chain else None
        result.reported_at = int(now.timestamp())
        result.ttl = result.reported_at + self._settings.result_days * _DAY
        # What was told of it while it was not sent gives way: an earlier life of the queue had sent it all the same.
        put = Put("result", result, CommandResult.item.does_not_exist() | (CommandResult.status == NOT_SENT))
        delete = Delete("pending", pending, PendingCommand.item.exists())
        facts = device_facts(record, report, request_type)
        try:
            transact([delete, put, *place_of(pending), *bring_up_to_date(record, facts)])
        except ConditionsFailedError as failed:
            if "result" in failed.names:
                return self._event_of_repeat(record, pending.command_uuid, event_id)
            # The command was cleared: what the device did is worth keeping all the same.
            try:
                transact([put])
            except ConditionsFailedError:
                return self._event_of_repeat(record, pending.command_uuid, event_id)
            return event_id
        for name, value in facts.items():
            # What is handed out next is for the device as it is now.
            setattr(record, name, value)
        return event_id

    def _event_of_repeat(self, record: Enrollment, command_uuid: str, event_id: str) -> str:
        result, _ = self._queue.result_and_command(record.enrollment_id, command_uuid)
        return result.event_id if result else event_id

    def _next(
        self,
        record: Enrollment,
        device: Enrollment,
        page: FirstPage,
        report: CommandReport,
        certificate: VerifiedCertificate,
        now: datetime,
    ) -> bytes | None:
        at = now.timestamp()
        target = target_of(record, device)
        for pending in self._waiting(record, page):
            if pending.command_uuid == report.command_uuid and not report.is_idle:
                continue
            if pending.expires_at <= at or (pending.not_before or 0) > at:
                continue
            if report.is_not_now and pending.not_now_at is not None:
                continue
            if pending.dedup_key == CONFIGURED and not record.awaiting_configuration:
                # Somebody else has told the device before.
                self._queue.drop(pending)
                continue
            if pending.kind == RENEWAL_PROFILE:
                payload = self._renewal(record, pending, certificate)
                if payload is None:
                    continue
            else:
                payload = self._queue.payload(pending)
            if payload is not None:
                # As a rule the device is what it was when the command was queued, and there is nothing to ask.
                if pending.suits in {None, str(target)} or not self._refused.refuse(pending, payload, target, now):
                    return payload
                continue
            logger.error(
                "A pending command has lost its payload",
                enrollment_id=record.enrollment_id,
                command_uuid=pending.command_uuid,
            )
        return None

    def _renewal(self, record: Enrollment, pending: PendingCommand, certificate: VerifiedCertificate) -> bytes | None:
        """Make the payload of a renewal, or take the renewal back when the identity has been renewed already."""
        if pending.dedup_key != renewal_dedup_key(record.identity):
            self._queue.drop(pending)
            return None
        return self._renewal_profiles().payload(pending, record, certificate)

    def _waiting(self, record: Enrollment, page: FirstPage) -> Iterable[PendingCommand]:
        yield from page.pending
        if not page.complete:
            yield from self._queue.read_on(record, after=page.read_to)

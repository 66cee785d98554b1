"""Devices that wait in Setup Assistant until they are told that they are configured: each is told so, in time.

A device whose ADE profile says ``await_device_configured`` shows a progress bar until the command DeviceConfigured
comes, so that all that it needs is there before anybody uses it. Whoever sets devices up sends that command when they
are done. If they never are, because a command fails or somebody forgot, it is sent here: a device must not hang there.

The TokenUpdate that says that a device waits commits what leads to it, in the same transaction. Every five minutes
those are looked at whose time has come, or comes before the next look. The command is the last one of its queue, and is
queued again as long as the device says that it waits: the queue may have been cleared, or the device have refused it.
"""

import plistlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from mdmlib.apple.command import Command
from mdmlib.observability import logger
from mdmlib.services.enqueue import EnqueueService
from mdmlib.services.vitals import INTERVALS, RELEASE_DEVICES
from mdmlib.store import tables
from mdmlib.store.command_queue import CONFIGURED, dedup_key_item
from mdmlib.store.enrollments import EnrollmentStore, is_live
from mdmlib.store.tables import AwaitedConfiguration, DedupKey, Enrollment

_LONGEST_PAUSE: Final = timedelta(days=1)
_PRIORITY: Final = 0
_BATCH: Final = 100


class SetupRelease:
    """Tells devices that they are configured."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        enqueue: EnqueueService,
        now: Callable[[], datetime],
        new_uuid: Callable[[], str],
    ) -> None:
        self._enrollments = enrollments
        self._enqueue = enqueue
        self._now = now
        self._new_uuid = new_uuid

    def run(self) -> None:
        """Look at all that are due before the next look. Safe to repeat: a command that waits is queued once."""
        now = self._now()
        until = int((now + INTERVALS[RELEASE_DEVICES]).timestamp())
        for items in _in_batches(until):
            self._release(items, now)

    def _release(self, items: Sequence[AwaitedConfiguration], now: datetime) -> None:
        ids = {item.item: item.item.rpartition("#")[0] for item in items}
        records = self._enrollments.get_many(ids.values())
        parents = {record.parent_id for record in records.values() if record.parent_id} - set(records)
        devices = records | (self._enrollments.get_many(parents) if parents else {})
        waiting: dict[str, AwaitedConfiguration] = {}
        for item in items:
            record = records.get(ids[item.item])
            device = devices.get(record.parent_id or record.enrollment_id) if record else None
            if record and device and _waits(record, device, item):
                waiting[record.enrollment_id] = item
            else:
                # It was told, or its enrollment is another one by now.
                item.delete()
        self._tell([records[id_] for id_ in waiting if not records[id_].parent_id], "DeviceConfigured")
        self._tell([records[id_] for id_ in waiting if records[id_].parent_id], "UserConfigured")
        for item in waiting.values():
            # Told first, noted then: who is not noted is told again, which queues nothing.
            attempts = int(item.attempts or 0)
            pause = min(INTERVALS[RELEASE_DEVICES] * 2 ** min(attempts, 20), _LONGEST_PAUSE)
            item.update(
                [
                    AwaitedConfiguration.due_at.set(int((now + pause + INTERVALS[RELEASE_DEVICES]).timestamp())),
                    AwaitedConfiguration.attempts.set(attempts + 1),
                ],
                condition=AwaitedConfiguration.item.exists(),
            )

    def _tell(self, records: Sequence[Enrollment], request_type: str) -> None:
        """Queue the command for those for whom none waits, and wake the others once more."""
        if not records:
            return
        places = {(record.enrollment_id, dedup_key_item(record.generation, CONFIGURED)) for record in records}
        told = {place.enrollment_id for place in DedupKey.batch_get(places, consistent_read=True)}
        if told:
            self._enqueue.push(sorted(told))
        ids = [record.enrollment_id for record in records if record.enrollment_id not in told]
        if not ids:
            return
        uuid = self._new_uuid()
        body = plistlib.dumps({"Command": {"RequestType": request_type}, "CommandUUID": uuid})
        # Whatever is known of the device: it says itself that it waits for this.
        outcome = self._enqueue.enqueue(
            Command(uuid, request_type, body), ids, priority=_PRIORITY, dedup_key=CONFIGURED, force=True
        )
        queued = sum(target.queued for target in outcome.targets.values())
        logger.warning("Devices waited in Setup Assistant and are told that they are configured", count=queued)


def _waits(record: Enrollment, device: Enrollment, item: AwaitedConfiguration) -> bool:
    is_same_life = item.item == f"{record.enrollment_id}#{int(device.epoch)}"
    return is_same_life and is_live(record, device) and bool(record.awaiting_configuration)


def _in_batches(until: int) -> Iterator[list[AwaitedConfiguration]]:
    batch: list[AwaitedConfiguration] = []
    for item in AwaitedConfiguration.query(
        tables.AWAITING_PARTITION, filter_condition=AwaitedConfiguration.due_at <= until, consistent_read=True
    ):
        batch.append(item)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch

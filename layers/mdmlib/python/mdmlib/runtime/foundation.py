"""What everything stands on: the time, the settings, the secrets, the tables, the events."""

import os
import time
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime
from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mdmlib.services.events import EventPublisher
    from mdmlib.services.sweep import SweepQueue
    from mdmlib.store.command_queue import CommandQueueStore
    from mdmlib.store.enrollments import EnrollmentStore
    from mdmlib.store.payloads import PayloadStore
    from mdmlib.store.sealing import Sealer
    from mdmlib.store.stack_secret import StackSecret


def now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


def new_event_id() -> str:
    """Return a new event's id, a UUIDv7: ids sort by time."""
    from mdmlib.apple.event import uuid7

    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))


def new_uuid() -> str:
    """Return a random UUID."""
    import uuid

    return str(uuid.uuid4())


@cache
def settings() -> Settings:
    """Return the deployment's settings."""
    return Settings.from_environment(os.environ)


@cache
def stack_secret() -> "StackSecret":
    """Return the stack's secret."""
    from mdmlib.store.stack_secret import StackSecret

    return StackSecret(runtime.secretsmanager_client, secret_id=runtime.settings().secret_id, now=runtime.now)


@cache
def sealer() -> "Sealer":
    """Return the sealer under the stack's keys."""
    from mdmlib.store.sealing import Sealer

    return Sealer(runtime.stack_secret())


@cache
def bind_tables() -> None:
    """Tell the item classes which tables they are of."""
    from mdmlib.store import tables

    tables.bind(
        enrollment_table=runtime.settings().enrollment_table,
        resource_table=runtime.settings().resource_table,
        client=runtime.dynamodb_client(),
    )


@cache
def payloads() -> "PayloadStore":
    """Return the store of what is too large for an item."""
    from mdmlib.store.payloads import PayloadStore

    return PayloadStore(runtime.s3_client, bucket=runtime.settings().payload_bucket, sealer=runtime.sealer())


@cache
def enrollments() -> "EnrollmentStore":
    """Return the store of enrollment records."""
    from mdmlib.store.enrollments import EnrollmentStore

    runtime.bind_tables()
    return EnrollmentStore()


@cache
def command_queue() -> "CommandQueueStore":
    """Return the store of commands, pending commands and results."""
    from mdmlib.store.command_queue import CommandQueueStore

    runtime.bind_tables()
    return CommandQueueStore(sealer=runtime.sealer(), payloads=runtime.payloads())


@cache
def events() -> "EventPublisher":
    """Return the publisher of events."""
    from mdmlib.services.events import EventPublisher

    return EventPublisher(
        runtime.events_client,
        runtime.sqs_client,
        payloads=runtime.payloads(),
        sealer=runtime.sealer(),
        settings=runtime.settings(),
    )


@cache
def sweeps() -> "SweepQueue":
    """Return the queue of sweeps."""
    from mdmlib.services.sweep import SweepQueue

    return SweepQueue(runtime.sqs_client, queue_url=runtime.settings().sweep_queue_url)

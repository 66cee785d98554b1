"""What the tests of stores and functions run against: resources on the emulator, and a clock that stands still."""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from local.emulator import ACCOUNT, REGION, Emulator
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from mdmlib.store.stack_secret import StackSecret


class Clock:
    """A clock that moves only when it is told to; call it for the time, as a service does."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **duration: float) -> None:
        """Move on by ``timedelta(**duration)``."""
        self.at += timedelta(**duration)


@dataclass(frozen=True, kw_only=True)
class TableNames:
    """Two fresh tables, to which the item classes are bound."""

    enrollment: str
    resource: str


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that a function with these settings finds in its environment."""
    return {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}


def create_tables(emulator: Emulator) -> TableNames:
    """Create both tables under new names, with the keys and indexes of their item classes, and bind these to them."""
    unique = uuid4().hex[:12]
    names = TableNames(enrollment=f"enrollment-{unique}", resource=f"resource-{unique}")
    # With a client that is there already: to make one takes longer than most tests do.
    tables.bind(enrollment_table=names.enrollment, resource_table=names.resource, client=emulator.dynamodb)
    for model in (tables.EnrollmentItem, tables.ResourceItem):
        # What the model's own create_table does, without asking first whether there is one.
        model._get_connection().create_table(**model._get_schema(), billing_mode="PAY_PER_REQUEST")
    return names


def create_queue(emulator: Emulator, name: str) -> str:
    """Create a queue whose name begins with ``name`` and return its URL, at the emulator's own address."""
    answer = emulator.sqs.create_queue(QueueName=f"{name}-{uuid4().hex[:12]}")
    return f"{emulator.url}/{ACCOUNT}/{answer['QueueUrl'].rsplit('/', 1)[1]}"


def create_settings(emulator: Emulator, names: TableNames) -> Settings:
    """Create everything that a deployment has beside its tables, all under new names."""
    unique = uuid4().hex[:12]
    emulator.s3.create_bucket(Bucket=f"payloads-{unique}")
    bus = emulator.events.create_event_bus(Name=f"bus-{unique}")
    archive = emulator.events.create_archive(ArchiveName=f"archive-{unique}", EventSourceArn=bus["EventBusArn"])
    emulator.secretsmanager.create_secret(
        Name=f"secret-{unique}", SecretString=json.dumps({"current_key": "k1", "k1": uuid4().hex * 2})
    )
    webhook_queue_url = create_queue(emulator, "webhook")
    target_dead_letter_queue_url = create_queue(emulator, "target-dead-letter")
    return Settings(
        stack_name=f"test-{unique}",
        enrollment_table=names.enrollment,
        resource_table=names.resource,
        payload_bucket=f"payloads-{unique}",
        event_bus=f"bus-{unique}",
        secret_id=f"secret-{unique}",
        push_queue_url=create_queue(emulator, "push"),
        sweep_queue_url=create_queue(emulator, "sweep"),
        event_fallback_queue_url=create_queue(emulator, "event-fallback"),
        webhook_queue_arn=_queue_arn(webhook_queue_url),
        webhook_queue_url=webhook_queue_url,
        webhook_dead_letter_queue_url=create_queue(emulator, "webhook-dead-letter"),
        target_dead_letter_queue_arn=_queue_arn(target_dead_letter_queue_url),
        push_dead_letter_queue_url=create_queue(emulator, "push-dead-letter"),
        sweep_dead_letter_queue_url=create_queue(emulator, "sweep-dead-letter"),
        event_fallback_dead_letter_queue_url=create_queue(emulator, "event-fallback-dead-letter"),
        target_dead_letter_queue_url=target_dead_letter_queue_url,
        event_archive_arn=archive["ArchiveArn"],
        device_url="https://mdm.example.org",
        admin_api_id="api",
    )


def create_sealer(emulator: Emulator, settings: Settings) -> Sealer:
    """Return a sealer under the keys of these settings' secret."""
    secret = StackSecret(lambda: emulator.secretsmanager, secret_id=settings.secret_id, now=lambda: datetime.now(UTC))
    return Sealer(secret)


def _queue_arn(url: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{url.rsplit('/', 1)[1]}"

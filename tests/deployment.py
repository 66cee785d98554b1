"""What the tests of stores and functions run against: resources on the emulator, and a clock that stands still."""

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from local.emulator import ACCOUNT, REGION, Emulator
from mdmlib import runtime
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


OBSERVER: Final = "observer-of-"
"""How names of rules and queues begin by which tests see what is published; they stay with their bus."""

_QUEUES: Final = (
    "push",
    "push-dead-letter",
    "sweep",
    "workflow",
    "sweep-dead-letter",
    "workflow-dead-letter",
    "event-fallback",
    "event-fallback-dead-letter",
    "webhook",
    "webhook-dead-letter",
    "target-dead-letter",
)


@dataclass(frozen=True, kw_only=True)
class TableNames:
    """Two fresh tables, to which the item classes are bound."""

    enrollment: str
    resource: str


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the variables that a function with these settings finds in its environment."""
    return {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}


def bind_tables(emulator: Emulator, names: TableNames) -> None:
    """Bind the item classes to tables that are there."""
    # With a client that is there already: to make one takes longer than most tests do.
    tables.bind(enrollment_table=names.enrollment, resource_table=names.resource, client=emulator.dynamodb)


def create_tables(emulator: Emulator) -> TableNames:
    """Create both tables under new names, with the keys and indexes of their item classes, and bind these to them."""
    unique = uuid4().hex[:12]
    names = TableNames(enrollment=f"enrollment-{unique}", resource=f"resource-{unique}")
    tables.bind(enrollment_table=names.enrollment, resource_table=names.resource, client=runtime.dynamodb_client())
    for model in (tables.EnrollmentItem, tables.ResourceItem):
        # What the model's own create_table does, without asking first whether there is one.
        model._get_connection().create_table(**model._get_schema(), billing_mode="PAY_PER_REQUEST")
    return names


class Resources:
    """What a deployment has. Tests have it in turn, but for what one of them has changed.

    To make all of it takes longer than most tests do.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._names: dict[str, str] = {}
        self._changed: set[str] = set()
        self._tables: TableNames | None = None

    def note(self, service: str, operation: str, parameters: object) -> None:
        """Learn of a call that is about to be made: what it may change is nobody else's any more."""
        if service == "dynamodb":
            if not operation.startswith(("Get", "Query", "Scan", "BatchGet", "TransactGet", "List", "Describe")):
                self._tables = None
            return
        # Whoever listens to a bus has told so by a rule, and nothing receives what nobody sent.
        if operation.startswith(("Get", "List", "Describe", "Receive", "PutEvents")):
            return
        said = str(parameters)
        if OBSERVER in said:
            return
        self._changed.update(kind for kind, name in self._names.items() if name in said)

    def tables(self) -> TableNames:
        """Return two empty tables, to which the item classes are bound."""
        if self._tables is None:
            self._tables = create_tables(self._emulator)
        else:
            bind_tables(self._emulator, self._tables)
        return self._tables

    def settings(self, names: TableNames) -> Settings:
        """Return settings of resources that are as if they were new, and of these tables."""
        if {"bus", "archive"} & self._changed:
            self._changed |= {"bus", "archive"}
        for kind in self._changed:
            self._names.pop(kind, None)
        self._changed.clear()
        url = {name: self._queue(name) for name in _QUEUES}
        bus = self._name("bus", lambda name: self._emulator.events.create_event_bus(Name=name))
        archive = self._name("archive", self._create_archive)
        return Settings(
            # Nobody makes a stack: it is a name.
            stack_name=f"test-{uuid4().hex[:12]}",
            enrollment_table=names.enrollment,
            resource_table=names.resource,
            payload_bucket=self._name("bucket", lambda name: self._emulator.s3.create_bucket(Bucket=name)),
            event_bus=bus,
            secret_id=self._name("secret", self._create_secret),
            push_queue_url=url["push"],
            sweep_queue_url=url["sweep"],
            workflow_queue_url=url["workflow"],
            event_fallback_queue_url=url["event-fallback"],
            webhook_queue_arn=_queue_arn(url["webhook"]),
            webhook_queue_url=url["webhook"],
            webhook_dead_letter_queue_url=url["webhook-dead-letter"],
            target_dead_letter_queue_arn=_queue_arn(url["target-dead-letter"]),
            push_dead_letter_queue_url=url["push-dead-letter"],
            sweep_dead_letter_queue_url=url["sweep-dead-letter"],
            workflow_dead_letter_queue_url=url["workflow-dead-letter"],
            event_fallback_dead_letter_queue_url=url["event-fallback-dead-letter"],
            target_dead_letter_queue_url=url["target-dead-letter"],
            event_archive_arn=f"arn:aws:events:{REGION}:{ACCOUNT}:archive/{archive}",
            device_url="https://mdm.example.org",
            admin_api_id="api",
        )

    def _name(self, kind: str, create: Callable[[str], object]) -> str:
        if kind not in self._names:
            name = f"{kind}-{uuid4().hex[:12]}"
            changed = set(self._changed)
            create(name)
            # An archive is made of a bus, which is as it was.
            self._changed = changed
            self._names[kind] = name
        return self._names[kind]

    def _queue(self, kind: str) -> str:
        """Return a queue's URL, at the emulator's own address."""
        name = self._name(kind, lambda name: self._emulator.sqs.create_queue(QueueName=name))
        return f"{self._emulator.url}/{ACCOUNT}/{name}"

    def _create_secret(self, name: str) -> None:
        document = {"current_key": "k1", "k1": uuid4().hex * 2}
        self._emulator.secretsmanager.create_secret(Name=name, SecretString=json.dumps(document))

    def _create_archive(self, name: str) -> None:
        bus = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{self._names['bus']}"
        self._emulator.events.create_archive(ArchiveName=name, EventSourceArn=bus)


def create_sealer(emulator: Emulator, settings: Settings) -> Sealer:
    """Return a sealer under the keys of these settings' secret."""
    secret = StackSecret(lambda: emulator.secretsmanager, secret_id=settings.secret_id, now=lambda: datetime.now(UTC))
    return Sealer(secret)


def _queue_arn(url: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{url.rsplit('/', 1)[1]}"

"""What happens in between: something else, at exactly one moment of what a service is doing with DynamoDB."""

from collections.abc import Callable
from typing import Any, Final

from mdmlib.store import tables

READS: Final = ("GetItem", "BatchGetItem", "Query")
WRITES: Final = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")


def after_next_read(act: Callable[[], object]) -> None:
    """Let ``act`` happen once the next read of a record or a queue is answered, before anything follows from it."""
    _once("after-call", READS, act)


def before_next_write(act: Callable[[], object]) -> None:
    """Let ``act`` happen when all is read and decided, and the next write is about to be sent."""
    _once("before-call", WRITES, act)


def _once(moment: str, operations: tuple[str, ...], act: Callable[[], object]) -> None:
    events = tables.dynamodb_client().meta.events
    name = f"{moment}.dynamodb.*"
    waiting = [act]

    def happen(*, model: Any, **_: object) -> None:
        # What it does itself reads and writes too.
        if model.name in operations and waiting:
            waiting.pop()()

    events.register(name, happen)

"""What happens in between: something else, at exactly one moment of what a service is doing with DynamoDB."""

from collections.abc import Callable
from functools import partial
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


def forget() -> None:
    """Let nothing happen that has not happened yet: the client is that of the next test, too."""
    while _registered:
        _registered.pop()()


def _once(moment: str, operations: tuple[str, ...], act: Callable[[], object]) -> None:
    name = f"{moment}.dynamodb.*"
    waiting = [act]

    def happen(*, model: Any, **_: object) -> None:
        # What it does itself reads and writes too.
        if model.name in operations and waiting:
            waiting.pop()()

    events = tables.dynamodb_client().meta.events
    events.register(name, happen)
    _registered.append(partial(events.unregister, name, happen))


_registered: Final[list[Callable[[], None]]] = []

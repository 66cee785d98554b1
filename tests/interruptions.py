"""What happens in between: something else, at exactly one moment of what a service is doing with DynamoDB."""

from collections.abc import Callable
from typing import Final, Literal

from mdmlib.store import tables
from tests.aws_calls import watch

READS: Final = ("GetItem", "BatchGetItem", "Query")
WRITES: Final = ("PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems")


def after_next_read(act: Callable[[], object]) -> None:
    """Let ``act`` happen once the next read of a record or a queue is answered, before anything follows from it."""
    _once("after", READS, act)


def before_next_write(act: Callable[[], object]) -> None:
    """Let ``act`` happen when all is read and decided, and the next write is about to be sent."""
    _once("before", WRITES, act)


def forget() -> None:
    """Let nothing happen that has not happened yet: the client is that of the next test, too."""
    while _registered:
        _registered.pop()()


def _once(moment: Literal["before", "after"], operations: tuple[str, ...], act: Callable[[], object]) -> None:
    waiting = [act]

    def happen(operation: str, _: object) -> None:
        # What it does itself reads and writes too.
        if operation in operations and waiting:
            waiting.pop()()

    _registered.append(watch(tables.dynamodb_client(), **{moment: happen}))


_registered: Final[list[Callable[[], None]]] = []

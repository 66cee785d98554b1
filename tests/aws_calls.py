"""Which calls of AWS are made: watching them, and doing something at one of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_READS: Final = {"GetItem", "BatchGetItem", "Query", "DescribeTable"}

Before = Callable[[str, dict[str, Any]], object]
"""Is given a call's operation and parameters; what it raises is raised instead of making the call."""
After = Callable[[str, dict[str, Any]], object]
"""Is given a call's operation and answer."""


def watch(client: Any, *, before: Before | None = None, after: After | None = None) -> Callable[[], None]:
    """Let functions know of each call that a client makes, the SDK's or ours; return what ends it."""
    watched = client.__dict__.get("_make_api_call")
    if not isinstance(watched, _Watched):
        watched = client._make_api_call = _Watched(client._make_api_call)
    watcher = (before, after)
    watched.watchers.append(watcher)
    return lambda: watched.watchers.remove(watcher)


class _Watched:
    def __init__(self, call: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._call = call
        self.watchers: list[tuple[Before | None, After | None]] = []

    def __call__(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        watchers = tuple(self.watchers)
        for before, _ in watchers:
            if before:
                before(operation, parameters)
        answer = self._call(operation, parameters)
        for _, after in watchers:
            if after:
                after(operation, answer)
        return answer


class DynamoDBCalls:
    """Notes the names of all calls that a client makes."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._names: list[str] = []
        watch(client, before=lambda operation, _: self._names.append(operation))

    def take(self) -> list[str]:
        """Return the calls since the last time."""
        names, self._names = self._names, []
        return names

    def take_writes(self) -> list[str]:
        """Return those calls since the last time that wrote, or tried to."""
        return [name for name in self.take() if name not in _READS]

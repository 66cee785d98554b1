"""Which calls to DynamoDB a function made."""

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_READS: Final = {"GetItem", "BatchGetItem", "Query", "DescribeTable"}


class DynamoDBCalls:
    """Notes the names of all calls that a client makes."""

    def __init__(self, client: "DynamoDBClient") -> None:
        self._names: list[str] = []
        client.meta.events.register("provide-client-params.dynamodb.*", self._note)

    def take(self) -> list[str]:
        """Return the calls since the last time."""
        names, self._names = self._names, []
        return names

    def take_writes(self) -> list[str]:
        """Return those calls since the last time that wrote, or tried to."""
        return [name for name in self.take() if name not in _READS]

    def _note(self, *, model: Any, **_: object) -> None:
        self._names.append(model.name)

"""Transactions: several conditional writes that happen together or not at all."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.expressions.update import Update as UpdateExpression

from mdmlib.errors import UnavailableError
from mdmlib.store import tables
from mdmlib.store.items import Item

_ATTEMPTS: Final = 5


class ConditionsFailedError(Exception):
    """Nothing was written, for the writes of these names found another state than they need."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__(", ".join(sorted(names)))
        self.names = names


@dataclass(frozen=True)
class Check:
    """Another item has to be as ``condition`` says."""

    name: str
    item: Item
    condition: Condition


@dataclass(frozen=True)
class Delete:
    """Delete an item."""

    name: str
    item: Item
    condition: Condition | None = None


@dataclass(frozen=True)
class Put:
    """Write an item whole."""

    name: str
    item: Item
    condition: Condition | None = None


@dataclass(frozen=True)
class Update:
    """Change some attributes of an item."""

    name: str
    item: Item
    actions: Sequence[Action]
    condition: Condition | None = None


Write = Check | Delete | Put | Update


def transact(writes: Sequence[Write]) -> None:
    """Commit ``writes`` (at most 100) together.

    Raises :class:`ConditionsFailedError` with the names of the writes whose conditions did not hold. A conflict with
    another transaction is tried again a few times, then it is :class:`~mdmlib.errors.UnavailableError`.
    """
    request: Any = [_request(write) for write in writes]
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter is no secret
        try:
            tables.dynamodb_client().transact_write_items(TransactItems=request)
        except (BotoCoreError, ClientError) as error:
            response: Any = error.response if isinstance(error, ClientError) else {}
            code = response.get("Error", {}).get("Code")
            codes = [reason.get("Code") for reason in response.get("CancellationReasons", [])]
            failed = frozenset(
                write.name for write, each in zip(writes, codes, strict=False) if each == "ConditionalCheckFailed"
            )
            if failed:
                raise ConditionsFailedError(failed) from error
            if "TransactionConflict" not in codes and code != "TransactionInProgressException":
                raise UnavailableError(f"DynamoDB refused a transaction: {code}.") from error
        else:
            return
    raise UnavailableError("Other requests kept changing the same items.")


def change_existing(item: tables.EnrollmentItem, expression: str, **values: int) -> None:
    """Change an item by an update expression with ``values`` (``:at`` is ``at``), if it is still there.

    What was deleted meanwhile must not come back as a stub. Raises botocore's errors when something else goes wrong.
    """
    try:
        tables.dynamodb_client().update_item(
            TableName=str(item.Meta.table_name),
            Key=item.raw_key(),
            UpdateExpression=expression,
            ConditionExpression="attribute_exists(#item)",
            ExpressionAttributeNames={"#item": "item"},
            ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in values.items()},
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
            raise


def _request(write: Write) -> dict[str, Any]:
    """Return a write in DynamoDB's form. pynamodb's way to it takes longer than to sign the call."""
    item = write.item
    request: dict[str, Any] = {"TableName": item.Meta.table_name}
    match write:
        case Put():
            return {"Put": _expressed(request | {"Item": item.raw_data()}, write.condition)}
        case Update():
            return {"Update": _expressed(request | {"Key": item.raw_key()}, write.condition, write.actions)}
        case Delete():
            return {"Delete": _expressed(request | {"Key": item.raw_key()}, write.condition)}
        case Check():
            return {"ConditionCheck": _expressed(request | {"Key": item.raw_key()}, write.condition)}


def _expressed(request: dict[str, Any], condition: Condition | None, actions: Sequence[Action] = ()) -> dict[str, Any]:
    """Add the expressions of a condition and of actions to a request, with the names and values in them."""
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    if condition is not None:
        request["ConditionExpression"] = condition.serialize(names, values)
    if actions:
        request["UpdateExpression"] = UpdateExpression(*actions).serialize(names, values)
    if names:
        request["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
    if values:
        request["ExpressionAttributeValues"] = values
    return request

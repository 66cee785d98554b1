"""Transactions: several conditional writes that happen together or not at all."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pynamodb.exceptions import TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from mdmlib.errors import UnavailableError
from mdmlib.store import tables
from mdmlib.store.refusals import code_of

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
    item: Any
    condition: Condition


@dataclass(frozen=True)
class Delete:
    """Delete an item."""

    name: str
    item: Any
    condition: Condition | None = None


@dataclass(frozen=True)
class Put:
    """Write an item whole."""

    name: str
    item: Any
    condition: Condition | None = None


@dataclass(frozen=True)
class Update:
    """Change some attributes of an item."""

    name: str
    item: Any
    actions: Sequence[Action]
    condition: Condition | None = None


Write = Check | Delete | Put | Update


def transact(writes: Sequence[Write]) -> None:
    """Commit ``writes`` (at most 100) together.

    Raises :class:`ConditionsFailedError` with the names of the writes whose conditions did not hold. A conflict with
    another transaction is tried again a few times, then it is :class:`~mdmlib.errors.UnavailableError`.
    """
    ordered = _as_pynamodb_orders(writes)
    request = _request(ordered)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter is no secret
        try:
            tables.connection().transact_write_items(**request)
        except TransactWriteError as error:
            codes = [reason.code if reason else None for reason in error.cancellation_reasons]
            failed = frozenset(
                write.name for write, code in zip(ordered, codes, strict=False) if code == "ConditionalCheckFailed"
            )
            if failed:
                raise ConditionsFailedError(failed) from error
            if "TransactionConflict" not in codes and code_of(error) != "TransactionInProgressException":
                raise UnavailableError(f"DynamoDB refused a transaction: {code_of(error)}.") from error
        else:
            return
    raise UnavailableError("Other requests kept changing the same items.")


def _as_pynamodb_orders(writes: Sequence[Write]) -> list[Write]:
    # Cancellation reasons come in the order of the request, which pynamodb builds kind by kind.
    return [write for kind in (Check, Delete, Put, Update) for write in writes if isinstance(write, kind)]


def _request(writes: Sequence[Write]) -> dict[str, Any]:
    request: dict[str, list[dict[str, Any]]] = {
        "condition_check_items": [],
        "delete_items": [],
        "put_items": [],
        "update_items": [],
    }
    for write in writes:
        match write:
            case Check(_, item, condition):
                enrolled = isinstance(item, tables.EnrollmentItem)
                hash_key = item.enrollment_id if enrolled else item.collection
                range_key = item.item if enrolled else item.name
                check = type(item).get_operation_kwargs_from_class(hash_key, range_key, condition)
                request["condition_check_items"].append(check)
            case Delete(_, item, condition):
                request["delete_items"].append(item.get_delete_kwargs_from_instance(condition))
            case Put(_, item, condition):
                request["put_items"].append(_put(item, condition))
            case Update(_, item, actions, condition):
                request["update_items"].append(item.get_update_kwargs_from_instance(list(actions), condition))
    return request


def _put(item: Any, condition: Condition | None) -> dict[str, Any]:  # noqa: ANN401 - of either table
    # pynamodb's own goes through all attributes that there could be, and then through the item's once more: for a
    # message's few items that takes longer than to sign the call.
    names: dict[str, str] = {}
    values: dict[str, Any] = {}
    put: dict[str, Any] = {"TableName": item.Meta.table_name, "Item": item.raw_data()}
    if condition is not None:
        put["ConditionExpression"] = condition.serialize(names, values)
    if names:
        put["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in names.items()}
    if values:
        put["ExpressionAttributeValues"] = values
    return put

"""Transactions: several conditional writes that happen together or not at all."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pynamodb.exceptions import TransactWriteError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.transactions import TransactWrite

from mdmlib.errors import UnavailableError
from mdmlib.store import tables

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
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter is no secret
        try:
            with TransactWrite(connection=tables.connection()) as transaction:
                for write in ordered:
                    _add(transaction, write)
        except TransactWriteError as error:
            codes = [reason.code if reason else None for reason in error.cancellation_reasons]
            failed = frozenset(
                write.name for write, code in zip(ordered, codes, strict=False) if code == "ConditionalCheckFailed"
            )
            if failed:
                raise ConditionsFailedError(failed) from error
            if "TransactionConflict" not in codes and error.cause_response_code != "TransactionInProgressException":
                raise UnavailableError(f"DynamoDB refused a transaction: {error.cause_response_code}.") from error
        else:
            return
    raise UnavailableError("Other requests kept changing the same items.")


def _as_pynamodb_orders(writes: Sequence[Write]) -> list[Write]:
    # Cancellation reasons come in the order of the request, which pynamodb builds kind by kind.
    return [write for kind in (Check, Delete, Put, Update) for write in writes if isinstance(write, kind)]


def _add(transaction: TransactWrite, write: Write) -> None:
    match write:
        case Check(_, item, condition):
            enrolled = isinstance(item, tables.EnrollmentItem)
            hash_key = item.enrollment_id if enrolled else item.collection
            range_key = item.item if enrolled else item.name
            transaction.condition_check(type(item), hash_key, range_key, condition)
        case Delete(_, item, condition):
            transaction.delete(item, condition=condition)
        case Put(_, item, condition):
            transaction.save(item, condition=condition)
        case Update(_, item, actions, condition):
            transaction.update(item, actions=list(actions), condition=condition)

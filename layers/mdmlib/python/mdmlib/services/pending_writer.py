"""Writes pending commands, many at a time, and never puts back one that was answered."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import ConflictError, PicoMDMError, UnavailableError
from mdmlib.observability import logger
from mdmlib.store import tables
from mdmlib.store.at_once import at_once
from mdmlib.store.command_queue import dedup_key_item
from mdmlib.store.tables import CommandResult, DedupKey, PendingCommand
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, Write, transact

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_BATCH_WRITE: Final = 25

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PendingItem:
    """What is one enrollment's own of a pending command; the rest is the same for all of them."""

    enrollment_id: str
    item: str
    payload: bytes | None
    suits: str | None

    def serialized(self, same: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as DynamoDB takes it, beside what is the ``same``: pynamodb's way takes ten times as long."""
        own: dict[str, Any] = {
            **same,
            "enrollment_id": {"S": self.enrollment_id},
            "item": {"S": self.item},
            "waiting_shard": {"S": tables.shard_of(self.enrollment_id)},
        }
        if self.payload is not None:
            own["payload"] = {"B": self.payload}
        if self.suits is not None:
            own["suits"] = {"S": self.suits}
        return own


class PendingWriter:
    """Writes the pending commands of a request.

    A batch has no conditions, so it is sent once and never again: between two attempts a device may have answered
    the command, and the second would put it back. What a batch left over, every item of a request that is resumed,
    and every item with a dedup key is written on the condition that it was not answered.
    """

    def __init__(self, *, table: str, batch_client: "Callable[[], DynamoDBClient]") -> None:
        self._table = table
        self._batch_client = batch_client

    def write(
        self, command: Callable[[PendingItem], PendingCommand], items: Sequence[PendingItem], *, is_new: bool, now: int
    ) -> Iterator[tuple[str, PicoMDMError]]:
        """Write pending items; yield the enrollments of those that were not, and why.

        ``command`` makes an item whole. ``is_new``: nobody can have been given this command before. ``now`` (epoch
        seconds) ends what holds a dedup key's place.
        """
        if not items:
            return
        careful = list(items)
        first = command(items[0])
        if is_new and first.dedup_key is None:
            same = first.serialize()
            left = at_once(lambda batch: self._batch(batch, same), chunks(items, _BATCH_WRITE))
            careful = [item for some in left for item in some]
        for item, error in zip(careful, at_once(lambda item: _write_alone(command(item), now), careful), strict=True):
            if error:
                yield item.enrollment_id, error

    def _batch(self, items: Sequence[PendingItem], same: Mapping[str, Any]) -> list[PendingItem]:
        """Write up to 25 items in one attempt; return those that may not have been written."""
        requests: list[Any] = [{"PutRequest": {"Item": item.serialized(same)}} for item in items]
        try:
            answer = self._batch_client().batch_write_item(RequestItems={self._table: requests})
        except (BotoCoreError, ClientError) as error:
            logger.warning("Batch of pending commands failed", error=type(error).__name__, count=len(items))
            return list(items)
        left = {
            (request["PutRequest"]["Item"]["enrollment_id"]["S"], request["PutRequest"]["Item"]["item"]["S"])
            for request in answer.get("UnprocessedItems", {}).get(self._table, [])
        }
        return [item for item in items if (item.enrollment_id, item.item) in left]


def _write_alone(item: PendingCommand, now: int) -> PicoMDMError | None:
    writes: list[Write] = [
        Check(
            "result",
            CommandResult(item.enrollment_id, tables.RESULT + item.command_uuid),
            CommandResult.item.does_not_exist(),
        ),
        Put("pending", item, PendingCommand.item.does_not_exist()),
    ]
    if item.dedup_key:
        generation = item.item.split("#")[1]
        place = DedupKey(
            item.enrollment_id,
            dedup_key_item(generation, item.dedup_key),
            command_uuid=item.command_uuid,
            ttl=item.expires_at,
        )
        # A place whose command has expired is free, whether DynamoDB has deleted it by now or not.
        is_free = DedupKey.item.does_not_exist() | (DedupKey.ttl <= now) | (DedupKey.command_uuid == item.command_uuid)
        writes.append(Put("dedup", place, is_free))
    try:
        transact(writes)
    except ConditionsFailedError as failed:
        if "dedup" in failed.names:
            return ConflictError(
                f"A command with the dedup_key {item.dedup_key} waits for this enrollment already.",
                code="dedup_key_taken",
                field="dedup_key",
            )
        # It waits already, or was answered already: that is what was asked for.
    except UnavailableError as error:
        return error
    return None


def chunks(items: Sequence[_T], size: int) -> list[Sequence[_T]]:
    """Cut a list into pieces of at most ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]

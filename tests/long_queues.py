"""Queues as long as nobody's should be: put there item by item, past the service that would take minutes for it."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mdmlib import runtime
from mdmlib.store import tables
from mdmlib.store.command_queue import pending_key
from mdmlib.store.tables import PendingCommand
from tests.fleet import command

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_BATCH = 25
_FAR_AWAY = 4_102_444_800


def fill_queue(enrollment_id: str, size: int, *, client: "DynamoDBClient", prefix: str = "L") -> list[str]:
    """Let ``size`` commands wait behind whatever waits already; return their uuids, in their order.

    ``client`` writes them: one that no proxy slows down. Only the last one is known as a command too, as a report on it
    asks.
    """
    record = runtime.enrollments().get(enrollment_id)
    assert record is not None
    store = runtime.command_queue()
    uuids = [f"{prefix}{number:05}" for number in range(size)]

    def item(number: int) -> dict[str, Any]:
        queued = command(uuids[number])
        # "f" sorts behind every command of this time.
        key = pending_key(record.generation, f"4f{number:023x}")
        return PendingCommand(
            enrollment_id,
            key,
            command_uuid=queued.uuid,
            request_type=queued.request_type,
            payload=store.seal_pending(enrollment_id, key, queued.body),
            enqueued_at=0,
            waiting_shard=tables.shard_of(enrollment_id),
            expires_at=_FAR_AWAY,
            ttl=_FAR_AWAY,
        ).serialize()

    def write(start: int) -> None:
        requests: list[Any] = [
            {"PutRequest": {"Item": item(number)}} for number in range(start, min(start + _BATCH, size))
        ]
        client.batch_write_item(RequestItems={runtime.settings().enrollment_table: requests})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(0, size, _BATCH)))
    last = command(uuids[-1])
    store.create(
        last.uuid,
        tables.Command(
            request_type=last.request_type,
            body_hash=last.body_hash,
            order=f"4f{size - 1:023x}",
            created_at=0,
            expires_at=_FAR_AWAY,
            ttl=_FAR_AWAY,
        ),
        last.body,
    )
    return uuids

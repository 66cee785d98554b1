"""The command queue of an enrollment: one partition, one Query for what a connect needs."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pynamodb.exceptions import DoesNotExist, PutError

from mdmlib.apple.command import Command as QueuedCommand
from mdmlib.errors import ConflictError, NotFoundError
from mdmlib.store import tables
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.refusals import condition_failed
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import (
    Command,
    CommandResult,
    DedupKey,
    Enrollment,
    EnrollmentItem,
    PendingCommand,
)
from mdmlib.store.transactions import Delete, Write, change_existing, transact

FIRST_PAGE: Final = 3
"""The record, the command being answered, and the next one."""
PAGE: Final = 100
INLINE_PENDING_BYTES: Final = 4 * 1024
"""Payloads up to this size travel in each pending item; larger ones are read from the command's own item."""
INLINE_COMMAND_BYTES: Final = 350 * 1024
INLINE_RESULT_BYTES: Final = 16 * 1024
_END_OF_PENDING: Final = "d"
"""Ends the range before dedup keys, messages, results and secrets."""
_PENDING_CLASS: Final = "pending"
# Written out: pynamodb builds its expressions anew for each Query and filters by all classes, which costs a sixth more.
_FIRST_PAGE_QUERY: Final[dict[str, Any]] = {
    "KeyConditionExpression": "#id = :id AND #item < :end",
    "ExpressionAttributeNames": {"#id": "enrollment_id", "#item": "item"},
    "ConsistentRead": True,
    "Limit": FIRST_PAGE,
}
_DEFER: Final = "SET not_now_at = if_not_exists(not_now_at, :at) ADD not_now_tally :one"
NOT_SENT: Final = "NotSent"
"""The status of a command that was not sent: its device could not do it any more when it would have been given it."""
CONFIGURED: Final = "picomdm.configured"
"""The dedup key of the command that ends a device's wait in Setup Assistant, where it is queued by itself."""

RENEWAL_PROFILE: Final = "renewal_profile"
"""The kind of pending command whose payload is an enrollment profile, made when it is handed out."""
_CACHED_PAYLOADS_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class FirstPage:
    """What one strongly consistent Query brings of an enrollment."""

    record: Enrollment | None
    pending: tuple[PendingCommand, ...]
    """The first commands of the living generation, in order."""
    read_to: str
    """The last item that was read."""
    complete: bool
    """Whether ``pending`` is the whole queue."""


class CommandQueueStore:
    """Reads and writes of pending commands, commands and results."""

    def __init__(self, *, sealer: Sealer, payloads: PayloadStore) -> None:
        self._sealer = sealer
        self._payloads = payloads
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached_bytes = 0

    def first_page(self, enrollment_id: str) -> FirstPage:
        """Read the record and the first commands in one call."""
        answer = tables.dynamodb_client().query(
            TableName=str(EnrollmentItem.Meta.table_name),
            ExpressionAttributeValues={":id": {"S": enrollment_id}, ":end": {"S": _END_OF_PENDING}},
            **_FIRST_PAGE_QUERY,
        )
        raw = answer["Items"]
        if not raw or raw[0]["item"]["S"] != tables.RECORD:
            return FirstPage(None, (), read_to="", complete=True)
        record = Enrollment.from_raw_data(raw[0])
        living = f"{tables.PENDING}{record.generation}#"
        # A class that a later release put there must not fail this one; what is behind it is found by reading on.
        pending = tuple(
            PendingCommand.from_raw_data(item)
            for item in raw[1:]
            if item["item"]["S"].startswith(living) and item["cls"]["S"] == _PENDING_CLASS
        )
        read_to = raw[-1]["item"]["S"]
        complete = len(raw) < FIRST_PAGE or not read_to.startswith(living)
        return FirstPage(record, pending, read_to=read_to, complete=complete)

    def read_on(self, record: Enrollment, *, after: str) -> Iterator[PendingCommand]:
        """Yield the living commands behind the item ``after``, in pages of 100."""
        # "$" is the character after "#": the range ends with the generation.
        end = f"{tables.PENDING}{record.generation}$"
        for item in EnrollmentItem.query(
            record.enrollment_id,
            EnrollmentItem.item.between(after, end),
            consistent_read=True,
            page_size=PAGE,
        ):
            if isinstance(item, PendingCommand) and item.item > after:
                yield item

    def pending(self, record: Enrollment, order: str) -> PendingCommand:
        """Name the pending item that a command has in the record's living generation (it is not read)."""
        return PendingCommand(record.enrollment_id, pending_key(record.generation, order))

    def result_and_command(self, enrollment_id: str, command_uuid: str) -> tuple[CommandResult | None, Command | None]:
        """Return an earlier report's result and the command itself, in one call."""
        keys = [
            (enrollment_id, tables.RESULT + command_uuid),
            (tables.COMMAND_PARTITION + command_uuid, tables.RECORD),
        ]
        items = list(EnrollmentItem.batch_get(keys, consistent_read=True))
        result = next((item for item in items if isinstance(item, CommandResult)), None)
        command = next((item for item in items if isinstance(item, Command)), None)
        return result, command

    def results(self, enrollment_id: str, command_uuids: Iterable[str]) -> dict[str, CommandResult]:
        """Return the results that there are of commands, by uuid."""
        keys = [(enrollment_id, tables.RESULT + uuid) for uuid in command_uuids]
        items = EnrollmentItem.batch_get(keys, consistent_read=True) if keys else ()
        return {item.command_uuid: item for item in items if isinstance(item, CommandResult)}

    def payload(self, pending: PendingCommand) -> bytes | None:
        """Return the raw plist of a pending command, or None.

        There is none when its lifetime is over, and none yet of a command whose payload is made when it is handed out.
        """
        if pending.kind is not None:
            return None
        if pending.payload is not None:
            return self._sealer.open(pending.payload, place=f"{pending.enrollment_id}/{pending.item}")
        uuid = pending.command_uuid
        if (cached := self._cache.get(uuid)) is not None:
            self._cache.move_to_end(uuid)
            return cached
        partition = tables.COMMAND_PARTITION + uuid
        try:
            command = Command.get(partition, tables.RECORD, consistent_read=True)
        except DoesNotExist:
            return None
        payload = self._payload_of(command)
        self._remember(uuid, payload)
        return payload

    def defer(self, pending: PendingCommand, *, at: int) -> None:
        """Note that a device has answered NotNow (``at`` in epoch seconds), for the first time or again."""
        change_existing(pending, _DEFER, at=at, one=1)

    def drop(self, pending: PendingCommand) -> None:
        """Delete a pending command that is of no use any more, with the place that its dedup key holds."""
        writes: list[Write] = [Delete("pending", pending), *place_of(pending)]
        transact(writes)

    def seal_pending(self, enrollment_id: str, item: str, payload: bytes) -> bytes:
        """Seal a payload for the pending item that it travels in."""
        return self._sealer.seal(payload, place=f"{enrollment_id}/{item}")

    def create(self, uuid: str, command: Command, payload: bytes) -> tuple[Command, bool]:
        """Create a command, its ``payload`` sealed; return it and whether it is new.

        The same uuid with the same body is the same request again: the stored command is returned. With another body
        it is a :class:`~mdmlib.errors.ConflictError`.
        """
        command.enrollment_id, command.item = tables.COMMAND_PARTITION + uuid, tables.RECORD
        if len(payload) <= INLINE_COMMAND_BYTES:
            command.payload = self._sealer.seal(payload, place=f"{command.enrollment_id}/{command.item}")
        else:
            # Named by its content: another body under the same uuid must not overwrite what is queued already.
            command.payload_ref = self._payloads.put(f"commands/{uuid}/{command.body_hash}", payload)
        try:
            command.save(condition=Command.item.does_not_exist())
        except PutError as error:
            if not condition_failed(error):
                raise
            stored = Command.get(command.enrollment_id, tables.RECORD, consistent_read=True)
            if stored.body_hash != command.body_hash:
                raise ConflictError(
                    f"A command with the CommandUUID {uuid} exists already and has another body; "
                    "leave the CommandUUID away to have a new one made.",
                    code="duplicate_command_uuid",
                    field="command_uuid",
                ) from error
            return stored, False
        return command, True

    def load(self, uuid: str) -> tuple[QueuedCommand, Command]:
        """Return a command that was created, and its item. Raises :class:`~mdmlib.errors.NotFoundError`."""
        try:
            stored = Command.get(tables.COMMAND_PARTITION + uuid, tables.RECORD, consistent_read=True)
        except DoesNotExist as error:
            raise NotFoundError(f"The command {uuid} is not kept any more.", code="unknown_command") from error
        return QueuedCommand(uuid, stored.request_type, self._payload_of(stored)), stored

    def _payload_of(self, command: Command) -> bytes:
        if command.payload is not None:
            return self._sealer.open(command.payload, place=f"{command.enrollment_id}/{tables.RECORD}")
        return self._payloads.get(command.payload_ref)

    def result(self, enrollment_id: str, command_uuid: str, report: bytes) -> CommandResult:
        """Make a result item (not written yet) that holds the whole report; a large one is put into S3 now."""
        item = tables.RESULT + command_uuid
        result = CommandResult(enrollment_id, item, command_uuid=command_uuid)
        if len(report) <= INLINE_RESULT_BYTES:
            result.payload = self._sealer.seal(report, place=f"{enrollment_id}/{item}")
        else:
            result.payload_ref = self._payloads.put(f"results/{enrollment_id}/{command_uuid}", report)
        return result

    def report(self, result: CommandResult) -> bytes | None:
        """Return the whole report that a result holds; None of one that no device has reported."""
        if result.status == NOT_SENT:
            return None
        if result.payload is not None:
            return self._sealer.open(result.payload, place=f"{result.enrollment_id}/{result.item}")
        return self._payloads.get(result.payload_ref)

    def _remember(self, uuid: str, payload: bytes) -> None:
        if len(payload) > _CACHED_PAYLOADS_BYTES // 4:
            return
        self._cache[uuid] = payload
        self._cached_bytes += len(payload)
        while self._cached_bytes > _CACHED_PAYLOADS_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= len(dropped)


def place_of(pending: PendingCommand) -> list[Delete]:
    """Return the write that frees the place of a pending command's dedup key, if it has one."""
    if pending.dedup_key is None:
        return []
    generation = pending.item.split("#")[1]
    return [Delete("dedup", DedupKey(pending.enrollment_id, dedup_key_item(generation, pending.dedup_key)))]


def dedup_key_item(generation: str, dedup_key: str) -> str:
    """Return the key of the item that holds a dedup key's place: ``d#<generation>#<dedup key>``."""
    return f"{tables.DEDUP}{generation}#{dedup_key}"


def renewal_dedup_key(identity: str) -> str:
    """Return the dedup key of the command that renews an identity (its SHA-256, hex)."""
    return f"renewal-{identity}"


def pending_key(generation: str, order: str) -> str:
    """Return the key of a pending item: ``c#<generation>#<priority><order>``."""
    return f"{tables.PENDING}{generation}#{order}"

"""The push queue: who shall be woken, on its way from whoever queued a command to ``functions/push``.

An SQS message wakes up to 100 enrollments of one topic::

    {"v": 1, "topic": "com.apple.mgmt…", "attempt": 0, "sealed": "<base64>", "not_before"?, "refused_since"?}

``sealed`` (place ``push#<topic>``) is a JSON list of ``{"id", "token", "magic", "apns_id", "expiration"?}``, so the
worker reads no table, and neither the queue nor its dead-letter queue holds a push token in clear. ``attempt`` counts
the times that these pushes failed for a passing reason; ``refused_since`` (epoch seconds) says since when they have
waited for another push certificate, and before ``not_before`` APNs does not want to see them.
"""

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import MalformedBodyError
from mdmlib.observability import logger

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

    from mdmlib.store.sealing import Sealer

MAX_TARGETS: Final = 100
"""Targets of one message."""

MAX_TOKEN_BYTES: Final = 256
MAX_MAGIC_BYTES: Final = 512
"""A device chooses both (real ones have 32 and 36). Escaped in JSON a byte can become six, and APNs takes 4,096."""

MAX_DELAY_SECONDS: Final = 900
"""The longest delay that SQS knows."""

_BATCH_ENTRIES: Final = 10
_BATCH_BYTES: Final = 240_000
# Half of a batch, so that one message always fits, also after base64.
_MESSAGE_PLAINTEXT_BYTES: Final = 80_000


@dataclass(frozen=True, slots=True)
class PushTarget:
    """One enrollment to wake.

    ``token`` is hex, as in the enrollment's record; ``apns_id`` a UUID, made by whoever asks for the push because
    that is what its caller is told. ``expiration`` (epoch seconds) is for how long APNs keeps trying; None: the
    worker's default.
    """

    enrollment_id: str
    topic: str
    token: str = field(repr=False)
    magic: str = field(repr=False)
    apns_id: str
    expiration: int | None = None


@dataclass(frozen=True, kw_only=True)
class PushMessage:
    """What one SQS message says; all targets have its topic."""

    topic: str
    targets: Sequence[PushTarget]
    attempt: int = 0
    not_before: int | None = None
    refused_since: int | None = None

    def encode(self, sealer: "Sealer") -> str:
        """Return the message's body."""
        targets = json.dumps([_target_document(target) for target in self.targets], separators=(",", ":"))
        sealed = sealer.seal(targets.encode(), place=f"push#{self.topic}")
        document = {"v": 1, "topic": self.topic, "attempt": self.attempt, "sealed": b64encode(sealed).decode()}
        times = {"not_before": self.not_before, "refused_since": self.refused_since}
        document |= {name: time for name, time in times.items() if time is not None}
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def decode(cls, body: str, sealer: "Sealer") -> Self:
        """Read a message's body.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for what never was one, and
        :class:`~mdmlib.errors.UnavailableError` when it cannot be opened.
        """
        try:
            document = json.loads(body)
            version, topic, attempt = document["v"], str(document["topic"]), int(document["attempt"])
            if version != 1:
                raise MalformedBodyError(f"A message of the push queue has version {version!r}, unknown here.")
            sealed = b64decode(document["sealed"], validate=True)
            targets = json.loads(sealer.open(sealed, place=f"push#{topic}"))
            return cls(
                topic=topic,
                targets=tuple(_target(topic, target) for target in targets),
                attempt=attempt,
                not_before=_seconds(document.get("not_before")),
                refused_since=_seconds(document.get("refused_since")),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise MalformedBodyError("A message of the push queue is malformed.") from error


class PushQueue:
    """Where pushes are put; :class:`mdmlib.services.push.PushService` sends them."""

    def __init__(self, client: "Callable[[], SQSClient]", *, queue_url: str, sealer: "Sealer") -> None:
        self._client = client
        self._queue_url = queue_url
        self._sealer = sealer

    def send(self, targets: Sequence[PushTarget]) -> dict[str, str | None]:
        """Queue a push for each target; return what went wrong, or None, by enrollment id.

        Nothing is raised when SQS cannot be reached: the commands that the pushes announce are queued already, and
        the caller reports the failure beside them.
        """
        errors = {target.enrollment_id: _unusable(target) for target in targets}
        by_topic: dict[str, list[PushTarget]] = defaultdict(list)
        for target in targets:
            if errors[target.enrollment_id] is None:
                by_topic[target.topic].append(target)
        messages = [
            PushMessage(topic=topic, targets=chunk) for topic, group in by_topic.items() for chunk in _chunks(group)
        ]
        for message in self._send(messages, delay_seconds=0):
            for target in message.targets:
                errors[target.enrollment_id] = "the push could not be queued"
        return errors

    def send_again(
        self,
        topic: str,
        targets: Sequence[PushTarget],
        *,
        attempt: int,
        delay_seconds: int,
        not_before: int | None = None,
        refused_since: int | None = None,
    ) -> bool:
        """Queue targets whose push failed, to be tried after ``delay_seconds`` (SQS knows no more than 900).

        Return whether all of them were queued: if not, the message that they came in must stay.
        """
        messages = [
            PushMessage(topic=topic, targets=chunk, attempt=attempt, not_before=not_before, refused_since=refused_since)
            for chunk in _chunks(targets)
        ]
        return not self._send(messages, delay_seconds=min(delay_seconds, MAX_DELAY_SECONDS))

    def _send(self, messages: Sequence[PushMessage], *, delay_seconds: int) -> list[PushMessage]:
        """Send the messages; return those that could not be sent."""
        failed = []
        for batch in _batches((message, message.encode(self._sealer)) for message in messages):
            entries: list[SendMessageBatchRequestEntryTypeDef] = [
                {"Id": str(index), "MessageBody": body, "DelaySeconds": delay_seconds}
                for index, (_, body) in enumerate(batch)
            ]
            try:
                response = self._client().send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                logger.error("Pushes not queued", error=type(error).__name__, messages=len(batch))
                failed += [message for message, _ in batch]
            else:
                failed += [batch[int(entry["Id"])][0] for entry in response.get("Failed", ())]
        return failed


def _unusable(target: PushTarget) -> str | None:
    """Return why the target's push data could not be pushed to, or None. APNs judges what is left."""
    try:
        token = bytes.fromhex(target.token)
    except ValueError:
        return "the push token is not hexadecimal"
    if not 0 < len(token) <= MAX_TOKEN_BYTES:
        return "the push token has an impossible length"
    if not 0 < len(target.magic.encode("utf-8", "surrogatepass")) <= MAX_MAGIC_BYTES:
        return "the push magic has an impossible length"
    return None


def _seconds(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _target_document(target: PushTarget) -> dict[str, str | int]:
    document: dict[str, str | int] = {
        "id": target.enrollment_id,
        "token": target.token,
        "magic": target.magic,
        "apns_id": target.apns_id,
    }
    if target.expiration is not None:
        document["expiration"] = target.expiration
    return document


def _target(topic: str, document: dict[str, Any]) -> PushTarget:
    return PushTarget(
        document["id"], topic, document["token"], document["magic"], document["apns_id"], document.get("expiration")
    )


def _chunks(targets: Iterable[PushTarget]) -> Iterator[list[PushTarget]]:
    """Split targets into messages of at most 100, fewer when their ids and tokens are long."""
    chunk: list[PushTarget] = []
    size = 0
    for target in targets:
        length = len(json.dumps(_target_document(target)))
        if chunk and (len(chunk) == MAX_TARGETS or size + length > _MESSAGE_PLAINTEXT_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(target)
        size += length
    if chunk:
        yield chunk


def _batches(messages: Iterable[tuple[PushMessage, str]]) -> Iterator[list[tuple[PushMessage, str]]]:
    """Group messages into calls of SendMessageBatch: 10 entries, 256 KiB in all."""
    batch: list[tuple[PushMessage, str]] = []
    size = 0
    for message, body in messages:
        if batch and (len(batch) == _BATCH_ENTRIES or size + len(body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((message, body))
        size += len(body)
    if batch:
        yield batch

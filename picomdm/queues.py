"""``picomdm queues``, ``picomdm redrive``: messages that could not be worked off, and another try for them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError

from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import refused_by_aws
from picomdm.errors import RefusedError

_BATCH: Final = 10
_BATCH_BYTES: Final = 240_000
_HELD_SECONDS: Final = 60
"""For how long a message that is being moved is hidden from others."""


_LONG_SECONDS: Final = 1_800
"""The same, where all others have to be looked through."""

_NOTHING_TO_DO: Final = ""


@dataclass(frozen=True)
class Moved:
    """How many messages are tried again, were dropped because there is nothing to do about them, and stay."""

    moved: int = 0
    dropped: int = 0
    left: int = 0

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(self.moved + other.moved, self.dropped + other.dropped, self.left + other.left)


@dataclass(frozen=True)
class Queue:
    """A dead-letter queue, and the queue that its messages go back to; names of the stack's outputs."""

    dead_letters: str
    back_to: str
    what: str


QUEUES: Final = {
    "push": Queue("PushDeadLetterQueueUrl", "PushQueueUrl", "pushes"),
    "webhook": Queue("WebhookDeadLetterQueueUrl", "WebhookQueueUrl", "deliveries to webhooks"),
    "sweep": Queue("SweepDeadLetterQueueUrl", "SweepQueueUrl", "clearing of old queues"),
    "workflow": Queue("WorkflowDeadLetterQueueUrl", "WorkflowQueueUrl", "plans of devices"),
    "events": Queue("EventFallbackDeadLetterQueueUrl", "EventFallbackQueueUrl", "events that the bus did not take"),
    "targets": Queue("TargetDeadLetterQueueUrl", "WebhookQueueUrl", "events that the bus could not deliver"),
}

_WEBHOOK_RULE: Final = re.compile(r".*-webhook-([0-9a-z]+)")
_WORKFLOW_RULE: Final = re.compile(r".*-workflow-(enrolled|checkins|idle|report|not-sent)")


def list_queues(context: typer.Context, *, _json: JSON = False) -> None:
    """Count the messages that wait, and those that were given up."""
    operator = operator_of(context)
    terminal = operator.terminal
    with terminal.progress("Counting …"):
        counts = count_messages(operator)
    terminal.answer(
        {"queues": counts},
        lambda: terminal.table(
            ("QUEUE", "WAITING", "GIVEN UP", "WHAT"),
            [(entry["name"], entry["waiting"], entry["given_up"], entry["what"]) for entry in counts],
            empty="No queues.",
        ),
    )


def redrive(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="QUEUE", help=f"One of: {', '.join(QUEUES)}.")],
    _json: JSON = False,
) -> None:
    """Give the messages of a dead-letter queue another try.

    Each is put back before it is deleted here: broken off, a message may be worked off twice, and none is lost.
    """
    operator = operator_of(context)
    terminal = operator.terminal
    if name not in QUEUES:
        raise typer.BadParameter(f"{name!r} is no queue; there are: {', '.join(QUEUES)}.")
    with terminal.progress("Moving messages …") as tell:
        total = move_back(operator, name, tell=tell)

    def show() -> None:
        terminal.say(f"{total.moved} tried again.")
        if total.dropped:
            terminal.say(f"{total.dropped} dropped: schedules that failed, whose work the next ones did.")
        if total.left:
            terminal.say(f"[yellow]{total.left} left: SQS did not take them, or they are none of ours.[/yellow]")

    terminal.answer({"queue": name, **asdict(total)}, show)
    if total.left:
        raise typer.Exit(1)


def move_back(operator: Operator, name: str, *, tell: Callable[[str], None], subscription: str | None = None) -> Moved:
    """Put the messages of a dead-letter queue back into their queue, or only those of one webhook.

    Messages of others are hidden meanwhile, and visible again at the end.
    """
    queue = QUEUES[name]
    sqs = operator.deployment.client("sqs")
    source, target = operator.deployment.output(queue.dead_letters), operator.deployment.output(queue.back_to)
    plans = operator.deployment.output(QUEUES["workflow"].back_to) if name == "targets" else target
    rewrite = _as_target_message if name == "targets" else _as_it_is
    total, hidden = Moved(), list[str]()
    try:
        # Not all that ever comes: what fails again at once would go round for ever.
        most = _count(sqs, source)
        for batch in _receive(sqs, source, most, hide_seconds=_HELD_SECONDS if subscription is None else _LONG_SECONDS):
            mine = [one for one in batch if subscription is None or _subscription_of(rewrite(one)) == subscription]
            hidden += [one["ReceiptHandle"] for one in batch if one not in mine]
            of_plans = [one for one in mine if name == "targets" and _WORKFLOW_RULE.fullmatch(_rule(one))]
            total += _move(sqs, [one for one in mine if one not in of_plans], source, target, rewrite)
            total += _move(sqs, of_plans, source, plans, rewrite)
            tell(f"Moved {total.moved} of {most} messages …")
        for start in range(0, len(hidden), _BATCH):
            sqs.change_message_visibility_batch(
                QueueUrl=source,
                Entries=[
                    {"Id": str(index), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                    for index, handle in enumerate(hidden[start : start + _BATCH])
                ],
            )
    except ClientError as error:
        raise refused_by_aws(error) from error
    return total


def count_messages(operator: Operator) -> list[dict[str, Any]]:
    """Return how many messages wait and how many were given up, for each queue."""
    sqs = operator.deployment.client("sqs")
    try:
        return [
            {
                "name": name,
                "what": queue.what,
                "waiting": None if name == "targets" else _count(sqs, operator.deployment.output(queue.back_to)),
                "given_up": _count(sqs, operator.deployment.output(queue.dead_letters)),
            }
            for name, queue in QUEUES.items()
        ]
    except ClientError as error:
        raise refused_by_aws(error) from error


def _count(sqs: Any, url: str) -> int:  # noqa: ANN401 - a client of botocore
    name = "ApproximateNumberOfMessages"
    return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def _receive(
    sqs: Any,  # noqa: ANN401 - a client of botocore
    url: str,
    most: int,
    *,
    hide_seconds: int,
) -> Iterator[list[dict[str, Any]]]:
    received = 0
    while received < most:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=min(_BATCH, most - received),
            VisibilityTimeout=hide_seconds,
            # A long poll asks all of the queue's servers: an empty answer then means that it is empty.
            WaitTimeSeconds=2,
            MessageAttributeNames=["All"],
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        if not messages:
            return
        received += len(messages)
        yield messages


def _move(
    sqs: Any,  # noqa: ANN401 - a client of botocore
    batch: list[dict[str, Any]],
    source: str,
    target: str,
    rewrite: Callable[[dict[str, Any]], str | None],
) -> Moved:
    """Send a batch to ``target``, then delete from ``source`` what was taken and what there is nothing to do about."""
    bodies = [(message, rewrite(message)) for message in batch]
    taken = []
    for group in _of_one_call([(message, body) for message, body in bodies if body]):
        answer = sqs.send_message_batch(
            QueueUrl=target,
            Entries=[{"Id": str(index), "MessageBody": body} for index, (_, body) in enumerate(group)],
        )
        taken += [group[int(entry["Id"])][0] for entry in answer.get("Successful", ())]
    spent = [message for message, body in bodies if body == _NOTHING_TO_DO]
    if gone := taken + spent:
        answer = sqs.delete_message_batch(
            QueueUrl=source,
            Entries=[
                {"Id": str(index), "ReceiptHandle": message["ReceiptHandle"]} for index, message in enumerate(gone)
            ],
        )
        if answer.get("Failed"):
            raise RefusedError("SQS does not delete messages that were moved: they are worked off twice.")
    return Moved(len(taken), len(spent), len(batch) - len(gone))


def _of_one_call(messages: list[tuple[dict[str, Any], str]]) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """Group messages such that each group fits into one call of SQS."""
    group: list[tuple[dict[str, Any], str]] = []
    size = 0
    for message, body in messages:
        length = len(body.encode())
        if group and size + length > _BATCH_BYTES:
            yield group
            group, size = [], 0
        group.append((message, body))
        size += length
    if group:
        yield group


def _subscription_of(body: str | None) -> str | None:
    """Return the webhook that a message of the webhook queue is for, or None for what is none."""
    try:
        document = json.loads(body or "")
    except ValueError:
        return None
    return document.get("subscription") if isinstance(document, dict) else None


def _as_it_is(message: dict[str, Any]) -> str | None:
    return str(message["Body"])


def _rule(message: dict[str, Any]) -> str:
    """Return the ARN of the rule that EventBridge could not follow."""
    return str(message.get("MessageAttributes", {}).get("RULE_ARN", {}).get("StringValue", ""))


def _as_target_message(message: dict[str, Any]) -> str | None:
    """Return what a rule would have put into its queue, or None for what is unknown.

    EventBridge keeps the event as it was before the rule's transformer. About a schedule that failed there is nothing
    to do: the next one did its work.
    """
    try:
        event = json.loads(message["Body"])
    except ValueError:
        event = None
    if not isinstance(event, dict):
        return None
    if workflow := _WORKFLOW_RULE.fullmatch(_rule(message)):
        return _for_plans(workflow[1], event)
    if event.get("detail-type") == "Scheduled Event" or "task" in event or "requestPayload" in event:
        return _NOTHING_TO_DO
    subscription = _WEBHOOK_RULE.fullmatch(_rule(message))
    if subscription is not None and "subscription" in event:
        return str(message["Body"])
    if subscription is not None and "detail" in event:
        return json.dumps({"subscription": subscription[1], "event": event["detail"]})
    return None


def _for_plans(rule: str, event: dict[str, Any]) -> str | None:
    """Return what one of the rules that move plans makes of an event."""
    message: dict[str, Any] | None = None
    match rule, event.get("detail"):
        case _ if "task" in event:
            message = event
        case "enrolled", {"event_id": event_id, "checkin_event": {"ids": {"id": id_}}}:
            message = {"task": "enrolled", "enrollment_id": id_, "event_id": event_id}
        case "checkins", {"topic": topic, "event_id": event_id, "checkin_event": {"ids": {"id": id_}}}:
            message = {"task": "checkin", "topic": topic, "enrollment_id": id_, "event_id": event_id}
        case "idle", {"event_id": event_id, "acknowledge_event": {"ids": {"id": id_}}}:
            message = {"task": "idle", "enrollment_id": id_, "event_id": event_id}
        case "report", {"acknowledge_event": {"command_uuid": uuid, "ids": {"id": id_}}}:
            message = {"task": "result", "enrollment_id": id_, "command_uuid": uuid}
        case "not-sent", {"command_event": {"command_uuid": uuid, "enrollment_ids": [id_, *_]}}:
            message = {"task": "result", "enrollment_id": id_, "command_uuid": uuid}
    return json.dumps(message) if message else None

"""``picomdm events tail``: the event bus as it is now.

A rule and a queue, both named ``<stack>-tail-…``, are there while it runs. What is left of one that was killed,
``picomdm destroy`` removes.
"""

import json
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Annotated, Any, Final

import typer
from botocore.exceptions import ClientError

from picomdm.context import JSON, Operator, operator_of
from picomdm.deployment import refused_by_aws

app: Final = typer.Typer(help="Look at what happens.", no_args_is_help=True)

_TARGET: Final = "tail"
_KEPT_SECONDS: Final = 300
"""SQS keeps events for so long: what nobody fetches is nobody's."""


def tail_prefix(stack: str) -> str:
    """Return how the names of the rules and queues begin."""
    return f"{stack}-tail-"


@app.command()
def tail(
    context: typer.Context,
    *,
    topics: Annotated[
        list[str] | None, typer.Option("--topic", help="Only events of this topic, or mdm.*; may be repeated.")
    ] = None,
    most: Annotated[int, typer.Option("--count", min=0, help="End after so many events; 0: never.")] = 0,
    _json: JSON = False,
) -> None:
    """Show events as they come, until Ctrl-C. With --json each is a line, as it is on the bus."""
    operator = operator_of(context)
    terminal = operator.terminal
    seen = 0
    try:
        with _ends_in_order(), _watched(operator, _pattern(topics or [])) as receive:
            terminal.note("[dim]Waiting for events; Ctrl-C ends it.[/dim]")
            for event in receive():
                if terminal.as_json:
                    sys.stdout.write(json.dumps(event["detail"]) + "\n")
                    sys.stdout.flush()
                else:
                    terminal.plain(_line(event["detail"]))
                seen += 1
                if seen == most:
                    return
    except KeyboardInterrupt:
        return
    except ClientError as error:
        raise refused_by_aws(error) from error


@contextmanager
def _ends_in_order() -> Iterator[None]:
    """Have SIGTERM end the command as Ctrl-C does: with everything removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _watched(operator: Operator, pattern: dict[str, Any]) -> Iterator[Callable[[], Iterator[dict[str, Any]]]]:
    """Make the rule and the queue, and give what yields their events; remove both in the end, whatever happened."""
    deployment = operator.deployment
    sqs, events, bus = deployment.client("sqs"), deployment.client("events"), deployment.output("EventBusName")
    name = f"{tail_prefix(deployment.stack)}{secrets.token_hex(4)}"
    with ExitStack() as made:
        url = sqs.create_queue(
            QueueName=name,
            Attributes={"MessageRetentionPeriod": str(_KEPT_SECONDS), "SqsManagedSseEnabled": "true"},
        )["QueueUrl"]
        made.callback(sqs.delete_queue, QueueUrl=url)
        queue = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        rule = events.put_rule(
            Name=name, EventBusName=bus, EventPattern=json.dumps(pattern), Description="picomdm events tail"
        )["RuleArn"]
        made.callback(events.delete_rule, Name=name, EventBusName=bus)
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": _TARGET, "Arn": queue}])
        made.callback(events.remove_targets, Rule=name, EventBusName=bus, Ids=[_TARGET])
        yield lambda: _received(sqs, url)


def _received(sqs: Any, url: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - a client of botocore
    while True:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        for message in answer.get("Messages", ()):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield json.loads(message["Body"])


def _pattern(topics: list[str]) -> dict[str, Any]:
    pattern: dict[str, Any] = {"source": [{"prefix": "picomdm."}]}
    if topics:
        pattern["detail-type"] = [{"prefix": topic[:-1]} if topic.endswith("*") else topic for topic in topics]
    return pattern


def _line(detail: dict[str, Any]) -> str:
    """Return one line about an event: when, what, who, and what about."""
    part: dict[str, Any] = next((value for value in detail.values() if isinstance(value, dict)), {})
    who = part.get("ids", {}).get("id") or ", ".join(part.get("enrollment_ids", [])[:3]) or part.get("webhook_id", "-")
    about = [part[name] for name in ("request_type", "status", "reason", "command_uuid") if name in part]
    return "  ".join([detail["created_at"], detail["topic"], who, *map(str, about)])

"""EventBridge schedules and two queues: what others leave to be done later."""

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import queue_edge, runtime
from mdmlib.observability import logger


def receive(record: SQSRecord) -> None:
    """Sweep an enrollment's partition, or publish an event from the fallback queue."""
    runtime.housekeeping().receive(record.event_source_arn, record.body)


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse | None:
    """Answer SQS with the messages that have to stay; a schedule gets no answer."""
    if "Records" in event:
        return queue_edge.process(event, context, receive, seconds_each=30)
    runtime.housekeeping().run(event.get("task"))
    return None

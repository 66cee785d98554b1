"""SQS, fed by rules of the event bus: brings devices to what their plans say, step by step."""

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import queue_edge, runtime
from mdmlib.observability import logger


def receive(record: SQSRecord) -> None:
    """Move a plan on, or begin some."""
    runtime.workflow().receive(record.body)


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Answer SQS with the messages that have to stay."""
    return queue_edge.process(event, context, receive, seconds_each=30)

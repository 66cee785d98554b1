"""SQS, fed by rules of the event bus: posts events to customers' webhooks."""

from typing import Any

from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import queue_edge, runtime
from mdmlib.observability import logger
from mdmlib.services.webhook_message import WebhookMessage


def receive(record: SQSRecord) -> None:
    """Deliver one message, or have it come back."""
    message = WebhookMessage.decode(
        record.body,
        receipt_handle=record.receipt_handle,
        receive_count=int(record.attributes.approximate_receive_count),
        sent_at=int(record.attributes.sent_timestamp) // 1000,
    )
    runtime.webhook_delivery().receive(message)


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Answer SQS with the messages that have to stay."""
    return queue_edge.process(event, context, receive, seconds_each=40)

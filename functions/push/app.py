"""SQS -> APNs: wakes devices."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from mdmlib import runtime
from mdmlib.observability import logger


@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Push what a batch of messages says; those that must come again are its failures."""
    stay = runtime.push_service().deliver({record["messageId"]: record["body"] for record in event["Records"]})
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in stay]}

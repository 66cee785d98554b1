"""Why DynamoDB did not write: what an exception of pynamodb's has behind it."""

from typing import Final

from pynamodb.exceptions import PynamoDBException

_CONDITION_FAILED: Final = "ConditionalCheckFailedException"


def code_of(error: PynamoDBException) -> str | None:
    """Return DynamoDB's code of an error, or None: nothing came back from DynamoDB.

    pynamodb's own ``cause_response_code`` fails when the connection broke: botocore's errors of that kind have a
    response, which is None.
    """
    response = getattr(error.cause, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def condition_failed(error: PynamoDBException) -> bool:
    """Say whether a write was refused for its condition; anything else went wrong otherwise."""
    return code_of(error) == _CONDITION_FAILED

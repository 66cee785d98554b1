"""How long DynamoDB is asked for what it does not process: a few times, with pauses between."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from botocore.exceptions import ClientError

_PAUSES: Final = (0.05, 0.1, 0.2)
"""Seconds, before each further attempt; half of each is random. A device waits meanwhile."""

_K = TypeVar("_K")
_R = TypeVar("_R")


def until_some_are_processed(
    ask: Callable[[list[_K]], tuple[_R, list[_K] | None]],
    keys: list[_K],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[_R, list[_K] | None]:
    """Return the first answer to a batch that leaves out less than all of it, and the keys that it leaves out.

    Raises ``ClientError`` with the code that DynamoDB itself gives, as a rule, when it has no capacity for any.
    """
    for pause in (*_PAUSES, None):
        answer, left = ask(keys)
        if not left or len(left) < len(keys):
            return answer, left
        if pause is not None:
            sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - spreads, and protects nothing
    raise ClientError(
        {"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "No key of a batch was processed."}},
        "BatchGetItem",
    )

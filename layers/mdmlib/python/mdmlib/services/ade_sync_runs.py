"""Asks for runs of ``functions/dep_sync``: whoever wants a server's list read does not wait for it."""

import json
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_lambda import LambdaClient


class AdeSyncRuns:
    """Invokes the function. Lambda keeps an invocation until it can be made, and tells of one that failed."""

    def __init__(self, client: "Callable[[], LambdaClient]", *, function: str) -> None:
        self._client = client
        self._function = function

    def request(self, server: str) -> None:
        """Have a server's list read by an invocation of its own.

        Raises :class:`~mdmlib.errors.UnavailableError`.
        """
        payload = json.dumps({"server": server}).encode()
        try:
            self._client().invoke(FunctionName=self._function, InvocationType="Event", Payload=payload)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("Lambda takes no invocation of dep_sync.", code="dep_sync_unavailable") from error

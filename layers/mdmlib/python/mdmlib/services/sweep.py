"""Sweeps: what a new generation left behind is deleted later, by ``functions/housekeeping``."""

import json
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.observability import logger

COMMAND_JOB: Final = "command_job"
"""The task of those messages of the same queue that ask for a page of a job (:mod:`mdmlib.services.command_jobs`)."""

PUSH_JOB: Final = "push_job"
"""The task of those that ask for a part of one that wakes many (:mod:`mdmlib.services.push_jobs`)."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_sqs import SQSClient


class SweepQueue:
    """Asks for sweeps: ``{"enrollment_id": …, "generation": <the living one>}``."""

    def __init__(self, client: "Callable[[], SQSClient]", *, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    def request(self, enrollment_id: str, generation: str) -> None:
        """Ask for the pending commands of older generations than ``generation`` to be deleted.

        Never raises for SQS's fault: a command of another generation does not exist for anybody, so what is not swept
        only takes room until its time to live is over.
        """
        body = json.dumps({"enrollment_id": enrollment_id, "generation": generation})
        try:
            self._client().send_message(QueueUrl=self._queue_url, MessageBody=body)
        except (BotoCoreError, ClientError) as error:
            logger.warning("Sweep not queued", enrollment_id=enrollment_id, error=type(error).__name__)

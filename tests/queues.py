"""An SQS event source in one process: messages of an emulated queue become the events that a function gets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local.emulator import ACCOUNT, REGION, Emulator


class FunctionContext:
    """What Lambda tells a function of its invocation."""

    function_name = "function"
    memory_limit_in_mb = 512
    invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:function"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def __init__(self, *, seconds: float = 120) -> None:
        self.seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


@dataclass(frozen=True)
class Batch:
    """What became of one batch: the bodies of the messages that are done with, and of those that stayed."""

    done: list[str]
    stayed: list[str]


class QueueSource:
    """Brings a queue's messages to a function, and deletes those that it does not report as failed."""

    def __init__(self, emulator: Emulator, url: str, handler: Callable[[dict[str, Any], Any], Any]) -> None:
        self._sqs = emulator.sqs
        self._url = url
        self._handler = handler
        self._handles: dict[str, str] = {}

    def send(self, body: str) -> None:
        """Put a message into the queue."""
        self._sqs.send_message(QueueUrl=self._url, MessageBody=body)

    def invoke(self, *, seconds: float = 120) -> Batch:
        """Bring what is visible, at most 10 messages, to the function in one invocation that has ``seconds``."""
        answer = self._sqs.receive_message(
            QueueUrl=self._url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )
        messages = answer.get("Messages", [])
        if not messages:
            return Batch([], [])
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._url.rsplit('/', 1)[1]}"
        records = [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {},
                "md5OfBody": message["MD5OfBody"],
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "awsRegion": REGION,
            }
            for message in messages
        ]
        answered = self._handler({"Records": records}, FunctionContext(seconds=seconds))
        failed = {failure["itemIdentifier"] for failure in answered["batchItemFailures"]}
        done, stayed = [], []
        for message in messages:
            if message["MessageId"] in failed:
                stayed.append(message["Body"])
                self._handles[message["MessageId"]] = message["ReceiptHandle"]
            else:
                done.append(message["Body"])
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return Batch(done, stayed)

    def let_return(self) -> None:
        """Make what stayed visible now instead of later."""
        for handle in self._handles.values():
            self._sqs.change_message_visibility(QueueUrl=self._url, ReceiptHandle=handle, VisibilityTimeout=0)
        self._handles.clear()

    def count(self, kind: str = "") -> int:
        """Count the visible messages, or the ``NotVisible`` or ``Delayed`` ones."""
        name: Any = f"ApproximateNumberOfMessages{kind}"
        answer = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
        return int(answer["Attributes"][name])

"""The queue edge: a batch of SQS messages on one side, a service that takes one message on the other."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from mdmlib.errors import PicoMDMError, UnavailableError
from mdmlib.metrics import count_if_throttled
from mdmlib.observability import log_unforeseen, logger

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext


class _Batch(BatchProcessor):
    """Goes on with the next message when one fails, and logs why it did."""

    def __init__(self) -> None:
        # A batch of which every message fails is no more an error of the function than one of which some do.
        super().__init__(event_type=EventType.SQS, raise_on_entire_batch_failure=False)

    def failure_handler(self, record: SQSRecord, exception: Any) -> Any:  # noqa: ANN401 - as powertools types it
        error = exception[1]
        queue = record.queue_url.rsplit("/", 1)[-1]
        if isinstance(error, PicoMDMError):
            logger.warning("Message stays in its queue", queue=queue, code=error.code, reason=error.message)
        else:
            log_unforeseen("Message stays in its queue", error)
        count_if_throttled(error)
        return super().failure_handler(record, exception)


def process(
    event: dict[str, Any],
    context: "LambdaContext",
    receive: Callable[[SQSRecord], None],
    *,
    seconds_each: int,
) -> "PartialItemFailureResponse":
    """Give each message to ``receive``; those for which it raises stay in their queue, the others are done with.

    ``seconds_each`` is the longest that one takes. None is begun when less is left: a function that is cut off would
    have the whole batch come again, with those that were done.
    """

    def receive_in_time(record: SQSRecord) -> None:
        if context.get_remaining_time_in_millis() < seconds_each * 1000:
            raise UnavailableError("The messages before this one took too long.", code="no_time_left")
        receive(record)

    return process_partial_response(event=event, record_handler=receive_in_time, processor=_Batch(), context=context)

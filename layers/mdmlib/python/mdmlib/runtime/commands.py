"""What queues commands."""

from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.command_jobs import CommandJobs
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.queue import CommandQueues


@cache
def enqueue_service() -> "EnqueueService":
    """Return the service that queues commands."""
    from mdmlib.services.command_order import CommandOrder
    from mdmlib.services.enqueue import EnqueueService

    return EnqueueService(
        enrollments=runtime.enrollments(),
        queue=runtime.command_queue(),
        events=runtime.events(),
        pushes=runtime.push_queue(),
        push_certificates=runtime.push_certificates(),
        batch_client=runtime.dynamodb_batch_client,
        sealer=runtime.sealer(),
        settings=runtime.settings(),
        now=runtime.now,
        order=CommandOrder(now=runtime.now),
        new_event_id=runtime.new_event_id,
    )


@cache
def command_jobs() -> "CommandJobs":
    """Return the jobs that queue a command for many."""
    from mdmlib.services.command_jobs import CommandJobs

    return CommandJobs(
        enqueue=runtime.enqueue_service(),
        sqs_client=runtime.sqs_client,
        queue_url=runtime.settings().sweep_queue_url,
        now=runtime.now,
    )


@cache
def command_queues() -> "CommandQueues":
    """Return what clears queues and takes commands back."""
    from mdmlib.services.queue import CommandQueues

    return CommandQueues(
        enrollments=runtime.enrollments(),
        queue=runtime.command_queue(),
        sweeps=runtime.sweeps(),
        tell_plan=runtime.workflow_queue().look_at,
    )

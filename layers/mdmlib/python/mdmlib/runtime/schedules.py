"""What is done by the clock."""

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.housekeeping import Housekeeping
    from mdmlib.services.setup_release import SetupRelease
    from mdmlib.services.stale_enrollments import StaleEnrollments
    from mdmlib.services.vitals import Vitals


@cache
def stale_enrollments() -> "StaleEnrollments":
    """Return what finds devices that stay silent."""
    from mdmlib.services.stale_enrollments import StaleEnrollments

    return StaleEnrollments(
        enrollments=runtime.enrollments(),
        events=runtime.events(),
        sqs_client=runtime.sqs_client,
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def setup_release() -> "SetupRelease":
    """Return what lets no device wait in Setup Assistant for ever."""
    import uuid

    from mdmlib.services.setup_release import SetupRelease

    return SetupRelease(
        enrollments=runtime.enrollments(),
        enqueue=runtime.enqueue_service(),
        now=runtime.now,
        new_uuid=lambda: str(uuid.uuid4()).upper(),
    )


@cache
def housekeeping() -> "Housekeeping":
    """Return what does later what others left."""
    from mdmlib.services.housekeeping import Housekeeping

    runtime.bind_tables()
    return Housekeeping(
        events=runtime.events(),
        sweeps=runtime.sweeps(),
        renewals=runtime.identity_renewals,
        jobs=runtime.command_jobs,
        push_jobs=runtime.push_jobs,
        push_again=runtime.push_again,
        stale=runtime.stale_enrollments,
        release=runtime.setup_release,
        plan_looks=runtime.plan_looks,
        vitals=runtime.vitals(),
        settings=runtime.settings(),
        now=runtime.now,
        tell_plan=lambda enrollment_id, command_uuid: runtime.workflow_queue().look_at(enrollment_id, command_uuid),
        keep_rules=lambda: runtime.workflow_events().keep_rules(),
    )


@cache
def vitals() -> "Vitals":
    """Return what looks at certificates, schedules, queues and Apple's lists of devices."""
    from mdmlib.services.vitals import Vitals

    runtime.bind_tables()
    known = runtime.settings()
    queues = {
        "push": (known.push_queue_url, known.push_dead_letter_queue_url),
        "webhook": (known.webhook_queue_url, known.webhook_dead_letter_queue_url),
        "sweep": (known.sweep_queue_url, known.sweep_dead_letter_queue_url),
        "workflow": (known.workflow_queue_url, known.workflow_dead_letter_queue_url),
        "events": (known.event_fallback_queue_url, known.event_fallback_dead_letter_queue_url),
        "targets": (None, known.target_dead_letter_queue_url),
    }
    every = timedelta(minutes=known.ade_sync_minutes)
    return Vitals(runtime.sqs_client, queues=queues, ade_sync_every=every, now=runtime.now)

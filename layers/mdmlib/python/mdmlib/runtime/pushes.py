"""What wakes devices, and with which certificates."""

import time
from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.push import PushService
    from mdmlib.services.push_again import PushAgain
    from mdmlib.services.push_certificate_requests import PushCertificateRequests
    from mdmlib.services.push_certificates import PushCertificates
    from mdmlib.services.push_jobs import PushJobs
    from mdmlib.services.push_queue import PushQueue


@cache
def push_again() -> "PushAgain":
    """Return what wakes devices again that have left commands unanswered."""
    from mdmlib.services.push_again import PushAgain

    return PushAgain(
        enrollments=runtime.enrollments(),
        enqueue=runtime.enqueue_service(),
        vitals=runtime.vitals(),
        sqs_client=runtime.sqs_client,
        settings=runtime.settings(),
        now=runtime.now,
    )


@cache
def push_jobs() -> "PushJobs":
    """Return the jobs that wake many."""
    import uuid

    from mdmlib.services.push_jobs import PushJobs

    return PushJobs(
        enrollments=runtime.enrollments(),
        enqueue=runtime.enqueue_service(),
        sqs_client=runtime.sqs_client,
        queue_url=runtime.settings().sweep_queue_url,
        now=runtime.now,
        new_id=lambda: uuid.uuid4().hex,
    )


@cache
def push_queue() -> "PushQueue":
    """Return the queue of pushes."""
    from mdmlib.services.push_queue import PushQueue

    return PushQueue(runtime.sqs_client, queue_url=runtime.settings().push_queue_url, sealer=runtime.sealer())


@cache
def push_certificates() -> "PushCertificates":
    """Return the push certificates."""
    from mdmlib.services.push_certificates import PushCertificates

    runtime.bind_tables()
    return PushCertificates(sealer=runtime.sealer(), now=runtime.now)


@cache
def push_certificate_requests() -> "PushCertificateRequests":
    """Return the requests for push certificates."""
    import uuid

    from mdmlib.services.push_certificate_requests import PushCertificateRequests

    runtime.bind_tables()
    return PushCertificateRequests(sealer=runtime.sealer(), now=runtime.now, new_id=lambda: uuid.uuid4().hex)


@cache
def push_service() -> "PushService":
    """Return the service that wakes devices."""
    import random
    from functools import partial

    from mdmlib.clients.apns import ApnsClient
    from mdmlib.services.push import PushService
    from mdmlib.services.push_pace import PushPace
    from mdmlib.services.push_refusals import PushRefusals

    return PushService(
        connect=partial(ApnsClient, url=runtime.settings().apns_url, trust_anchor=runtime.settings().apns_trust_anchor),
        certificates=runtime.push_certificates(),
        queue=runtime.push_queue(),
        refusals=PushRefusals(
            enrollments=runtime.enrollments(), events=runtime.events(), sealer=runtime.sealer(), now=runtime.now
        ),
        sealer=runtime.sealer(),
        pace=PushPace(runtime.settings().pushes_per_second, clock=time.time, sleep=time.sleep),
        now=runtime.now,
        jitter=random.random,
    )

"""What administrators ask of enrollments, and who they are."""

from functools import cache
from typing import TYPE_CHECKING

from mdmlib import runtime

if TYPE_CHECKING:
    from mdmlib.services.api_keys import ApiKeys
    from mdmlib.services.blocking import Blocking
    from mdmlib.services.device_listing import DeviceListing
    from mdmlib.services.enrollment_query import EnrollmentQuery
    from mdmlib.services.enrollments import Enrollments
    from mdmlib.services.idempotent_requests import IdempotentRequests
    from mdmlib.services.migration import Migration
    from mdmlib.services.removal import Removal


@cache
def api_keys() -> "ApiKeys":
    """Return the passwords of HTTP Basic."""
    from mdmlib.services.api_keys import ApiKeys

    return ApiKeys(runtime.stack_secret(), now=runtime.now)


@cache
def blocking() -> "Blocking":
    """Return what blocks and unblocks devices."""
    from mdmlib.services.blocking import Blocking

    return Blocking(
        enrollments=runtime.enrollments(), events=runtime.events(), now=runtime.now, new_event_id=runtime.new_event_id
    )


@cache
def migration() -> "Migration":
    """Return what takes in check-in messages of another server."""
    from mdmlib.services.migration import Migration

    return Migration(
        enrollments=runtime.enrollments(), sweeps=runtime.sweeps(), sealer=runtime.sealer(), now=runtime.now
    )


@cache
def enrollment_service() -> "Enrollments":
    """Return what administrators may see of enrollments."""
    from mdmlib.services.enrollments import Enrollments

    return Enrollments(enrollments=runtime.enrollments(), queue=runtime.command_queue(), now=runtime.now)


@cache
def idempotent_requests() -> "IdempotentRequests":
    """Return what remembers the answers of requests that have a key."""
    from mdmlib.services.idempotent_requests import IdempotentRequests

    runtime.bind_tables()
    return IdempotentRequests(sealer=runtime.sealer(), now=runtime.now)


@cache
def device_listing() -> "DeviceListing":
    """Return the list of devices."""
    from mdmlib.services.device_listing import DeviceListing

    return DeviceListing(enrollments=runtime.enrollments())


@cache
def enrollment_query() -> "EnrollmentQuery":
    """Return what finds enrollments."""
    from mdmlib.services.enrollment_query import EnrollmentQuery

    return EnrollmentQuery(enrollments=runtime.enrollments(), sealer=runtime.sealer())


@cache
def removal() -> "Removal":
    """Return what has enrollments forgotten."""
    from mdmlib.services.removal import Removal

    return Removal(enrollments=runtime.enrollments(), sweeps=runtime.sweeps())

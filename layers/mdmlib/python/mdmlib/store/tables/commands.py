"""Commands for many, and answers that are remembered."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class IdempotentRequest(ResourceItem, discriminator="idempotent_request"):
    """Collection ``idempotent_request``, name = hash of a request's route and key: what it was answered, for a day."""

    body_hash = UnicodeAttribute()
    until = NumberAttribute()
    """A request without an answer is over then."""
    answer = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``idempotent_request/<name>``."""


class CommandJob(ResourceItem, discriminator="command_job"):
    """Collection ``command_job``, name = the job's id: a command on its way to many enrollments, page by page."""

    command_uuid = UnicodeAttribute()
    request_type = UnicodeAttribute()
    state = UnicodeAttribute()
    """``running``, ``done``, ``cancelled``, ``failed``."""
    selection: JSONAttribute = JSONAttribute()
    """``{"types": […] | null}``, or ``{"serial_numbers": <how many>}``."""
    selection_hash = UnicodeAttribute()
    options: JSONAttribute = JSONAttribute()
    """``push``, ``force`` and ``not_before`` (epoch seconds)."""
    step = NumberAttribute(default=0)
    """Counts the pages that are done: only who has done this one may write down the next."""
    position = UnicodeAttribute(default="")
    """Where the next page begins."""
    examined = NumberAttribute(default=0)
    queued = NumberAttribute(default=0)
    refused = NumberAttribute(default=0)
    errors: JSONAttribute = JSONAttribute(null=True)
    """The first refusals: ``[{"target", "code", "detail"}]``."""
    created_at = NumberAttribute()
    finished_at = NumberAttribute(null=True)


class CommandJobSerialNumbers(ResourceItem, discriminator="command_job_serial_numbers"):
    """Collection ``command_job_serial_numbers``, name = the job's id and its selection's hash: whom it is for."""

    serial_numbers = BinaryAttribute(legacy_encoding=False)
    """JSON, compressed."""

"""Who is told of events."""

from pynamodb.attributes import JSONAttribute

from mdmlib.store.attributes import BinaryAttribute, BooleanAttribute, NumberAttribute, UnicodeAttribute
from mdmlib.store.tables import ResourceItem


class WebhookSubscription(ResourceItem, discriminator="webhook"):
    """Collection ``webhook``, name = the subscription's id."""

    url = UnicodeAttribute()
    topics: JSONAttribute = JSONAttribute(null=True)
    """Filter: a list of topics; null: all. So are the next three."""
    enrollment_types: JSONAttribute = JSONAttribute(null=True)
    request_types: JSONAttribute = JSONAttribute(null=True)
    statuses: JSONAttribute = JSONAttribute(null=True)
    redact = UnicodeAttribute(null=True)
    """What is left out of what is delivered: ``secrets`` or ``payload``; null: nothing."""
    headers = BinaryAttribute(null=True, legacy_encoding=False)
    """The customer's own, a JSON object, sealed for ``webhook/<id>/headers``: they may hold a token."""
    header_names: JSONAttribute = JSONAttribute(null=True)
    hmac_key = BinaryAttribute(null=True, legacy_encoding=False)
    """Sealed for ``webhook/<id>``."""
    next_hmac_key = BinaryAttribute(null=True, legacy_encoding=False)
    """The key that takes over; sealed for ``webhook/<id>/next``."""
    created_at = NumberAttribute()
    paused_at = NumberAttribute(null=True)
    """Since then nothing is posted, until an administrator says so."""
    drops_events = BooleanAttribute(null=True)
    """While it is paused, events are dropped; else they wait."""
    held_until = NumberAttribute(null=True)
    """While it keeps failing, its messages are postponed until then."""
    failures = NumberAttribute(default=0)
    slow_ms = NumberAttribute(null=True)
    """How long its receiver takes, when that is long; null: it is quick."""
    next_turn_ms = NumberAttribute(null=True)
    """While it is slow: when the next delivery that asks may go out, milliseconds since 1970."""
    last_test = BinaryAttribute(null=True, legacy_encoding=False)
    """What became of the last test, a JSON object, sealed for ``webhook/<id>/test``: the answer is anybody's words."""

"""What is done by the clock, and what was found."""

from pynamodb.attributes import UnicodeSetAttribute

from mdmlib.store.attributes import NumberAttribute
from mdmlib.store.tables import ResourceItem


class ScheduleRun(ResourceItem, discriminator="schedule"):
    """Collection ``schedule``, name = a task of housekeeping: when it was last done."""

    ran_at = NumberAttribute()


class Measurement(ResourceItem, discriminator="measurement"):
    """Collection ``measurement``, name ``default``: what takes too long to be counted each time that somebody asks.

    ``unwell`` is what administrators were told of.
    """

    devices_enrolled = NumberAttribute()
    unwell = UnicodeSetAttribute(null=True)
    measured_at = NumberAttribute()

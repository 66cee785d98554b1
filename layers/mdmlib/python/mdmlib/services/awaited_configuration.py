"""What leads to an enrollment that waits in Setup Assistant (:mod:`mdmlib.services.setup_release`)."""

from typing import TYPE_CHECKING, Final

from mdmlib.store import tables
from mdmlib.store.tables import AwaitedConfiguration

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

_KEPT_SECONDS: Final = 30 * 86_400


def awaited(enrollment_id: str, epoch: int, *, at: int, minutes: int) -> "tuple[AwaitedConfiguration, list[Action]]":
    """Return the item that leads to an enrollment that waits, and what is to be written into it.

    ``at`` is in epoch seconds, ``epoch`` that of the device. A device that says again that it waits is told no later
    for that.
    """
    item = AwaitedConfiguration(tables.AWAITING_PARTITION, f"{enrollment_id}#{epoch}")
    return item, [
        AwaitedConfiguration.cls.set(AwaitedConfiguration),
        AwaitedConfiguration.due_at.set(AwaitedConfiguration.due_at | (at + minutes * 60)),
        AwaitedConfiguration.ttl.set(at + _KEPT_SECONDS),
    ]

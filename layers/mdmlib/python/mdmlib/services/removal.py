"""Removal: an administrator has an enrollment forgotten.

What is left is a tombstone. It keeps the generation, so that no command of a time before can come back, the
certificate's hash, so that a device that was not told is answered with nothing instead of an error, and the serial
number, so that the same request again finds it. The device is not told, and can enroll anew.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from mdmlib.errors import NotFoundError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.bootstrap_token import BOOTSTRAP_TOKEN
from mdmlib.services.checkin_message import ATTEMPTS
from mdmlib.services.device_enrollment import same_life
from mdmlib.services.sweep import SweepQueue
from mdmlib.services.token_update import UNLOCK_TOKEN
from mdmlib.store import tables
from mdmlib.store.enrollments import USER_AUTHENTICATION, EnrollmentStore
from mdmlib.store.tables import Enrollment, EnrollmentItem, EnrollmentSecret, Message
from mdmlib.store.transactions import ConditionsFailedError, Delete, Update, transact

if TYPE_CHECKING:
    from pynamodb.expressions.condition import Condition
    from pynamodb.expressions.update import Action

_DELETED: Final = "deleted"
_KEPT: Final = frozenset(
    {
        *("enrollment_id", "item", "cls", "type", "state", "parent_id", "blocked", "serial_number"),
        *("identity", "identity_not_after", "generation", "epoch"),
    }
)
_MESSAGES: Final = ("Authenticate", "TokenUpdate")
_SECRETS: Final = (UNLOCK_TOKEN, BOOTSTRAP_TOKEN, USER_AUTHENTICATION)


class Removal:
    """Removes enrollments. Results stay, sealed, until their time is over."""

    def __init__(self, *, enrollments: EnrollmentStore, sweeps: SweepQueue) -> None:
        self._enrollments = enrollments
        self._sweeps = sweeps

    def remove(self, *, ids: Iterable[str] = (), serials: Iterable[str] = ()) -> None:
        """Remove devices with their user channels, by their ids and by their serial numbers.

        Raises :class:`~mdmlib.errors.NotFoundError` for one that never was, and then nothing is removed. One that was
        removed already stays so: the same request again does what is left to do.
        """
        wanted = list(dict.fromkeys(ids))
        records = self._enrollments.get_many(wanted)
        for id_ in wanted:
            if id_ not in records:
                raise _unknown(f"There is no enrollment {id_[:200]}.")
        for serial in dict.fromkeys(serials):
            found = self._enrollments.get_many(self._enrollments.ids_of_serial(serial))
            if not found:
                raise _unknown(f"There is no device of the serial number {serial[:200]}.")
            records |= found
        for record in records.values():
            self._remove(record)
            for channel in self._enrollments.get_many(self._enrollments.ids_of_parent(record.enrollment_id)).values():
                self._remove(channel)

    def _remove(self, record: Enrollment | None) -> None:
        id_ = record.enrollment_id if record else ""
        for _ in range(ATTEMPTS):
            if record is None or record.state == _DELETED:
                return
            generation = tables.next_generation(record.generation)
            try:
                transact(
                    [
                        Update("record", Enrollment(id_, tables.RECORD), _tombstone(record), _same_life(record)),
                        *(Delete("message", Message(id_, tables.MESSAGE + name)) for name in _MESSAGES),
                        *(Delete("secret", EnrollmentSecret(id_, tables.SECRET + name)) for name in _SECRETS),
                    ]
                )
            except ConditionsFailedError:
                record = self._enrollments.get(id_)
                continue
            _forget_plans(id_)
            self._sweeps.request(id_, generation)
            logger.info("Enrollment removed", enrollment_id=id_)
            return
        raise UnavailableError("Messages of the same enrollment kept coming first.")


def _forget_plans(enrollment_id: str) -> None:
    """Delete plans and inventory; what is escrowed stays, for the device may be somewhere."""
    for kind in (tables.PLAN, tables.INVENTORY):
        with EnrollmentItem.batch_write() as batch:
            for item in EnrollmentItem.query(
                enrollment_id,
                EnrollmentItem.item.startswith(kind),
                attributes_to_get=["enrollment_id", "item", "cls"],
            ):
                batch.delete(item)


def _tombstone(record: Enrollment) -> "list[Action]":
    # Also what the record did not have when it was read: a TokenUpdate may have come since.
    forgotten = [attribute for name, attribute in Enrollment.get_attributes().items() if name not in _KEPT]
    actions: list[Action] = [
        Enrollment.state.set(_DELETED),
        Enrollment.generation.set(tables.next_generation(record.generation)),
        *(attribute.remove() for attribute in forgotten),
    ]
    if not record.parent_id:
        # This ends its user channels, whatever becomes of their own records.
        actions.append(Enrollment.epoch.set(record.epoch + 1))
    return actions


def _same_life(record: Enrollment) -> "Condition":
    # A user channel has no epoch of its own.
    return Enrollment.generation == record.generation if record.parent_id else same_life(record)


def _unknown(message: str) -> NotFoundError:
    return NotFoundError(message, code="unknown_enrollment", field="udids")

"""SetBootstrapToken and GetBootstrapToken: a device leaves its bootstrap token with us, and asks for it."""

from typing import Final

from mdmlib.apple.checkin import SetBootstrapToken
from mdmlib.errors import ConflictError
from mdmlib.services.admission import Admission, device_channel_only
from mdmlib.services.checkin_events import CheckinEvents
from mdmlib.services.checkin_message import CheckinAnswer, Received
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment
from mdmlib.store.transactions import ConditionsFailedError, Delete, Put, Update, transact

BOOTSTRAP_TOKEN: Final = "BootstrapToken"  # noqa: S105 - Apple's name of the key


class BootstrapTokens:
    """Keeps one token of each device, sealed, until it enrolls anew."""

    def __init__(
        self, *, enrollments: EnrollmentStore, admission: Admission, events: CheckinEvents, sealer: Sealer
    ) -> None:
        self._enrollments = enrollments
        self._admission = admission
        self._events = events
        self._sealer = sealer

    def keep(self, received: Received, message: SetBootstrapToken) -> None:
        """Keep the token, or forget the one that is kept when the message has none."""
        device_channel_only(received)
        record = self._admission.enrolled(received)
        secret = received.secret(self._sealer, BOOTSTRAP_TOKEN, message.bootstrap_token)
        write = Put("secret", secret) if message.bootstrap_token else Delete("secret", secret)
        same_enrollment = (Enrollment.generation == record.generation) & (
            Enrollment.identity == received.certificate.hash
        )
        seen = [Enrollment.last_seen_at.set(received.seconds)]
        try:
            transact([Update("record", Enrollment(received.id, tables.RECORD), seen, same_enrollment), write])
        except ConditionsFailedError as failed:
            raise ConflictError("The enrollment began anew meanwhile.") from failed
        self._events.publish(received, record)

    def give(self, received: Received) -> CheckinAnswer | None:
        """Return the token, or None when none is kept."""
        record, token = self.read(received)
        self._events.publish(received, record)
        return None if token is None else CheckinAnswer.plist({BOOTSTRAP_TOKEN: token})

    def read(self, received: Received) -> tuple[Enrollment, bytes | None]:
        """Return the device's record and the token that is kept, in one call."""
        device_channel_only(received)
        found, secret = self._enrollments.get_with_secret(received.id, BOOTSTRAP_TOKEN)
        record = self._admission.device(received, found)
        if secret is None:
            return record, None
        return record, self._sealer.open(secret.value, place=f"{received.id}/{secret.item}")

"""Check-in: what a device says to ``/mdm/checkin``, each message at the service of its kind."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from mdmlib import metrics
from mdmlib.apple.checkin import (
    Authenticate,
    CheckinMessage,
    CheckOut,
    DeclarativeManagement,
    GetBootstrapToken,
    GetToken,
    ReturnToService,
    SetBootstrapToken,
    TokenUpdate,
    UserAuthenticate,
)
from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.errors import ConflictError
from mdmlib.metrics import Metric
from mdmlib.services.admission import Admission
from mdmlib.services.associations import Associations
from mdmlib.services.bootstrap_token import BootstrapTokens
from mdmlib.services.checkin_events import CheckinEvents
from mdmlib.services.checkin_message import CheckinAnswer, Received
from mdmlib.services.declarations import DeclarationServer
from mdmlib.services.device_enrollment import DeviceEnrollment
from mdmlib.services.events import EventPublisher
from mdmlib.services.managed_users import ManagedUsers
from mdmlib.services.return_to_service import ReturnToServiceProfiles
from mdmlib.services.sweep import SweepQueue
from mdmlib.services.token_update import PushTokens
from mdmlib.services.tokens import Tokens
from mdmlib.services.user_authentication import UserAuthentication
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import EnrollmentStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment
from mdmlib.store.transactions import Check, ConditionsFailedError, Put, transact

_DAY: Final = 86_400
_MESSAGES: Final[Mapping[type[CheckinMessage], Metric]] = {
    Authenticate: Metric.CHECKIN_AUTHENTICATE,
    TokenUpdate: Metric.CHECKIN_TOKEN_UPDATE,
    CheckOut: Metric.CHECKIN_CHECK_OUT,
    DeclarativeManagement: Metric.CHECKIN_DECLARATIVE,
}


class CheckinService:
    """Receives check-in messages: one read, one transaction, one event each."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        events: EventPublisher,
        sweeps: SweepQueue,
        users: ManagedUsers,
        tokens: Tokens,
        return_to_service: ReturnToServiceProfiles,
        declarations: DeclarationServer,
        sealer: Sealer,
        settings: Settings,
        now: Callable[[], datetime],
        new_event_id: Callable[[], str],
        random: Callable[[int], bytes],
    ) -> None:
        self._sealer = sealer
        self._settings = settings
        self._now = now
        self._new_event_id = new_event_id
        self._tokens = tokens
        self._return_to_service = return_to_service
        self._declarations = declarations
        associations = Associations(enrollments=enrollments, settings=settings)
        self._admission = admission = Admission(enrollments, associations)
        self._events = checkin_events = CheckinEvents(events)
        self._enrollment = DeviceEnrollment(
            enrollments=enrollments,
            admission=admission,
            associations=associations,
            events=checkin_events,
            sweeps=sweeps,
            sealer=sealer,
        )
        self._push_tokens = PushTokens(
            enrollments=enrollments,
            admission=admission,
            events=checkin_events,
            sweeps=sweeps,
            sealer=sealer,
            setup_minutes=settings.setup_minutes,
        )
        self._bootstrap_tokens = BootstrapTokens(
            enrollments=enrollments, admission=admission, events=checkin_events, sealer=sealer
        )
        self._user_authentication = UserAuthentication(
            enrollments=enrollments,
            admission=admission,
            events=checkin_events,
            users=users,
            sealer=sealer,
            settings=settings,
            random=random,
        )

    def receive(
        self, certificate: VerifiedCertificate, message: CheckinMessage, url_params: Mapping[str, str]
    ) -> CheckinAnswer | None:
        """Take a message in; return what answers it, or None for an empty answer.

        Raises :class:`~mdmlib.errors.IdentityError` when the certificate is not the enrollment's,
        :class:`~mdmlib.errors.BlockedError` when the device is blocked, and what the message's service raises.
        """
        received = Received(message, certificate, url_params, self._now(), self._new_event_id())
        answer = self._answer(received, message)
        metrics.emit(
            "Device checked in",
            {_MESSAGES.get(type(message), Metric.CHECKIN_OTHER): 1},
            enrollment_id=received.id,
            message_type=message.message_type,
            event_id=received.event_id,
        )
        return answer

    def _answer(self, received: Received, message: CheckinMessage) -> CheckinAnswer | None:
        match message:
            case Authenticate():
                self._enrollment.begin(received, message)
            case TokenUpdate():
                self._push_tokens.note(received, message)
            case CheckOut():
                self._enrollment.end(received)
            case SetBootstrapToken():
                self._bootstrap_tokens.keep(received, message)
            case GetBootstrapToken():
                return self._bootstrap_tokens.give(received)
            case UserAuthenticate():
                return self._user_authentication.receive(received, message)
            case GetToken():
                return self._get_token(received, message)
            case ReturnToService():
                return self._get_return_to_service(received)
            case DeclarativeManagement():
                return self._declarative_management(received, message)
            case _:
                self._keep(received)
        return None

    def _get_token(self, received: Received, message: GetToken) -> CheckinAnswer:
        record = self._admission.enrolled(received)
        self._events.publish(received, record)
        return CheckinAnswer.plist({"TokenData": self._tokens.issue(record, message, at=received.at)})

    def _get_return_to_service(self, received: Received) -> CheckinAnswer:
        record, bootstrap_token = self._bootstrap_tokens.read(received)
        self._events.publish(received, record)
        return CheckinAnswer.plist(self._return_to_service.response(bootstrap_token))

    def _declarative_management(self, received: Received, message: DeclarativeManagement) -> CheckinAnswer | None:
        record = self._admission.enrolled(received)
        self._events.publish(received, record)
        return self._declarations.answer(received, message, record)

    def _keep(self, received: Received) -> None:
        """Keep and publish a message of a newer release of Apple's: whoever waits for it can act on it already.

        It is answered with nothing, which is what a device takes for "understood, and nothing to say".
        """
        record = self._admission.enrolled(received)
        kept = received.kept_message(self._sealer)
        kept.ttl = received.seconds + self._settings.result_days * _DAY
        same_enrollment = (Enrollment.generation == record.generation) & (Enrollment.state == record.state)
        try:
            transact([Check("record", Enrollment(received.id, tables.RECORD), same_enrollment), Put("message", kept)])
        except ConditionsFailedError as failed:
            raise ConflictError("The enrollment began anew meanwhile.") from failed
        self._events.publish(received, record)

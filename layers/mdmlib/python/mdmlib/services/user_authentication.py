"""UserAuthenticate: a network user logs in on a Mac, and is managed or not.

What Apple asks for: 410 to the first message declines the user for this login; an empty ``DigestChallenge`` manages the
user with no proof; else the Mac answers the challenge in a second message, and gets an ``AuthToken`` that all messages
of the user carry until the next login, or an empty one if the password was wrong.
Apple's page: https://developer.apple.com/documentation/devicemanagement/user-authenticate.
"""

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mdmlib.apple.checkin import UserAuthenticate
from mdmlib.apple.digest import DigestResponse, challenge
from mdmlib.errors import BadRequestError, GoneError, MalformedBodyError, UnavailableError
from mdmlib.observability import logger
from mdmlib.services.admission import AUTH_TOKEN, Admission, auth_token_hash
from mdmlib.services.checkin_events import CheckinEvents
from mdmlib.services.checkin_message import ATTEMPTS, CheckinAnswer, Received
from mdmlib.services.managed_users import ManagedUsers
from mdmlib.services.user_login import UserLogin
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.enrollments import USER_AUTHENTICATION, EnrollmentStore, LoginItems
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, EnrollmentSecret
from mdmlib.store.transactions import Check, ConditionsFailedError, Delete, Put, Update, Write, transact

if TYPE_CHECKING:
    from pynamodb.expressions.update import Action

CHALLENGE_SECONDS: Final = 300
"""A Mac answers at once; it is the person's password that it waited for before."""

_DIGEST_CHALLENGE: Final = "DigestChallenge"
_NONCE_BYTES: Final = 32
_NOBODY: Final = "-"
"""In place of a token's hash: no message of the user is taken."""


class UserAuthentication:
    """Declines users, lets them in as they are, or has them prove who they are: as the deployment is set."""

    def __init__(
        self,
        *,
        enrollments: EnrollmentStore,
        admission: Admission,
        events: CheckinEvents,
        users: ManagedUsers,
        sealer: Sealer,
        settings: Settings,
        random: Callable[[int], bytes],
    ) -> None:
        self._enrollments = enrollments
        self._admission = admission
        self._events = events
        self._users = users
        self._sealer = sealer
        self._mode = settings.user_authenticate
        self._random = random

    def receive(self, received: Received, message: UserAuthenticate) -> CheckinAnswer | None:
        """Answer one of the two messages. Raises :class:`~mdmlib.errors.GoneError` for a user who is not managed."""
        if not message.enrollment_id.type.is_user_channel:
            raise BadRequestError("UserAuthenticate is a message of a user channel.", code="user_channel_only")
        if self._mode == "digest":
            return (
                self._challenge(received, message) if not message.digest_response else self._verify(received, message)
            )
        if self._mode == "empty":
            return self._let_in(received, message)
        device = self._admission.device(received, self._enrollments.get(received.device_id))
        self._decline(received, device)
        return None

    def _let_in(self, received: Received, message: UserAuthenticate) -> CheckinAnswer | None:
        """Manage the user with no proof, and forget the token of a login that took one."""
        for _ in range(ATTEMPTS):
            found = self._enrollments.get_login(received.id, received.device_id)
            device = self._admission.device(received, found.device)
            had_token = found.user is not None and found.user.auth_token_hash is not None
            if not found.login and not had_token:
                break
            login = EnrollmentSecret(received.id, tables.SECRET + USER_AUTHENTICATION)
            if self._commit(received, found, Delete("login", login), auth_token=None):
                break
        else:
            raise UnavailableError("Other messages of the same user kept coming first.")
        self._events.publish(received, found.user or device)
        # To an empty challenge no Mac responds; one that does has its answer.
        return None if message.digest_response else CheckinAnswer.plist({_DIGEST_CHALLENGE: ""})

    def _challenge(self, received: Received, message: UserAuthenticate) -> CheckinAnswer:
        """Challenge the user; from now on the token of the last login is of no more use."""
        nonce = urlsafe_b64encode(self._random(_NONCE_BYTES)).rstrip(b"=").decode()
        login = UserLogin(nonce=nonce, expires_at=received.seconds + CHALLENGE_SECONDS)
        for _ in range(ATTEMPTS):
            found = self._enrollments.get_login(received.id, received.device_id)
            device = self._admission.device(received, found.device)
            if message.user_short_name and self._users.find(message.user_short_name) is None:
                self._decline(received, found.user or device)
            if self._commit(received, found, self._put(received, login), auth_token=_NOBODY):
                self._events.publish(received, found.user or device)
                return CheckinAnswer.plist({_DIGEST_CHALLENGE: challenge(realm=self._users.realm, nonce=nonce)})
        raise UnavailableError("Other messages of the same user kept coming first.")

    def _verify(self, received: Received, message: UserAuthenticate) -> CheckinAnswer:
        """Verify the answer to the challenge and give out a token.

        The token derives from the challenge, so that a Mac that did not get it gets the same one when it asks again.
        A wrong answer uses the challenge up: there is one guess for each.
        """
        for _ in range(ATTEMPTS):
            found = self._enrollments.get_login(received.id, received.device_id)
            device = self._admission.device(received, found.device)
            login = UserLogin.of(found.login, self._sealer) if found.login else UserLogin()
            token = self._token(received, login.nonce) if self._is_proven(received, message, login) else ""
            token_hash = auth_token_hash(token) if token else None
            after = replace(login, nonce=login.nonce if token else None, token_hash=token_hash)
            if after == login or self._commit(
                received, found, self._put(received, after, found.login), auth_token=token_hash or _NOBODY
            ):
                self._events.publish(received, found.user or device)
                return CheckinAnswer.plist({AUTH_TOKEN: token})
        raise UnavailableError("Other messages of the same user kept coming first.")

    def _is_proven(self, received: Received, message: UserAuthenticate, login: UserLogin) -> bool:
        try:
            response = DigestResponse.parse(message.digest_response or "")
        except MalformedBodyError:
            logger.warning("DigestResponse unreadable", enrollment_id=received.id)
            return False
        current = login.nonce is not None and hmac.compare_digest(login.nonce.encode(), response.nonce.encode())
        if not current or received.seconds >= login.expires_at:
            logger.warning("DigestResponse to no open challenge", enrollment_id=received.id)
            return False
        user_id = received.id.removeprefix(f"{received.device_id}:")
        if not self._users.prove(response, user_id=user_id):
            logger.warning("Login of a network user refused", enrollment_id=received.id)
            return False
        return True

    def _token(self, received: Received, nonce: str | None) -> str:
        key = self._sealer.derive("auth-token")
        return b64encode(hmac.digest(key, f"{received.id}\0{nonce}".encode(), hashlib.sha256)).decode()

    def _put(self, received: Received, login: UserLogin, former: EnrollmentSecret | None = None) -> Put:
        item = received.secret(self._sealer, USER_AUTHENTICATION, login.to_json())
        return Put("login", item, EnrollmentSecret.value == former.value if former else None)

    def _commit(self, received: Received, found: LoginItems, login: Write, *, auth_token: str | None) -> bool:
        """Write the login's state, and into the channel's record what token its messages carry; or say that it changed.

        There is no record before the user's first TokenUpdate, which looks at the login itself.
        """
        record = Enrollment(received.id, tables.RECORD)
        if found.user is None:
            record_write: Write = Check("record", record, Enrollment.item.does_not_exist())
        else:
            hash_ = Enrollment.auth_token_hash
            action: Action = hash_.remove() if auth_token is None else hash_.set(auth_token)
            record_write = Update("record", record, [action], Enrollment.item.exists())
        try:
            transact([login, record_write])
        except ConditionsFailedError:
            return False
        return True

    def _decline(self, received: Received, record: Enrollment) -> None:
        self._events.publish(received, record)
        raise GoneError("The user is not managed.", code="user_authenticate_declined")

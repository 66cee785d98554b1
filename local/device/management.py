"""A device's management while it lasts: its channels, its users, and what they ask the server for."""

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Any

from local.device import answers, messages, network_login
from local.device.channel import Channel
from local.device.commands import Owner
from local.device.enrollment import Enrollment, Reply
from local.device.errors import DeviceError, PasswordRejected, ServerRefused, Violations
from local.device.habits import Habits
from local.device.hardware import Hardware, Platform
from local.device.profile import BOOTSTRAP_TOKEN, TOKEN, USER_CONNECTIONS, EnrollmentMode
from local.device.push import PushService
from local.device.request_types import ChannelKind
from local.device.state import DeviceState


class Management:
    """One enrollment, from Authenticate to CheckOut.

    ``enrollment_id`` is what a User Enrollment goes by, None for all others. Not for use by several threads at once,
    except for what :class:`~local.device.channel.Channel` says of itself.
    """

    def __init__(
        self,
        enrollment: Enrollment,
        *,
        owner: Owner,
        state: DeviceState,
        push: PushService,
        habits: Habits,
        violations: Violations,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], datetime],
        enrollment_id: str | None = None,
        awaiting_configuration: bool = False,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        self.enrollment = enrollment
        self.enrollment_id = enrollment_id
        self.users: dict[str, Channel] = {}
        """The channels of users who are logged in, by short name."""
        self._owner = owner
        self._state = state
        self._push = push
        self._habits = habits
        self._violations = violations
        self._random_bytes = random_bytes
        self._now = now
        ids = messages.device_ids(owner.hardware, enrollment_id)
        self.channel = self._open(
            ids, ChannelKind.DEVICE, awaiting_configuration=awaiting_configuration, **(resumed or {})
        )

    @property
    def hardware(self) -> Hardware:
        """The device."""
        return self._owner.hardware

    def authenticate(self, enrollment: Enrollment | None = None) -> None:
        """Begin the enrollment, or one that is to take its place. Sent once: its user sees that it failed."""
        enrollment = enrollment or self.enrollment
        message = messages.authenticate(
            self.hardware,
            enrollment.profile,
            self.channel.ids,
            device_name=self._state.device_name,
            optional_keys=self._habits.message.optional_keys,
        )
        answers.nothing("Authenticate", enrollment.check_in(message))

    def authenticate_anew(self, enrollment: Enrollment) -> Callable[[], None]:
        """Enroll again while enrolled, up to Authenticate; the function returned sends the TokenUpdates."""
        self.authenticate(enrollment)
        # In place: channels keep their enrollment, and what is being reported on its old identity.
        self.enrollment.profile, self.enrollment.identity = enrollment.profile, enrollment.identity
        for channel in (self.channel, *self.users.values()):
            channel.declarations.forget()
        return self._update_tokens

    def update_token(self, channel: Channel | None = None, *, anew: bool = False) -> None:
        """Tell the server how to reach a channel (the device's), with a new push token when ``anew``.

        It can be reached before it says so: a push that came in between would be lost.
        """
        channel = channel or self.channel
        old_token = channel.push_token
        if anew:
            channel.push_token = self._random_bytes(32)
        profile = self.enrollment.profile
        self._push.register(token=channel.push_token, topic=profile.topic, magic=channel.push_magic)
        message = messages.token_update(
            self.hardware,
            profile,
            channel.ids,
            token=channel.push_token,
            magic=channel.push_magic,
            unlock_token=self._owner.unlock_token,
            awaiting_configuration=channel.commands.awaiting_configuration,
            optional_keys=self._habits.message.optional_keys,
        )
        with self._violations.noting():
            answers.nothing("TokenUpdate", channel.check_in(message.pop("MessageType"), **message))
        if anew:
            self._push.unregister(old_token)

    def check_out(self) -> None:
        """Tell the server that it is over, once, if the profile asks for it."""
        if self.enrollment.profile.check_out_when_removed:
            self.enrollment.check_in(messages.check_out(self.enrollment.profile, self.channel.ids))

    def end(self) -> None:
        """Be unreachable: nobody is managed any more."""
        for channel in [self.channel, *self.users.values()]:
            # What ended the enrollment is the news, not that APNs could not be told.
            with suppress(DeviceError):
                self._push.unregister(channel.push_token)

    # Users

    def log_in(self, short_name: str, *, long_name: str = "", user_id: str | None = None) -> Channel:
        """Open a channel for a managed user of a Mac (TokenUpdate)."""
        self._needs_capability(USER_CONNECTIONS)
        self._needs(self.hardware.platform is Platform.MACOS, "Only a Mac has users of this kind.")
        return self._join(self._mac_user(short_name, long_name, user_id), ChannelKind.MAC_USER, short_name)

    def log_in_network_user(self, short_name: str, password: str, *, user_id: str | None = None) -> Channel | None:
        """Open a channel for a network user of a Mac, who proves to be it if the server asks for that.

        Returns None when the server declines to manage the user. Raises
        :class:`~local.device.errors.PasswordRejected`.
        """
        self._needs_capability(USER_CONNECTIONS)
        ids = self._mac_user(short_name, "", user_id)
        asked: dict[str, Any] = {key: ids[key] for key in ("UDID", "UserID") if key in ids}
        self._needs(len(asked) == 2, "A User Enrollment has no network users.")  # noqa: PLR2004  # both of them
        with self._violations.noting():
            try:
                challenge = answers.digest_challenge(self._user_authenticate(asked))
            except ServerRefused as refused:
                if refused.status == HTTPStatus.GONE:
                    return None
                raise
            if not challenge:
                return self._join(ids, ChannelKind.MAC_USER, short_name)
            response = network_login.respond(
                challenge, user=short_name, password=password, client_nonce=self._random_bytes(8).hex()
            )
            token = answers.auth_token(self._user_authenticate(asked | {"DigestResponse": response}))
        if not token:
            raise PasswordRejected(f"The server does not take the password of {short_name}.")
        return self._join(ids, ChannelKind.MAC_USER, short_name, auth_token=token)

    def log_in_to_shared_ipad(self, managed_account: str, *, awaiting_configuration: bool = False) -> Channel:
        """Open a channel for somebody on a Shared iPad (TokenUpdate)."""
        self._needs_capability(USER_CONNECTIONS)
        self._needs(self.hardware.is_shared, "This is no Shared iPad.")
        ids = {**self.channel.ids, "UserID": messages.SHARED_IPAD_USER, "UserShortName": managed_account}
        return self._join(
            ids, ChannelKind.SHARED_IPAD_USER, managed_account, awaiting_configuration=awaiting_configuration
        )

    def log_out(self, channel: Channel) -> None:
        """Close a user's channel, which says nothing to the server."""
        self.users = {name: one for name, one in self.users.items() if one is not channel}
        with suppress(DeviceError):
            self._push.unregister(channel.push_token)

    def _mac_user(self, short_name: str, long_name: str, user_id: str | None) -> dict[str, Any]:
        key = "EnrollmentUserID" if self.enrollment_id else "UserID"
        return {
            **self.channel.ids,
            key: user_id or self._new_uuid(),
            "UserShortName": short_name,
            "UserLongName": long_name or short_name,
        }

    def _user_authenticate(self, fields: Mapping[str, Any]) -> Reply:
        return self.enrollment.check_in({"MessageType": "UserAuthenticate", **fields}, patient=True)

    def _join(
        self,
        ids: Mapping[str, Any],
        kind: ChannelKind,
        name: str,
        *,
        auth_token: str | None = None,
        awaiting_configuration: bool = False,
    ) -> Channel:
        channel = self._open(ids, kind, awaiting_configuration=awaiting_configuration)
        channel.auth_token = auth_token
        self.update_token(channel)
        self.users[name] = channel
        return channel

    # Tokens

    def escrow_bootstrap_token(self) -> bytes:
        """Make a bootstrap token, send it (SetBootstrapToken) and return it."""
        token = self._random_bytes(32)
        self.set_bootstrap_token(token)
        return token

    def set_bootstrap_token(self, token: bytes) -> None:
        """Leave a bootstrap token with the server; an empty one asks to forget the one that it has."""
        self._needs_bootstrap_tokens()
        fields = {"BootstrapToken": token} if token else {}
        with self._violations.noting():
            answers.nothing("SetBootstrapToken", self.channel.check_in("SetBootstrapToken", **fields))

    def get_bootstrap_token(self) -> bytes | None:
        """Ask for the escrowed bootstrap token (GetBootstrapToken); None when the server has none."""
        self._needs_bootstrap_tokens()
        with self._violations.noting():
            return answers.bootstrap_token(self.channel.check_in("GetBootstrapToken"))

    def get_token(
        self, service_type: str, parameters: Mapping[str, str] | None = None, *, channel: Channel | None = None
    ) -> bytes:
        """Ask for a token of a service (GetToken), on a user's channel if one is given.

        A server that makes none answers 400: :class:`~local.device.errors.ServerRefused`.
        """
        self._needs_capability(TOKEN)
        fields: dict[str, Any] = {"TokenServiceType": service_type}
        if parameters:
            fields["TokenParameters"] = dict(parameters)
        with self._violations.noting():
            return answers.token_data((channel or self.channel).check_in("GetToken", **fields))

    def return_to_service(self) -> answers.ReturnToService:
        """Ask whether to erase itself for its next user (ReturnToService)."""
        self._needs(
            self.hardware.platform is Platform.IOS and self.hardware.is_supervised and "UDID" in self.channel.ids,
            "Only supervised iPhones and iPads return to service.",
        )
        with self._violations.noting():
            return answers.ReturnToService.of(self.channel.check_in("ReturnToService"))

    def _needs_bootstrap_tokens(self) -> None:
        self._needs_capability(BOOTSTRAP_TOKEN)
        self._needs(self.enrollment.profile.mode is not EnrollmentMode.BYOD, "A User Enrollment has no such token.")

    def _needs_capability(self, capability: str) -> None:
        self._needs(capability in self.enrollment.profile.capabilities, f"The profile does not offer {capability}.")

    @staticmethod
    def _needs(condition: bool, otherwise: str) -> None:  # noqa: FBT001  # reads as an assertion
        if not condition:
            raise DeviceError(otherwise)

    def _update_tokens(self) -> None:
        self.update_token(anew=True)
        for channel in self.users.values():
            self.update_token(channel, anew=True)

    def _open(
        self,
        ids: Mapping[str, Any],
        kind: ChannelKind,
        *,
        push_token: bytes | None = None,
        push_magic: str | None = None,
        awaiting_configuration: bool = False,
        settled: frozenset[str] = frozenset(),
    ) -> Channel:
        return Channel(
            self.enrollment,
            ids,
            kind=kind,
            owner=self._owner,
            state=self._state,
            push_token=push_token or self._random_bytes(32),
            push_magic=push_magic or self._new_uuid(),
            note=self._violations.append,
            awaiting_configuration=awaiting_configuration,
            settled=settled,
            now=self._now,
        )

    def _new_uuid(self) -> str:
        return str(uuid.UUID(bytes=self._random_bytes(16), version=4)).upper()

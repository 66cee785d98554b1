"""The simulated device: a life from the profile's download to CheckOut."""

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from local.device import messages
from local.device.channel import Channel, Handled
from local.device.cms import Identity
from local.device.command import ERROR, NOT_NOW, Command
from local.device.commands import CommandExecutor
from local.device.enrollment import Enrollment
from local.device.errors import DeviceError, NoAnswer, ProtocolViolation, ServerRefused, Unenrolled
from local.device.habits import Habits
from local.device.hardware import Hardware, Platform
from local.device.profile import EnrollmentProfile
from local.device.push import NoPushes, PushService
from local.device.scep import ScepClient
from local.device.wire import Observer, Wire, must_be_ok

PROFILE: Final = "application/x-apple-aspen-config"
USER_CONNECTIONS: Final = "com.apple.mdm.per-user-connections"
BOOTSTRAP_TOKEN: Final = "com.apple.mdm.bootstraptoken"  # a capability's name

_POLL_SECONDS: Final = 0.5
"""How long a thread waits for a push before it looks whether it shall stop."""


class SimulatedDevice:
    """One device. ``trust`` is a PEM file of the roots that it knows.

    Everything that the server did and a real device rejects is in ``violations``, whether it was raised or lived with.
    Usable from several threads; closing it closes its connections (it is a context manager).
    """

    def __init__(
        self,
        hardware: Hardware,
        *,
        push: PushService | None = None,
        trust: Path | None = None,
        habits: Habits | None = None,
        observer: Observer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.hardware = hardware
        self.violations: list[ProtocolViolation] = []
        self.failures: list[DeviceError] = []
        """What went wrong while it was listening, apart from violations."""
        self.unlock_token = random_bytes(64)
        self._habits = habits or Habits()
        self._push = push or NoPushes()
        self._now = now
        self._random_bytes = random_bytes
        self._sleep = sleep
        self._wire = Wire(
            hardware.serial_number,
            trust=trust,
            observer=observer,
            retry_delays=self._habits.retry_delays,
            sleep=sleep,
        )
        self._enrollment: Enrollment | None = None
        self._channel: Channel | None = None
        self._users: dict[str, Channel] = {}
        self._lock = threading.RLock()
        self.commands = CommandExecutor(self, now=now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The enrollment stays."""
        self._wire.close()

    @property
    def udid(self) -> str:
        """What the server calls it."""
        return self.hardware.udid

    @property
    def is_enrolled(self) -> bool:
        """Whether it is managed, as far as it knows."""
        return self._enrollment is not None

    @property
    def enrollment(self) -> Enrollment:
        """Its enrollment. Raises :class:`~local.device.errors.Unenrolled`."""
        if self._enrollment is None:
            raise Unenrolled(f"{self.hardware.serial_number} is not enrolled.")
        return self._enrollment

    @property
    def profile(self) -> EnrollmentProfile:
        """The profile that it is enrolled with."""
        return self.enrollment.profile

    @property
    def identity(self) -> Identity:
        """The identity that it is enrolled with."""
        return self.enrollment.identity

    @property
    def channel(self) -> Channel:
        """The device channel. Raises :class:`~local.device.errors.Unenrolled`."""
        if self._channel is None:
            raise Unenrolled(f"{self.hardware.serial_number} is not enrolled.")
        return self._channel

    @property
    def push_token(self) -> bytes:
        """The device channel's token."""
        return self.channel.push_token

    def enroll(self, url: str) -> None:
        """Download the profile and install it."""
        self.install(self.download_profile(url))

    def download_profile(self, url: str) -> EnrollmentProfile:
        """Get a profile and check it as a device does before it shows it to its user."""
        with self._noting():
            response = must_be_ok(self._wire.send("GET", url, what="profile"), "profile")
            content_type = response.headers.get("content-type", "")
            if content_type != PROFILE:
                raise ProtocolViolation("Content-Type", f"That of the profile is {content_type!r}, not {PROFILE!r}.")
            return EnrollmentProfile.decode(response.content)

    def install(self, profile: EnrollmentProfile) -> None:
        """Get an identity, Authenticate and send the first TokenUpdate. When any of it fails, nothing is installed."""
        with self._lock, self._noting():
            if self._enrollment is not None:
                raise DeviceError("A device has one MDM profile at a time; this one is enrolled.")
            enrollment = self._new_enrollment(profile)
            enrollment.check_in(self._authenticate_message(profile))
            try:
                self._enrollment = enrollment
                self._channel = self._new_channel({"UDID": self.udid})
                self._update_token(self._channel)
            except DeviceError:
                self._forget()
                raise
            self.commands.profiles[profile.profile.identifier] = profile.profile

    def resume(
        self,
        profile: EnrollmentProfile,
        identity: Identity,
        *,
        push_token: bytes,
        push_magic: str,
        settled: frozenset[str] = frozenset(),
    ) -> None:
        """Be enrolled as before it was switched off; nothing is sent."""
        with self._lock:
            self._enrollment = self._enrollment_as(profile, identity)
            self._channel = Channel(
                self._enrollment,
                {"UDID": self.udid},
                push_token=push_token,
                push_magic=push_magic,
                execute=self.commands.execute,
                note=self.violations.append,
                settled=settled,
            )

    def authenticate_anew(self, profile: EnrollmentProfile) -> Callable[[], None]:
        """Enroll again while enrolled, up to Authenticate; the function returned sends the TokenUpdate."""
        with self._noting():
            anew = self._new_enrollment(profile)
        anew.check_in(self._authenticate_message(profile))
        # In place: channels keep their enrollment, and what is being reported on its old identity.
        self.enrollment.profile, self.enrollment.identity = anew.profile, anew.identity
        return self.update_token

    def renew_identity(self) -> None:
        """Get a new certificate with the old one (RenewalReq), and use it from the next message on."""
        with self._lock, self._noting():
            self.enrollment.identity = self._scep_client(self.profile).renew(self.identity)

    def update_token(self) -> None:
        """Send a TokenUpdate with a new push token, as after a restore or when APNs wishes so."""
        with self._lock:
            channel = self.channel
            old_token, channel.push_token = channel.push_token, self._random_bytes(32)
            self._update_token(channel)
            self._push.unregister(old_token)

    def check_out(self) -> None:
        """Be unmanaged, as when its user removes the profile: CheckOut is sent once, whatever becomes of it."""
        self.remove_management()

    def remove_management(self) -> None:
        """See :meth:`check_out`."""
        # A connection that is under way ends first.
        with self.channel.lock, self._lock:
            enrollment = self.enrollment
            try:
                if enrollment.profile.check_out_when_removed:
                    enrollment.check_in(messages.check_out(self.hardware, enrollment.profile.topic))
            finally:
                self._forget()

    def erase(self) -> None:
        """Forget everything, without a word to the server."""
        with self._lock:
            self._forget()

    def connect(self) -> list[Handled]:
        """Connect on the device channel, as after a push; see :meth:`local.device.channel.Channel.connect`."""
        with self._noting():
            return self.channel.connect()

    def idle(self) -> Command | None:
        """Report Idle and nothing more; return the command that comes."""
        with self._noting():
            return self.channel.idle()

    def acknowledge(self, command: Command, **fields: Any) -> Command | None:  # noqa: ANN401  # any property list
        """Report Acknowledged without doing anything; return the next command."""
        with self._noting():
            return self.channel.acknowledge(command, **fields)

    def not_now(self, command: Command) -> Command | None:
        """Report NotNow; return the next command."""
        with self._noting():
            return self.channel.not_now(command)

    def defer(self, times: int = 1, *, request_type: str | None = None) -> None:
        """Answer NotNow to the next commands (of one request type)."""
        self.commands.instruct(NOT_NOW, times=times, request_type=request_type)

    def fail(self, times: int = 1, *, request_type: str | None = None, status: str = ERROR) -> None:
        """Answer Error, or CommandFormatError, to the next commands (of one request type)."""
        self.commands.instruct(status, times=times, request_type=request_type)

    def lose_answers(self, times: int = 1, *, what: str | None = None) -> None:
        """Lose the server's next answers; see :meth:`local.device.wire.Wire.lose_answers`."""
        self._wire.lose_answers(times, what=what)

    def log_in(self, short_name: str, *, long_name: str = "", user_id: str | None = None) -> Channel:
        """Open a channel for a managed user of a Mac (TokenUpdate), and return it."""
        with self._lock:
            self._needs_capability(USER_CONNECTIONS)
            ids = {
                "UDID": self.udid,
                "UserID": user_id or str(uuid.UUID(bytes=self._random_bytes(16), version=4)).upper(),
                "UserShortName": short_name,
                "UserLongName": long_name or short_name,
                "NotOnConsole": False,
            }
            channel = self._new_channel(ids)
            self._update_token(channel)
            self._users[short_name] = channel
            return channel

    def check_in(self, message_type: str, **fields: Any) -> bytes:  # noqa: ANN401  # any property list
        """Send any other check-in message; return the body of the answer."""
        message = {"MessageType": message_type, "UDID": self.udid, **fields}
        return self.enrollment.check_in(message, patient=True)

    def user_authenticate(self, user_id: str) -> bool:
        """Ask whether a network user may have a channel (UserAuthenticate); False when it is declined with 410."""
        try:
            self.check_in("UserAuthenticate", UserID=user_id)
        except ServerRefused as refused:
            if refused.status == HTTPStatus.GONE:
                return False
            raise
        return True

    def escrow_bootstrap_token(self) -> bytes:
        """Make a bootstrap token, send it (SetBootstrapToken) and return it."""
        self._needs_capability(BOOTSTRAP_TOKEN)
        token = self._random_bytes(32)
        self.check_in("SetBootstrapToken", BootstrapToken=token)
        return token

    def get_bootstrap_token(self) -> bytes | None:
        """Ask for the escrowed bootstrap token (GetBootstrapToken); None when the server has none."""
        self._needs_capability(BOOTSTRAP_TOKEN)
        with self._noting():
            return messages.bootstrap_token(self.check_in("GetBootstrapToken"))

    def serve(self, stop: threading.Event, *, channel: Channel | None = None) -> None:
        """Connect whenever a push comes, and after a NotNow, until ``stop`` or until it is not enrolled any more.

        What fails is kept in ``failures``: a device says nothing and waits for the next push.
        """
        channel = channel or self.channel
        connect_at: float | None = None
        while not stop.is_set() and self.is_enrolled:
            try:
                woken = self._push.wait(channel.push_token, seconds=_POLL_SECONDS)
                if not woken and (connect_at is None or time.monotonic() < connect_at):
                    continue
                connect_at = None
                with self._noting():
                    handled = channel.connect()
                if any(one.status == NOT_NOW for one in handled):
                    connect_at = time.monotonic() + self._habits.deferred_delay
            except Unenrolled:
                return
            except ProtocolViolation:
                continue
            except (ServerRefused, NoAnswer, DeviceError) as error:
                if not stop.is_set():
                    self.failures.append(error)
                    stop.wait(_POLL_SECONDS)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Serve in threads of its own, one for each channel that there is."""
        stop = threading.Event()
        channels = [self.channel, *self._users.values()]
        threads = [
            threading.Thread(target=self.serve, args=(stop,), kwargs={"channel": channel}, daemon=True)
            for channel in channels
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ProtocolViolation as violation:
            self.violations.append(violation)
            raise

    def _needs_capability(self, capability: str) -> None:
        if capability not in self.profile.capabilities:
            raise DeviceError(f"The profile does not offer {capability}.")

    def _new_enrollment(self, profile: EnrollmentProfile) -> Enrollment:
        return self._enrollment_as(profile, self._scep_client(profile).enroll())

    def _enrollment_as(self, profile: EnrollmentProfile, identity: Identity) -> Enrollment:
        return Enrollment(
            profile,
            identity,
            hardware=self.hardware,
            wire=self._wire,
            form=self._habits.message,
            ended=self._forget,
            now=self._now,
        )

    def _scep_client(self, profile: EnrollmentProfile) -> ScepClient:
        return ScepClient(
            self._wire,
            profile.scep,
            subject=[(key, self._expand(value)) for key, value in profile.scep.subject] or [("CN", self.udid)],
            dialect=self._habits.scep,
            now=self._now,
            random_bytes=self._random_bytes,
            sleep=self._sleep,
        )

    def _expand(self, text: str) -> str:
        """Replace the variables that a Mac knows in a profile; other devices leave them as they are."""
        if self.hardware.platform is Platform.MACOS:
            text = text.replace("%ComputerName%", self.commands.device_name)
            text = text.replace("%SerialNumber%", self.hardware.serial_number)
        return text

    def _new_channel(self, ids: dict[str, Any]) -> Channel:
        return Channel(
            self.enrollment,
            ids,
            push_token=self._random_bytes(32),
            push_magic=str(uuid.UUID(bytes=self._random_bytes(16), version=4)).upper(),
            execute=self.commands.execute,
            note=self.violations.append,
        )

    def _authenticate_message(self, profile: EnrollmentProfile) -> dict[str, Any]:
        return messages.authenticate(
            self.hardware,
            profile.topic,
            device_name=self.commands.device_name,
            optional_keys=self._habits.message.optional_keys,
        )

    def _update_token(self, channel: Channel) -> None:
        """Be reachable first, then tell the server where: a push that came in between would be lost."""
        self._push.register(token=channel.push_token, topic=self.profile.topic, magic=channel.push_magic)
        message = messages.token_update(
            self.hardware,
            self.profile.topic,
            channel.ids,
            token=channel.push_token,
            magic=channel.push_magic,
            unlock_token=self.unlock_token,
            optional_keys=self._habits.message.optional_keys,
        )
        self.enrollment.check_in(message, patient=True)

    def _forget(self) -> None:
        """Remove all that management brought: profiles, managed apps, identity, tokens, users."""
        channels = [*([self._channel] if self._channel else []), *self._users.values()]
        self._enrollment = None
        self._channel = None
        self._users = {}
        self.commands = CommandExecutor(self, now=self._now)
        for channel in channels:
            # What ended the enrollment is the news, not that APNs could not be told.
            with suppress(DeviceError):
                self._push.unregister(channel.push_token)

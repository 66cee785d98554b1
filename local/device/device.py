"""The simulated device: a life from the profile's download to CheckOut."""

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography import x509

from local.device import listening
from local.device.account import AccountSignIn
from local.device.channel import Channel, Handled
from local.device.cms import Identity
from local.device.command import ERROR, NOT_NOW, Command
from local.device.commands import CommandExecutor
from local.device.enrollment import Enrollment
from local.device.errors import DeviceError, Unenrolled, Violations
from local.device.habits import Habits, Renewal
from local.device.hardware import Hardware
from local.device.identities import Identities
from local.device.management import Management
from local.device.profile import EnrollmentMode, EnrollmentProfile
from local.device.profile_sources import ProfileSources
from local.device.push import NoPushes, PushService
from local.device.state import DeviceState
from local.device.web_session import Person
from local.device.wire import Observer, Wire


class SimulatedDevice:
    """One device.

    ``trust`` is a PEM file of the roots that it knows, ``built_in`` the identity that Apple gave it, ``domains`` stand
    for the network's name service: the address (``https://127.0.0.1:8443``) of each.

    Everything that the server did and a real device rejects is in ``violations``, whether it was raised or lived with.
    Usable from several threads; closing it closes its connections (it is a context manager).
    """

    def __init__(
        self,
        hardware: Hardware,
        *,
        built_in: Identity | None = None,
        push: PushService | None = None,
        trust: Path | None = None,
        habits: Habits | None = None,
        domains: Mapping[str, str] | None = None,
        observer: Observer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.hardware = hardware
        self.violations = Violations()
        self.failures: list[DeviceError] = []
        """What went wrong while it was listening, apart from violations."""
        self.unlock_token = random_bytes(64)
        self._habits = habits or Habits()
        self._push = push or NoPushes()
        self._now = now
        self._random_bytes = random_bytes
        new_wire = partial(
            Wire,
            hardware.serial_number,
            trust=trust,
            observer=observer,
            retry_delays=self._habits.retry_delays,
            sleep=sleep,
        )
        self._wire = new_wire()
        self._identities = Identities(
            self._wire, hardware, dialect=self._habits.scep, now=now, random_bytes=random_bytes, sleep=sleep
        )
        self._sources = ProfileSources(
            self._wire,
            hardware,
            self._identities,
            accounts=AccountSignIn(self._wire, new_wire=new_wire, domains=domains or {}, random_bytes=random_bytes),
            built_in=built_in,
            form=self._habits.machine_info,
            now=now,
        )
        self._state = DeviceState(hardware.device_name)
        self._management: Management | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The enrollment stays."""
        self._wire.close()

    # What it is

    @property
    def udid(self) -> str:
        """What the server calls it, except for a User Enrollment."""
        return self.hardware.udid

    @property
    def is_enrolled(self) -> bool:
        """Whether it is managed, as far as it knows."""
        return self._management is not None

    @property
    def management(self) -> Management:
        """Its management: users and tokens. Raises :class:`~local.device.errors.Unenrolled`."""
        if self._management is None:
            raise Unenrolled(f"{self.hardware.serial_number} is not enrolled.")
        return self._management

    @property
    def enrollment(self) -> Enrollment:
        """Its enrollment. Raises :class:`~local.device.errors.Unenrolled`."""
        return self.management.enrollment

    @property
    def enrollment_id(self) -> str:
        """The id of the enrollment: the UDID, or that of a User Enrollment."""
        return self.management.enrollment_id or self.udid

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
        return self.management.channel

    @property
    def commands(self) -> CommandExecutor:
        """What carries out the device channel's commands."""
        return self.channel.commands

    @property
    def push_token(self) -> bytes:
        """The device channel's token."""
        return self.channel.push_token

    # How it enrolls

    def enroll(self, url: str) -> None:
        """Download the profile and install it."""
        self.install(self.download_profile(url))

    def download_profile(self, url: str) -> EnrollmentProfile:
        """Get a profile and check it as a device does before it shows it to its user."""
        with self.violations.noting():
            return self._sources.download(url)

    def enroll_by_ade(self, url: str, *, web_view: bool = False, awaiting_configuration: bool = False) -> None:
        """Enroll in Setup Assistant, where Apple's list of devices says; through the web page if it has one."""
        with self.violations.noting():
            profile = self._sources.by_web_view(url) if web_view else self._sources.by_ade(url)
        self.install(profile, awaiting_configuration=awaiting_configuration)

    def enroll_over_the_air(self, url: str) -> None:
        """Open a link to a Profile Service, go through its phases, and install what comes of it."""
        with self.violations.noting():
            profile = self._sources.over_the_air(url, self._state)
        self.install(profile)

    def enroll_with_account(self, user_identifier: str, person: Person) -> None:
        """Enroll for a person who signs in: their own device, or the organization's, as the account's server says."""
        with self.violations.noting():
            profile, grant = self._sources.with_account(user_identifier, person)
        self.install(profile, access_token=grant.access_token)

    def install(
        self, profile: EnrollmentProfile, *, access_token: str | None = None, awaiting_configuration: bool = False
    ) -> None:
        """Get an identity, Authenticate and send the first TokenUpdate. When any of it fails, nothing is installed.

        ``access_token`` is that of an account-driven enrollment; a device in Setup Assistant may be
        ``awaiting_configuration``.
        """
        with self._lock, self.violations.noting():
            if self._management is not None:
                raise DeviceError("A device has one MDM profile at a time; this one is enrolled.")
            identity = self._identities.enroll(profile.scep, self._state)
            is_user_enrollment = profile.mode is EnrollmentMode.BYOD
            management = self._manage(
                self._enrollment_as(profile, identity, access_token=access_token),
                enrollment_id=self._new_uuid() if is_user_enrollment else None,
                awaiting_configuration=awaiting_configuration,
            )
            management.authenticate()
            self._management = management
            try:
                management.update_token()
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
        enrollment_id: str | None = None,
        access_token: str | None = None,
        settled: frozenset[str] = frozenset(),
    ) -> None:
        """Be enrolled as before it was switched off; nothing is sent."""
        with self._lock:
            self._management = self._manage(
                self._enrollment_as(profile, identity, access_token=access_token),
                enrollment_id=enrollment_id,
                resumed={"push_token": push_token, "push_magic": push_magic, "settled": settled},
            )

    def replace_profile(self, profile: EnrollmentProfile) -> Callable[[], None] | None:
        """Put an enrollment profile in place of the one that is installed; the function returned does the rest.

        The server was kept from changing what it must not change before.
        """
        if self._habits.renewal is Renewal.ENROLL_ANEW:
            return self.authenticate_anew(profile)
        with self.violations.noting():
            enrollment = self.enrollment
            renewed = self._identities.renew(profile.scep, self._state, enrollment.identity)
            enrollment.profile, enrollment.identity = profile, renewed
        return None

    def authenticate_anew(self, profile: EnrollmentProfile) -> Callable[[], None]:
        """Enroll again while enrolled, up to Authenticate; the function returned sends the TokenUpdate."""
        with self.violations.noting():
            identity = self._identities.enroll(profile.scep, self._state)
            return self.management.authenticate_anew(
                self._enrollment_as(profile, identity, access_token=self.enrollment.access_token)
            )

    def renew_identity(self) -> None:
        """Get a new certificate with the old one (RenewalReq), and use it from the next message on."""
        with self._lock, self.violations.noting():
            enrollment = self.enrollment
            enrollment.identity = self._identities.renew(self.profile.scep, self._state, enrollment.identity)

    def next_authority(self) -> x509.Certificate:
        """Return the certificate of the CA that will follow the one that issued its identity."""
        with self._lock, self.violations.noting():
            return self._identities.next_authority(self.profile.scep, self._state)

    # How its enrollment ends

    def check_out(self) -> None:
        """Be unmanaged, as when its user removes the profile: CheckOut is sent once, whatever becomes of it."""
        self.remove_management()

    def remove_management(self) -> None:
        """See :meth:`check_out`."""
        # A connection that is under way ends first.
        with self.channel.lock, self._lock:
            management = self.management
            try:
                management.check_out()
            finally:
                self._forget()

    def return_to_service(self) -> bool:
        """Ask whether to be erased for the next user; if so, be erased, and enroll again if a profile came for that."""
        offered = self.management.return_to_service()
        if not offered.enabled:
            return False
        with self._lock, self.violations.noting():
            profile = EnrollmentProfile.decode(offered.mdm_profile) if offered.mdm_profile is not None else None
            self._forget()
        if profile is not None:
            self.install(profile)
        return True

    def erase(self) -> None:
        """Forget everything, without a word to the server."""
        with self._lock:
            self._forget()

    # How it lives

    def connect(self) -> list[Handled]:
        """Connect on the device channel, as after a push; see :meth:`local.device.channel.Channel.connect`."""
        with self.violations.noting():
            return self.channel.connect()

    def idle(self) -> Command | None:
        """Report Idle and nothing more; return the command that comes."""
        with self.violations.noting():
            return self.channel.idle()

    def acknowledge(self, command: Command, **fields: Any) -> Command | None:  # noqa: ANN401  # any property list
        """Report Acknowledged without doing anything; return the next command."""
        with self.violations.noting():
            return self.channel.acknowledge(command, **fields)

    def not_now(self, command: Command) -> Command | None:
        """Report NotNow; return the next command."""
        with self.violations.noting():
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

    def update_token(self) -> None:
        """Send a TokenUpdate with a new push token, as after a restore or when APNs wishes so."""
        with self._lock:
            self.management.update_token(anew=True)

    def check_in(self, message_type: str, **fields: Any) -> bytes:  # noqa: ANN401  # any property list
        """Send any check-in message of the device channel; return the body of the answer."""
        return self.channel.check_in(message_type, **fields).body

    def log_in(self, short_name: str, *, long_name: str = "", user_id: str | None = None) -> Channel:
        """See :meth:`local.device.management.Management.log_in`."""
        with self._lock:
            return self.management.log_in(short_name, long_name=long_name, user_id=user_id)

    def escrow_bootstrap_token(self) -> bytes:
        """See :meth:`local.device.management.Management.escrow_bootstrap_token`."""
        return self.management.escrow_bootstrap_token()

    def get_bootstrap_token(self) -> bytes | None:
        """See :meth:`local.device.management.Management.get_bootstrap_token`."""
        return self.management.get_bootstrap_token()

    def serve(self, stop: threading.Event) -> None:
        """Listen on the device channel; see :func:`local.device.listening.serve`."""
        listening.serve(self, self.channel, self._push, stop, deferred_delay=self._habits.deferred_delay)

    def listening(self) -> AbstractContextManager[None]:
        """Listen on all channels, in threads of their own."""
        channels = [self.channel, *self.management.users.values()]
        return listening.listening(self, channels, self._push, deferred_delay=self._habits.deferred_delay)

    def _enrollment_as(
        self, profile: EnrollmentProfile, identity: Identity, *, access_token: str | None = None
    ) -> Enrollment:
        return Enrollment(
            profile,
            identity,
            hardware=self.hardware,
            wire=self._wire,
            form=self._habits.message,
            access_token=access_token,
            ended=self._forget,
            now=self._now,
        )

    def _manage(self, enrollment: Enrollment, **more: Any) -> Management:  # noqa: ANN401  # those of Management
        return Management(
            enrollment,
            owner=self,
            state=self._state,
            push=self._push,
            habits=self._habits,
            violations=self.violations,
            random_bytes=self._random_bytes,
            now=self._now,
            **more,
        )

    def _new_uuid(self) -> str:
        return str(uuid.UUID(bytes=self._random_bytes(16), version=4)).upper()

    def _forget(self) -> None:
        """Remove all that management brought: profiles, managed apps, identity, tokens, users."""
        management, self._management = self._management, None
        self._state = DeviceState(self.hardware.device_name)
        if management is not None:
            management.end()

"""Where a device gets its identities from: the SCEP servers that profiles name."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509

from local.device.cms import Identity
from local.device.hardware import Hardware, Platform
from local.device.profile import ScepSettings
from local.device.scep import ScepClient, ScepDialect
from local.device.state import DeviceState
from local.device.wire import Wire


class Identities:
    """Gets and renews identities. All raise what :class:`~local.device.scep.ScepClient` raises."""

    def __init__(
        self,
        wire: Wire,
        hardware: Hardware,
        *,
        dialect: ScepDialect,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wire = wire
        self._hardware = hardware
        self._dialect = dialect
        self._now = now
        self._random_bytes = random_bytes
        self._sleep = sleep

    def enroll(self, settings: ScepSettings, state: DeviceState) -> Identity:
        """Get an identity with the challenge of the payload (PKCSReq)."""
        return self._client(settings, state).enroll()

    def renew(self, settings: ScepSettings, state: DeviceState, current: Identity) -> Identity:
        """Get a new identity that the current one vouches for (RenewalReq)."""
        return self._client(settings, state).renew(current)

    def next_authority(self, settings: ScepSettings, state: DeviceState) -> x509.Certificate:
        """Return the certificate of the CA that will follow the present one."""
        return self._client(settings, state).next_authority()

    def _client(self, settings: ScepSettings, state: DeviceState) -> ScepClient:
        subject = [(key, self._expand(value, state)) for key, value in settings.subject]
        return ScepClient(
            self._wire,
            settings,
            subject=subject or [("CN", self._hardware.udid)],
            dialect=self._dialect,
            now=self._now,
            random_bytes=self._random_bytes,
            sleep=self._sleep,
        )

    def _expand(self, text: str, state: DeviceState) -> str:
        """Replace the variables that a Mac knows in a profile; other devices leave them as they are."""
        if self._hardware.platform is Platform.MACOS:
            text = text.replace("%ComputerName%", state.device_name)
            text = text.replace("%SerialNumber%", self._hardware.serial_number)
        return text

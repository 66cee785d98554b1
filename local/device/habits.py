"""What tells one device from another on the wire."""

from dataclasses import dataclass, field
from enum import StrEnum

from local.device.enrollment import MessageForm
from local.device.machine_info import MachineInfoForm
from local.device.scep import ScepDialect


class Renewal(StrEnum):
    """What a device does with an enrollment profile that replaces the one it has (InstallProfile)."""

    RENEWAL_REQ = "renewal-req"
    """It renews its identity by SCEP, vouched for by the current one, and says nothing."""
    ENROLL_ANEW = "enroll-anew"
    """It gets an identity with the profile's challenge, and sends Authenticate and TokenUpdate with that."""


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a device talks; the defaults are those of today's devices."""

    message: MessageForm = field(default_factory=MessageForm)
    scep: ScepDialect = field(default_factory=ScepDialect)
    machine_info: MachineInfoForm = field(default_factory=MachineInfoForm)
    renewal: Renewal = Renewal.RENEWAL_REQ
    retry_delays: tuple[float, ...] = (0.2, 1.0)
    """Seconds before each repetition of a message that got no answer, or a 5xx."""
    deferred_delay: float = 1.0
    """Seconds after a NotNow until the device, while it listens, connects by itself."""

"""What tells one device from another on the wire."""

from dataclasses import dataclass, field

from local.device.enrollment import MessageForm
from local.device.scep import ScepDialect


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a device talks; the defaults are those of today's devices."""

    message: MessageForm = field(default_factory=MessageForm)
    scep: ScepDialect = field(default_factory=ScepDialect)
    retry_delays: tuple[float, ...] = (0.2, 1.0)
    """Seconds before each repetition of a message that got no answer, or a 5xx."""
    deferred_delay: float = 1.0
    """Seconds after a NotNow until the device, while it listens, connects by itself."""

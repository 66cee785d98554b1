"""Reading other servers' stores: what of them makes an enrollment here, and what cannot."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Message:
    """A check-in message as a device sent it, or as it would have."""

    message_type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class MigratedEnrollment:
    """A device or one of its users, as messages in the order in which they make an enrollment."""

    id: str
    messages: Sequence[Message]
    parent: str | None = None
    """The device of a user channel."""
    certificate_hash: str | None = None
    """SHA-256 (hex) of the certificate that the device has."""


@dataclass(frozen=True)
class LeftBehind:
    """What cannot be moved, and why."""

    id: str
    reason: str


Found = MigratedEnrollment | LeftBehind

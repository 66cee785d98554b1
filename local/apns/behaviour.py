"""The trouble that the simulated APNs can be told to make."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self


@dataclass
class Behaviour:
    """How the service behaves; the defaults are Apple's good days.

    Counters ("the next n requests") count down over all connections.
    """

    max_streams: int = 1000
    """Concurrent streams of a connection (SETTINGS_MAX_CONCURRENT_STREAMS), of those made from now on."""
    first_streams: int | None = None
    """So many until the first request was answered, as Apple allows one to an unknown provider."""
    max_connections: int = 100
    """A further connection is told to go away at once."""
    goaway_after: int | None = None
    """Each connection takes so many requests, then it says GOAWAY and ignores the streams above."""
    cut_after: int | None = None
    """Each connection is cut at its so-manieth request, which gets no answer."""
    cut_connections: int | None = None
    """So many connections are cut by ``cut_after``; None: all."""
    idle_timeout: float | None = None
    """Seconds without a request after which a connection is told to go away (IdleTimeout)."""
    latency: float = 0.0
    """Seconds before each answer."""
    answer_status: int | None = None
    """The next ``answer_times`` requests get this status with ``answer_reason``, whatever they ask."""
    answer_reason: str = ""
    answer_times: int = 0
    retry_after: int | None = None
    """Goes with ``answer_status`` as Retry-After (seconds)."""
    refuse_streams: int = 0
    """The next so many streams are reset with REFUSED_STREAM: not taken."""
    reset_streams: int = 0
    """The next so many streams are reset with INTERNAL_ERROR: taken or not, who knows."""
    silent: int = 0
    """The next so many requests are never answered."""
    initial_window: int = 65535
    """SETTINGS_INITIAL_WINDOW_SIZE, of connections made from now on."""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read a behaviour. Raises ``ValueError`` for a field that there is not."""
        if unknown := document.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """Return the behaviour as :meth:`from_document` reads it."""
        return asdict(self)

"""The trouble that the simulated service can be told to make."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self


@dataclass
class Behaviour:
    """How the service behaves; the defaults are Apple's good days. Counters count down over all servers."""

    default_limit: int = 100
    """Devices in a page for which no limit is asked."""
    session_seconds: float = 180.0
    """For how long a session's token is good."""
    session_refusal: int = 401
    """The status for a session's token that is not: 401 or 403."""
    rotate_sessions: bool = True
    """Each answer brings a new session token in its header. The former ones are good until their end."""
    forget_rotated: bool = False
    """A session's token is no good any more once another was given out for it."""
    error_form: str = "bare"
    """How an error's code stands in the body: ``bare``, ``quoted`` or ``json``."""
    cursor_days: float = 7.0
    """For how long a cursor is good."""
    stuck_cursor: bool = False
    """Pages of a sync say that more follows, and give back the cursor that they were asked with."""
    throttled: dict[str, int] = field(default_factory=dict)
    """Serial numbers whose next so many assignments are throttled."""
    retry_after_seconds: int = 30
    failing: dict[str, int] = field(default_factory=dict)
    """Serial numbers whose next so many assignments fail."""
    answer_status: int | None = None
    """The next ``answer_times`` requests with a session get this status with ``answer_code``, whatever they ask."""
    answer_code: str = ""
    answer_times: int = 0
    answer_after: bool = False
    """… after they were carried out: the answer alone is lost."""
    answer_skip: int = 0
    """… but not for the first so many."""
    retry_after: int | None = None
    """Goes with ``answer_status`` as Retry-After (seconds)."""
    latency: float = 0.0
    """Seconds before each answer."""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """Read a behaviour. Raises ``ValueError`` for a field that there is not."""
        if unknown := document.keys() - {each.name for each in fields(cls)}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return cls(**document)

    def document(self) -> dict[str, Any]:
        """Return the behaviour as :meth:`from_document` reads it."""
        return asdict(self)

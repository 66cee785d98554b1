"""Command reports: what a device says about one command when it connects, and by which it asks for the next.

Apple's page: https://developer.apple.com/documentation/devicemanagement/implementing-device-management.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mdmlib.apple import plist
from mdmlib.apple.enrollment_id import MAX_ID_LENGTH, EnrollmentID
from mdmlib.errors import MalformedBodyError

IDLE: Final = "Idle"
NOT_NOW: Final = "NotNow"
ACKNOWLEDGED: Final = "Acknowledged"
ERROR: Final = "Error"
COMMAND_FORMAT_ERROR: Final = "CommandFormatError"

MAX_STATUS_LENGTH: Final = 64
MAX_ERRORS: Final = 16
MAX_ERROR_TEXT: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class CommandReport:
    """A report as it came, its bytes included.

    ``status`` is any string: Apple adds to them. ``command_uuid`` is there for every status but Idle, where it means
    nothing. ``error_chain`` has Apple's keys (ErrorCode, ErrorDomain, LocalizedDescription, USEnglishDescription)
    and is cut to 16 errors and 1,000 characters a text; the whole of it is in ``body``.
    """

    enrollment_id: EnrollmentID
    status: str
    command_uuid: str | None
    body: bytes = field(repr=False)
    error_chain: Sequence[Mapping[str, int | str]] | None = field(repr=False, default=None)
    fields: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def is_idle(self) -> bool:
        """Whether the device only asks for a command."""
        return self.status == IDLE

    @property
    def is_not_now(self) -> bool:
        """Whether the device will take the command later; it stays pending."""
        return self.status == NOT_NOW

    @property
    def is_final(self) -> bool:
        """Whether the command is settled, by success or not: every status but Idle and NotNow settles it."""
        return self.status not in {IDLE, NOT_NOW}

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Decode a report.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for what is no report; one that names a command is never
        refused for what else it says, or the device would send it forever.
        """
        fields = plist.loads(body)
        status = fields.get("Status")
        if not isinstance(status, str) or not 0 < len(status) <= MAX_STATUS_LENGTH or not status.isprintable():
            raise MalformedBodyError("The report has no Status.", field="Status")
        command_uuid = fields.get("CommandUUID")
        # It becomes a part of a sort key.
        if not isinstance(command_uuid, str) or not 0 < len(command_uuid.encode()) <= MAX_ID_LENGTH:
            if status != IDLE:
                raise MalformedBodyError("The report has no CommandUUID.", field="CommandUUID")
            command_uuid = None
        return cls(
            enrollment_id=EnrollmentID.from_message(fields),
            status=status,
            command_uuid=command_uuid,
            body=body,
            error_chain=_error_chain(fields.get("ErrorChain")),
            fields=fields,
        )


def _error_chain(value: object) -> list[dict[str, int | str]] | None:
    """Return what can be read of an ErrorChain, or None: it describes a failure, it decides nothing."""
    if not isinstance(value, list):
        return None
    chain = [_error(error) for error in value[:MAX_ERRORS] if isinstance(error, dict)]
    return [error for error in chain if error] or None


def _error(error: Mapping[str, object]) -> dict[str, int | str]:
    known: dict[str, int | str] = {}
    code = error.get("ErrorCode")
    if isinstance(code, int) and not isinstance(code, bool):
        known["ErrorCode"] = code
    for key in ("ErrorDomain", "LocalizedDescription", "USEnglishDescription"):
        text = error.get(key)
        if isinstance(text, str):
            known[key] = text[:MAX_ERROR_TEXT]
    return known

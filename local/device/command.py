"""Commands and the answers to them, as they go over the wire."""

import plistlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from xml.parsers.expat import ExpatError

from local.device.errors import ProtocolViolation

ACKNOWLEDGED: Final = "Acknowledged"
ERROR: Final = "Error"
COMMAND_FORMAT_ERROR: Final = "CommandFormatError"
NOT_NOW: Final = "NotNow"
IDLE: Final = "Idle"


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command as it came over the wire."""

    uuid: str
    request_type: str
    fields: Mapping[str, Any] = field(repr=False)
    """The ``Command`` dictionary."""
    body: bytes = field(repr=False)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a command. Raises :class:`~local.device.errors.ProtocolViolation`."""
        try:
            document = plistlib.loads(body)
        except (plistlib.InvalidFileException, ExpatError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise ProtocolViolation("command", "The answer is neither a property list nor empty.") from error
        match document:
            case {"CommandUUID": str(uuid), "Command": {"RequestType": str(request_type)} as fields} if uuid:
                return cls(uuid=uuid, request_type=request_type, fields=fields, body=body)
            case _:
                raise ProtocolViolation("command", "It has no CommandUUID, Command or RequestType.")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a report says besides who and which command."""

    status: str = ACKNOWLEDGED
    fields: Mapping[str, Any] = field(default_factory=dict)
    afterwards: Callable[[], None] | None = None
    """What the device does once the report is out."""
    is_last: bool = False
    """Whether the device is unmanaged afterwards: what the server gives next is lost."""


def error(code: int, domain: str, description: str) -> Answer:
    """Make an answer with an ``ErrorChain`` of one."""
    chain = {
        "ErrorCode": code,
        "ErrorDomain": domain,
        "LocalizedDescription": description,
        "USEnglishDescription": description,
    }
    return Answer(status=ERROR, fields={"ErrorChain": [chain]})

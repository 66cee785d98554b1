"""Commands as administrators queue them and devices receive them: the same bytes.

Apple's pages: https://developer.apple.com/documentation/devicemanagement/commands-and-queries.
"""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final, Self

from mdmlib.apple import plist
from mdmlib.errors import MalformedBodyError

MAX_COMMAND_UUID_LENGTH: Final = 127
MAX_REQUEST_TYPE_LENGTH: Final = 63


@dataclass(frozen=True)
class Command:
    """A command: ``body`` is the raw plist, which is kept and sent byte for byte.

    ``uuid`` need not be a UUID, only unique: ``0001_ProfileList`` is one. Its payload may hold secrets.
    """

    uuid: str
    request_type: str
    body: bytes = field(repr=False)
    is_named_by_us: bool = field(default=False, compare=False)
    """Whether its caller named none: the same request again is another command then."""

    @cached_property
    def body_hash(self) -> str:
        """SHA-256 of the body (hex): tells a repeated request from another one under the same ``uuid``."""
        return sha256(self.body).hexdigest()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read a raw command plist: ``{CommandUUID: …, Command: {RequestType: …, …}}``.

        Raises :class:`~mdmlib.errors.MalformedBodyError`, with ``field`` when one of the two is missing or unusable.
        """
        document = plist.loads(raw)
        command = document.get("Command")
        if not isinstance(command, dict):
            raise MalformedBodyError("The property list has no Command dictionary.", field="Command")
        return cls(
            _name(document.get("CommandUUID"), "CommandUUID", MAX_COMMAND_UUID_LENGTH),
            _name(command.get("RequestType"), "RequestType", MAX_REQUEST_TYPE_LENGTH),
            raw,
        )


def _name(value: object, key: str, longest: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise MalformedBodyError(f"The command has no {key}.", field=key)
    if len(value) > longest or not value.isprintable():
        raise MalformedBodyError(f"{key} is longer than {longest} characters, or not printable.", field=key)
    return value

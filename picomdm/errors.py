"""What can go wrong, and the exit code that says so.

::

    CommandLineError
    ├── RefusedError       1: the server, or AWS, does not do it
    ├── UnreachableError   1: nobody answers
    └── SetupError         2: the command line, or what it is run with, is wrong
"""

from typing import ClassVar


class CommandLineError(Exception):
    """Base of all errors that end a command. ``code`` is for machines, the message for people."""

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.field = field


class RefusedError(CommandLineError):
    """The server understood what was asked and does not do it. ``status`` is HTTP's, or None."""

    default_code = "refused"

    def __init__(
        self, message: str, *, code: str | None = None, field: str | None = None, status: int | None = None
    ) -> None:
        super().__init__(message, code=code, field=field)
        self.status = status


class UnreachableError(CommandLineError):
    """Nobody answers at the address that we have."""

    default_code = "unreachable"


class SetupError(CommandLineError):
    """No stack of that name, no credentials, no region, a file that cannot be read."""

    exit_code = 2
    default_code = "setup"

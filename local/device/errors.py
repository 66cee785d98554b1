"""What can go wrong between a device and its server.

::

    DeviceError
    ├── ProtocolViolation       the server did what a real device rejects
    ├── ServerRefused           the server answered with another status than 200
    │   ├── ScepRefused         the SCEP server answered FAILURE
    │   └── UpdateRequired      a newer system has to be installed before the device may enroll
    ├── PasswordRejected        a user could not prove to be who they say they are
    ├── NoAnswer                the request or its answer was lost on the way
    └── Unenrolled              the enrollment is over: the server ended it, or there never was one
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class DeviceError(Exception):
    """Base of what a simulated device raises."""


class ProtocolViolation(DeviceError):  # noqa: N818  # it is what it says, and the glossary's word
    """The server did what a real device rejects. ``rule`` is stable, for tests; the message is for people."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(f"{rule}: {message}")
        self.rule = rule


class ServerRefused(DeviceError):  # noqa: N818  # see ProtocolViolation
    """The server answered ``what`` with a status other than 200."""

    def __init__(self, what: str, status: int, body: bytes = b"") -> None:
        super().__init__(f"{what} was answered {status}")
        self.what = what
        self.status = status
        self.body = body

    @property
    def passing(self) -> bool:
        """Whether the same request later is right."""
        return self.status == 429 or self.status >= 500  # noqa: PLR2004  # the classes of RFC 9110, section 15


SCEP_FAILURES: Final = {0: "badAlg", 1: "badMessageCheck", 2: "badRequest", 3: "badTime", 4: "badCertId"}
"""RFC 8894, section 3.2.1.4.1."""


class ScepRefused(ServerRefused):
    """The SCEP server answered 200 with a CertRep of status FAILURE; ``fail_info`` says why (RFC 8894, 3.2.1.4)."""

    def __init__(self, fail_info: int) -> None:
        super().__init__("PKIOperation", 200)
        self.fail_info = fail_info
        self.args = (f"PKIOperation was answered FAILURE, {SCEP_FAILURES.get(fail_info, fail_info)}",)

    @property
    def passing(self) -> bool:
        """Never: the same request would fail again."""
        return False


class UpdateRequired(ServerRefused):
    """The server wants a newer system first (Apple: Error Code Software Update Required)."""

    def __init__(self, what: str, body: bytes, *, os_version: str, build_version: str | None) -> None:
        super().__init__(what, 403, body)
        self.os_version = os_version
        self.build_version = build_version
        self.args = (f"{what} was answered that {os_version} is needed",)


class PasswordRejected(DeviceError):  # noqa: N818  # see ProtocolViolation
    """A user's password was not taken: they go on without being managed."""


class NoAnswer(DeviceError):  # noqa: N818  # see ProtocolViolation
    """The request or its answer was lost on the way; the server may have acted on it."""


class Unenrolled(DeviceError):  # noqa: N818  # see ProtocolViolation
    """The device is not enrolled, or not any more."""


class Violations(list[ProtocolViolation]):
    """What the server did wrong, in its order."""

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the violation that ends the block, and let it pass."""
        try:
            yield
        except ProtocolViolation as violation:
            # Blocks lie within one another.
            if not any(known is violation for known in self):
                self.append(violation)
            raise

"""Every error that PicoMDM raises on purpose.

::

    PicoMDMError
    ├── BadRequestError          what was asked cannot be understood, or breaks a rule that is told
    │   ├── MalformedBodyError   a body is no plist, no JSON, no CMS, no PKCS #10
    │   ├── IdentityError        a device did not prove who it is (answered without a reason)
    │   └── BodyTooLargeError    more than the edge accepts
    ├── ForbiddenError           known, but not allowed (an expired link, a used challenge)
    │   └── DeviceInstructedError  not allowed before the device has done something (updated its OS)
    ├── SignInRequiredError      a person has to sign in before the device may enroll for them
    ├── UnauthorizedError        an administrator did not prove who they are, by HTTP Basic
    ├── TooManyAttemptsError     so many have not, from one address, that the next ones have to wait
    ├── BlockedError             a device that an administrator has blocked: it shall un-enroll
    ├── NotFoundError            what is named does not exist
    ├── ConflictError            the state does not allow it (a duplicate, a checked-out enrollment)
    ├── PreconditionFailedError  it is not, or no longer, what whoever asked has seen (If-Match)
    ├── GoneError                answered 410: the device shall not ask again (UserAuthenticate)
    ├── AppleRefusedError        a service of Apple's refuses what it was asked for; its code says why
    │   └── AdeTokenMissingError  nobody has given us the token by which Apple would let us in
    └── UnavailableError         ours or a neighbour's fault; asking again later is right
        └── UpstreamFailedError  the server behind the authenticating proxy did not answer

Only :mod:`mdmlib.http` knows status codes. A message is for an administrator: what is wrong and what to do.
It never holds a body, a token, a PIN or a key, for it may be logged.
"""

from collections.abc import Mapping
from typing import ClassVar


class PicoMDMError(Exception):
    """Base of all errors raised on purpose.

    ``code`` is for machines (snake_case, stable across releases), the message for people. ``field`` names the
    offending part of a request, where there is one.
    """

    default_code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.field = field


class BadRequestError(PicoMDMError):
    """What was asked cannot be understood, or breaks a rule."""

    default_code = "bad_request"


class MalformedBodyError(BadRequestError):
    """A body is not in the format that it should have."""

    default_code = "malformed_body"


class IdentityError(BadRequestError):
    """A device did not prove who it is. The device edge answers 400 with an empty body, never 401."""

    default_code = "identity_not_proven"


class BodyTooLargeError(BadRequestError):
    """A body exceeds what the edge accepts."""

    default_code = "body_too_large"


class ForbiddenError(PicoMDMError):
    """What was presented is known but not, or no longer, good for this."""

    default_code = "forbidden"


class DeviceInstructedError(ForbiddenError):
    """A device may not enroll before it has done something, which a code of Apple's tells it to do.

    ``code`` is that code (``com.apple.softwareupdate.required``), ``details`` what it needs for that. ``for_people`` is
    shown to who is in front of the device.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        for_people: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.for_people = for_people
        self.details = details


class SignInRequiredError(PicoMDMError):
    """A person has to sign in, in the way that ``www_authenticate`` (the header's value) says."""

    default_code = "sign_in_required"

    def __init__(self, message: str, *, www_authenticate: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.www_authenticate = www_authenticate


class UnauthorizedError(PicoMDMError):
    """An administrator did not prove who they are. ``realm`` is what their client is asked to prove it for."""

    default_code = "unauthorized"

    def __init__(self, message: str, *, realm: str) -> None:
        super().__init__(message)
        self.realm = realm


class TooManyAttemptsError(PicoMDMError):
    """Too many wrong passwords came from one address; whether this one is right was not looked at."""

    default_code = "too_many_attempts"


class BlockedError(PicoMDMError):
    """An administrator has blocked the device.

    The only error that makes a device un-enroll. ``knows_unrecognized_device`` says whether its OS acts on Apple's
    ``com.apple.unrecognized.device``; an older one acts on 401.
    """

    default_code = "device_blocked"

    def __init__(self, message: str, *, knows_unrecognized_device: bool) -> None:
        super().__init__(message)
        self.knows_unrecognized_device = knows_unrecognized_device


class NotFoundError(PicoMDMError):
    """What is named does not exist."""

    default_code = "not_found"


class ConflictError(PicoMDMError):
    """The state of the thing does not allow it."""

    default_code = "conflict"


class PreconditionFailedError(PicoMDMError):
    """What was to be changed is not, or no longer, as whoever asked has seen it."""

    default_code = "changed_meanwhile"


class GoneError(PicoMDMError):
    """The service that the device asks for is not offered (410), as UserAuthenticate is declined."""

    default_code = "gone"


class AppleRefusedError(PicoMDMError):
    """A service of Apple's refuses what it was asked for. ``apple_code`` is Apple's word for why."""

    default_code = "apple_refused"

    def __init__(self, message: str, *, apple_code: str, status: int) -> None:
        super().__init__(message)
        self.apple_code = apple_code
        self.status = status


class AdeTokenMissingError(AppleRefusedError):
    """An ADE server has no token yet, so Apple was not even asked: whoever runs it has to import one."""

    default_code = "ade_token_missing"

    def __init__(self, message: str) -> None:
        super().__init__(message, apple_code="TOKEN_MISSING", status=0)


class UnavailableError(PicoMDMError):
    """Something that we depend on failed; the same request later is right."""

    default_code = "unavailable"


class UpstreamFailedError(UnavailableError):
    """The server that a request was passed on to gave no answer that could be passed back."""

    default_code = "upstream_failed"

"""Where a device gets its enrollment profile from."""

from typing import Final

import httpx

from local.device.errors import ProtocolViolation
from local.device.profile import EnrollmentProfile
from local.device.wire import Wire, must_be_ok

PROFILE: Final = "application/x-apple-aspen-config"


class ProfileSources:
    """Gets profiles and checks them. All raise what :class:`~local.device.wire.Wire` and the checks raise."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def download(self, url: str) -> EnrollmentProfile:
        """Open a link in the browser."""
        response = must_be_ok(self._wire.send("GET", url, what="profile"), "profile")
        return EnrollmentProfile.decode(profile_in(response))


def profile_in(response: httpx.Response) -> bytes:
    """Return the profile that a response brings. Raises :class:`~local.device.errors.ProtocolViolation`."""
    content_type = response.headers.get("content-type", "")
    if content_type != PROFILE:
        raise ProtocolViolation("Content-Type", f"That of the profile is {content_type!r}, not {PROFILE!r}.")
    return response.content

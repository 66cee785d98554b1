"""Over-the-air enrollment: a device is asked who it is before it is given an identity, and that before its profile.

Apple's page: Over-the-Air Profile Delivery and Configuration, in the archive of its documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit

from local.device.configuration_profile import ConfigurationProfile, ProfileError, open_profile, required
from local.device.errors import ProtocolViolation
from local.device.profile import MDM_PAYLOAD, SCEP_PAYLOAD, ScepSettings, scep_settings

_PROFILE_SERVICE: Final = "Profile Service"


@dataclass(frozen=True, kw_only=True)
class ProfileService:
    """What the first phase's profile asks for."""

    url: str
    """Where the device posts to in the second phase and in the third."""
    attributes: tuple[str, ...]
    challenge: str | bytes | None = field(repr=False)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read the profile of the first phase. Raises :class:`~local.device.errors.ProtocolViolation`."""
        try:
            document, _ = open_profile(body, payload_type=_PROFILE_SERVICE)
            for key in ("PayloadIdentifier", "PayloadUUID"):
                required(document, key, str)
            content: Mapping[str, Any] = required(document, "PayloadContent", dict)
            url = required(content, "URL", str)
            attributes = required(content, "DeviceAttributes", list)
        except ProfileError as error:
            raise ProtocolViolation("profile-service", str(error)) from error
        if urlsplit(url).scheme != "https" or not urlsplit(url).hostname:
            raise ProtocolViolation("URL", f"{url!r} is no https URL.")
        if not all(isinstance(name, str) for name in attributes):
            raise ProtocolViolation("DeviceAttributes", "They are no names.")
        challenge = content.get("Challenge")
        if not isinstance(challenge, str | bytes | None):
            raise ProtocolViolation("Challenge", "It is neither text nor data.")
        return cls(url=url, attributes=tuple(attributes), challenge=challenge)

    def told(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the device posts: its attributes and the challenge, as it came."""
        return {**attributes} if self.challenge is None else {**attributes, "CHALLENGE": self.challenge}


def identity_settings(body: bytes) -> ScepSettings | None:
    """Return where the second phase's profile sends the device for an identity; None when it enrolls the device itself.

    Raises :class:`~local.device.errors.ProtocolViolation`.
    """
    try:
        profile = ConfigurationProfile.decode(body)
    except ProfileError as error:
        raise ProtocolViolation("profile", str(error)) from error
    if profile.of_type(MDM_PAYLOAD):
        return None
    payloads = profile.of_type(SCEP_PAYLOAD)
    if len(payloads) != 1:
        raise ProtocolViolation("scep-payload", f"The profile has {len(payloads)} SCEP payloads, not one.")
    return scep_settings(payloads[0])

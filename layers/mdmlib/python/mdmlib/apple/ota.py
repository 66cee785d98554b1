"""Over-the-air enrollment: a device shows who it is before it is given anything worth having.

1. The device downloads a **Profile Service** payload: an address, a challenge, and the names of what it shall tell.
2. It posts that, signed with its built-in identity, and gets a profile whose only payload is SCEP.
3. It posts the same again to the same address, signed with the identity that SCEP gave it, and gets the enrollment
   profile.

Apple's page: "Over-the-Air Profile Delivery and Configuration", in the archive of its documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mdmlib.apple import plist
from mdmlib.errors import MalformedBodyError

DEVICE_ATTRIBUTES: Final = ("UDID", "VERSION", "PRODUCT", "SERIAL", "MEID", "IMEI")

_MAX_TEXT: Final = 256


@dataclass(frozen=True, kw_only=True)
class DeviceAttributes:
    """What a device posts in the phases 2 and 3, whoever signed it."""

    challenge: str | None = field(repr=False)
    """As it stood in the first phase's profile. Not every release repeats it in the third phase."""
    serial_number: str | None
    product: str | None

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Decode the plist. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        fields = plist.loads(content)
        return cls(
            challenge=_text(fields, "CHALLENGE"),
            serial_number=_text(fields, "SERIAL"),
            product=_text(fields, "PRODUCT"),
        )


def profile_service(*, url: str, challenge: str, identifier: str, organization: str, uuid: str) -> bytes:
    """Write the profile of the first phase. ``url`` is where the device posts to, twice."""
    return plist.dumps(
        {
            "PayloadContent": {
                "Challenge": challenge,
                "DeviceAttributes": list(DEVICE_ATTRIBUTES),
                "URL": url,
            },
            "PayloadDescription": f"Asks {organization} to manage this device.",
            "PayloadDisplayName": f"{organization} Enrollment",
            "PayloadIdentifier": f"{identifier}.ota",
            "PayloadOrganization": organization,
            "PayloadType": "Profile Service",
            "PayloadUUID": uuid,
            "PayloadVersion": 1,
        }
    )


def _text(fields: Mapping[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if not isinstance(value, str | bytes | None) or len(value or "") > _MAX_TEXT:
        raise MalformedBodyError(f"{key} is no short string.", field=key)
    # Some releases send back as data what they were given as a string.
    return (value.decode(errors="replace") if isinstance(value, bytes) else value) or None

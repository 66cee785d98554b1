"""The enrollment profile (``.mobileconfig``) that makes a device get an identity and enroll.

Apple's pages: https://developer.apple.com/documentation/devicemanagement/mdm and …/scep.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from mdmlib.apple import plist

CONTENT_TYPE: Final = "application/x-apple-aspen-config"

IDENTIFIER: Final = "com.github.picomdm.enroll"
"""A device that has a profile of this identifier replaces it: this is how it enrolls anew."""

ACCESS_RIGHTS: Final = 8191
"""Every right that there is."""

SERVER_CAPABILITIES: Final = (
    "com.apple.mdm.per-user-connections",
    "com.apple.mdm.bootstraptoken",
    "com.apple.mdm.token",
)


def _random_uuid() -> str:
    return str(uuid4()).upper()


@dataclass(frozen=True, kw_only=True)
class EnrollmentProfile:
    """One enrollment profile.

    ``device_url`` is where devices reach this deployment, without a trailing slash; ``topic`` is that of the push
    certificate; ``challenge`` is good for one identity. ``new_uuid`` is asked for the three payload UUIDs: each
    profile that is handed out has its own.
    """

    device_url: str
    topic: str
    challenge: str = field(repr=False)
    organization: str
    new_uuid: Callable[[], str] = field(repr=False, default=_random_uuid)

    def to_plist(self) -> bytes:
        """Write the profile, unsigned."""
        identity_uuid = self.new_uuid()
        return plist.dumps(
            {
                "PayloadContent": [self._scep(identity_uuid), self._mdm(identity_uuid)],
                "PayloadDescription": f"Lets {self.organization} manage this device.",
                "PayloadDisplayName": f"{self.organization} Enrollment",
                "PayloadIdentifier": IDENTIFIER,
                "PayloadOrganization": self.organization,
                # The identity has to be in the system's keychain also when a user installs this on a Mac.
                "PayloadScope": "System",
                "PayloadType": "Configuration",
                "PayloadUUID": self.new_uuid(),
                "PayloadVersion": 1,
            }
        )

    def _scep(self, uuid: str) -> dict[str, Any]:
        return {
            "PayloadContent": {
                "Challenge": self.challenge,
                "Key Type": "RSA",
                # Sign (1) and encrypt (4): SCEP encrypts to this key, Mdm-Signature signs with it.
                "Key Usage": 5,
                "KeyIsExtractable": False,
                "Keysize": 2048,
                "Name": "Device Management Identity Certificate",
                "Subject": [[["O", self.organization]], [["CN", f"{self.organization} Identity (%ComputerName%)"]]],
                "URL": f"{self.device_url}/scep",
            },
            "PayloadDescription": "Gives this device the certificate that it proves its identity with.",
            "PayloadDisplayName": "Device Identity",
            "PayloadIdentifier": f"{IDENTIFIER}.scep",
            "PayloadOrganization": self.organization,
            "PayloadType": "com.apple.security.scep",
            "PayloadUUID": uuid,
            "PayloadVersion": 1,
        }

    def _mdm(self, identity_uuid: str) -> dict[str, Any]:
        return {
            "AccessRights": ACCESS_RIGHTS,
            "CheckInURL": f"{self.device_url}/mdm/checkin",
            "CheckOutWhenRemoved": True,
            "IdentityCertificateUUID": identity_uuid,
            "PayloadDescription": "Enrolls this device with the management server.",
            "PayloadDisplayName": "Device Management",
            "PayloadIdentifier": f"{IDENTIFIER}.mdm",
            "PayloadOrganization": self.organization,
            "PayloadType": "com.apple.mdm",
            "PayloadUUID": self.new_uuid(),
            "PayloadVersion": 1,
            "ServerCapabilities": list(SERVER_CAPABILITIES),
            "ServerURL": f"{self.device_url}/mdm/connect",
            # Without it there is no Mdm-Signature header, and nobody is known.
            "SignMessage": True,
            "Topic": self.topic,
        }

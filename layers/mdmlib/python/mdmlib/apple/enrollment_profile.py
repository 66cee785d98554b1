"""The enrollment profile (``.mobileconfig``) that makes a device get an identity and enroll.

Apple's pages: https://developer.apple.com/documentation/devicemanagement/mdm and …/scep.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

from cryptography import x509

from mdmlib.apple import plist
from mdmlib.errors import BadRequestError

CONTENT_TYPE: Final = "application/x-apple-aspen-config"

MDM: Final = "com.apple.mdm"
SCEP: Final = "com.apple.security.scep"

IDENTIFIER: Final = "com.github.picomdm.enroll"
"""A device that has a profile of this identifier replaces it: this is how it enrolls anew."""

ACCESS_RIGHTS: Final = 8191
"""Every right that there is."""

SERVER_CAPABILITIES: Final = (
    "com.apple.mdm.per-user-connections",
    "com.apple.mdm.bootstraptoken",
    "com.apple.mdm.token",
)
"""All of them, from the first profile on: the first one can never be added to an enrollment later."""

ACCOUNT_OID: Final = "0.9.2342.19200300.100.1.1"
"""``uid`` (RFC 4519): of the identity's subject, the Managed Apple Account of an account-driven enrollment."""

KEY_SIZES: Final = (2048, 4096)
"""Of the RSA key that a device makes. A request with the larger one does not fit into a URL, but devices POST it."""

# Whoever may install or remove (2, 128) has to be allowed to look (1, 64) as well.
_IMPLIED_RIGHTS: Final = ((2, 1), (128, 64))


def _random_uuid() -> str:
    return str(uuid4()).upper()


class EnrollmentMode(StrEnum):
    """How an account-driven enrollment manages a device; the values are Apple's ``EnrollmentMode``."""

    USER = "BYOD"
    """User Enrollment: the person's own device."""
    DEVICE = "ADDE"
    """Device Enrollment: the organization's."""


@dataclass(frozen=True)
class ManagedAccount:
    """The person that an account-driven enrollment is for."""

    apple_account: str
    """The Managed Apple Account that belongs to who signed in."""
    mode: EnrollmentMode


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """What an administrator decides about all enrollment profiles. None stands for what the deployment is called."""

    identifier: str = IDENTIFIER
    organization: str | None = None
    display_name: str | None = None
    description: str | None = None
    access_rights: int = ACCESS_RIGHTS
    server_capabilities: tuple[str, ...] = SERVER_CAPABILITIES
    key_size: int = 2048
    trust_certificates: tuple[bytes, ...] = field(repr=False, default=())
    """DER of certificates that a device shall trust, such as the root of a private TLS certificate."""


def check_access_rights(rights: int, *, name: str) -> None:
    """Refuse access rights that a device refuses. Raises :class:`~mdmlib.errors.BadRequestError` with ``field``."""
    if not 0 < rights <= ACCESS_RIGHTS:
        raise BadRequestError(f"{name} has to be from 1 to {ACCESS_RIGHTS}.", code="invalid_field", field=name)
    for right, implied in _IMPLIED_RIGHTS:
        if rights & right and not rights & implied:
            raise BadRequestError(
                f"{name} with {right} has to have {implied} as well: Apple asks for it.",
                code="invalid_field",
                field=name,
            )


@dataclass(frozen=True, kw_only=True)
class EnrollmentProfile:
    """One enrollment profile.

    ``device_url`` is where devices reach this deployment, without a trailing slash; ``topic`` is that of the push
    certificate; ``challenge`` is good for one identity. ``new_uuid`` is asked for the payload UUIDs: each profile that
    is handed out has its own, but for the MDM payload. A profile that renews the identity takes the place of the one
    before, and then the payload of this UUID is updated, not removed, which would end the enrollment.
    """

    device_url: str
    topic: str
    challenge: str = field(repr=False)
    organization: str
    options: ProfileOptions = field(default_factory=ProfileOptions)
    account: ManagedAccount | None = field(repr=False, default=None)
    """Whom an account-driven enrollment is for; None for all others."""
    mdm_url: str | None = None
    """Where the enrolled device reports, if that is not ``device_url``: it may have another way to prove who it is."""
    new_uuid: Callable[[], str] = field(repr=False, default=_random_uuid)

    def to_plist(self) -> bytes:
        """Write the profile, unsigned."""
        identity_uuid = self.new_uuid()
        return plist.dumps(self._configuration([self.scep(identity_uuid), self.mdm(identity_uuid), *self._trust()]))

    def identity_to_plist(self) -> bytes:
        """Write a profile that only gets the device an identity: the second phase of over-the-air enrollment."""
        return plist.dumps(self._configuration([self.scep(self.new_uuid()), *self._trust()]))

    def scep(self, uuid: str) -> dict[str, Any]:
        """Return the payload that gets the device its identity."""
        return {
            "PayloadContent": {
                "Challenge": self.challenge,
                "Key Type": "RSA",
                # Sign (1) and encrypt (4): SCEP encrypts to this key, Mdm-Signature signs with it.
                "Key Usage": 5,
                "KeyIsExtractable": False,
                "Keysize": self.options.key_size,
                "Name": "Device Management Identity Certificate",
                "Subject": [
                    [["O", self._organization]],
                    [["CN", f"{self._organization} Identity (%ComputerName%)"]],
                    *self.account_subject(),
                ],
                "URL": f"{self.device_url}/scep",
            },
            "PayloadDescription": "Gives this device the certificate that it proves its identity with.",
            "PayloadDisplayName": "Device Identity",
            "PayloadIdentifier": f"{self.options.identifier}.scep",
            "PayloadOrganization": self._organization,
            "PayloadType": SCEP,
            "PayloadUUID": uuid,
            "PayloadVersion": 1,
        }

    def account_subject(self) -> list[list[list[str]]]:
        """Return the part of an identity's subject that names the account, for the profile that is to renew it."""
        return [[[ACCOUNT_OID, self.account.apple_account]]] if self.account else []

    def mdm(self, identity_uuid: str) -> dict[str, Any]:
        """Return the payload that enrolls the device with the identity of that payload UUID."""
        url, identifier = self.mdm_url or self.device_url, f"{self.options.identifier}.mdm"
        return {
            # A device cancels a User Enrollment whose profile claims rights: they are fixed.
            **({} if self._is_user_enrollment else {"AccessRights": self.options.access_rights}),
            **(
                {"AssignedManagedAppleID": self.account.apple_account, "EnrollmentMode": self.account.mode.value}
                if self.account
                else {}
            ),
            "CheckInURL": f"{url}/mdm/checkin",
            "CheckOutWhenRemoved": True,
            "IdentityCertificateUUID": identity_uuid,
            "PayloadDescription": "Enrolls this device with the management server.",
            "PayloadDisplayName": "Device Management",
            "PayloadIdentifier": identifier,
            "PayloadOrganization": self._organization,
            "PayloadType": MDM,
            "PayloadUUID": str(uuid5(NAMESPACE_URL, identifier)).upper(),
            "PayloadVersion": 1,
            "ServerCapabilities": list(self.options.server_capabilities),
            "ServerURL": f"{url}/mdm/connect",
            # Without it there is no Mdm-Signature header, and nobody is known.
            "SignMessage": True,
            "Topic": self.topic,
        }

    def _configuration(self, payloads: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "PayloadContent": payloads,
            "PayloadDescription": self.options.description or f"Lets {self._organization} manage this device.",
            "PayloadDisplayName": self.options.display_name or f"{self._organization} Enrollment",
            "PayloadIdentifier": self.options.identifier,
            "PayloadOrganization": self._organization,
            # The identity has to be in the system's keychain also when a user installs this on a Mac.
            "PayloadScope": "System",
            "PayloadType": "Configuration",
            "PayloadUUID": self.new_uuid(),
            "PayloadVersion": 1,
        }

    def _trust(self) -> list[dict[str, Any]]:
        return [self._certificate(der) for der in self.options.trust_certificates]

    def _certificate(self, der: bytes) -> dict[str, Any]:
        certificate = x509.load_der_x509_certificate(der)
        is_root = certificate.subject == certificate.issuer
        return {
            "PayloadContent": der,
            "PayloadDescription": "A certificate that this device trusts.",
            "PayloadDisplayName": "Trusted Certificate",
            "PayloadIdentifier": f"{self.options.identifier}.trust.{hashlib.sha256(der).hexdigest()[:16]}",
            "PayloadOrganization": self._organization,
            "PayloadType": "com.apple.security.root" if is_root else "com.apple.security.pkcs1",
            "PayloadUUID": self.new_uuid(),
            "PayloadVersion": 1,
        }

    @property
    def _organization(self) -> str:
        return self.options.organization or self.organization

    @property
    def _is_user_enrollment(self) -> bool:
        return self.account is not None and self.account.mode is EnrollmentMode.USER

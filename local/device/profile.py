"""The profile that enrolls a device, as it reads it (Apple: MDM and SCEP payloads)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self
from urllib.parse import urlsplit

from local.device.configuration_profile import ConfigurationProfile, ProfileError
from local.device.errors import ProtocolViolation

MDM_PAYLOAD: Final = "com.apple.mdm"
SCEP_PAYLOAD: Final = "com.apple.security.scep"
TOPIC_PREFIX: Final = "com.apple.mgmt."
ALL_RIGHTS: Final = 8191
USER_CONNECTIONS: Final = "com.apple.mdm.per-user-connections"
BOOTSTRAP_TOKEN: Final = "com.apple.mdm.bootstraptoken"  # a capability's name
TOKEN: Final = "com.apple.mdm.token"  # as above

_UUID: Final = re.compile(r"[0-9A-Za-z]{8}-(?:[0-9A-Za-z]{4}-){3}[0-9A-Za-z]{12}")
_CAPABILITIES: Final = frozenset({USER_CONNECTIONS, BOOTSTRAP_TOKEN, TOKEN})
_KEY_SIZES: Final = frozenset({1024, 2048, 4096})
_SIGNING: Final = 1
"""The bit of ``Key Usage`` that lets a key sign."""


@dataclass(frozen=True, kw_only=True)
class ScepSettings:
    """What the SCEP payload asks for."""

    url: str
    name: str | None
    subject: tuple[tuple[str, str], ...]
    """Pairs of an attribute's short name or dotted OID and its value, outermost first."""
    alternative_names: Mapping[str, Any]
    challenge: str | None = field(repr=False)
    key_size: int
    key_usage: int
    ca_fingerprint: bytes | None
    retries: int
    """How often to ask again while the answer is PENDING."""
    retry_delay: float
    """Seconds between two of them."""


class EnrollmentMode(StrEnum):
    """What an account-driven enrollment manages; the values are those of the payload's ``EnrollmentMode``."""

    BYOD = "BYOD"
    """The user's part of their own device: a User Enrollment."""
    ADDE = "ADDE"
    """The whole of the organization's device."""


@dataclass(frozen=True, kw_only=True)
class EnrollmentProfile:
    """A profile that a device would enroll with."""

    profile: ConfigurationProfile
    body: bytes = field(repr=False)
    """As it was downloaded."""
    mdm_identifier: str
    """The ``PayloadIdentifier`` of the MDM payload."""
    server_url: str
    checkin_url: str
    topic: str
    access_rights: int
    """Of a User Enrollment: all of them, for what it may not do is another matter."""
    capabilities: frozenset[str]
    check_out_when_removed: bool
    scep: ScepSettings
    mode: EnrollmentMode | None = None
    """None unless the enrollment is account-driven."""
    managed_account: str | None = None
    """``AssignedManagedAppleID``: whom the user has to sign in as."""
    required_app: int | None = None

    @classmethod
    def decode(cls, body: bytes, *, mode: EnrollmentMode | None = None) -> Self:
        """Check a profile as a device does before it shows it to its user.

        ``mode`` is what the server announced for an account-driven enrollment; other ways of enrolling look at none.
        Raises :class:`~local.device.errors.ProtocolViolation`, the rule being the key or payload that is wrong.
        """
        try:
            profile = ConfigurationProfile.decode(body)
        except ProfileError as error:
            raise ProtocolViolation("profile", str(error)) from error
        payloads = profile.of_type(MDM_PAYLOAD)
        if len(payloads) != 1:
            raise ProtocolViolation("mdm-payload", f"The profile has {len(payloads)} MDM payloads, not one.")
        mdm = payloads[0]
        if _get(mdm, "SignMessage", bool, default=False) is not True:
            raise ProtocolViolation("SignMessage", "Without it, this device would have no way to say who it is.")
        check_in_url = _get(mdm, "CheckInURL", str, default=None)
        server_url = _https(mdm, "ServerURL", _get(mdm, "ServerURL", str))
        return cls(
            profile=profile,
            body=body,
            mdm_identifier=mdm["PayloadIdentifier"],
            server_url=server_url,
            checkin_url=_https(mdm, "CheckInURL", check_in_url) if check_in_url is not None else server_url,
            topic=_topic(mdm),
            access_rights=_access_rights(mdm, mode),
            capabilities=_server_capabilities(mdm),
            check_out_when_removed=bool(_get(mdm, "CheckOutWhenRemoved", bool, default=False)),
            scep=scep_settings(_identity_payload(profile, mdm)),
            mode=_enrollment_mode(mdm, mode),
            managed_account=_managed_account(mdm, mode),
            required_app=_get(mdm, "RequiredAppIDForMDM", int, default=None),
        )

    def allows(self, right: int) -> bool:
        """Whether the server was given all of these rights."""
        return self.access_rights & right == right

    def change_refused(self, replacement: "EnrollmentProfile") -> str | None:
        """Return what of this profile a replacement may not change but does (Apple: MDM payload), or None."""
        kept = ("mdm_identifier", "topic", "server_url", "checkin_url", "mode", "managed_account", "required_app")
        for name in kept:
            if getattr(self, name) != getattr(replacement, name):
                return name
        if self.profile.identifier != replacement.profile.identifier:
            return "identifier"
        if replacement.access_rights & ~self.access_rights:
            return "access_rights"
        if (USER_CONNECTIONS in self.capabilities) != (USER_CONNECTIONS in replacement.capabilities):
            return "capabilities"
        return None


_REQUIRED: Final = object()


def _get(payload: Mapping[str, Any], key: str, kind: type, *, default: Any = _REQUIRED) -> Any:  # noqa: ANN401  # see _required
    value = payload.get(key, default)
    if value is _REQUIRED:
        raise ProtocolViolation(key, "It is missing.")
    if key in payload and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        raise ProtocolViolation(key, f"It is no {kind.__name__}.")
    return value


def _https(payload: Mapping[str, Any], key: str, url: str) -> str:
    if not url.startswith("https://") or not urlsplit(url).hostname:
        raise ProtocolViolation(key, f"{payload[key]!r} is no https URL.")
    return url


def _topic(mdm: Mapping[str, Any]) -> str:
    topic: str = _get(mdm, "Topic", str)
    if not topic.startswith(TOPIC_PREFIX) or topic == TOPIC_PREFIX:
        raise ProtocolViolation("Topic", f"{topic!r} does not begin with {TOPIC_PREFIX}")
    return topic


def _access_rights(mdm: Mapping[str, Any], mode: EnrollmentMode | None) -> int:
    if mode is EnrollmentMode.BYOD:
        if "AccessRights" in mdm:
            raise ProtocolViolation("AccessRights", "Those of a User Enrollment are fixed: none may be declared.")
        return ALL_RIGHTS
    rights: int = _get(mdm, "AccessRights", int)
    # Apple: not 0; 2 needs 1, and 128 needs 64.
    needs = ((2, 1), (128, 64))
    if not 0 < rights <= ALL_RIGHTS or any(rights & one and not rights & other for one, other in needs):
        raise ProtocolViolation("AccessRights", f"{rights} is no combination of rights.")
    return rights


def _enrollment_mode(mdm: Mapping[str, Any], mode: EnrollmentMode | None) -> EnrollmentMode | None:
    if mode is None:
        return None
    declared = _get(mdm, "EnrollmentMode", str)
    if declared != mode:
        raise ProtocolViolation("EnrollmentMode", f"It is {declared!r}, and the server announced {mode}.")
    return mode


def _managed_account(mdm: Mapping[str, Any], mode: EnrollmentMode | None) -> str | None:
    if mode is None:
        return None
    account: str = _get(mdm, "AssignedManagedAppleID", str)
    if not all(account.rpartition("@")):
        raise ProtocolViolation("AssignedManagedAppleID", f"{account!r} is no Managed Apple Account.")
    return account


def _server_capabilities(mdm: Mapping[str, Any]) -> frozenset[str]:
    capabilities = _get(mdm, "ServerCapabilities", list, default=[])
    if len(set(map(str, capabilities))) != len(capabilities) or not _CAPABILITIES.issuperset(map(str, capabilities)):
        raise ProtocolViolation("ServerCapabilities", f"{capabilities} are not different known capabilities.")
    return frozenset(capabilities)


def _identity_payload(profile: ConfigurationProfile, mdm: Mapping[str, Any]) -> Mapping[str, Any]:
    uuid = _get(mdm, "IdentityCertificateUUID", str)
    if not _UUID.fullmatch(uuid):
        raise ProtocolViolation("IdentityCertificateUUID", f"{uuid!r} is no UUID.")
    scep_payloads = profile.of_type(SCEP_PAYLOAD)
    if not scep_payloads:
        raise ProtocolViolation("scep-payload", "The profile has no SCEP payload.")
    for payload in scep_payloads:
        if payload["PayloadUUID"] == uuid:
            return payload
    raise ProtocolViolation("IdentityCertificateUUID", f"{uuid} is not the PayloadUUID of a SCEP payload.")


def scep_settings(payload: Mapping[str, Any]) -> ScepSettings:
    """Check a SCEP payload. Raises :class:`~local.device.errors.ProtocolViolation`."""
    content = _get(payload, "PayloadContent", dict)
    url = _get(content, "URL", str)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ProtocolViolation("URL", f"{url!r} is no URL of a SCEP server.")
    # Devices append "?operation=…" whatever is there, so a query of the server's own would be torn.
    if parts.query or parts.fragment:
        raise ProtocolViolation("URL", "The SCEP server's URL has a query or fragment.")
    if _get(content, "Key Type", str, default="RSA") != "RSA":
        raise ProtocolViolation("Key Type", f"{content['Key Type']!r} is not RSA.")
    key_size = _get(content, "Keysize", int, default=1024)
    if key_size not in _KEY_SIZES:
        raise ProtocolViolation("Keysize", f"{key_size} is none of {sorted(_KEY_SIZES)}.")
    key_usage = _get(content, "Key Usage", int, default=0)
    if key_usage and not key_usage & _SIGNING:
        raise ProtocolViolation("Key Usage", "The key could not sign messages.")
    return ScepSettings(
        url=url,
        name=_get(content, "Name", str, default=None),
        subject=_subject(_get(content, "Subject", list, default=[])),
        alternative_names=_get(content, "SubjectAltName", dict, default={}),
        challenge=_get(content, "Challenge", str, default=None),
        key_size=key_size,
        key_usage=key_usage,
        ca_fingerprint=_get(content, "CAFingerprint", bytes, default=None),
        retries=_get(content, "Retries", int, default=3),
        retry_delay=float(_get(content, "RetryDelay", int, default=10)),
    )


def _subject(names: list[Any]) -> tuple[tuple[str, str], ...]:
    """Read ``[[["O", "Example"]], [["CN", "A device"]]]``."""
    pairs = []
    for relative_name in names:
        for pair in relative_name if isinstance(relative_name, list) else [None]:
            match pair:
                case [str(attribute), str(value)]:
                    pairs.append((attribute, value))
                case _:
                    raise ProtocolViolation("Subject", f"{names!r} is no array of arrays of pairs.")
    return tuple(pairs)

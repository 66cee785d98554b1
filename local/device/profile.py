"""Configuration profiles as a device reads them, and the one that enrolls it."""

import plistlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError

from cryptography.hazmat.primitives import serialization

from local.device import cms
from local.device.errors import ProtocolViolation

MDM_PAYLOAD: Final = "com.apple.mdm"
SCEP_PAYLOAD: Final = "com.apple.security.scep"
TOPIC_PREFIX: Final = "com.apple.mgmt."
ALL_RIGHTS: Final = 8191

_UUID: Final = re.compile(r"[0-9A-Za-z]{8}-(?:[0-9A-Za-z]{4}-){3}[0-9A-Za-z]{12}")
_CAPABILITIES: Final = frozenset(
    {"com.apple.mdm.per-user-connections", "com.apple.mdm.bootstraptoken", "com.apple.mdm.token"}
)
_KEY_SIZES: Final = frozenset({1024, 2048, 4096})
_SIGNING: Final = 1
"""The bit of ``Key Usage`` that lets a key sign."""

_MALFORMED: Final = 1000
_UNSUPPORTED_VERSION: Final = 1001
_MISSING_FIELD: Final = 1002
_BAD_TYPE: Final = 1003
_BAD_SIGNATURE: Final = 1004
_EMPTY: Final = 1005
_DUPLICATE_UUID: Final = 1007
_DUPLICATE_IDENTIFIER: Final = 1008
_UNSUPPORTED_VALUE: Final = 1010


class ProfileError(ValueError):
    """A profile that a device does not install. ``code`` is one of ``MCProfileErrorDomain``."""

    domain: Final = "MCProfileErrorDomain"

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class ConfigurationProfile:
    """A profile that keeps to the rules of all profiles (Apple: TopLevel, CommonPayloadKeys)."""

    identifier: str
    uuid: str
    fields: Mapping[str, Any]
    payloads: tuple[Mapping[str, Any], ...]
    signer_certificates: tuple[bytes, ...] = ()
    """DER; empty for an unsigned profile."""

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read a profile, signed or not. Raises :class:`ProfileError`."""
        signers: tuple[bytes, ...] = ()
        # A plist begins with '<' (perhaps after a byte order mark) or "bplist"; DER with the tag of a SEQUENCE.
        if body[:1] == b"\x30":
            try:
                signed = cms.verify(body)
            except cms.CmsError as error:
                raise ProfileError(_BAD_SIGNATURE, f"The signature is bad. {error}") from error
            body = signed.content
            signers = tuple(one.public_bytes(serialization.Encoding.DER) for one in signed.certificates)
        document = _plist(body)
        if _required(document, "PayloadType", str) != "Configuration":
            raise ProfileError(_UNSUPPORTED_VALUE, "PayloadType is not Configuration.")
        if _required(document, "PayloadVersion", int) != 1:
            raise ProfileError(_UNSUPPORTED_VERSION, "PayloadVersion is not 1.")
        payloads = tuple(_payload(one) for one in _required(document, "PayloadContent", list))
        if not payloads:
            raise ProfileError(_EMPTY, "PayloadContent is empty.")
        profile = cls(
            identifier=_required(document, "PayloadIdentifier", str),
            uuid=_required(document, "PayloadUUID", str),
            fields=document,
            payloads=payloads,
            signer_certificates=signers,
        )
        _all_different(_DUPLICATE_UUID, "PayloadUUID", [profile.uuid, *(one["PayloadUUID"] for one in payloads)])
        _all_different(
            _DUPLICATE_IDENTIFIER,
            "PayloadIdentifier",
            [profile.identifier, *(one["PayloadIdentifier"] for one in payloads)],
        )
        return profile

    def of_type(self, payload_type: str) -> tuple[Mapping[str, Any], ...]:
        """Return its payloads of one type."""
        return tuple(one for one in self.payloads if one["PayloadType"] == payload_type)

    def summary(self) -> dict[str, Any]:
        """Return what ProfileList says of it, apart from ``IsManaged``."""
        told = (
            "PayloadVersion",
            "PayloadDisplayName",
            "PayloadOrganization",
            "PayloadDescription",
            "PayloadRemovalDisallowed",
        )
        told_of_payload = (
            "PayloadType",
            "PayloadVersion",
            "PayloadIdentifier",
            "PayloadUUID",
            "PayloadDisplayName",
            "PayloadDescription",
            "PayloadOrganization",
        )
        return {
            "PayloadIdentifier": self.identifier,
            "PayloadUUID": self.uuid,
            **{key: self.fields[key] for key in told if key in self.fields},
            "HasRemovalPasscode": bool(self.fields.get("HasRemovalPasscode", False)),
            "IsEncrypted": False,
            "SignerCertificates": list(self.signer_certificates),
            "PayloadContent": [{key: one[key] for key in told_of_payload if key in one} for one in self.payloads],
        }


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


@dataclass(frozen=True, kw_only=True)
class EnrollmentProfile:
    """A profile that a device would enroll with."""

    profile: ConfigurationProfile
    body: bytes = field(repr=False)
    """As it was downloaded."""
    server_url: str
    checkin_url: str
    topic: str
    access_rights: int
    capabilities: frozenset[str]
    check_out_when_removed: bool
    scep: ScepSettings

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Check a profile as a device does before it shows it to its user.

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
            server_url=server_url,
            checkin_url=_https(mdm, "CheckInURL", check_in_url) if check_in_url is not None else server_url,
            topic=_topic(mdm),
            access_rights=_access_rights(mdm),
            capabilities=_server_capabilities(mdm),
            check_out_when_removed=bool(_get(mdm, "CheckOutWhenRemoved", bool, default=False)),
            scep=_scep_settings(_identity_payload(profile, mdm)),
        )

    def allows(self, right: int) -> bool:
        """Whether the server was given all of these rights."""
        return self.access_rights & right == right


def _plist(body: bytes) -> dict[str, Any]:
    try:
        document = plistlib.loads(body)
    except (plistlib.InvalidFileException, ExpatError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ProfileError(_MALFORMED, "The profile is no property list.") from error
    if not isinstance(document, dict):
        raise ProfileError(_MALFORMED, "The profile is no dictionary.")
    return document


def _required(document: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401  # of the kind asked for
    if key not in document:
        raise ProfileError(_MISSING_FIELD, f"{key} is missing.")
    value = document[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or value == "":
        raise ProfileError(_BAD_TYPE, f"{key} is no {kind.__name__}.")
    return value


def _payload(payload: object) -> Mapping[str, Any]:
    if not isinstance(payload, dict):
        raise ProfileError(_BAD_TYPE, "A payload is no dictionary.")
    for key in ("PayloadType", "PayloadIdentifier", "PayloadUUID"):
        _required(payload, key, str)
    if _required(payload, "PayloadVersion", int) < 1:
        raise ProfileError(_UNSUPPORTED_VERSION, "The PayloadVersion of a payload is below 1.")
    return payload


def _all_different(code: int, what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ProfileError(code, f"The {what} {value} stands twice.")
        seen.add(value)


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


def _access_rights(mdm: Mapping[str, Any]) -> int:
    rights: int = _get(mdm, "AccessRights", int)
    # Apple: not 0; 2 needs 1, and 128 needs 64.
    needs = ((2, 1), (128, 64))
    if not 0 < rights <= ALL_RIGHTS or any(rights & one and not rights & other for one, other in needs):
        raise ProtocolViolation("AccessRights", f"{rights} is no combination of rights.")
    return rights


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


def _scep_settings(payload: Mapping[str, Any]) -> ScepSettings:
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

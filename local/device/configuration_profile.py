"""Configuration profiles as a device reads them: the rules that all of them keep to, signed or not."""

import plistlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from xml.parsers.expat import ExpatError

from cryptography.hazmat.primitives import serialization

from local.device import cms

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
        document, signers = open_profile(body, payload_type="Configuration")
        payloads = tuple(_payload(one) for one in required(document, "PayloadContent", list))
        if not payloads:
            raise ProfileError(_EMPTY, "PayloadContent is empty.")
        profile = cls(
            identifier=required(document, "PayloadIdentifier", str),
            uuid=required(document, "PayloadUUID", str),
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


def open_profile(body: bytes, *, payload_type: str) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """Return the dictionary of a profile of this type, and the certificates (DER) that came with its signature, if any.

    Raises :class:`ProfileError`; whether the signer is one to trust is a matter of what the device shows its user.
    """
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
    if required(document, "PayloadType", str) != payload_type:
        raise ProfileError(_UNSUPPORTED_VALUE, f"PayloadType is not {payload_type}.")
    if required(document, "PayloadVersion", int) != 1:
        raise ProfileError(_UNSUPPORTED_VERSION, "PayloadVersion is not 1.")
    return document, signers


def _plist(body: bytes) -> dict[str, Any]:
    try:
        document = plistlib.loads(body)
    except (plistlib.InvalidFileException, ExpatError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise ProfileError(_MALFORMED, "The profile is no property list.") from error
    if not isinstance(document, dict):
        raise ProfileError(_MALFORMED, "The profile is no dictionary.")
    return document


def required(document: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401  # of the kind asked for
    """Return a value that has to be there and of a kind. Raises :class:`ProfileError`."""
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
        required(payload, key, str)
    if required(payload, "PayloadVersion", int) < 1:
        raise ProfileError(_UNSUPPORTED_VERSION, "The PayloadVersion of a payload is below 1.")
    return payload


def _all_different(code: int, what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ProfileError(code, f"The {what} {value} stands twice.")
        seen.add(value)

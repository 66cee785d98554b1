"""An administrator's own enrollment profile, into which each download's values are put.

It may hold whatever else a device shall get when it enrolls (Wi-Fi, certificates, restrictions). It has to hold one
MDM payload and one SCEP payload; of these, and of the profile itself, we set:

===============  =====================================================================================================
the profile      ``PayloadUUID``
the SCEP payload ``PayloadUUID``; in its content ``URL`` and ``Challenge``, and for an account-driven enrollment one
                 more part of ``Subject``
the MDM payload  ``PayloadUUID``, ``IdentityCertificateUUID``, ``ServerURL``, ``CheckInURL``, ``Topic``,
                 ``SignMessage``; in an account-driven enrollment ``AssignedManagedAppleID`` and ``EnrollmentMode``
===============  =====================================================================================================

Everything else stays as it was uploaded. Where another payload names the identity by the UUID that it had in the
template, it names the new one afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mdmlib.apple import plist
from mdmlib.apple.enrollment_profile import (
    MDM,
    SCEP,
    SERVER_CAPABILITIES,
    EnrollmentMode,
    EnrollmentProfile,
    check_access_rights,
)
from mdmlib.errors import BadRequestError

MAX_BYTES: Final = 200_000
"""It is an attribute of one item, which has at most 400 KB."""

_MDM_KEYS: Final = ("CheckInURL", "IdentityCertificateUUID", "PayloadUUID", "ServerURL", "SignMessage", "Topic")


@dataclass(frozen=True)
class ProfileTemplate:
    """A template that was checked."""

    _document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Read and check an unsigned ``.mobileconfig``.

        Raises :class:`~mdmlib.errors.BadRequestError` that says what is wrong with it, and in which payload.
        """
        if len(body) > MAX_BYTES:
            raise _wrong(f"It has more than {MAX_BYTES:,} bytes.")
        if body[:1] == b"\x30":
            raise _wrong("It is signed; upload the profile as it was before. Signing it is a setting of its own.")
        document = plist.loads(body)
        if document.get("PayloadType") != "Configuration":
            raise _wrong("Its PayloadType is not Configuration.", field="PayloadType")
        _check_text(document, "PayloadIdentifier", "the profile")
        payloads = document.get("PayloadContent")
        if not isinstance(payloads, list) or not all(isinstance(payload, dict) for payload in payloads):
            raise _wrong("Its PayloadContent is no list of payloads.", field="PayloadContent")
        for number, payload in enumerate(payloads, start=1):
            place = f"payload {number}"
            _check_text(payload, "PayloadType", place)
            _check_text(payload, "PayloadIdentifier", place)
            _check_text(payload, "PayloadUUID", place)
        for key in ("PayloadIdentifier", "PayloadUUID"):
            values = [payload[key] for payload in payloads]
            if twice := next((value for value in values if values.count(value) > 1), None):
                raise _wrong(f"Two payloads have the {key} {twice!r}.", field=key)
        _check_mdm(_only(payloads, MDM))
        scep = _only(payloads, SCEP).get("PayloadContent")
        if not isinstance(scep, dict):
            raise _wrong("The SCEP payload has no PayloadContent.", field="PayloadContent")
        return cls(document)

    def to_plist(self, profile: EnrollmentProfile) -> bytes:
        """Write the profile that the template becomes with the values of ``profile``, unsigned."""
        payloads = self._document["PayloadContent"]
        old_identity = _only(payloads, SCEP)["PayloadUUID"]
        identity = profile.new_uuid()
        scep, mdm = profile.scep(identity), profile.mdm(identity)
        filled: dict[str, Any] = _replaced(self._document, old_identity, identity)
        filled["PayloadUUID"] = profile.new_uuid()
        for payload in filled["PayloadContent"]:
            if payload["PayloadType"] == SCEP:
                payload["PayloadContent"] |= {key: scep["PayloadContent"][key] for key in ("Challenge", "URL")}
                _add_to_subject(payload["PayloadContent"], profile)
            elif payload["PayloadType"] == MDM:
                payload |= {key: mdm[key] for key in _MDM_KEYS}
                _set_account(payload, profile)
        return plist.dumps(filled)


def _add_to_subject(content: dict[str, Any], profile: EnrollmentProfile) -> None:
    if account := profile.account_subject():
        content["Subject"] = [*content.get("Subject", []), *account]


def _set_account(payload: dict[str, Any], profile: EnrollmentProfile) -> None:
    if profile.account is None:
        return
    payload["AssignedManagedAppleID"] = profile.account.apple_account
    payload["EnrollmentMode"] = profile.account.mode.value
    if profile.account.mode is EnrollmentMode.USER:
        # A device cancels a User Enrollment whose profile claims rights: they are fixed.
        payload.pop("AccessRights", None)


def _check_mdm(payload: Mapping[str, Any]) -> None:
    rights = payload.get("AccessRights")
    if not isinstance(rights, int) or isinstance(rights, bool):
        raise _wrong("The MDM payload's AccessRights is no number.", field="AccessRights")
    check_access_rights(rights, name="AccessRights")
    capabilities = payload.get("ServerCapabilities", [])
    if not isinstance(capabilities, list) or not set(map(str, capabilities)) <= set(SERVER_CAPABILITIES):
        raise _wrong(
            f"The MDM payload's ServerCapabilities is no list of {', '.join(SERVER_CAPABILITIES)}.",
            field="ServerCapabilities",
        )
    for key in ("AssignedManagedAppleID", "EnrollmentMode", "ManagedAppleID"):
        if key in payload:
            raise _wrong(f"The MDM payload has {key}, which is of one person's enrollment.", field=key)


def _only(payloads: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [payload for payload in payloads if payload["PayloadType"] == kind]
    if len(found) != 1:
        raise _wrong(f"It has {len(found) or 'no'} payloads of type {kind}, where one belongs.", field="PayloadContent")
    return found[0]


def _check_text(document: Mapping[str, Any], key: str, place: str) -> None:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise _wrong(f"In {place}, {key} is missing or no string.", field=key)


def _replaced(value: Any, old: str, new: str) -> Any:  # noqa: ANN401 - any value of a plist
    if isinstance(value, dict):
        return {key: _replaced(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, old, new) for each in value]
    return new if value == old else value


def _wrong(reason: str, *, field: str | None = None) -> BadRequestError:
    return BadRequestError(f"The template cannot be used. {reason}", code="template_unusable", field=field)

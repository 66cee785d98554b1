"""Configuration profiles as administrators upload them: an XML or binary plist, plain or signed.

Apple's page: https://developer.apple.com/documentation/devicemanagement/toplevel. Nothing of a profile is changed: what
was uploaded is what a device installs.
"""

import re
from typing import Any, Final

from mdmlib.apple import plist
from mdmlib.apple.cms import SignedData
from mdmlib.errors import IdentityError, MalformedBodyError

_PLAIN: Final = re.compile(rb"\A(\xef\xbb\xbf)?\s*<|\Abplist")
_SEQUENCE: Final = b"\x30"
"""What CMS begins with."""
_LONGEST_IDENTIFIER: Final = 1_000


def payload_identifier(mobileconfig: bytes) -> str:
    """Return a profile's PayloadIdentifier.

    A profile that is signed has to be as it was signed; by whom is for devices to judge. Raises
    :class:`~mdmlib.errors.MalformedBodyError` for what no device would install.
    """
    identifier = _document(mobileconfig).get("PayloadIdentifier")
    if not isinstance(identifier, str) or not 0 < len(identifier) <= _LONGEST_IDENTIFIER:
        raise MalformedBodyError("The profile has no PayloadIdentifier.", field="Mobileconfig")
    return identifier


def payload_uuid(mobileconfig: bytes) -> str:
    """Return a profile's PayloadUUID, by which a device's list of profiles tells its content; empty: it has none.

    Raises :class:`~mdmlib.errors.MalformedBodyError`.
    """
    value = _document(mobileconfig).get("PayloadUUID")
    return value if isinstance(value, str) else ""


def _document(mobileconfig: bytes) -> dict[str, Any]:
    try:
        return plist.loads(mobileconfig if _PLAIN.match(mobileconfig) else _signed_content(mobileconfig))
    except MalformedBodyError as error:
        raise MalformedBodyError(f"The profile cannot be read: {error.message}", field="Mobileconfig") from error


def _signed_content(data: bytes) -> bytes:
    if not data.startswith(_SEQUENCE):
        raise MalformedBodyError("it is neither a property list nor signed.")
    signed = SignedData.decode(data)
    if signed.content is None:
        raise MalformedBodyError("its signature is detached.")
    try:
        signer, certificate, _der = signed.signer()
        signer.verify(certificate, signed.content, content_type=signed.content_type)
    except IdentityError as error:
        raise MalformedBodyError("it is not as it was signed.") from error
    return signed.content

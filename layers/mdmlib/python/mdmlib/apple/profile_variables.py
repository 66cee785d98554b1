"""Variables in configuration profiles: ``{{serial_number}}`` becomes the serial number of the device that gets it.

They may stand anywhere in the texts of a profile. A signed profile has none: it goes out as it was signed.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from mdmlib.apple import plist
from mdmlib.errors import ConflictError

OF_DEVICES: Final = frozenset(
    {
        "build_version",
        "device_name",
        "enrollment_id",
        "imei",
        "meid",
        "model",
        "model_name",
        "os_version",
        "product_name",
        "serial_number",
    }
)
"""What a device tells of itself."""

OF_ADMINISTRATORS: Final = "values."
"""How the names of those begin that administrators give values to, device by device."""

_VARIABLE: Final = re.compile(r"\{\{ *([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)?) *\}\}")
_NAMESPACE: Final = uuid.UUID("0c2f6f0a-6a58-5b6a-9b0e-0e8f3a1f7b42")


def variables_of(mobileconfig: bytes) -> frozenset[str]:
    """Return the names of the variables in a profile. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
    # Most have none, and a text search is quicker than reading the whole. In a binary plist a text that is not ASCII
    # is UTF-16.
    if is_signed(mobileconfig) or not (b"{{" in mobileconfig or b"\0{\0{" in mobileconfig):
        return frozenset()
    return frozenset(name for text in _texts(plist.loads(mobileconfig)) for name in _VARIABLE.findall(text))


def unknown_variables(mobileconfig: bytes) -> list[str]:
    """Return the names that no device can have a value for."""
    return sorted(
        name for name in variables_of(mobileconfig) if name not in OF_DEVICES and not name.startswith(OF_ADMINISTRATORS)
    )


def filled(mobileconfig: bytes, value_of: Callable[[str], str | None]) -> bytes:
    """Return the profile with the values in the place of its variables; one without any as it is, byte for byte.

    Its PayloadUUID becomes one that tells what is in it, so that a device that has other values is seen to differ.
    Raises :class:`~mdmlib.errors.ConflictError` that names the variables without a value.
    """
    names = variables_of(mobileconfig)
    if not names:
        return mobileconfig
    values = {name: value_of(name) or "" for name in names}
    if missing := sorted(name for name, value in values.items() if not value):
        raise ConflictError(
            f"The device has no value for {', '.join(f'{{{{{name}}}}}' for name in missing)}.", code="variable_missing"
        )
    document = _with(plist.loads(mobileconfig), lambda text: _VARIABLE.sub(lambda found: values[found[1]], text))
    content = hashlib.sha256(plist.dumps(document)).hexdigest()
    document["PayloadUUID"] = str(uuid.uuid5(_NAMESPACE, content)).upper()
    return plist.dumps(document)


def replaced(mobileconfig: bytes, replacements: Mapping[str, str]) -> bytes:
    """Return the profile with texts put in the place of others, wherever in its texts these stand.

    Raises :class:`~mdmlib.errors.ConflictError` for a signed profile.
    """
    if not replacements:
        return mobileconfig
    if is_signed(mobileconfig):
        raise ConflictError("The profile is signed: no text in it can be replaced.", code="profile_signed")
    found = re.compile("|".join(re.escape(text) for text in sorted(replacements, key=len, reverse=True)))
    return plist.dumps(
        _with(plist.loads(mobileconfig), lambda text: found.sub(lambda match: replacements[match[0]], text))
    )


def is_signed(mobileconfig: bytes) -> bool:
    """Say whether a profile is a CMS message: a SEQUENCE of ASN.1."""
    return mobileconfig[:1] == b"\x30"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _with(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - any value of a plist
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _with(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_with(each, change) for each in value]
    return value

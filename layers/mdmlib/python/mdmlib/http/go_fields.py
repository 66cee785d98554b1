"""JSON as Go's standard library reads it into a struct, which scripts of MicroMDM and NanoMDM have come to rely on.

Names are matched in any case, unknown ones do not matter, and null is as good as nothing. Values of a wrong type are an
error there and here.
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, Self

from mdmlib.errors import BadRequestError

_LONGEST_TEXT: Final = 1_000
_MAX_VALUES: Final = 10_000
_MAX_INTEGER: Final = 2**63 - 1


class GoFields:
    """A JSON object's fields. Every method raises :class:`~mdmlib.errors.BadRequestError` with ``field`` set."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        # The last one counts, whatever its case.
        self._values = {name.lower(): value for name, value in values.items()}

    def __contains__(self, name: str) -> bool:
        return self._values.get(name.lower()) is not None

    def text(self, name: str, *, longest: int = _LONGEST_TEXT) -> str:
        """Return a text, or an empty one."""
        value = self._values.get(name.lower())
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > longest:
            raise _invalid(name, f"a text of at most {longest} characters")
        return value

    def texts(self, name: str, *, longest: int = _LONGEST_TEXT) -> list[str]:
        """Return a list of texts, without empty ones: an option that was not given is one of these to ``mdmctl``."""
        value = self._values.get(name.lower())
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise _invalid(name, "a list of texts")
        if len(value) > _MAX_VALUES or any(len(text) > longest for text in value):
            raise _invalid(name, f"a list of at most {_MAX_VALUES} texts of at most {longest} characters")
        return [text for text in value if text]

    def integer(self, name: str) -> int:
        """Return a whole number that is not negative; nothing is 0."""
        value = self._values.get(name.lower())
        if value is None:
            return 0
        # True is an int to Python.
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_INTEGER:
            raise _invalid(name, "a whole number from 0")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true, false, or None for nothing."""
        value = self._values.get(name.lower())
        if value is not None and not isinstance(value, bool):
            raise _invalid(name, "true or false")
        return value

    def data(self, name: str) -> bytes:
        """Return what stands there in base64."""
        value = self._values.get(name.lower())
        if value is None:
            return b""
        try:
            # Go's decoder skips line breaks, which base64(1) makes.
            return b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
        except (AttributeError, ValueError, binascii.Error):
            raise _invalid(name, "data in base64") from None

    def within(self, name: str) -> Self:
        """Return the fields of an object that stands there; nothing is an empty one."""
        value = self._values.get(name.lower())
        if value is None:
            return type(self)({})
        if not isinstance(value, dict):
            raise _invalid(name, "an object")
        return type(self)(value)


def _invalid(name: str, expectation: str) -> BadRequestError:
    return BadRequestError(f"{name} has to be {expectation}.", code="invalid_field", field=name)

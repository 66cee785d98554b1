"""The fields of a JSON object and the parameters of a query, each held against what it has to be."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from mdmlib.errors import BadRequestError

MAX_TEXT: Final = 1_000
"""Characters of a text, unless its field says otherwise."""

_MAX_DIGITS: Final = 18


class Query(dict[str, str]):
    """The parameters of a query, where everything is text: numbers, flags and lists are read from it."""


class Fields:
    """A request's fields, taken by their names: those of a JSON object, or the parameters of a :class:`Query`.

    Every method raises :class:`~mdmlib.errors.BadRequestError` with ``field`` set (code ``invalid_field``,
    ``missing_field`` or ``unknown_field``). A field that is absent or null is None.
    """

    def __init__(self, values: Mapping[str, Any], *, known: Collection[str]) -> None:
        """Refuse whatever is not in ``known``: a misspelt ``max_uses`` must not become an unlimited link."""
        for name in values:
            if name not in known:
                expected = ", ".join(sorted(known)) or "none"
                raise BadRequestError(
                    f"{name[:100]!r} is unknown here; known: {expected}.", code="unknown_field", field=name[:100]
                )
        self._values = values
        self._is_query = isinstance(values, Query)

    def text(self, name: str, *, longest: int = MAX_TEXT) -> str | None:
        """Return a text; one that is empty is none."""
        value = self._values.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise _invalid(name, "a text")
        if len(value) > longest:
            raise _invalid(name, f"a text of at most {longest} characters")
        return value

    def required_text(self, name: str, *, longest: int = MAX_TEXT) -> str:
        """Return a text that has to be there."""
        value = self.text(name, longest=longest)
        if value is None:
            raise BadRequestError(f"{name} is missing.", code="missing_field", field=name)
        return value

    def integer(self, name: str, *, least: int, most: int) -> int | None:
        """Return a whole number in these bounds."""
        value = self._given(name)
        if value is None:
            return None
        if self._is_query and value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
            value = int(value)
        number = value
        # True is an int to Python.
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise _invalid(name, f"a whole number from {least} to {most}")
        return number

    def time(self, name: str) -> datetime | None:
        """Return a time (RFC 3339), which says its offset."""
        value = self.text(name)
        if value is None:
            return None
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            raise _invalid(name, "a time such as 2027-01-31T12:00:00Z")
        return time

    def flag(self, name: str, *, default: bool) -> bool:
        """Return true or false; in a query also 1 and 0."""
        value = self._given(name)
        if value is None:
            return default
        words = {"true": True, "1": True, "false": False, "0": False}
        if isinstance(value, bool):
            return value
        if self._is_query and value.lower() in words:
            return words[value.lower()]
        raise _invalid(name, "true or false")

    def object(self, name: str) -> Mapping[str, Any] | None:
        """Return an object, whatever is in it."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise _invalid(name, "an object")
        return value

    def texts(self, name: str, *, choices: Collection[str] | None = None, most: int = 100) -> list[str] | None:
        """Return a list of texts; in a query they are separated by commas."""
        value = self._given(name)
        if value is None:
            return None
        texts = value.split(",") if self._is_query else value
        if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
            raise _invalid(name, "a list of texts")
        if len(texts) > most:
            raise _invalid(name, f"a list of at most {most} texts")
        for text in texts:
            if len(text) > MAX_TEXT or (choices is not None and text not in choices):
                raise _invalid(name, f"a list of {', '.join(sorted(choices))}" if choices else "a list of short texts")
        return texts

    def _given(self, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return a value, or None: in a query one that is empty is none."""
        value = self._values.get(name)
        return None if self._is_query and value == "" else value


def _invalid(name: str, expectation: str) -> BadRequestError:
    return BadRequestError(f"{name} has to be {expectation}.", code="invalid_field", field=name)

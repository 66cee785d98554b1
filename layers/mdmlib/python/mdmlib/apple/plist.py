"""Property lists, bounded: what devices and administrators send is read here and nowhere else.

Bodies are parsed before anybody is known, so a body of ``n`` bytes must cost time and memory in proportion to ``n``.
``plistlib`` does not promise that: its XML reader nests without limit, takes hexadecimal integers of any length, drops
undefined entities and unknown elements and raises whatever comes; what its binary reader returns can contain itself,
or be a million copies of the one large object in the body.

What is accepted is what Apple's own writers write:

* XML in UTF-8 (a byte order mark is skipped), with a document type but nothing declared in it;
* binary plists (:mod:`mdmlib.apple.binary_plist`).

The root is a dictionary. Values are ``dict``, ``list``, ``str``, ``bytes``, ``int`` (64 bits, signed or unsigned),
``float``, ``bool`` and aware ``datetime``. A key that stands twice has its last value.

The formats: ``plist(5)`` of macOS and the document type at http://www.apple.com/DTDs/PropertyList-1.0.dtd.
"""

import plistlib
import re
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from xml.parsers import expat

from mdmlib.apple import binary_plist
from mdmlib.apple.plist_limits import MAX_DEPTH, MAX_INTEGER, MAX_VALUES, MIN_INTEGER
from mdmlib.errors import BodyTooLargeError, MalformedBodyError

MAX_BYTES: Final = 4_613_734
"""4.4 MiB: what fits Lambda's 6 MiB in base64."""

UTF8_BOM: Final = b"\xef\xbb\xbf"

_INTEGER: Final = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]{1,16})|([0-9]{1,20}))\s*", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_XML_SPACE: Final = " \t\r\n"


def loads(body: bytes) -> dict[str, Any]:
    """Read an XML or binary plist whose root is a dictionary.

    Raises :class:`~mdmlib.errors.MalformedBodyError` for everything else, whatever it is, and
    :class:`~mdmlib.errors.BodyTooLargeError` above 4.4 MiB. Messages say where it is wrong, never what stands there.
    """
    if len(body) > MAX_BYTES:
        raise BodyTooLargeError("The property list is larger than 4.4 MiB.")
    if body.startswith(binary_plist.MAGIC):
        root = binary_plist.loads(body)
    else:
        # Scripts indent what they send; in front of an XML declaration no space is allowed.
        text = body.removeprefix(UTF8_BOM).lstrip(_XML_SPACE.encode())
        if not text.startswith(b"<"):
            raise MalformedBodyError("The body is neither an XML nor a binary property list.")
        root = _XMLReader().read(text)
    if not isinstance(root, dict):
        raise MalformedBodyError("The property list's root is not a dictionary.")
    return root


def dumps(value: Mapping[str, Any]) -> bytes:
    """Write an XML plist, its keys in the order of ``value``. Datetimes are in UTC.

    Raises ``TypeError`` for types that a plist has not (None is one), ``OverflowError`` for integers beyond 64 bits
    and ``ValueError`` for strings that XML cannot hold: control characters, lone surrogates.
    """
    return plistlib.dumps(value, fmt=plistlib.FMT_XML, sort_keys=False)


class _XMLReader:
    """Reads one document, by expat's events. Handlers raise ``ValueError``; :meth:`read` adds the line."""

    def __init__(self) -> None:
        self._root: Any = None
        self._containers: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []
        """For each open container the key that waits for its value."""
        self._open: str | None = None
        """The element whose text is being read."""
        self._text: list[str] = []
        self._values = 0
        self._in_plist = False

    def read(self, body: bytes) -> Any:  # noqa: ANN401 - a plist's root can be anything
        # The encoding given here is the one that counts, whatever the document declares.
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._xml_declaration
        parser.StartDoctypeDeclHandler = self._document_type
        parser.EntityDeclHandler = self._entity
        # With an external document type, which nobody fetches, an undefined entity is no error to expat: it is skipped.
        parser.SkippedEntityHandler = self._entity
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        try:
            parser.Parse(body, True)  # noqa: FBT003 - expat takes no keywords
        except expat.ExpatError as error:
            raise MalformedBodyError(f"The property list is not well-formed XML (line {error.lineno}).") from error
        except ValueError as error:
            # Text of Python's own errors may quote what was read; ours is in _MalformedError only.
            reason = str(error) if isinstance(error, _MalformedError) else "A value cannot be read"
            raise MalformedBodyError(f"{reason} (line {parser.CurrentLineNumber} of the property list).") from error
        if self._root is None:
            raise MalformedBodyError("The property list is empty.")
        return self._root

    def _xml_declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in {"utf-8", "us-ascii"}:
            raise _MalformedError("Only UTF-8 is understood")

    def _document_type(self, _name: str, _system_id: str | None, _public_id: str | None, internal: int) -> None:
        if internal:
            raise _MalformedError("Declarations are not allowed in a property list")

    def _entity(self, *_declaration: object) -> None:
        raise _MalformedError("Entities are not allowed in a property list")

    def _start(self, element: str, _attributes: dict[str, str]) -> None:
        if self._open is not None:
            raise _MalformedError("An element stands where only text is allowed")
        if element in _READERS:
            self._between()
            self._open = element
        elif element == "dict":
            self._open_container({})
        elif element == "array":
            self._open_container([])
        elif element == "plist" and not self._in_plist:
            self._in_plist = True
        else:
            raise _MalformedError("An element is unknown or out of place")

    def _end(self, element: str) -> None:
        if self._open is not None:
            text = self._text
            value = "".join(text)
            text.clear()
            self._open = None
            if element == "key":
                self._key(value)
            else:
                self._add(_READERS[element](value))
            return
        self._between()
        if element != "plist":
            self._containers.pop()
            if self._keys.pop() is not None:
                raise _MalformedError("A key has no value")

    def _between(self) -> None:
        """Only white space may stand between elements."""
        if self._text:
            if "".join(self._text).strip(_XML_SPACE):
                raise _MalformedError("Text stands where only elements are allowed")
            self._text.clear()

    def _open_container(self, container: dict[str, Any] | list[Any]) -> None:
        self._between()
        if len(self._containers) == MAX_DEPTH:
            raise _MalformedError(f"It is nested more than {MAX_DEPTH} deep")
        self._add(container)
        self._containers.append(container)
        self._keys.append(None)

    def _key(self, key: str) -> None:
        if not self._containers or not isinstance(self._containers[-1], dict) or self._keys[-1] is not None:
            raise _MalformedError("A key is out of place")
        self._keys[-1] = key

    def _add(self, value: Any) -> None:  # noqa: ANN401 - any of a plist's types
        self._values += 1
        if self._values > MAX_VALUES:
            raise _MalformedError(f"It has more than {MAX_VALUES} values")
        if not self._containers:
            if self._root is not None or not self._in_plist:
                raise _MalformedError("It has more than one root, or none")
            self._root = value
            return
        container = self._containers[-1]
        if isinstance(container, list):
            container.append(value)
            return
        key = self._keys[-1]
        if key is None:
            raise _MalformedError("A value has no key")
        container[key] = value
        self._keys[-1] = None


class _MalformedError(ValueError):
    """What is wrong, in words that hold nothing of the document."""


def _integer(text: str) -> int:
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise _MalformedError("An integer cannot be read")
    sign, hexadecimal, decimal = match.groups()
    value = int(hexadecimal, 16) if hexadecimal else int(decimal)
    if sign == "-":
        value = -value
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise _MalformedError("An integer has more than 64 bits")
    return value


def _real(text: str) -> float:
    # float() also takes digits of every script, and underscores between them.
    if not text.isascii() or "_" in text:
        raise _MalformedError("A real number cannot be read")
    return float(text)


def _date(text: str) -> datetime:
    if _DATE.fullmatch(text) is None:
        raise _MalformedError("A date cannot be read")
    return datetime.fromisoformat(text)


def _data(text: str) -> bytes:
    return a2b_base64(text.encode("ascii").translate(None, _XML_SPACE.encode()), strict_mode=True)


def _empty(text: str, *, value: bool) -> bool:
    if text:
        raise _MalformedError("Text stands where none is allowed")
    return value


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "key": str,
    "string": str,
    "integer": _integer,
    "real": _real,
    "date": _date,
    "data": _data,
    "true": lambda text: _empty(text, value=True),
    "false": lambda text: _empty(text, value=False),
}

"""BER (ITU-T X.690), read as far as CMS needs it, and DER, written as far as CMS needs it.

Devices send indefinite lengths and strings in pieces, which no DER reader takes, and each request of a device carries
one signature: a reader of its own costs a tenth of a general ASN.1 library's time, and nothing to import. It is lazy:
what nobody asks for (a certificate's insides) stays bytes.
"""

from collections.abc import Iterable
from typing import Final

from mdmlib.errors import MalformedBodyError

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OID: Final = 0x06
PRINTABLE_STRING: Final = 0x13
SEQUENCE: Final = 0x30
SET: Final = 0x31

_CONSTRUCTED: Final = 0x20
_HIGH_TAG_NUMBER: Final = 0x1F
_INDEFINITE: Final = 0x80
_END_OF_CONTENTS: Final = b"\x00\x00"
_MAX_LENGTH_OCTETS: Final = 4
_MAX_DEPTH: Final = 16
"""Of indefinite lengths and pieces of strings within one another. CMS nests seven deep."""


def context(number: int, *, constructed: bool = True) -> int:
    """Return the identifier octet of a context-specific tag: ``[number]``."""
    return 0x80 | (_CONSTRUCTED if constructed else 0) | number


class Element:
    """One encoded value: its identifier octet, its content, and its whole encoding as it was received."""

    __slots__ = ("_children", "content", "encoded", "tag")

    def __init__(self, tag: int, content: bytes, encoded: bytes, children: "list[Element] | None" = None) -> None:
        self.tag = tag
        self.content = content
        self.encoded = encoded
        self._children = children

    def __repr__(self) -> str:
        return f"Element(tag={self.tag:#04x}, {len(self.content)} bytes)"

    def children(self) -> "list[Element]":
        """Return the elements of a constructed value. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        if self._children is None:
            if not self.tag & _CONSTRUCTED:
                raise MalformedBodyError("BER: a primitive value where a constructed one belongs.")
            self._children = _read_all(self.content)
        return self._children

    def expect(self, *tags: int) -> "Element":
        """Return this element if it has one of the tags. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        if self.tag not in tags:
            raise MalformedBodyError(f"BER: the tag {self.tag:#04x} where another belongs.")
        return self

    def only_child(self) -> "Element":
        """Return what an explicit tag, or a set of one, holds. Raises :class:`~mdmlib.errors.MalformedBodyError`."""
        children = self.children()
        if len(children) != 1:
            raise MalformedBodyError(f"BER: {len(children)} values where one belongs.")
        return children[0]

    def octets(self) -> bytes:
        """Return the value of an OCTET STRING that has an implicit tag, with its pieces joined."""
        return b"".join(_pieces(self, 0)) if self.tag & _CONSTRUCTED else self.content

    def octet_string(self) -> bytes:
        """Return the value of an OCTET STRING, with its pieces joined."""
        return self.expect(OCTET_STRING, OCTET_STRING | _CONSTRUCTED).octets()

    def integer(self) -> int:
        """Return the value of an INTEGER."""
        self.expect(INTEGER)
        if not self.content:
            raise MalformedBodyError("BER: an INTEGER without content.")
        return int.from_bytes(self.content, "big", signed=True)

    def to_der(self, *, tag: int | None = None) -> bytes:
        """Return the encoding with definite lengths and whole strings, under another tag if one is given.

        The members of a SET OF stay in their order.
        """
        tag = self.tag if tag is None else tag
        if _is_der(self.encoded, 0, len(self.encoded), 0):
            return bytes((tag,)) + self.encoded[1:]
        return _to_der(self, tag, 0)


def decode(data: bytes) -> Element:
    """Decode one value that fills ``data``.

    Raises :class:`~mdmlib.errors.MalformedBodyError` for everything else. Multi-byte tags, which CMS never uses, count
    as malformed.
    """
    element, end = _read(data, 0, 0)
    if end != len(data):
        raise MalformedBodyError("BER: something follows the value.")
    return element


def _read_all(data: bytes) -> list[Element]:
    """Read the values that ``data`` consists of."""
    elements: list[Element] = []
    start, size = 0, len(data)
    while start < size:
        # Most values have a plain tag and less than 128 octets, and a signature has fifty of them.
        end = start + 2 + data[start + 1] if start + 2 <= size else size + 1
        if end <= size and data[start + 1] < _INDEFINITE and data[start] & _HIGH_TAG_NUMBER != _HIGH_TAG_NUMBER:
            elements.append(Element(data[start], data[start + 2 : end], data[start:end]))
            start = end
        else:
            element, start = _read(data, start, 0)
            elements.append(element)
    return elements


def _read(data: bytes, start: int, depth: int) -> tuple[Element, int]:
    if start + 2 > len(data):
        raise MalformedBodyError("BER: the data ends within a header.")
    tag, length = data[start], data[start + 1]
    position = start + 2
    if tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER:
        raise MalformedBodyError("BER: a multi-byte tag.")
    if length == _INDEFINITE:
        return _read_indefinite(data, start, depth)
    if length > _INDEFINITE:
        octets = length - _INDEFINITE
        if octets > _MAX_LENGTH_OCTETS:
            raise MalformedBodyError("BER: a length beyond all bounds.")
        length = int.from_bytes(data[position : position + octets], "big")
        position += octets
    end = position + length
    if end > len(data):
        raise MalformedBodyError("BER: a value reaches beyond the data.")
    return Element(tag, data[position:end], data[start:end]), end


def _read_indefinite(data: bytes, start: int, depth: int) -> tuple[Element, int]:
    if depth > _MAX_DEPTH or not data[start] & _CONSTRUCTED:
        raise MalformedBodyError("BER: an indefinite length where none belongs.")
    children: list[Element] = []
    position = start + 2
    while data[position : position + 2] != _END_OF_CONTENTS:
        child, position = _read(data, position, depth + 1)
        children.append(child)
    end = position + len(_END_OF_CONTENTS)
    return Element(data[start], data[start + 2 : position], data[start:end], children), end


def _pieces(string: Element, depth: int) -> Iterable[bytes]:
    if not string.tag & _CONSTRUCTED:
        yield string.content
        return
    if depth > _MAX_DEPTH:
        raise MalformedBodyError("BER: a string nested too deep.")
    for piece in string.children():
        yield from _pieces(piece.expect(OCTET_STRING, OCTET_STRING | _CONSTRUCTED), depth + 1)


def _is_der(data: bytes, start: int, end: int, depth: int) -> bool:
    """Say whether values are encoded as DER has it, so that there is nothing to encode anew.

    What cannot be read is not: whoever goes on to read it says what is wrong.
    """
    while start < end:
        if start + 2 > end or depth > _MAX_DEPTH:
            return False
        tag, length = data[start], data[start + 1]
        start += 2
        if length >= _INDEFINITE:
            octets = length - _INDEFINITE
            if not 0 < octets <= _MAX_LENGTH_OCTETS:
                return False
            length = int.from_bytes(data[start : start + octets], "big")
            start += octets
            if length < _INDEFINITE or length >> 8 * (octets - 1) == 0:
                return False
        following = start + length
        if following > end or tag & _HIGH_TAG_NUMBER == _HIGH_TAG_NUMBER or tag == OCTET_STRING | _CONSTRUCTED:
            return False
        if tag & _CONSTRUCTED and not _is_der(data, start, following, depth + 1):
            return False
        start = following
    return True


def _to_der(element: Element, tag: int, depth: int) -> bytes:
    if not element.tag & _CONSTRUCTED:
        return der(tag, element.content)
    if depth > _MAX_DEPTH:
        raise MalformedBodyError("BER: a value nested too deep.")
    if element.tag == OCTET_STRING | _CONSTRUCTED:
        return der(tag ^ _CONSTRUCTED, element.octets())
    return der(tag, *[_to_der(child, child.tag, depth + 1) for child in element.children()])


def der(tag: int, *contents: bytes) -> bytes:
    """Encode one value with a definite length."""
    content = b"".join(contents)
    length = len(content)
    if length < _INDEFINITE:
        return bytes((tag, length)) + content
    octets = (length.bit_length() + 7) // 8
    return bytes((tag, _INDEFINITE | octets)) + length.to_bytes(octets, "big") + content


def der_set_of(tag: int, values: Iterable[bytes]) -> bytes:
    """Encode a SET OF in the order that DER demands (X.690, section 11.6)."""
    return der(tag, *sorted(values))


def der_integer(value: int) -> bytes:
    """Encode an INTEGER."""
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def der_oid(dotted: str) -> bytes:
    """Encode an OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    encoded = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        encoded.extend(reversed(groups))
    return der(OID, bytes(encoded))

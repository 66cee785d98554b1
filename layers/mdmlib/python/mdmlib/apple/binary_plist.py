"""Binary property lists, read within bounds that hold for every body, also for one made to hurt.

The format is a table of objects: containers refer to others by number, a second table gives each object's place in
the body. An honest writer gives each object bytes of its own, a hostile one lets a million of them overlap, or lets a
container contain itself, or one hold another twice, that one a third twice, and so on. Hence:

* a container is read anew wherever it stands, so that what is returned is a tree that shares no container with
  itself; its depth is bounded, and the number of its values by the size of the body, which ends cycles too;
* every other object is read once, however often it is referred to; their sizes together are no more than the body's.

The format is documented in the sources of Core Foundation (CFBinaryPList.c).
"""

from datetime import UTC, datetime, timedelta
from struct import unpack_from
from typing import Any, Final

from mdmlib.apple.plist_limits import MAX_DEPTH, MAX_INTEGER, MAX_VALUES, MIN_INTEGER
from mdmlib.errors import MalformedBodyError

MAGIC: Final = b"bplist00"

_TRAILER_BYTES: Final = 32
_EPOCH: Final = datetime(2001, 1, 1, tzinfo=UTC)
_VALUES_A_BYTE: Final = 4
_TOO_MANY_VALUES: Final = "The binary property list has more values than its size allows."

# The upper four bits of an object's first byte say what it is, the lower four how large it is, as a rule.
_INTEGER: Final = 0x1
_ARRAY: Final = 0xA
_DICT: Final = 0xD
_SIZE_FOLLOWS: Final = 0xF


def loads(body: bytes) -> Any:  # noqa: ANN401 - a plist's root can be anything
    """Read a binary plist. Raises :class:`~mdmlib.errors.MalformedBodyError` when it is none, or out of bounds."""
    return _Reader(body).root()


class _Reader:
    def __init__(self, body: bytes) -> None:
        if len(body) < len(MAGIC) + _TRAILER_BYTES:
            raise MalformedBodyError("The binary property list is cut off.")
        self._body = body
        # 5 unused bytes, 1 for a sort order that nobody uses, then as here.
        self._offset_bytes, self._reference_bytes, self._count, self._root, self._table = unpack_from(
            ">6xBBQQQ", body, len(body) - _TRAILER_BYTES
        )
        end = len(body) - _TRAILER_BYTES
        if (
            not 1 <= self._offset_bytes <= 8  # noqa: PLR2004 - a 64-bit offset is the widest
            or not 1 <= self._reference_bytes <= 8  # noqa: PLR2004 - as is a 64-bit reference
            or not len(MAGIC) <= self._table <= end
            or self._count > (end - self._table) // self._offset_bytes
        ):
            raise MalformedBodyError("The binary property list's trailer contradicts its body.")
        self._scalars: dict[int, Any] = {}
        self._scalar_bytes_left = len(body)
        # Each value is referred to by at least one byte of its own, except in a container that is shared.
        self._values_left = min(MAX_VALUES, _VALUES_A_BYTE * len(body))

    def root(self) -> Any:  # noqa: ANN401
        return self._object(self._root, depth=0)

    def _object(self, reference: int, *, depth: int) -> Any:  # noqa: ANN401
        self._values_left -= 1
        if self._values_left < 0:
            raise MalformedBodyError(_TOO_MANY_VALUES)
        if reference in self._scalars:
            return self._scalars[reference]
        if reference >= self._count:
            raise MalformedBodyError("The binary property list refers to an object that it does not have.")
        at = self._table + reference * self._offset_bytes
        offset = int.from_bytes(self._body[at : at + self._offset_bytes], "big")
        if not len(MAGIC) <= offset < self._table:
            raise MalformedBodyError("An object of the binary property list lies outside of it.")
        kind, size = divmod(self._body[offset], 16)
        if kind in {_ARRAY, _DICT}:
            if depth == MAX_DEPTH:
                raise MalformedBodyError(f"The binary property list is nested more than {MAX_DEPTH} deep.")
            size, start = self._size(size, offset + 1)
            if kind == _ARRAY:
                return [self._object(element, depth=depth + 1) for element in self._references(start, size)]
            return self._dictionary(self._references(start, 2 * size), size, depth=depth + 1)
        value = self._scalar(kind, size, offset + 1)
        self._scalars[reference] = value
        return value

    def _dictionary(self, references: list[int], size: int, *, depth: int) -> dict[str, Any]:
        dictionary = {}
        for key_reference, reference in zip(references[:size], references[size:], strict=True):
            key = self._object(key_reference, depth=depth)
            if not isinstance(key, str):
                raise MalformedBodyError("A key in the binary property list is no string.")
            dictionary[key] = self._object(reference, depth=depth)
        return dictionary

    def _scalar(self, kind: int, size: int, start: int) -> Any:  # noqa: ANN401, PLR0911 - one return for each type
        match kind, size:
            case 0x0, 0x8 | 0x9:
                return size == 0x9  # noqa: PLR2004 - the byte 0x09 is true
            case 0x1, 0 | 1 | 2 | 3 | 4:
                return self._integer(start, 1 << size)
            case 0x2, 2:
                return unpack_from(">f", self._bytes(start, 4))[0]
            case 0x2, 3:
                return unpack_from(">d", self._bytes(start, 8))[0]
            case 0x3, 3:
                return self._date(start)
            case 0x4, _:
                size, start = self._size(size, start)
                return self._bytes(start, size)
            case 0x5, _:
                size, start = self._size(size, start)
                return self._text(start, size, "ascii")
            case 0x6, _:
                size, start = self._size(size, start)
                return self._text(start, 2 * size, "utf-16-be")
            case _:
                raise MalformedBodyError("The binary property list has an object of a type that MDM does not use.")

    def _integer(self, start: int, size: int) -> int:
        # One to four bytes are unsigned, eight are signed; sixteen hold what is unsigned and needs the eighth byte.
        value = int.from_bytes(self._bytes(start, size), "big", signed=size >= 8)  # noqa: PLR2004
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise MalformedBodyError("An integer in the binary property list has more than 64 bits.")
        return value

    def _date(self, start: int) -> datetime:
        try:
            return _EPOCH + timedelta(seconds=unpack_from(">d", self._bytes(start, 8))[0])
        except (OverflowError, ValueError) as error:
            raise MalformedBodyError("A date in the binary property list is out of range.") from error

    def _text(self, start: int, size: int, encoding: str) -> str:
        try:
            return self._bytes(start, size).decode(encoding)
        except UnicodeDecodeError as error:
            raise MalformedBodyError("A string in the binary property list cannot be read.") from error

    def _size(self, size: int, start: int) -> tuple[int, int]:
        """Return an object's size and where its content starts: 15 says that an integer follows with the size."""
        if size != _SIZE_FOLLOWS:
            return size, start
        kind, width = divmod(self._at(start), 16)
        if kind != _INTEGER or width > 3:  # noqa: PLR2004 - 8 bytes
            raise MalformedBodyError("A size in the binary property list is no integer.")
        start += 1
        return int.from_bytes(self._slice(start, 1 << width), "big"), start + (1 << width)

    def _references(self, start: int, count: int) -> list[int]:
        width = self._reference_bytes
        # Before anything is made of it, a count has to fit the body and what is left of the values.
        if count > self._values_left:
            raise MalformedBodyError(_TOO_MANY_VALUES)
        content = self._slice(start, count * width)
        if width == 1:
            return list(content)
        return [int.from_bytes(content[at : at + width], "big") for at in range(0, len(content), width)]

    def _bytes(self, start: int, size: int) -> bytes:
        self._scalar_bytes_left -= size
        if self._scalar_bytes_left < 0:
            raise MalformedBodyError("Objects of the binary property list overlap.")
        return self._slice(start, size)

    def _slice(self, start: int, size: int) -> bytes:
        if size > self._table - start:
            raise MalformedBodyError("An object of the binary property list lies outside of it.")
        return self._body[start : start + size]

    def _at(self, start: int) -> int:
        return self._slice(start, 1)[0]

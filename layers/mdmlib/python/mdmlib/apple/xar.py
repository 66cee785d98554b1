"""xar archives, of which installer packages (``.pkg``) are one: the header, the table of contents, single files.

A header (28 bytes), the table of contents (zlib, XML), then the heap with the files. The archive may be gigabytes, so
it is read where it is needed. The format: https://github.com/mackyle/xar/wiki/xarformat.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from xml.parsers import expat

from mdmlib.errors import BadRequestError

MAGIC: Final = b"xar!"

_HEADER: Final = struct.Struct(">4sHHQQI")
_MAX_CONTENTS: Final = 16 * 1024 * 1024
_MAX_FILE: Final = 4 * 1024 * 1024
_MAX_DEPTH: Final = 100

Read = Callable[[int, int], bytes]
"""Reads so many bytes from an offset; fewer at the end."""


@dataclass(frozen=True)
class ArchivedFile:
    """A file of an archive."""

    path: str
    offset: int
    length: int
    encoding: str


class Element:
    """An element of an XML document."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.text = ""
        self.children: list[Element] = []

    def child(self, name: str) -> "Element | None":
        """Return the first child of a name."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str:
        """Return the text of the first child of a name, or nothing."""
        child = self.child(name)
        return child.text.strip() if child is not None else ""

    def walk(self) -> "Iterator[Element]":
        """Yield this element and all below it."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += reversed(element.children)


class Archive:
    """An archive's files."""

    def __init__(self, read: Read) -> None:
        """Read the table of contents. Raises :class:`~mdmlib.errors.BadRequestError` for what is no archive."""
        self._read = read
        header = read(0, _HEADER.size)
        if len(header) < _HEADER.size or header[:4] != MAGIC:
            raise not_a_package("it does not begin as one")
        _, header_size, version, packed, unpacked, _ = _HEADER.unpack(header)
        if version != 1 or header_size < _HEADER.size:
            raise not_a_package("it is of an unknown version")
        if packed > _MAX_CONTENTS or unpacked > _MAX_CONTENTS:
            raise not_a_package("its table of contents is too large")
        contents = parse_xml(_inflated(read(header_size, packed), _MAX_CONTENTS))
        self._heap = header_size + packed
        self.files = list(_files(contents))

    def content(self, file: ArchivedFile) -> bytes:
        """Return a small file's content. Raises :class:`~mdmlib.errors.BadRequestError`."""
        if file.length > _MAX_FILE:
            raise not_a_package(f"{file.path[:100]} is too large")
        packed = self._read(self._heap + file.offset, file.length)
        if file.encoding in {"application/x-gzip", "application/zlib"}:
            return _inflated(packed, _MAX_FILE)
        return packed


def parse_xml(document: bytes) -> Element:
    """Read an XML document in which nothing is declared. Raises :class:`~mdmlib.errors.BadRequestError`."""
    root = Element("", {})
    path = [root]
    parser = expat.ParserCreate()

    def refuse(*_: Any) -> None:  # noqa: ANN401 - whatever expat tells
        raise not_a_package("its XML declares entities")

    def start(name: str, attributes: dict[str, str]) -> None:
        if len(path) > _MAX_DEPTH:
            raise not_a_package("its XML is nested too deeply")
        element = Element(name, attributes)
        path[-1].children.append(element)
        path.append(element)

    def characters(text: str) -> None:
        path[-1].text += text

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: path.pop()
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(document, True)  # noqa: FBT003 - as expat has it
    except expat.ExpatError:
        raise not_a_package("its XML cannot be read") from None
    return root


def not_a_package(reason: str) -> BadRequestError:
    """Return what is raised for what is no package."""
    return BadRequestError(f"This is no installer package: {reason}.", code="not_a_package", field="pkg")


def _inflated(packed: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        content = inflater.decompress(packed, most)
    except zlib.error:
        raise not_a_package("it is damaged") from None
    if inflater.unconsumed_tail:
        raise not_a_package("a part of it is too large")
    return content


def _files(contents: Element) -> Iterator[ArchivedFile]:
    table = next((element for element in contents.walk() if element.name == "toc"), None)
    waiting = [(table, "")] if table is not None else []
    while waiting:
        folder, path = waiting.pop()
        for element in folder.children:
            if element.name != "file":
                continue
            name = f"{path}{element.text_of('name')}"
            waiting.append((element, f"{name}/"))
            data = element.child("data")
            if data is not None and data.text_of("offset").isdigit() and data.text_of("length").isdigit():
                encoding = data.child("encoding")
                style = encoding.attributes.get("style", "") if encoding is not None else ""
                yield ArchivedFile(name, int(data.text_of("offset")), int(data.text_of("length")), style)

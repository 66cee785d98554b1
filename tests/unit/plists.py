"""Property lists for tests: honest ones to generate, hostile ones to put together by hand."""

import plistlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

TESTDATA = Path(__file__).parent.parent / "testdata" / "plists"


def message(name: str) -> bytes:
    """Return a message as a device sent it."""
    return (TESTDATA / f"{name}.plist").read_bytes()


def xml(inner: str, *, head: str = '<?xml version="1.0" encoding="UTF-8"?>') -> bytes:
    """Return a document around a root element."""
    return f'{head}<plist version="1.0">{inner}</plist>'.encode()


def plist(**fields: Any) -> bytes:
    return plistlib.dumps(fields)


def binary(objects: Sequence[bytes], *, root: int = 0, reference_bytes: int = 1) -> bytes:
    """Return a binary plist of these objects, each already encoded."""
    body = bytearray(b"bplist00")
    offsets = []
    for content in objects:
        offsets.append(len(body))
        body += content
    return binary_of(bytes(body), offsets, root=root, reference_bytes=reference_bytes)


def binary_of(body: bytes, offsets: Sequence[int], *, root: int = 0, reference_bytes: int = 1) -> bytes:
    """Return a binary plist whose objects stand at these offsets, which may overlap."""
    table = b"".join(offset.to_bytes(4, "big") for offset in offsets)
    return body + table + trailer(len(offsets), root, len(body), offset_bytes=4, reference_bytes=reference_bytes)


def trailer(count: int, root: int, table: int, *, offset_bytes: int, reference_bytes: int) -> bytes:
    numbers = (count, root, table)
    return bytes([0] * 6 + [offset_bytes, reference_bytes]) + b"".join(number.to_bytes(8, "big") for number in numbers)


def sized(kind: int, size: int) -> bytes:
    """Return the first bytes of an object of this kind (upper four bits) with an explicit 8-byte size."""
    return bytes([kind << 4 | 0xF, 0x13]) + size.to_bytes(8, "big")


# What XML can hold, less the carriage return, which becomes a line feed.
TEXTS = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters=[*map(chr, set(range(32)) - {9, 10}), "\ufffe", "\uffff"]
    ),
    max_size=20,
)
DATES = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
SCALARS = st.one_of(
    TEXTS,
    st.binary(max_size=40),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False),
    DATES,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=6)

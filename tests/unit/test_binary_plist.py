"""Binary property lists: as devices write them, and as somebody writes them who wants to hurt."""

import plistlib
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple import plist
from mdmlib.apple.plist_limits import MAX_DEPTH, MAX_VALUES
from mdmlib.errors import MalformedBodyError
from tests.unit.plists import DOCUMENTS, binary, binary_of, message, sized, trailer

KEY = b"\x51a"
"""The string ``a``."""

EMPTY_DICT = b"\xd0"


def dictionary(value: bytes, *further: bytes) -> bytes:
    """Return the plist ``{"a": value}``; ``further`` are objects 3, 4, … for ``value`` to refer to."""
    return binary([b"\xd1\x01\x02", KEY, value, *further])


def refused(body: bytes) -> str:
    with pytest.raises(MalformedBodyError) as error:
        plist.loads(body)
    return error.value.message


@contextmanager
def within(*, seconds: float, mebibytes: float) -> Iterator[None]:
    """Hold the CPU time and the memory that a block may take."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        assert time.process_time() - started < seconds
        assert tracemalloc.get_traced_memory()[1] < mebibytes * 1024 * 1024
    finally:
        tracemalloc.stop()


@given(st.data())
def test_a_damaged_binary_plist_is_a_plist_or_refused(data: st.DataObject) -> None:
    body = bytearray(plistlib.dumps(plistlib.loads(message("Authenticate")), fmt=plistlib.FMT_BINARY))
    for _ in range(data.draw(st.integers(1, 6))):
        # The trailer and the table in front of it decide most.
        position = data.draw(st.integers(8, len(body) - 1) | st.integers(len(body) - 60, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))

    with within(seconds=5, mebibytes=64), suppress(MalformedBodyError):
        assert isinstance(plist.loads(bytes(body)), dict)


@given(st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8))
def test_any_objects_are_a_plist_or_refused(objects: list[bytes]) -> None:
    with within(seconds=5, mebibytes=64), suppress(MalformedBodyError):
        assert isinstance(plist.loads(binary(objects)), dict)


@given(DOCUMENTS)
def test_no_two_places_share_a_container(document: dict[str, Any]) -> None:
    shared = {"one": document, "two": document, "many": [document, document]}

    read = plist.loads(plistlib.dumps(_naive(shared), fmt=plistlib.FMT_BINARY))

    places = [read["one"], read["two"], *read["many"]]
    assert all(place == document for place in places)
    assert len({id(place) for place in places}) == len(places)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"\x08", False),
        (b"\x09", True),
        (b"\x10\xff", 255),
        (b"\x11\xff\xff", 65535),
        (b"\x12\xff\xff\xff\xff", 4294967295),
        (b"\x13" + b"\xff" * 8, -1),
        (b"\x14" + b"\0" * 8 + b"\xff" * 8, (1 << 64) - 1),
        (b"\x22" + struct.pack(">f", 0.5), 0.5),
        (b"\x23" + struct.pack(">d", -2.25), -2.25),
        (b"\x33" + struct.pack(">d", 86400.0), datetime(2001, 1, 2, tzinfo=UTC)),
        (b"\x43abc", b"abc"),
        (b"\x40", b""),
        (b"\x53abc", "abc"),
        (b"\x5f\x10\x03abc", "abc"),
        (b"\x62\x00\xe4\x20\xac", "ä€"),
        (b"\x62\xd8\x3d\xde\x00", "😀"),
        (b"\xa0", []),
        (EMPTY_DICT, {}),
    ],
)
def test_every_type_is_read(encoded: bytes, value: object) -> None:
    assert plist.loads(dictionary(encoded)) == {"a": value}


def test_references_of_every_width_are_read() -> None:
    for width in range(1, 9):
        references = (1).to_bytes(width, "big") + (2).to_bytes(width, "big")
        assert plist.loads(binary([b"\xd1" + references, KEY, b"\x09"], reference_bytes=width)) == {"a": True}


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x00",  # null
        b"\x0f",  # filler
        b"\x15" + b"\0" * 32,  # an integer of 32 bytes
        b"\x1f",
        b"\x14" + b"\x7f" + b"\0" * 15,  # 127 bits
        b"\x14\xff" + b"\0" * 15,
        b"\x21\0\0",  # a real of two bytes
        b"\x32\0\0\0\0",  # a date of four
        b"\x33" + struct.pack(">d", float("nan")),
        b"\x33" + struct.pack(">d", 1e300),
        b"\x33" + struct.pack(">d", 1e12),
        b"\x51\xff",  # not ASCII
        b"\x61\xd8\x00",  # half of a character
        b"\x80\x01",  # UID, of keyed archives
        b"\xb0",
        b"\xc0",  # a set
        b"\x5f\x53abc",  # a size that is no integer
        b"\x5f\x14" + b"\0" * 16,  # a size of 16 bytes
        b"\xd1\x02\x02",  # a key that is a dictionary
    ],
)
def test_what_mdm_does_not_use_or_nobody_can_read_is_refused(encoded: bytes) -> None:
    refused(dictionary(encoded))


@pytest.mark.parametrize("root", [b"\xa0", b"\x09", b"\x53abc", b"\x10\x01", b"\x00"])
def test_a_root_that_is_no_dictionary_is_refused(root: bytes) -> None:
    refused(binary([root]))


@pytest.mark.parametrize("key", [b"\x10\x01", b"\x41a", b"\xa0", b"\x09"])
def test_a_key_that_is_no_string_is_refused(key: bytes) -> None:
    assert "key" in refused(binary([b"\xd1\x01\x01", key]))


@pytest.mark.parametrize(
    "body",
    [
        b"bplist00",
        b"bplist00" + b"\0" * 31,
        b"bplist00" + b"\0" * 32,
        b"bplist00\xd0\x08" + trailer(1, 0, 9, offset_bytes=0, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 0, 9, offset_bytes=9, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 0, 9, offset_bytes=1, reference_bytes=0),
        b"bplist00\xd0\x08" + trailer(1, 0, 9, offset_bytes=1, reference_bytes=9),
        b"bplist00\xd0\x08" + trailer(0, 0, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(2, 0, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 1, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, (1 << 64) - 1, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer((1 << 64) - 1, 0, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 0, 0, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 0, 11, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x08" + trailer(1, 0, (1 << 64) - 1, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x00" + trailer(1, 0, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\x09" + trailer(1, 0, 9, offset_bytes=1, reference_bytes=1),
        b"bplist00\xd0\xff" + trailer(1, 0, 9, offset_bytes=1, reference_bytes=1),
    ],
)
def test_a_trailer_that_contradicts_the_body_is_refused(body: bytes) -> None:
    refused(body)


@pytest.mark.parametrize("kind", [4, 5, 6, 0xA, 0xD])
@pytest.mark.parametrize("size", [16, 1 << 20, 1 << 31, 1 << 62, (1 << 64) - 1])
def test_a_size_beyond_the_body_allocates_nothing(kind: int, size: int) -> None:
    with within(seconds=1, mebibytes=1):
        refused(dictionary(sized(kind, size)))


def test_a_container_that_contains_itself_is_refused() -> None:
    with within(seconds=5, mebibytes=64):
        refused(binary([b"\xd1\x01\x00", KEY]))
        refused(dictionary(b"\xa1\x02"))
        refused(dictionary(b"\xa2\x02\x02"))
        refused(dictionary(b"\xaf\x10\xff" + b"\x02" * 255))
        refused(dictionary(b"\xa1\x03", b"\xd1\x01\x02"))


def test_nesting_has_a_limit() -> None:
    def nested(depth: int) -> bytes:
        return dictionary(*(b"\xa1" + bytes([3 + level]) for level in range(depth - 1)), b"\xa0")

    assert plist.loads(nested(MAX_DEPTH - 1))
    assert "deep" in refused(nested(MAX_DEPTH))


@pytest.mark.parametrize("padding", range(4))
def test_containers_that_hold_each_other_twice_are_refused_before_they_unfold(padding: int) -> None:
    levels = [b"\xa2" + bytes([3 + level, 3 + level]) for level in range(60)]

    with within(seconds=1, mebibytes=1):
        assert "values" in refused(dictionary(*levels, b"\xa0", bytes(padding)))


def test_the_number_of_values_has_a_limit() -> None:
    with within(seconds=5, mebibytes=64):
        assert "values" in refused(dictionary(sized(0xA, MAX_VALUES) + b"\x01" * MAX_VALUES))


def test_one_large_string_referred_to_often_is_read_once() -> None:
    text = "x" * 1_000_000
    body = dictionary(b"\xaf\x11\x03\xe8" + b"\x03" * 1000, b"\x5f\x12" + len(text).to_bytes(4, "big") + text.encode())

    with within(seconds=5, mebibytes=16):
        assert plist.loads(body)["a"] == [text] * 1000


def test_large_objects_that_overlap_are_refused_before_they_are_copied() -> None:
    count = 50_000
    array = sized(0xA, count) + b"".join((2 + n).to_bytes(4, "big") for n in range(count))
    root = b"\xd1" + (1).to_bytes(4, "big") + (count + 2).to_bytes(4, "big")
    large = sized(4, 1 << 20) + bytes(1 << 20)
    body = b"bplist00" + root + KEY + large + array
    at_root, at_key = 8, 8 + len(root)
    at_large = at_key + len(KEY)
    offsets = [at_root, at_key, *[at_large] * count, at_large + len(large)]

    with within(seconds=5, mebibytes=32):
        assert "overlap" in refused(binary_of(body, offsets, reference_bytes=4))


def _naive(value: Any) -> Any:
    """plistlib writes naive dates only."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: _naive(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_naive(item) for item in value]
    return value

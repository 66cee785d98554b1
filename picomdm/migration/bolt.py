"""Bolt database files, as MicroMDM has one: a B+ tree of pages in which buckets hold keys and values.

The format is described at https://github.com/etcd-io/bbolt (page.go, bucket.go). A file is read as it was after the
last transaction that was completed; ``/boltbackup`` gives such a one from a running server.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_PAGE_HEADER: Final = struct.Struct("<QHHI")  # id, flags, count, overflow
_META: Final = struct.Struct(
    "<IIIIQQQQQQ"
)  # magic, version, page size, flags, root, sequence, freelist, pages, txid, checksum
_BRANCH_ELEMENT: Final = struct.Struct("<IIQ")  # position, key size, page
_LEAF_ELEMENT: Final = struct.Struct("<IIII")  # flags, position, key size, value size
_BUCKET: Final = struct.Struct("<QQ")  # root page, sequence
_BRANCH, _LEAF = 0x01, 0x02
_IS_BUCKET: Final = 0x01
_PAGE_SIZES: Final = tuple(512 << shift for shift in range(8))
_DEEPEST: Final = 32


class BoltError(Exception):
    """The file is no Bolt database, or is damaged."""


@dataclass(frozen=True)
class BoltFile:
    """A database file in memory."""

    content: bytes
    page_size: int
    root: int

    @classmethod
    def decode(cls, content: bytes) -> Self:
        """Read a file. Raises :class:`BoltError`."""
        metas = [meta for meta in (_meta(content, 0), *(_meta(content, size) for size in _PAGE_SIZES)) if meta]
        if not metas:
            raise BoltError("It is no Bolt database: neither of its first two pages says so.")
        _, page_size, root = max(metas)
        return cls(content, page_size, root)

    def bucket(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys of a bucket and their values, in order; nothing when there is no such bucket.

        Raises :class:`BoltError`.
        """
        for flags, key, value in self._elements(self._page(self.root), 0):
            if flags & _IS_BUCKET and key == name.encode():
                if len(value) < _BUCKET.size:
                    raise BoltError("A bucket is damaged.")
                root, _ = _BUCKET.unpack_from(value)
                # A small bucket has no page of its own: it stands where it is named.
                page = self._page(root) if root else value[_BUCKET.size :]
                yield from ((key, value) for flags, key, value in self._elements(page, 0) if not flags & _IS_BUCKET)

    def _page(self, number: int) -> bytes:
        start = number * self.page_size
        header = self.content[start : start + _PAGE_HEADER.size]
        if len(header) < _PAGE_HEADER.size:
            raise BoltError("The file ends too soon.")
        _, _, _, overflow = _PAGE_HEADER.unpack(header)
        return self.content[start : start + (overflow + 1) * self.page_size]

    def _elements(self, page: bytes, depth: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield flags, key and value of all leaves at and below a page."""
        if depth > _DEEPEST:
            raise BoltError("The tree of pages is damaged.")
        try:
            _, kind, count, _ = _PAGE_HEADER.unpack_from(page)
            for index in range(count):
                if kind & _LEAF:
                    at = _PAGE_HEADER.size + index * _LEAF_ELEMENT.size
                    flags, position, key_size, value_size = _LEAF_ELEMENT.unpack_from(page, at)
                    start = at + position
                    key = page[start : start + key_size]
                    value = page[start + key_size : start + key_size + value_size]
                    if len(key) + len(value) < key_size + value_size:
                        raise BoltError("A page ends too soon.")
                    yield flags, key, value
                elif kind & _BRANCH:
                    at = _PAGE_HEADER.size + index * _BRANCH_ELEMENT.size
                    _, _, number = _BRANCH_ELEMENT.unpack_from(page, at)
                    yield from self._elements(self._page(number), depth + 1)
                else:
                    raise BoltError("A page is of no kind that holds data.")
        except struct.error as error:
            raise BoltError("A page is damaged.") from error


def _meta(content: bytes, start: int) -> tuple[int, int, int] | None:
    """Return transaction, page size and root page as a meta page has them; None when there is none."""
    at = start + _PAGE_HEADER.size
    if len(content) < at + _META.size:
        return None
    magic, version, page_size, _, root, _, _, _, transaction, checksum = _META.unpack_from(content, at)
    if magic != _MAGIC or version != _VERSION or start not in {0, page_size}:
        return None
    if checksum and checksum != _fnv1a(content[at : at + _META.size - 8]):
        return None
    return transaction, page_size, root


def _fnv1a(data: bytes) -> int:
    """Return the 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value

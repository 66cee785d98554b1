r"""The file of a back-up: a stream of JSON records, compressed, and encrypted with a passphrase.

::

    PicoMDM back-up 1\n
    salt (16 bytes)
    chunk: nonce (12 bytes), last (1 byte: 0 or 1), length (4 bytes, big-endian), ciphertext
    chunk …

The key is scrypt's (N = 2^17, r = 8, p = 1) of the passphrase. A chunk is AES-256-GCM of zlib of its records, one JSON
document a line; what it has to be (the salt, its number, whether it is the last) is authenticated with it, so chunks
can be neither moved, left out, cut off nor mixed with those of another file. A nonce is random: a chunk that was
written only in part is written anew under another one.
"""

import json
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from picomdm.errors import SetupError

MAGIC: Final = b"PicoMDM back-up 1\n"

_SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = _NONCE_BYTES + 1 + 4
_MOST_CHUNK_BYTES: Final = 256 * 1024 * 1024
_SCRYPT: Final = {"n": 2**17, "r": 8, "p": 1}

Record = Mapping[str, Any]


class _Chunks:
    """Seals and opens the chunks of one file."""

    def __init__(self, salt: bytes, passphrase: str) -> None:
        self.salt = salt
        self._aead = AESGCM(Scrypt(salt=salt, length=32, **_SCRYPT).derive(passphrase.encode()))

    def seal(self, number: int, records: Sequence[Record], *, last: bool) -> bytes:
        lines = b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._aead.encrypt(nonce, zlib.compress(lines), self._what_it_is(number, last=last))
        return nonce + bytes([last]) + len(sealed).to_bytes(4, "big") + sealed

    def open(self, number: int, nonce: bytes, sealed: bytes, *, last: bool) -> list[Record]:
        lines = zlib.decompress(self._aead.decrypt(nonce, sealed, self._what_it_is(number, last=last)))
        return [json.loads(line) for line in lines.splitlines()]

    def _what_it_is(self, number: int, *, last: bool) -> bytes:
        return MAGIC + self.salt + number.to_bytes(8, "big") + bytes([last])


class ArchiveReader:
    """Reads a back-up, chunk by chunk. Raises :class:`~picomdm.errors.SetupError` for what is none, or not whole."""

    def __init__(self, file: BinaryIO, passphrase: str) -> None:
        self._file = file
        head = file.read(len(MAGIC) + _SALT_BYTES)
        if not head.startswith(MAGIC) or len(head) < len(MAGIC) + _SALT_BYTES:
            raise SetupError("That file is no back-up of PicoMDM.", code="no_backup")
        self._chunks = _Chunks(head[len(MAGIC) :], passphrase)
        self.finished = False
        """Whether the last chunk was read."""
        self.end = file.tell()
        """Where the last chunk that is whole ends."""

    @property
    def id(self) -> str:
        """What tells this back-up from all others."""
        return self._chunks.salt.hex()

    def chunks(self, *, whole: bool = True) -> Iterator[list[Record]]:
        """Yield the records of each chunk. Without ``whole``, a file that breaks off is read as far as it goes."""
        number = 0
        while not self.finished:
            head = self._file.read(_HEAD_BYTES)
            length = int.from_bytes(head[-4:], "big")
            sealed = self._file.read(length) if len(head) == _HEAD_BYTES and length <= _MOST_CHUNK_BYTES else b""
            if not sealed or len(sealed) < length:
                if not whole:
                    return
                raise SetupError(
                    "The back-up breaks off: it is not finished, or was not copied as a whole.", code="backup_broken"
                )
            last = head[_NONCE_BYTES] == 1
            try:
                records = self._chunks.open(number, head[:_NONCE_BYTES], sealed, last=last)
            except (InvalidTag, zlib.error, ValueError):
                raise SetupError(
                    "The passphrase is another one, or the back-up is damaged."
                    if number == 0
                    else "The back-up is damaged.",
                    code="backup_unreadable",
                ) from None
            number += 1
            self.finished, self.end = last, self._file.tell()
            yield records
        if self._file.read(1):
            raise SetupError("Something follows the end of the back-up.", code="backup_unreadable")


class ArchiveWriter:
    """Writes a back-up, chunk by chunk. Each is on the disk before the next one is begun."""

    def __init__(self, file: BinaryIO, chunks: _Chunks, number: int) -> None:
        self._file = file
        self._chunks = chunks
        self._number = number

    @classmethod
    def begin(cls, path: Path, passphrase: str) -> Self:
        """Begin a new file, which only its owner can read. Raises :class:`FileExistsError`."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(descriptor, "wb")
        chunks = _Chunks(secrets.token_bytes(_SALT_BYTES), passphrase)
        file.write(MAGIC + chunks.salt)
        return cls(file, chunks, 0)

    @classmethod
    def go_on(cls, path: Path, passphrase: str) -> tuple[Self, list[Record]]:
        """Go on with a file that broke off; return what its last whole chunk has, nothing when there is none.

        Raises :class:`~picomdm.errors.SetupError` when it is no back-up, or finished.
        """
        file = path.open("r+b")
        number = 0
        last: list[Record] = []
        try:
            reader = ArchiveReader(file, passphrase)
            for number, last in enumerate(reader.chunks(whole=False), 1):  # noqa: B007 - what is left of the last counts
                pass
            file.seek(reader.end)
            if not reader.finished:
                file.truncate()
        except BaseException:
            file.close()
            raise
        if reader.finished:
            file.close()
            raise SetupError(f"{path} is a finished back-up already; name another file.", code="backup_finished")
        return cls(file, reader._chunks, number), list(last)  # noqa: SLF001 - the two are one thing

    def write(self, records: Sequence[Record], *, last: bool = False) -> None:
        """Write a chunk; nothing follows the ``last``."""
        self._file.write(self._chunks.seal(self._number, records, last=last))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._number += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

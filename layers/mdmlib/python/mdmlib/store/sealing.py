"""Sealing: every secret and every payload is encrypted before it leaves the process.

A sealed value is ``format (1 byte), length of the key's id (1 byte), the key's id, nonce (12 bytes), AES-256-GCM
ciphertext and tag``. The key's id in front lets keys rotate. The associated data names the place where the value
belongs, so that a value moved to another item does not open.

All keys derive (HKDF-SHA256) from the master keys in the stack's one secret, a JSON document
``{"current_key": "k1", "k1": "<64 random characters>"}``. Administrators' API keys stand beside them, in a list
``api_keys``: nothing is derived from these.
"""

import json
import os
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mdmlib.errors import UnavailableError

_PLAIN: Final = 1
_ZLIB: Final = 2
_NONCE_BYTES: Final = 12
_COMPRESS_FROM_BYTES: Final = 256
_SMALL_BYTES: Final = 8 * 1024
"""Up to here a window of 8 KiB sees everything."""
_MAX_OPENED_BYTES: Final = 64 * 1024 * 1024


class MasterKeys:
    """The stack's master keys; nothing of them is in its repr."""

    def __init__(self, current: str, keys: dict[str, bytes], *, api_keys: Sequence[str] = ()) -> None:
        self.current = current
        self._keys = keys
        self.api_keys = tuple(api_keys)
        """The passwords of HTTP Basic, any of which is good."""
        self.derive = cache(self._derive)

    @classmethod
    def from_secret(cls, document: str) -> "MasterKeys":
        """Read the secret's JSON document. Raises :class:`~mdmlib.errors.UnavailableError` if it is not one."""
        try:
            parsed = json.loads(document)
            current = parsed.pop("current_key")
            api_keys = [str(key) for key in parsed.pop("api_keys", [])]
            keys = {key_id: str(value).encode() for key_id, value in parsed.items()}
            keys[current]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            # The document itself must not be shown: json's message would quote a part of it.
            raise UnavailableError("The stack's secret is no document of master keys.", code="secret_unusable") from (
                None if isinstance(error, ValueError) else error
            )
        return cls(current, keys, api_keys=api_keys)

    def __repr__(self) -> str:
        return f"MasterKeys(current={self.current!r})"

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def _derive(self, key_id: str, purpose: str) -> bytes:
        """Derive 32 bytes for one purpose, such as ``seal`` or ``scep-challenge``, from one master key."""
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"picomdm/{purpose}".encode()).derive(
            self._keys[key_id]
        )


class KeySource(Protocol):
    """Where the master keys come from: :class:`mdmlib.store.stack_secret.StackSecret`."""

    def keys(self, *, fresh: bool = False) -> MasterKeys:
        """Return the keys; ``fresh`` asks for another look because a known one did not serve."""


class Sealer:
    """Seals and opens values under the stack's keys, which are asked for on first use."""

    def __init__(self, source: KeySource) -> None:
        self._source = source

    def seal(self, plaintext: bytes, *, place: str) -> bytes:
        """Encrypt ``plaintext`` for the one ``place`` where it may be opened; long values are compressed first."""
        keys = self._source.keys()
        form = _PLAIN
        if len(plaintext) >= _COMPRESS_FROM_BYTES:
            compressed = _compress(plaintext)
            if len(compressed) < len(plaintext):
                form, plaintext = _ZLIB, compressed
        key_id = keys.current.encode()
        nonce = os.urandom(_NONCE_BYTES)
        header = bytes((form, len(key_id))) + key_id
        cipher = AESGCM(keys.derive(keys.current, "seal"))
        return header + nonce + cipher.encrypt(nonce, plaintext, header + place.encode())

    def open(self, sealed: bytes, *, place: str) -> bytes:
        """Decrypt a value sealed for ``place``.

        Raises :class:`~mdmlib.errors.UnavailableError` when it was sealed for another place, was damaged, or its key
        is gone.
        """
        try:
            form, id_length = sealed[0], sealed[1]
            key_id = sealed[2 : 2 + id_length].decode()
            header, rest = sealed[: 2 + id_length], sealed[2 + id_length :]
            keys = self._source.keys()
            if key_id not in keys:
                keys = self._source.keys(fresh=True)
            cipher = AESGCM(keys.derive(key_id, "seal"))
            plaintext = cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + place.encode())
        except (InvalidTag, IndexError, KeyError, UnicodeDecodeError, ValueError) as error:
            raise UnavailableError(
                "A sealed value cannot be opened: its key is missing from the stack's secret, or it was changed.",
                code="sealed_value_unreadable",
            ) from error
        if form == _ZLIB:
            return _decompress(plaintext)
        return plaintext

    def derive(self, purpose: str) -> bytes:
        """Return the current 32-byte key for one purpose other than sealing."""
        keys = self._source.keys()
        return keys.derive(keys.current, purpose)


def _compress(data: bytes) -> bytes:
    # By default zlib takes a quarter of a MiB to look back upon and gives it back to the system at once, which costs
    # several times what a message of a device does.
    small = len(data) <= _SMALL_BYTES
    compressor = zlib.compressobj(wbits=13, memLevel=6) if small else zlib.compressobj()
    return compressor.compress(data) + compressor.flush()


def _decompress(data: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    plaintext = decompressor.decompress(data, _MAX_OPENED_BYTES)
    if decompressor.unconsumed_tail:
        raise UnavailableError("A sealed value is larger than anything that is ever sealed.")
    return plaintext

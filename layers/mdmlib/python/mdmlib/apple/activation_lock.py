"""Bypass codes of Activation Lock: what ends a lock that an organization put on a device.

A code is 16 random bytes, written for people as 26 characters in groups. Apple is given its hash when the device is
locked (the *escrow key*) and the code itself when the lock is to end; it can also be typed on the device.
https://developer.apple.com/documentation/devicemanagement/creating-and-using-bypass-codes
"""

from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac
from itertools import pairwise
from typing import Final, Self

from mdmlib.errors import BadRequestError

RAW_BYTES: Final = 16

_ALPHABET: Final = "0123456789ACDEFGHJKLMNPQRTUVWXYZ"
_CHARACTERS: Final = 26
"""25 of five bits each, and one of the three that are left."""
_LAST_BITS: Final = 3
_GROUPS: Final = (0, 5, 10, 14, 18, 22, 26)
_SALT: Final = bytes(4)
_ITERATIONS: Final = 50_000


@dataclass(frozen=True)
class BypassCode:
    """A code."""

    raw: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.raw) != RAW_BYTES:
            raise BadRequestError(f"A bypass code has {RAW_BYTES} bytes.", code="invalid_field", field="raw")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read a code as people write it; dashes, blanks and case do not matter.

        Raises :class:`~mdmlib.errors.BadRequestError`.
        """
        digits = [_ALPHABET.find(character) for character in text.upper() if character not in "- "]
        if len(digits) != _CHARACTERS or -1 in digits or digits[-1] >> _LAST_BITS:
            raise BadRequestError(
                f"A bypass code has {_CHARACTERS} letters and digits, without B, I, O and S.",
                code="invalid_field",
                field="code",
            )
        number = 0
        for digit in digits[:-1]:
            number = number << 5 | digit
        return cls((number << _LAST_BITS | digits[-1]).to_bytes(RAW_BYTES, "big"))

    @property
    def text(self) -> str:
        """The code as people read it: ``8LNYD-DVNKU-GYRC-E6GU-3YFD-CT86``."""
        number = int.from_bytes(self.raw, "big")
        digits = [number >> shift & 0x1F for shift in range(128 - 5, 0, -5)] + [number & 0x07]
        characters = "".join(_ALPHABET[digit] for digit in digits)
        return "-".join(characters[start:end] for start, end in pairwise(_GROUPS))

    @property
    def escrow_key(self) -> str:
        """What Apple is given when the device is locked: a hash, in hexadecimal digits."""
        return pbkdf2_hmac("sha256", self.raw, _SALT, _ITERATIONS).hex()

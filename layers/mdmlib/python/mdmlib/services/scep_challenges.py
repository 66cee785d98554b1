"""SCEP challenges: who has one may get one identity.

A challenge is stateless: it says by itself under which enrollment link it was handed out and until when it is good, and
an HMAC under a key of the stack proves it. Nothing is stored when a profile is downloaded, and nothing is read or
written for a challenge that somebody made up.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from mdmlib.errors import ForbiddenError

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_FORMAT: Final = b"\x01"
_EXPIRY_BYTES: Final = 5
_NONCE_BYTES: Final = 16
_LINK_BYTES: Final = 16
_MAC_BYTES: Final = 32
_OPEN_LINK: Final = bytes(_LINK_BYTES)
_LENGTH: Final = len(_FORMAT) + _EXPIRY_BYTES + _NONCE_BYTES + _LINK_BYTES + _MAC_BYTES

_LINK_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Challenge:
    """A challenge that this stack handed out. It may be over, or used: that is for the redemption to say."""

    nonce: str
    """Hex; what makes it good for one identity only."""
    link_id: str | None
    """The enrollment link that it was handed out under; None where enrollment is open."""
    expires_at: int
    """Epoch seconds."""


class ScepChallenges:
    """Makes challenges and recognizes its own."""

    def __init__(
        self, *, sealer: "Sealer", now: Callable[[], datetime], random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._sealer = sealer
        self._now = now
        self._random = random

    def new(self, link_id: str | None, expires_at: datetime) -> str:
        """Return a new challenge: 94 characters of base64, all of which a PrintableString may hold."""
        if link_id is not None and not _LINK_ID.fullmatch(link_id):
            raise ValueError("An enrollment link's id has 32 hex digits.")
        content = b"".join(
            (
                _FORMAT,
                int(expires_at.timestamp()).to_bytes(_EXPIRY_BYTES, "big"),
                self._random(_NONCE_BYTES),
                bytes.fromhex(link_id) if link_id else _OPEN_LINK,
            )
        )
        return base64.b64encode(content + self._mac(content)).rstrip(b"=").decode()

    def recognize(self, text: str | None) -> Challenge:
        """Return what a challenge of ours says. Costs no call to AWS.

        Raises :class:`~mdmlib.errors.ForbiddenError` for one that we did not make.
        """
        decoded = _decode(text or "")
        content, mac = decoded[:-_MAC_BYTES], decoded[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(content)) or len(decoded) != _LENGTH:
            raise ForbiddenError("The SCEP challenge is missing or not one of ours.", code="challenge_unknown")
        expiry, rest = content[len(_FORMAT) : len(_FORMAT) + _EXPIRY_BYTES], content[len(_FORMAT) + _EXPIRY_BYTES :]
        nonce, link = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        return Challenge(
            nonce=nonce.hex(),
            link_id=None if link == _OPEN_LINK else link.hex(),
            expires_at=int.from_bytes(expiry, "big"),
        )

    def is_over(self, challenge: Challenge) -> bool:
        """Say whether the challenge has expired."""
        return self._now().timestamp() >= challenge.expires_at

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._sealer.derive("scep-challenge"), content, hashlib.sha256)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""

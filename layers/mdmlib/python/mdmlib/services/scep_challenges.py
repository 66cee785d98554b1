"""SCEP challenges: who has one may get one identity.

A challenge is stateless: it says by itself under which enrollment link it was handed out, to which device where that is
known, for what, and until when it is good, and an HMAC under a key of the stack proves it. Nothing is stored when a
profile is downloaded, and nothing is read or written for a challenge that somebody made up.
"""

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from io import BytesIO
from typing import TYPE_CHECKING, Final

from mdmlib.errors import ForbiddenError

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_PURPOSE_BYTES: Final = 1
_EXPIRY_BYTES: Final = 5
_NONCE_BYTES: Final = 16
_LINK_BYTES: Final = 16
_SERIAL_BYTES: Final = 16
_MAC_BYTES: Final = 32
_OPEN_LINK: Final = bytes(_LINK_BYTES)
_ANY_DEVICE: Final = bytes(_SERIAL_BYTES)
_LISTED_DEVICES: Final = b"\xff" * _SERIAL_BYTES
LISTED_DEVICES: Final = _LISTED_DEVICES.hex()
"""In place of a device's ``serial_hash``: the link says which devices."""
_LENGTH: Final = _PURPOSE_BYTES + _EXPIRY_BYTES + _NONCE_BYTES + _LINK_BYTES + _SERIAL_BYTES + _MAC_BYTES

_LINK_ID: Final = re.compile(r"[0-9a-f]{32}")


class Purpose(IntEnum):
    """What a challenge's identity is good for."""

    ENROLLMENT = 1
    OTA = 2
    """For the third phase of over-the-air enrollment, which gives a device its enrollment profile; for nothing else."""
    RENEWAL = 3
    """To follow the identity of an enrollment, which the challenge names."""


@dataclass(frozen=True)
class Challenge:
    """A challenge that this stack handed out. It may be over, or used: that is for the redemption to say."""

    nonce: str
    """Hex; what makes it good for one identity only."""
    link_id: str | None
    """The enrollment link that it was handed out under; None where enrollment is open."""
    expires_at: int
    """Epoch seconds."""
    purpose: Purpose
    serial_hash: str | None
    """Of the only device that may use it (:func:`serial_hash`), or :data:`LISTED_DEVICES`; None for any device."""
    renews: str | None = None
    """SHA-256 (hex) of the certificate that is to be renewed; None for all other purposes."""


def serial_hash(serial_number: str) -> str:
    """Return what stands for a serial number in a challenge and with an identity: 32 hex digits."""
    return hashlib.sha256(serial_number.upper().encode()).hexdigest()[: 2 * _SERIAL_BYTES]


class ScepChallenges:
    """Makes challenges and recognizes its own."""

    def __init__(
        self,
        *,
        sealer: "Sealer",
        now: Callable[[], datetime],
        random: Callable[[int], bytes] = os.urandom,
        key: str = "scep-challenge",
    ) -> None:
        """``key`` names the key of the HMAC: what is made under one is nothing under another."""
        self._sealer = sealer
        self._now = now
        self._random = random
        self._key = key

    def new(
        self,
        link_id: str | None,
        expires_at: datetime,
        *,
        serial_number: str | None = None,
        listed: bool = False,
        purpose: Purpose = Purpose.ENROLLMENT,
    ) -> str:
        """Return a new challenge: 115 characters of base64, all of which a PrintableString may hold.

        With ``serial_number`` its identity is good for that device alone; with ``listed`` for those alone that the link
        lists.
        """
        if link_id is not None and not _LINK_ID.fullmatch(link_id):
            raise ValueError("An enrollment link's id has 32 hex digits.")
        link = bytes.fromhex(link_id) if link_id else _OPEN_LINK
        serial = _LISTED_DEVICES if listed else _ANY_DEVICE
        if serial_number:
            serial = bytes.fromhex(serial_hash(serial_number))
        return self._make(purpose, expires_at, link + serial)

    def new_one_time(self, *, good_for: timedelta, serial_number: str | None = None) -> tuple[str, datetime]:
        """Return a challenge that an administrator hands out, under no link, and when it is over."""
        expires_at = (self._now() + good_for).replace(microsecond=0)
        return self.new(None, expires_at, serial_number=serial_number), expires_at

    def new_renewal(self, identity: str, expires_at: datetime) -> str:
        """Return a challenge for the certificate that shall follow ``identity`` (its SHA-256, hex)."""
        return self._make(Purpose.RENEWAL, expires_at, bytes.fromhex(identity))

    def _make(self, purpose: Purpose, expires_at: datetime, subject: bytes) -> str:
        expiry = int(expires_at.timestamp()).to_bytes(_EXPIRY_BYTES, "big")
        content = b"".join((bytes((purpose,)), expiry, self._random(_NONCE_BYTES), subject))
        return base64.b64encode(content + self._mac(content)).rstrip(b"=").decode()

    def recognize(self, text: str | None) -> Challenge:
        """Return what a challenge of ours says. Costs no call to AWS.

        Raises :class:`~mdmlib.errors.ForbiddenError` for one that we did not make.
        """
        decoded = _decode(text or "")
        content, mac = decoded[:-_MAC_BYTES], decoded[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(content)) or len(decoded) != _LENGTH:
            raise ForbiddenError("The SCEP challenge is missing or not one of ours.", code="challenge_unknown")
        fields = BytesIO(content)
        purpose, expiry = fields.read(_PURPOSE_BYTES), fields.read(_EXPIRY_BYTES)
        nonce, link, serial = fields.read(_NONCE_BYTES), fields.read(_LINK_BYTES), fields.read(_SERIAL_BYTES)
        renews = purpose[0] == Purpose.RENEWAL
        return Challenge(
            nonce=nonce.hex(),
            link_id=None if renews or link == _OPEN_LINK else link.hex(),
            expires_at=int.from_bytes(expiry, "big"),
            purpose=Purpose(purpose[0]),
            serial_hash=None if renews or serial == _ANY_DEVICE else serial.hex(),
            renews=(link + serial).hex() if renews else None,
        )

    def is_over(self, challenge: Challenge) -> bool:
        """Say whether the challenge has expired."""
        return self._now().timestamp() >= challenge.expires_at

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._sealer.derive(self._key), content, hashlib.sha256)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""

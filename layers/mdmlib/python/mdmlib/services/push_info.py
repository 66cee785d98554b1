"""What is needed to wake an enrollment, as its last TokenUpdate told it."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer


@dataclass(frozen=True)
class PushInfo:
    """Token (hex) and magic of an enrollment; in its record both are sealed together."""

    token: str = field(repr=False)
    magic: str = field(repr=False)

    @property
    def token_hash(self) -> str:
        """SHA-256 (hex) of the token: enough to tell whether an answer of APNs is about the current one."""
        return push_token_hash(self.token)

    def seal(self, sealer: "Sealer", enrollment_id: str) -> bytes:
        """Return it as the record keeps it."""
        document = json.dumps({"token": self.token, "magic": self.magic}, separators=(",", ":"))
        return sealer.seal(document.encode(), place=_place(enrollment_id))

    @classmethod
    def open(cls, sealed: bytes, sealer: "Sealer", enrollment_id: str) -> Self:
        """Read it back from a record."""
        document = json.loads(sealer.open(sealed, place=_place(enrollment_id)))
        return cls(token=document["token"], magic=document["magic"])


def push_token_hash(token: str) -> str:
    """Return the SHA-256 (hex) of a push token given as hex, whatever its case."""
    return hashlib.sha256(token.lower().encode()).hexdigest()


def _place(enrollment_id: str) -> str:
    return f"{enrollment_id}/push"

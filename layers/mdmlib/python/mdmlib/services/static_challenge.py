"""The static SCEP challenge: a secret in the profiles of whoever knows it, good until it is changed. Off by default."""

import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.errors import BadRequestError
from mdmlib.store.tables import StaticScepChallenge
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.store.sealing import Sealer

_COLLECTION: Final = "scep_challenge"
_NAME: Final = "static"
_PLACE: Final = f"{_COLLECTION}/{_NAME}"
_KEEP: Final = timedelta(minutes=1)

SHORTEST: Final = 8
LONGEST: Final = 255


class StaticChallenge:
    """Keeps the challenge, sealed, and recognizes it. What was read of it is kept for a minute."""

    def __init__(self, *, sealer: "Sealer", now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._now = now
        self._kept: bytes | None = None
        self._read_at: datetime | None = None

    def set(self, challenge: str, *, only_if: OnlyIf[StaticScepChallenge | None] | None = None) -> StaticScepChallenge:
        """Let whoever knows the challenge get an identity, in place of the one before.

        Raises :class:`~mdmlib.errors.BadRequestError` for one that is too short to be a secret, and what ``only_if``
        raises.
        """
        if not SHORTEST <= len(challenge) <= LONGEST:
            raise BadRequestError(
                f"A static challenge has {SHORTEST} to {LONGEST} characters.", code="invalid_field", field="challenge"
            )
        item = StaticScepChallenge(
            _COLLECTION,
            _NAME,
            challenge=self._sealer.seal(challenge.encode(), place=_PLACE),
            set_at=int(self._now().timestamp()),
        )
        with only_while(StaticScepChallenge, self.get, only_if) as condition:
            item.save(condition=condition)
        return item

    def get(self) -> StaticScepChallenge | None:
        """Return the challenge as it is stored; None where there is none."""
        try:
            return StaticScepChallenge.get(_COLLECTION, _NAME, consistent_read=True)
        except DoesNotExist:
            return None

    def end(self, *, only_if: OnlyIf[StaticScepChallenge | None] | None = None) -> None:
        """Let nobody get an identity by it any more; once more is no error. Raises what ``only_if`` raises."""
        with only_while(StaticScepChallenge, self.get, only_if) as condition:
            StaticScepChallenge(_COLLECTION, _NAME).delete(condition=condition)

    def is_met(self, text: str | None) -> bool:
        """Say whether a request brings the challenge, in a time that does not tell how much of it is right."""
        now = self._now()
        if not text:
            return False
        if self._read_at is None or now - self._read_at >= _KEEP:
            item = self.get()
            self._kept = self._sealer.open(item.challenge, place=_PLACE) if item else None
            self._read_at = now
        return self._kept is not None and hmac.compare_digest(text.encode(), self._kept)

"""API keys: the passwords of HTTP Basic, by which scripts of other servers prove who they are.

They stand in the stack's secret. Several may, so that a key can be replaced while both are in use.
"""

import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from mdmlib.errors import TooManyAttemptsError, UnauthorizedError
from mdmlib.observability import logger
from mdmlib.store.sealing import KeySource

SHORTEST: Final = 16
"""A shorter key is none: it could be guessed."""

MAX_FAILURES: Final = 20
WINDOW: Final = timedelta(minutes=1)
"""So many wrong passwords an address may send within this time; then it has to wait for its end."""

_ADDRESSES: Final = 10_000


class ApiKeys:
    """Checks passwords.

    What API Gateway lets through in a second bounds all guessing; beside that each environment of a function counts the
    failures of an address by itself, which costs no call.
    """

    def __init__(self, source: KeySource, *, now: Callable[[], datetime]) -> None:
        self._source = source
        self._now = now
        self._failures: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def check(self, password: bytes, *, known_user: bool, realm: str, address: str) -> None:
        """Return if the password is an API key and the user is one of those there are.

        The keys are compared in constant time, all of them, whoever the user is. Raises
        :class:`~mdmlib.errors.UnauthorizedError` and, while too many wrong passwords came from ``address``,
        :class:`~mdmlib.errors.TooManyAttemptsError`.
        """
        if self._failed(address) >= MAX_FAILURES:
            raise TooManyAttemptsError("Too many wrong passwords came from this address; wait for a minute.")
        right = _is_one_of(password, self._source.keys().api_keys)
        # The key may be newer than what was read, of which there is at most one look in 30 seconds.
        right = right or _is_one_of(password, self._source.keys(fresh=True).api_keys)
        if right and known_user:
            return
        self._note_failure(address)
        if not any(map(_is_usable, self._source.keys().api_keys)):
            logger.warning("There is no API key; make one: picomdm api-key add")
        raise UnauthorizedError("Unauthorized", realm=realm)

    def _failed(self, address: str) -> int:
        since, count = self._failures.get(address, (self._now(), 0))
        return count if self._now() - since < WINDOW else 0

    def _note_failure(self, address: str) -> None:
        count = self._failed(address)
        since = self._failures[address][0] if count else self._now()
        self._failures[address] = since, count + 1
        self._failures.move_to_end(address)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)


def _is_one_of(password: bytes, keys: Iterable[str]) -> bool:
    shown = sha256(password).digest()
    right = False
    for key in keys:
        right |= hmac.compare_digest(shown, sha256(key.encode()).digest()) and _is_usable(key)
    return right


def _is_usable(key: str) -> bool:
    return len(key) >= SHORTEST

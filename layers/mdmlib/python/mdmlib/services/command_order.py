"""The order in which commands go out: acceptance order, exact within one request."""

import os
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from typing import Final

DEFAULT_PRIORITY: Final = 5
MAX_PRIORITY: Final = 9
_COUNTER_LIMIT: Final = 0x10000


class CommandOrder:
    """Makes the keys' ``<priority><order>``: strings that sort as commands go out.

    ``priority`` is one digit, 9 minus the priority, so that the most urgent (9) sort first; ``order`` is 24 hex digits:
    48 bits of milliseconds, a counter of 16 bits that makes every key of a process unique and rising, and 4 random
    bytes, which tell processes apart.
    """

    def __init__(self, *, now: Callable[[], datetime], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._now = now
        self._random_bytes = random_bytes
        self._lock = Lock()
        self._last = (0, 0)

    def next(self, priority: int = DEFAULT_PRIORITY) -> str:
        """Return the key of a command that is accepted now."""
        with self._lock:
            milliseconds, counter = max((int(self._now().timestamp() * 1000), -1), self._last)
            counter += 1
            if counter == _COUNTER_LIMIT:
                milliseconds, counter = milliseconds + 1, 0
            self._last = (milliseconds, counter)
        return f"{MAX_PRIORITY - priority}{milliseconds:012x}{counter:04x}{self._random_bytes(4).hex()}"

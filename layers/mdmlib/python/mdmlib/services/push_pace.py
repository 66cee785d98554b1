"""The pace of pushes: a hundred thousand of them come back as connects."""

from collections.abc import Callable, Iterator
from typing import Final

_SLICES_A_SECOND: Final = 5


class PushPace:
    """Spreads pushes over time, from one invocation to the next."""

    seconds: Final = 20
    """The time that one invocation plans for its pushes; what it has no time for waits so long."""

    def __init__(self, per_second: int, *, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """``clock`` is in seconds and goes on while the process is frozen."""
        self._per_second = max(1, per_second)
        self._clock = clock
        self._sleep = sleep
        self._free_at = 0.0
        self._end_at = 0.0

    def begin(self) -> int:
        """Begin an invocation; return how many pushes it has time for."""
        self._end_at = self._clock() + 2 * self.seconds
        return self._per_second * self.seconds

    def slices(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield the slices ``(start, stop)`` of ``count`` pushes, each when its time has come.

        They end early when APNs is so slow that the invocation takes twice as long as planned.
        """
        size = max(1, self._per_second // _SLICES_A_SECOND)
        for start in range(0, count, size):
            stop = min(start + size, count)
            now = self._clock()
            if now > self._end_at:
                return
            # A clock that was set back must not make us wait for the future that it came from.
            wait = min(max(0.0, self._free_at - now), 1.0)
            if wait:
                self._sleep(wait)
            self._free_at = now + wait + (stop - start) / self._per_second
            yield start, stop

"""Several calls of AWS at a time, within one request: nothing runs after its answer."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

_WORKERS: Final = 8
"""They wait for DynamoDB, not for this function's processor. A client has ten connections."""

_T = TypeVar("_T")
_R = TypeVar("_R")


def at_once(work: Callable[[_T], _R], pieces: Sequence[_T]) -> list[_R]:
    """Do several pieces of work at a time and return what came of them, in order; none outlives this call."""
    if len(pieces) <= 1:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(min(_WORKERS, len(pieces))) as pool:
        return list(pool.map(work, pieces))

"""The frames of an HTTP/2 connection, as far as ``h2`` cannot be left alone with them.

h2 closes itself when it sees GOAWAY, and takes the answers that are still owed for a breach of the protocol, although
RFC 9113 (section 6.8) lets a server finish what it took. So GOAWAY is kept from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEADER_BYTES: Final = 9
_GOAWAY: Final = 0x7
_GOAWAY_BYTES: Final = 8
_LARGEST_BYTES: Final = 16384


class FrameError(Exception):
    """The other end does not speak HTTP/2 as we do."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """The other end takes no streams above ``last_stream_id`` any more."""

    last_stream_id: int
    error_code: int
    debug_data: bytes


class Http2Frames:
    """Puts frames together from what arrives, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | GoAway]:
        """Yield, in order, GOAWAY frames decoded and all other whole frames as they are, several at a time.

        To be exhausted before the next call. Raises :class:`FrameError` for frames that are larger than we allowed or
        too short for what they are.
        """
        buffer = self._buffer
        buffer += data
        start = end = 0
        while len(buffer) - end >= _HEADER_BYTES:
            length = int.from_bytes(buffer[end : end + 3])
            if length > _LARGEST_BYTES:
                raise FrameError("A frame is larger than allowed.")
            payload, following = end + _HEADER_BYTES, end + _HEADER_BYTES + length
            if following > len(buffer):
                break
            if buffer[end + 3] == _GOAWAY:
                if end > start:
                    yield bytes(buffer[start:end])
                yield _goaway(bytes(buffer[payload:following]))
                start = following
            end = following
        if end > start:
            yield bytes(buffer[start:end])
        del buffer[:end]


def _goaway(payload: bytes) -> GoAway:
    if len(payload) < _GOAWAY_BYTES:
        raise FrameError("A GOAWAY frame is too short.")
    # The first bit is reserved.
    return GoAway(int.from_bytes(payload[:4]) & 0x7FFFFFFF, int.from_bytes(payload[4:8]), payload[8:])

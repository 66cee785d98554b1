"""Frames are put together whatever the network cuts them into."""

from contextlib import suppress

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, PingFrame
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.clients.http2_frames import FrameError, GoAway, Http2Frames

FRAMES = st.one_of(
    st.builds(lambda data: DataFrame(1, data), st.binary(max_size=300)),
    st.builds(lambda data: PingFrame(0, data), st.binary(min_size=8, max_size=8)),
    st.builds(
        lambda last, code, debug: GoAwayFrame(0, last, code, debug),
        st.integers(0, 2**31 - 1),
        st.integers(0, 13),
        st.binary(max_size=30),
    ),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 200), max_size=40))
def test_every_frame_comes_out_once_in_order_and_goaway_apart(frames: list[Frame], cuts: list[int]) -> None:
    wire = b"".join(frame.serialize() for frame in frames)
    chunks = []
    for cut in cuts:
        chunks.append(wire[:cut])
        wire = wire[cut:]
    reader = Http2Frames()

    parts = [part for chunk in [*chunks, wire] for part in reader.feed(chunk)]

    expected: list[bytes | GoAway] = []
    for frame in frames:
        if isinstance(frame, GoAwayFrame):
            expected.append(GoAway(frame.last_stream_id, frame.error_code, frame.additional_data))
        else:
            expected.append(frame.serialize())
    assert merged(parts) == merged(expected)


def merged(parts: list[bytes | GoAway]) -> list[bytes | GoAway]:
    """Join neighbouring bytes: how many frames come at a time is of no importance."""
    joined: list[bytes | GoAway] = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waited_out(noise: bytes) -> None:
    with suppress(FrameError):
        list(Http2Frames().feed(noise))


def test_a_frame_of_a_megabyte_is_refused_before_it_has_come() -> None:
    with pytest.raises(FrameError):
        list(Http2Frames().feed(b"\x10\x00\x00\x00\x00\x00\x00\x00\x01"))

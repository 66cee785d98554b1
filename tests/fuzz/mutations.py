"""Inputs that begin with what devices send and go wrong from there."""

from collections.abc import Sequence

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Return a seed with up to six pieces of it cut out, doubled, replaced or added."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 64)))
        piece = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(data[start:end] * 2),
                *([st.sampled_from(words)] if words else []),
                st.sampled_from(seeds).map(lambda other: other[start:end]),  # noqa: B023 - drawn at once
            )
        )
        data = data[:start] + piece + data[end:]
    return data

"""Unit tests need nothing: no socket, no clock, no AWS."""

from pathlib import Path

import hypothesis
import pytest

# Time is judged where time is the subject, for these machines are shared; a failure prints how to repeat it.
# Half of the usual examples: what is to be searched for longer, `make fuzz` searches for.
hypothesis.settings.register_profile("unit", max_examples=50, deadline=None, print_blob=True)
hypothesis.settings.load_profile("unit")

PLISTS = Path(__file__).parent.parent / "testdata" / "plists"


@pytest.fixture(params=sorted(path.name for path in PLISTS.glob("*.plist")))
def any_message(request: pytest.FixtureRequest) -> bytes:
    """Every check-in message and report that is kept in ``tests/testdata/plists``, one after the other."""
    name: str = request.param
    return (PLISTS / name).read_bytes()

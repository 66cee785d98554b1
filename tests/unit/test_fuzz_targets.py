"""The targets of ``make fuzz``, for a few seconds: their seeds, and what becomes of these with a few pieces changed."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdmlib.errors import PicoMDMError
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

# A library says so of certificates that are odd: to us, they are certificates or none.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_every_seed_is_read_or_refused(target: Target) -> None:
    assert target.seeds
    for seed in target.seeds:
        target(seed.read_bytes())


def test_seeds_get_past_the_door(target: Target) -> None:
    def is_read(data: bytes) -> bool:
        try:
            target.parse(data)
        except PicoMDMError:
            return False
        return True

    assert any(is_read(seed.read_bytes()) for seed in target.seeds)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_message_that_went_wrong_is_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    target(data.draw(mutated([seed.read_bytes() for seed in target.seeds], target.words)))

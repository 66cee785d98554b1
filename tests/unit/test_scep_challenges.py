import base64
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.errors import ForbiddenError
from mdmlib.services.scep_challenges import Purpose, ScepChallenges
from mdmlib.store.sealing import MasterKeys, Sealer
from tests.deployment import Clock

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LINK = "0123456789abcdef" * 2


class Keys:
    def __init__(self, key: bytes = b"a key") -> None:
        self._keys = MasterKeys("k1", {"k1": key})

    def keys(self, *, fresh: bool = False) -> MasterKeys:
        return self._keys


@pytest.fixture
def challenges(clock: Clock) -> ScepChallenges:
    return ScepChallenges(sealer=Sealer(Keys()), now=clock)


@pytest.mark.parametrize("link_id", [LINK, None], ids=["a link", "open enrollment"])
def test_a_challenge_says_what_it_was_handed_out_for(challenges: ScepChallenges, link_id: str | None) -> None:
    challenge = challenges.recognize(challenges.new(link_id, NOW + HOUR))

    assert challenge.link_id == link_id
    assert challenge.expires_at == (NOW + HOUR).timestamp()
    assert len(challenge.nonce) == 32


def test_no_two_challenges_are_the_same(challenges: ScepChallenges) -> None:
    assert len({challenges.recognize(challenges.new(LINK, NOW)).nonce for _ in range(100)}) == 100


def test_a_challenge_is_text_that_any_client_can_send(challenges: ScepChallenges) -> None:
    """A PrintableString knows few characters, and PKCS #9 allows 255."""
    for _ in range(200):
        assert re.fullmatch(r"[A-Za-z0-9 '()+,./:=?-]{1,255}", challenges.new(LINK, NOW + HOUR))


def test_a_challenge_is_over_at_its_end(challenges: ScepChallenges, clock: Clock) -> None:
    challenge = challenges.recognize(challenges.new(LINK, NOW + HOUR))

    clock.advance(seconds=3599)
    assert not challenges.is_over(challenge)
    clock.advance(seconds=1)
    assert challenges.is_over(challenge)


def test_spaces_around_a_challenge_do_not_matter(challenges: ScepChallenges) -> None:
    challenge = challenges.new(LINK, NOW + HOUR)

    assert challenges.recognize(f" {challenge}\n") == challenges.recognize(challenge)


def test_a_challenge_of_another_stack_is_not_ours(challenges: ScepChallenges, clock: Clock) -> None:
    others = ScepChallenges(sealer=Sealer(Keys(b"another key")), now=clock)

    with pytest.raises(ForbiddenError):
        challenges.recognize(others.new(LINK, NOW + HOUR))


@given(position=st.integers(0, 80), change=st.integers(1, 255))
def test_a_changed_challenge_is_not_ours(position: int, change: int) -> None:
    challenges = ScepChallenges(sealer=Sealer(Keys()), now=Clock(NOW))
    text = challenges.new(LINK, NOW + HOUR)
    changed = bytearray(base64.b64decode(text + "=" * (-len(text) % 4)))
    changed[position % len(changed)] ^= change

    with pytest.raises(ForbiddenError):
        challenges.recognize(base64.b64encode(changed).decode())


@given(st.none() | st.text(max_size=120) | st.binary(max_size=120).map(lambda noise: base64.b64encode(noise).decode()))
def test_what_somebody_made_up_is_not_ours(text: str | None) -> None:
    with pytest.raises(ForbiddenError):
        ScepChallenges(sealer=Sealer(Keys()), now=Clock(NOW)).recognize(text)


def test_a_link_has_an_id_of_our_form(challenges: ScepChallenges) -> None:
    with pytest.raises(ValueError, match="32 hex digits"):
        challenges.new("x", NOW)


def test_a_challenge_for_a_renewal_names_the_identity_that_it_renews(challenges: ScepChallenges) -> None:
    identity = "0123456789abcdef" * 4

    challenge = challenges.recognize(challenges.new_renewal(identity, NOW + HOUR))

    assert (challenge.purpose, challenge.renews) == (Purpose.RENEWAL, identity)
    assert (challenge.link_id, challenge.serial_hash) == (None, None)
    assert challenges.recognize(challenges.new(LINK, NOW + HOUR)).renews is None

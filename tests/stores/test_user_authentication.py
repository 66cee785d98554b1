"""Network users log in on a Mac: declined, let in, or proving who they are."""

import hashlib
import plistlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mdmlib.errors import BadRequestError, GoneError, IdentityError
from mdmlib.store.enrollments import EnrollmentStore, LoginItems
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice

PASSWORD = "the-password-of-anna"


def answer(user: FleetDevice, **fields: Any) -> dict[str, Any]:
    body = user.checkin("UserAuthenticate", **fields)
    assert body is not None
    document: dict[str, Any] = plistlib.loads(body)
    return document


def respond(challenge: str, password: str = PASSWORD, *, name: str = "anna") -> str:
    """Respond as a Mac does."""
    match = re.fullmatch(r'Digest nonce="([^"]+)",realm="([^"]+)"', challenge)
    assert match is not None
    nonce, realm = match.groups()
    ha1 = hashlib.md5(f"{name}:{realm}:{password}".encode()).hexdigest()
    ha2 = hashlib.md5(b"PUT:/").hexdigest()
    response = hashlib.md5(f"{ha1}:{nonce}:{ha2}".encode()).hexdigest()
    return f'Digest username="{name}",realm="{realm}",nonce="{nonce}", uri="/",response="{response}"'


def log_in(user: FleetDevice, password: str = PASSWORD, **fields: Any) -> str:
    """Log in; return the AuthToken."""
    challenge = answer(user, **fields)["DigestChallenge"]
    return str(answer(user, DigestResponse=respond(challenge, password))["AuthToken"])


@pytest.fixture
def digest(fleet: Fleet) -> Fleet:
    fleet.settings = replace(fleet.settings, user_authenticate="digest")
    fleet.users.put("anna", password=PASSWORD)
    return fleet


@pytest.fixture
def user(fleet: Fleet) -> FleetDevice:
    return fleet.device().user()


def test_users_are_declined_unless_told_otherwise(fleet: Fleet, user: FleetDevice) -> None:
    fleet.bus.take()

    for _ in range(2):
        with pytest.raises(GoneError):
            user.checkin("UserAuthenticate")
    assert fleet.bus.topics() == ["mdm.UserAuthenticate"] * 2


def test_an_empty_challenge_lets_users_in_with_no_token(fleet: Fleet, user: FleetDevice) -> None:
    fleet.settings = replace(fleet.settings, user_authenticate="empty")

    assert answer(user) == {"DigestChallenge": ""}
    assert user.checkin("UserAuthenticate", DigestResponse="Digest username=anna") is None
    user.token_update()
    fleet.enqueue([user], "C1")
    assert user.idle() == "C1"


def test_who_has_the_password_gets_a_token_that_all_messages_carry(digest: Fleet, user: FleetDevice) -> None:
    token = log_in(user, UserShortName="anna")

    assert token
    user.token_update(AuthToken=token)
    digest.enqueue([user], "C1")
    assert user.report("Idle", AuthToken=token) == "C1"
    assert user.report("Acknowledged", "C1", AuthToken=token) is None
    assert user.checkin("DeclarativeManagement", Endpoint="tokens", AuthToken=token)


@pytest.mark.parametrize("token", [{}, {"AuthToken": ""}, {"AuthToken": "another"}, {"AuthToken": b"data"}])
def test_a_message_without_the_users_token_is_refused(digest: Fleet, user: FleetDevice, token: dict[str, Any]) -> None:
    user.token_update(AuthToken=log_in(user))

    for attempt in (
        lambda: user.token_update(b"another", **token),
        lambda: user.report("Idle", **token),
        lambda: user.checkin("CheckOut", **token),
        lambda: user.checkin("DeclarativeManagement", Endpoint="tokens", **token),
        lambda: user.checkin("NewerMessage", **token),
    ):
        with pytest.raises(IdentityError) as refused:
            attempt()
        assert refused.value.code == "auth_token_wrong"


def test_nobody_is_enabled_between_the_challenge_and_its_answer(digest: Fleet, user: FleetDevice) -> None:
    answer(user)

    with pytest.raises(IdentityError) as refused:
        user.token_update()
    assert refused.value.code == "auth_token_wrong"
    assert digest.enrollments.get(str(user)) is None


def test_a_wrong_password_gets_an_empty_token_and_uses_the_challenge_up(digest: Fleet, user: FleetDevice) -> None:
    challenge = answer(user)["DigestChallenge"]

    assert answer(user, DigestResponse=respond(challenge, "a guess")) == {"AuthToken": ""}
    assert answer(user, DigestResponse=respond(challenge)) == {"AuthToken": ""}
    with pytest.raises(IdentityError):
        user.token_update(AuthToken="")
    assert log_in(user)


def test_a_user_who_is_not_managed_is_declined_or_gets_an_empty_token(digest: Fleet, user: FleetDevice) -> None:
    with pytest.raises(GoneError):
        user.checkin("UserAuthenticate", UserShortName="mallory")

    challenge = answer(user)["DigestChallenge"]
    assert answer(user, DigestResponse=respond(challenge, name="mallory")) == {"AuthToken": ""}


@pytest.mark.parametrize("response", ["Digest", "Basic YTpi", 'Digest username="anna"'])
def test_a_response_that_is_none_gets_an_empty_token(digest: Fleet, user: FleetDevice, response: str) -> None:
    answer(user)

    assert answer(user, DigestResponse=response) == {"AuthToken": ""}


def test_a_response_without_a_challenge_gets_an_empty_token(digest: Fleet, user: FleetDevice) -> None:
    response = respond('Digest nonce="made up",realm="PicoMDM"')

    assert answer(user, DigestResponse=response) == {"AuthToken": ""}


def test_a_challenge_is_good_for_five_minutes_and_one_channel(digest: Fleet, user: FleetDevice) -> None:
    other = FleetDevice(digest, user.udid, user_id="B0B0B0B0-0000-0000-0000-000000000002", identity=user.identity)
    challenge = answer(user)["DigestChallenge"]
    answer(other)

    assert answer(other, DigestResponse=respond(challenge)) == {"AuthToken": ""}
    digest.clock.advance(minutes=5)
    assert answer(user, DigestResponse=respond(challenge)) == {"AuthToken": ""}


def test_a_mac_that_lost_its_token_gets_the_same_one_again(digest: Fleet, user: FleetDevice) -> None:
    challenge = answer(user)["DigestChallenge"]
    first = answer(user, DigestResponse=respond(challenge))

    assert first["AuthToken"]
    assert answer(user, DigestResponse=respond(challenge)) == first


def test_the_next_login_ends_the_token_of_the_last_one(digest: Fleet, user: FleetDevice) -> None:
    first = log_in(user)
    user.token_update(AuthToken=first)
    digest.enqueue([user], "C1")

    challenge = answer(user)["DigestChallenge"]
    with pytest.raises(IdentityError):
        user.report("Idle", AuthToken=first)
    second = str(answer(user, DigestResponse=respond(challenge))["AuthToken"])

    assert second != first
    with pytest.raises(IdentityError):
        user.report("Idle", AuthToken=first)
    assert user.report("Idle", AuthToken=second) == "C1"


def test_a_login_after_the_enrollment_needs_its_token_too(digest: Fleet, user: FleetDevice) -> None:
    user.token_update()
    assert user.idle() is None

    token = log_in(user)
    with pytest.raises(IdentityError):
        user.idle()
    assert user.report("Idle", AuthToken=token) is None
    user.token_update(AuthToken=token)


def test_a_user_bound_to_a_user_id_logs_in_under_no_other(digest: Fleet, user: FleetDevice) -> None:
    digest.users.put("anna", password=PASSWORD, user_id="ANOTHER-GUID")
    assert log_in(user) == ""

    digest.users.put("anna", password=PASSWORD, user_id=user.user_id)
    assert log_in(user)


def test_a_digest_serves_as_well_as_the_password(digest: Fleet, user: FleetDevice) -> None:
    digest.users.put("anna", digest=hashlib.md5(f"anna:PicoMDM:{PASSWORD}".encode()).hexdigest().upper())

    assert log_in(user)


def test_a_digest_of_another_realm_serves_nobody(digest: Fleet, user: FleetDevice) -> None:
    digest.settings = replace(digest.settings, user_realm="Elsewhere")

    assert log_in(user) == ""


def test_a_user_who_was_removed_cannot_log_in(digest: Fleet, user: FleetDevice) -> None:
    digest.users.delete("anna")

    assert log_in(user) == ""


def test_passwords_and_digests_are_kept_sealed(digest: Fleet) -> None:
    (kept,) = digest.users.list()

    digest_of_password = hashlib.md5(f"anna:PicoMDM:{PASSWORD}".encode()).hexdigest()
    stored = str(kept.serialize())
    assert PASSWORD not in stored
    assert digest_of_password not in stored
    assert digest_of_password.encode() not in kept.digest


def test_letting_users_in_with_no_proof_forgets_their_tokens(digest: Fleet, user: FleetDevice) -> None:
    token = log_in(user)
    user.token_update(AuthToken=token)

    digest.settings = replace(digest.settings, user_authenticate="empty")
    assert answer(user) == {"DigestChallenge": ""}
    assert user.idle() is None
    user.token_update(b"another")


class Interrupted(EnrollmentStore):
    """After its first read of a login something else happens, once."""

    def __init__(self, fleet: Fleet, interruption: Callable[[], object]) -> None:
        self._fleet, self._plain, self._interruption = fleet, fleet.enrollments, interruption

    def get_login(self, user_id: str, device_id: str) -> LoginItems:
        items = super().get_login(user_id, device_id)
        if self._fleet.enrollments is self:
            self._fleet.enrollments = self._plain
            self._interruption()
        return items


def test_a_token_update_that_meets_the_next_login_enables_nobody(digest: Fleet, user: FleetDevice) -> None:
    token = log_in(user)
    digest.enrollments = Interrupted(digest, lambda: answer(user))

    with pytest.raises(IdentityError) as refused:
        user.token_update(AuthToken=token)
    assert refused.value.code == "auth_token_wrong"
    assert digest.enrollments.get(str(user)) is None


def test_a_first_token_update_that_meets_a_login_needs_its_token(digest: Fleet, user: FleetDevice) -> None:
    digest.enrollments = Interrupted(digest, lambda: answer(user))

    with pytest.raises(IdentityError) as refused:
        user.token_update()
    assert refused.value.code == "auth_token_wrong"


def test_a_login_that_meets_the_first_token_update_is_held_by_its_record(digest: Fleet, user: FleetDevice) -> None:
    digest.enrollments = Interrupted(digest, user.token_update)
    answer(user)

    with pytest.raises(IdentityError):
        user.idle()


def test_of_two_answers_to_one_challenge_a_wrong_one_that_comes_first_wins(digest: Fleet, user: FleetDevice) -> None:
    challenge = answer(user)["DigestChallenge"]
    wrong = respond(challenge, "a guess")
    digest.enrollments = Interrupted(digest, lambda: answer(user, DigestResponse=wrong))

    assert answer(user, DigestResponse=respond(challenge)) == {"AuthToken": ""}


def test_a_user_let_in_with_no_proof_may_meet_a_token_update(fleet: Fleet, user: FleetDevice) -> None:
    fleet.settings = replace(fleet.settings, user_authenticate="empty")
    fleet.enrollments = Interrupted(fleet, user.token_update)

    assert answer(user) == {"DigestChallenge": ""}
    assert user.idle() is None


def test_no_response_and_no_token_is_on_the_bus_in_clear(digest: Fleet, user: FleetDevice) -> None:
    digest.bus.take()
    token = log_in(user)
    user.token_update(AuthToken=token)
    user.report("Idle", AuthToken=token)

    asked, *others = digest.bus.take()
    assert_conforms(asked)
    for document in others:
        part = document.get("checkin_event") or document["acknowledge_event"]
        assert "raw_payload" not in part
        assert token not in str(document)
        assert_conforms(document)


def test_the_device_channel_of_an_enrolled_device_alone_may_speak_for_its_users(
    digest: Fleet, user: FleetDevice
) -> None:
    digest.bus.take()
    stranger = FleetDevice(digest, user.udid, user_id=user.user_id, identity="stranger")

    for mode in ("decline", "empty", "digest"):
        digest.settings = replace(digest.settings, user_authenticate=mode)
        with pytest.raises(IdentityError):
            stranger.checkin("UserAuthenticate")
        with pytest.raises(BadRequestError) as refused:
            FleetDevice(digest, user.udid).checkin("UserAuthenticate")
        assert refused.value.code == "user_channel_only"
    assert digest.bus.take() == []


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("", {"password": "p"}),
        ("an:na", {"password": "p"}),
        ('an"na', {"password": "p"}),
        ("x" * 256, {"password": "p"}),
        ("anna", {}),
        ("anna", {"password": "p", "digest": "0" * 32}),
        ("anna", {"digest": "0" * 31}),
        ("anna", {"digest": "g" * 32}),
    ],
)
def test_a_user_who_could_not_log_in_is_not_taken(fleet: Fleet, name: str, fields: dict[str, str]) -> None:
    with pytest.raises(BadRequestError):
        fleet.users.put(name, **fields)
    assert fleet.users.list() == []

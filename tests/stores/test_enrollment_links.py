"""Enrollment links against the tables: who may enroll, for how long, and what an administrator sees of it."""

import plistlib
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mdmlib.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, PicoMDMError
from mdmlib.services.enrollment_links import EnrollmentLinks, permits
from mdmlib.services.enrollment_profiles import EnrollmentProfiles
from mdmlib.services.push_certificates import PushCertificates
from mdmlib.services.scep_challenges import LISTED_DEVICES, Challenge, ScepChallenges
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import EnrollmentLink, ResourceItem
from tests.deployment import Clock
from tests.portal import push_certificate

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
OTHER_TOPIC = "com.apple.mgmt.External.66666666-7777-8888-9999-000000000000"
WEEK = timedelta(days=7)


class Office:
    """Where links are made."""

    def __init__(self, settings: Settings, sealer: Sealer, clock: Clock) -> None:
        self.settings, self.sealer, self.clock = settings, sealer, clock
        self.challenges = ScepChallenges(sealer=sealer, now=clock)
        self.push_certificates = PushCertificates(sealer=sealer, now=clock)

    def links(self, **settings: Any) -> EnrollmentLinks:
        changed = replace(self.settings, **settings)
        profiles = EnrollmentProfiles(
            challenges=self.challenges,
            push_certificates=self.push_certificates,
            sealer=self.sealer,
            settings=changed,
            now=self.clock,
        )
        return EnrollmentLinks(profiles=profiles, settings=changed, now=self.clock)

    def link(self, *, expires_in: timedelta = WEEK, **options: Any) -> tuple[EnrollmentLink, str]:
        """Make a link and return it with its token."""
        link, url = self.links().create(expires_in=expires_in, **options)
        prefix, token = url.rsplit("/", 1)
        assert prefix == "https://mdm.example.org/mdm/enroll"
        return link, token

    def download(self, token: str) -> "Profile":
        return Profile(self, self.links().profile(token))


class Profile:
    """A profile that was downloaded."""

    def __init__(self, office: Office, plist: bytes) -> None:
        content = plistlib.loads(plist)["PayloadContent"]
        self.scep = next(payload for payload in content if payload["PayloadType"] == "com.apple.security.scep")
        self.mdm = next(payload for payload in content if payload["PayloadType"] == "com.apple.mdm")
        self.challenge: Challenge = office.challenges.recognize(self.scep["PayloadContent"]["Challenge"])


@pytest.fixture
def office(settings: Settings, sealer: Sealer, clock: Clock) -> Office:
    office = Office(settings, sealer, clock)
    office.push_certificates.upload(push_certificate(TOPIC))
    return office


def refused(office: Office, token: str) -> PicoMDMError:
    with pytest.raises((ForbiddenError, NotFoundError)) as error:
        office.links().profile(token)
    return error.value


def test_a_link_leads_to_a_profile_with_a_challenge_of_its_own(office: Office, clock: Clock) -> None:
    link, token = office.link()

    first, second = office.download(token), office.download(token)

    assert first.mdm["Topic"] == TOPIC
    assert first.scep["PayloadContent"]["URL"] == "https://mdm.example.org/scep"
    assert first.challenge.link_id == second.challenge.link_id == link.name
    assert first.challenge.nonce != second.challenge.nonce
    assert first.challenge.expires_at == (clock() + timedelta(hours=1)).timestamp()


def test_downloading_writes_nothing(office: Office) -> None:
    _, token = office.link(max_uses=1)
    before = [item.serialize() for item in ResourceItem.scan()]

    for _ in range(3):
        office.download(token)

    assert [item.serialize() for item in ResourceItem.scan()] == before


def test_a_links_token_is_long_and_not_stored(office: Office) -> None:
    _, token = office.link()

    assert len(b64decode(token + "=", altchars="-_")) == 32
    stored = repr([item.serialize() for item in ResourceItem.scan()])
    assert token not in stored
    assert b64encode(token.encode()).decode() not in stored


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 44, "../../x", "é" * 43])
def test_a_token_that_somebody_made_up_leads_nowhere(office: Office, token: str) -> None:
    office.link()

    assert isinstance(refused(office, token), NotFoundError)


def test_the_public_id_of_a_link_is_no_token(office: Office) -> None:
    link, _ = office.link()

    assert isinstance(refused(office, link.name), NotFoundError)


def test_a_link_ends_when_it_says(office: Office, clock: Clock) -> None:
    _, token = office.link(expires_in=timedelta(minutes=90))

    clock.advance(minutes=60)
    assert office.download(token).challenge.expires_at == (clock() + timedelta(minutes=30)).timestamp()
    clock.advance(minutes=30)
    assert refused(office, token).code == "link_expired"


def test_a_link_can_be_revoked_and_revoked_again(office: Office) -> None:
    link, token = office.link()

    office.links().revoke(link.name)
    office.links().revoke(link.name)

    assert refused(office, token).code == "link_revoked"
    assert [listed.revoked for listed in office.links().list()] == [True]


def test_revoking_a_link_that_is_not_there_makes_none(office: Office) -> None:
    with pytest.raises(NotFoundError):
        office.links().revoke("0" * 32)

    assert office.links().list() == []


def test_a_link_that_is_used_up_gives_no_more_profiles(office: Office) -> None:
    link, token = office.link(max_uses=2)
    link.update([EnrollmentLink.uses.add(2)])

    assert refused(office, token).code == "link_used_up"


def test_a_link_for_some_devices_lists_them_in_capitals_and_says_so_to_scep(office: Office) -> None:
    link, token = office.link(serial_numbers=["c02aaaaaaaa2", "C02AAAAAAAA1", "C02AAAAAAAA1"])

    assert link.serial_numbers == ["C02AAAAAAAA1", "C02AAAAAAAA2"]
    assert office.download(token).challenge.serial_hash == LISTED_DEVICES
    assert permits(link, "c02aaaaaaaa1")
    assert not permits(link, "C02AAAAAAAA3")
    assert not permits(link, None)


def test_a_link_for_nobody_in_particular_is_for_any_device(office: Office) -> None:
    link, token = office.link(serial_numbers=[])

    assert link.serial_numbers is None
    assert office.download(token).challenge.serial_hash is None
    assert permits(link, None)


def test_a_serial_number_that_is_none_makes_no_link(office: Office) -> None:
    with pytest.raises(BadRequestError) as refused:
        office.link(serial_numbers=["C02AAAAAAAA1", "x y"])
    assert refused.value.field == "serial_numbers"
    assert office.links().list() == []


def test_links_are_listed_the_newest_first_with_what_is_known_of_them(office: Office, clock: Clock) -> None:
    office.link(note="first")
    clock.advance(seconds=1)
    office.link(note="second", max_uses=5)

    second, first = office.links().list()

    assert (second.note, second.max_uses, second.uses) == ("second", 5, 0)
    assert (first.note, first.topic) == ("first", TOPIC)
    assert first.max_uses is None
    assert first.expires_at == (clock() + WEEK).timestamp() - 1
    assert first.ttl > first.expires_at


def test_with_several_push_certificates_a_link_names_its_topic(office: Office) -> None:
    office.push_certificates.upload(push_certificate(OTHER_TOPIC))

    with pytest.raises(BadRequestError) as ambiguous:
        office.link()
    assert ambiguous.value.field == "topic"
    _, token = office.link(topic=OTHER_TOPIC)
    assert office.download(token).mdm["Topic"] == OTHER_TOPIC


def test_a_link_names_a_topic_that_there_is(office: Office) -> None:
    with pytest.raises(BadRequestError) as unknown:
        office.link(topic="com.apple.mgmt.External.unknown")
    assert unknown.value.field == "topic"


def test_without_a_push_certificate_there_is_no_link(settings: Settings, sealer: Sealer, clock: Clock) -> None:
    with pytest.raises(ConflictError) as too_early:
        Office(settings, sealer, clock).link()
    assert too_early.value.code == "push_certificate_not_found"


def test_nobody_enrolls_without_a_link_unless_the_deployment_says_so(office: Office) -> None:
    with pytest.raises(ForbiddenError) as closed:
        office.links().open_profile()
    assert closed.value.code == "enrollment_not_open"

    profile = Profile(office, office.links(enrollment_access="open").open_profile())

    assert profile.challenge.link_id is None
    assert profile.mdm["Topic"] == TOPIC

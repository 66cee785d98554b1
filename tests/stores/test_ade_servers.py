"""Servers of Apple Business Manager: key pairs, tokens and profiles, against the simulated portal and service."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from local.ade.client import AdeControl, AdeSimulator
from mdmlib.apple.ade_token import AdeToken
from mdmlib.clients.ade import AdeClient
from mdmlib.errors import AppleRefusedError, BadRequestError, ConflictError, NotFoundError, UnavailableError
from mdmlib.services.ade_profiles import AdeProfiles
from mdmlib.services.ade_servers import AdeServers
from mdmlib.settings import Settings
from mdmlib.store.ade_servers import AdeServerStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import AdeServer
from tests import interruptions
from tests.ade_portal import Portal
from tests.deployment import Clock


@pytest.fixture
def servers(settings: Settings, sealer: Sealer, ade: AdeSimulator, clock: Clock) -> Iterator[AdeServers]:
    def make_client(token: AdeToken, base_url: str) -> AdeClient:
        return AdeClient(token, user_agent="PicoMDM/test", base_url=base_url)

    settings = replace(settings, ade_url=ade.url)
    servers = AdeServers(make_client=make_client, sealer=sealer, settings=settings, now=clock)
    yield servers
    servers.close()


@pytest.fixture
def profiles(servers: AdeServers, settings: Settings, clock: Clock) -> AdeProfiles:
    return AdeProfiles(servers=servers, settings=settings, now=clock)


class Desk(Portal):
    """The portal, beside the servers whose certificates are uploaded there."""

    def __init__(self, control: AdeControl, servers: AdeServers) -> None:
        super().__init__(control)
        self._servers = servers

    def file(self, name: str = "school", *, of: str | None = None, days: float = 365) -> bytes:
        """Upload what one of our servers has staged, for one of the portal's, and download its token."""
        certificate = self._servers.stage(name).public_bytes(Encoding.PEM).decode()
        return self.token(certificate, server=of or name, days=days)


@pytest.fixture
def portal(ade: AdeSimulator, servers: AdeServers) -> Desk:
    return Desk(ade.control, servers)


def test_a_certificate_is_the_same_until_its_token_arrives(servers: AdeServers, portal: Desk) -> None:
    first, second = servers.stage("school"), servers.stage("school", common_name="Another")
    assert first == second
    assert servers.create("school").staged_certificate == first
    assert servers.names() == []

    imported = servers.import_file("school", portal.file())

    assert (imported.certificate, imported.staged_certificate) == (first, None)
    assert servers.names() == ["school"]
    assert servers.stage("school") != first


def test_two_who_ask_for_a_certificate_at_once_are_given_the_same(servers: AdeServers) -> None:
    others = []
    interruptions.before_next_write(lambda: others.append(servers.stage("school")))

    assert servers.stage("school") == others[0] == servers.get("school").staged_certificate


def test_a_token_that_comes_while_another_one_is_imported_is_not_overwritten(servers: AdeServers, portal: Desk) -> None:
    first, second = portal.file(), portal.file()
    interruptions.before_next_write(lambda: servers.import_file("school", second))

    with pytest.raises(ConflictError) as overtaken:
        servers.import_file("school", first)

    assert overtaken.value.code == "changed_meanwhile"
    assert servers.client("school").account()["server_name"] == portal.name()
    assert servers.import_file("school", second).problem is None, "the same file again"


def test_a_server_that_is_deleted_meanwhile_does_not_come_back(servers: AdeServers, portal: Desk) -> None:
    file = portal.file()
    interruptions.before_next_write(lambda: servers.delete("school"))
    with pytest.raises(NotFoundError):
        servers.import_file("school", file)
    assert servers.list() == []


def test_after_the_import_apple_tells_who_it_is_and_devices_get_their_tokens(
    servers: AdeServers, portal: Desk, sealer: Sealer
) -> None:
    imported = servers.import_file("school", portal.file())

    assert imported.problem is None
    assert imported.account is not None
    assert imported.account["org_name"] == "Example Organization"
    assert "org_phone" not in imported.account
    identity = AdeServerStore(sealer=sealer).identity()
    assert identity is not None
    assert imported.certificate is not None
    assert identity.server_uuid == imported.server_uuid
    assert identity.private_key.public_key() == imported.certificate.public_key()


def test_a_renewed_token_for_the_present_certificate_leaves_a_staged_one_alone(
    servers: AdeServers, portal: Desk
) -> None:
    servers.import_file("school", portal.file())
    present = servers.key_pair("school").certificate.public_bytes(Encoding.PEM).decode()
    staged = servers.stage("school")

    renewed = servers.import_file("school", portal.token(present, days=500))

    assert renewed.staged_certificate == staged
    assert servers.client("school").account()["server_name"] == portal.name()
    rotated = servers.import_file("school", portal.file(days=600))
    assert (rotated.certificate, rotated.staged_certificate) == (staged, None)


def test_a_client_keeps_its_session_until_the_token_is_another(servers: AdeServers, portal: Desk) -> None:
    servers.import_file("school", portal.file())
    before = len([each for each in portal.control.requests() if each["path"] == "/session"])
    assert servers.client("school") is servers.client("school")
    servers.client("school").account()
    assert len([each for each in portal.control.requests() if each["path"] == "/session"]) == before

    former = servers.client("school")
    servers.import_file("school", portal.file(days=500))
    assert servers.client("school") is not former


def test_what_a_file_may_not_be(servers: AdeServers, portal: Desk) -> None:
    for_other = portal.file("other")
    servers.stage("school")

    with pytest.raises(BadRequestError) as another_key:
        servers.import_file("school", for_other)
    with pytest.raises(BadRequestError) as ended:
        servers.import_file("school", portal.file(days=-10_000))
    with pytest.raises(BadRequestError) as nothing:
        servers.import_file("school", b"no token")
    with pytest.raises(NotFoundError):
        servers.import_file("nowhere", for_other)

    assert [another_key.value.code, ended.value.code] == ["token_for_another_key", "token_expired"]
    assert nothing.value.code == "malformed_body"
    assert servers.names() == []


def test_mistakes_of_renewals_need_force(servers: AdeServers, portal: Desk, clock: Clock) -> None:
    servers.import_file("school", portal.file())
    servers.import_file("company", portal.file("company"))

    with pytest.raises(ConflictError) as elsewhere:
        servers.import_file("school", portal.file(of="company", days=500))
    with pytest.raises(ConflictError) as another:
        servers.import_file("school", portal.file(of="third"))
    with pytest.raises(ConflictError) as older:
        servers.import_file("school", portal.file(days=100))
    assert [elsewhere.value.code, another.value.code, older.value.code] == [
        "token_of_another_server",
        "mismatched_consumer_key",
        "token_older",
    ]
    assert servers.get("school").staged_certificate is not None

    uuid = servers.get("school").server_uuid
    replaced = servers.import_file("school", portal.file(of="third"), force=True)
    assert replaced.account is not None
    assert replaced.account["server_name"] == portal.name("third")
    assert replaced.server_uuid != uuid


def test_a_token_stays_when_apple_is_away_or_wants_its_terms_accepted(servers: AdeServers, portal: Desk) -> None:
    file = portal.file()
    portal.control.sign_terms(portal.name(), signed=False)
    unsigned = servers.import_file("school", file)
    assert unsigned.problem is not None
    assert "terms" in unsigned.problem["detail"]
    assert servers.names() == ["school"]

    portal.control.sign_terms(portal.name())
    portal.control.behave(answer_status=503, answer_times=1)
    with pytest.raises(UnavailableError):
        servers.ask_account("school")
    assert (servers.get("school").problem or {})["code"] == "apple_unavailable"
    servers.ask_account("school")
    assert servers.get("school").problem is None


def test_a_server_without_a_token_says_what_to_do(servers: AdeServers) -> None:
    servers.create("school")
    with pytest.raises(AppleRefusedError, match="download the server token") as missing:
        servers.client("school")
    assert missing.value.apple_code == "TOKEN_MISSING"
    with pytest.raises(NotFoundError):
        servers.client("nowhere")


@pytest.mark.parametrize("name", ["", "certificate", "a/b", "-x", "x" * 65])
def test_what_cannot_be_a_servers_name(servers: AdeServers, name: str) -> None:
    with pytest.raises(BadRequestError):
        servers.stage(name)


def test_nothing_of_a_token_or_a_key_is_stored_in_clear(servers: AdeServers, portal: Desk) -> None:
    servers.import_file("school", portal.file())
    servers.stage("school")
    item = AdeServer.get("ade_server", "school")
    stored = repr(item.serialize()).encode() + bytes(item.private_key) + bytes(item.staged_private_key)
    secrets = [value for name, value in servers.token("school").document().items() if name != "access_token_expiry"]
    assert servers.key_pair("school").private_key_der not in stored
    for secret in secrets:
        assert secret.encode() not in stored


def test_a_certificate_that_has_ended_is_made_anew_for_the_same_key(
    servers: AdeServers, portal: Desk, clock: Clock
) -> None:
    uploaded = servers.stage("school")
    clock.advance(days=3_651)
    fresh = servers.stage("school")
    assert fresh != uploaded
    assert fresh.public_key() == uploaded.public_key()
    assert servers.stage("school") == fresh


def test_a_server_that_is_deleted_is_forgotten_with_its_profiles(
    servers: AdeServers, profiles: AdeProfiles, portal: Desk
) -> None:
    servers.import_file("school", portal.file())
    profiles.put("pupils", {})
    servers.delete("school")
    servers.delete("school")
    assert servers.list() == []
    assert profiles.get("pupils").definitions == []


# Profiles


def test_a_profile_is_defined_once_at_each_server_and_anew_when_it_changes(
    servers: AdeServers, profiles: AdeProfiles, portal: Desk
) -> None:
    for name in ("school", "company"):
        servers.import_file(name, portal.file(name))

    stored = profiles.put("pupils", {"allow_pairing": False, "department": "Pupils"})

    first = {each.server: each.profile_uuid for each in stored.definitions}
    assert set(first) == {"school", "company"}
    assert profiles.profile_uuid("pupils", "school") == first["school"]
    assert profiles.put("pupils", {"department": "Pupils", "allow_pairing": False}).definitions == stored.definitions
    at_apple = portal.control.server(portal.name())["profiles"]
    assert len(at_apple) == 1
    told = at_apple[first["school"]]
    assert (told["url"], told["allow_pairing"]) == ("https://mdm.example.org/mdm/enroll", False)
    assert (told["is_supervised"], told["profile_name"]) == (True, "pupils")

    profiles.put("pupils", {"allow_pairing": True})
    second = profiles.profile_uuid("pupils", "school")
    assert second != first["school"]
    assert profiles.names_at("school") == {second: "pupils"}


def test_a_profile_that_apple_refuses_changes_nothing(servers: AdeServers, profiles: AdeProfiles, portal: Desk) -> None:
    for name in ("company", "school"):
        servers.import_file(name, portal.file(name))
    before = profiles.put("pupils", {})
    portal.control.behave(answer_status=400, answer_code="DEPARTMENT_INVALID", answer_times=1)

    with pytest.raises(AppleRefusedError) as refused:
        profiles.put("pupils", {"department": "No"})

    assert refused.value.apple_code == "DEPARTMENT_INVALID"
    assert profiles.get("pupils") == before


def test_where_apple_could_not_be_told_it_is_told_when_the_profile_is_used(
    servers: AdeServers, profiles: AdeProfiles, portal: Desk
) -> None:
    servers.import_file("school", portal.file())
    portal.control.sign_terms(portal.name(), signed=False)
    stored = profiles.put("pupils", {})
    assert stored.definitions == []
    assert stored.problems["school"].message.startswith("Apple refuses: T_C_NOT_SIGNED")

    portal.control.sign_terms(portal.name())
    uuid = profiles.profile_uuid("pupils", "school")
    assert [(each.profile_uuid, each.is_current) for each in profiles.list()[0].definitions] == [(uuid, True)]


def test_another_server_of_apples_is_told_anew(servers: AdeServers, profiles: AdeProfiles, portal: Desk) -> None:
    servers.import_file("school", portal.file())
    stored = profiles.put("pupils", {})
    servers.import_file("school", portal.file(of="third"), force=True)

    assert [each.is_current for each in profiles.get("pupils").definitions] == [False]
    assert profiles.profile_uuid("pupils", "school") != stored.definitions[0].profile_uuid


def test_a_profile_that_is_deleted_is_gone_here(servers: AdeServers, profiles: AdeProfiles, portal: Desk) -> None:
    servers.import_file("school", portal.file())
    profiles.put("pupils", {})
    profiles.delete("pupils")
    profiles.delete("pupils")
    assert (profiles.list(), profiles.names_at("school")) == ([], {})
    with pytest.raises(NotFoundError):
        profiles.profile_uuid("pupils", "school")

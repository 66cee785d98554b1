"""Our client against the simulated device enrollment service."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from local.ade.client import AdeControl, AdeSimulator
from mdmlib.apple.ade_token import AdeToken, open_token_file
from mdmlib.clients.ade import AdeClient
from mdmlib.errors import AppleRefusedError, PicoMDMError, UnavailableError
from tests.ade_token import ServerKey

PROFILE = {"profile_name": "Pupils", "url": "https://mdm.example.org/mdm/enroll", "org_magic": "1"}
KEY = ServerKey.new()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdeSimulator]:
    with AdeSimulator.start(tmp_path_factory.mktemp("ade")) as simulator:
        yield simulator


@pytest.fixture
def control(simulator: AdeSimulator) -> Iterator[AdeControl]:
    simulator.control.reset()
    yield simulator.control
    assert simulator.control.violations() == []


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)[:60].replace("[", "-").replace("]", "")


@pytest.fixture
def make_client(simulator: AdeSimulator) -> Iterator[Callable[[AdeToken], AdeClient]]:
    made: list[AdeClient] = []

    def make(token: AdeToken, url: str = simulator.url) -> AdeClient:
        made.append(AdeClient(token, user_agent="PicoMDM/test", base_url=url))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def token(control: AdeControl, name: str) -> AdeToken:
    file = control.make_server(name, KEY.pem)
    return open_token_file(file, certificate=KEY.certificate, private_key=KEY.private_key)


@pytest.fixture
def client(make_client: Callable[[AdeToken], AdeClient], token: AdeToken) -> AdeClient:
    return make_client(token)


def test_one_session_serves_many_requests(client: AdeClient, control: AdeControl, name: str) -> None:
    assert client.account()["server_name"] == name
    client.account()
    asked = [(each["path"], each["version"], each["user_agent"]) for each in control.requests()]
    assert asked == [
        ("/session", None, "PicoMDM/test"),
        ("/account", "10", "PicoMDM/test"),
        ("/account", "10", "PicoMDM/test"),
    ]


@pytest.mark.parametrize("refusal", [401, 403])
@pytest.mark.parametrize("form", ["bare", "quoted", "json"])
def test_a_session_that_has_ended_is_opened_anew(
    client: AdeClient, control: AdeControl, refusal: int, form: str
) -> None:
    control.behave(session_refusal=refusal, error_form=form, rotate_sessions=False)
    client.account()
    control.expire("sessions")
    client.account()
    assert [each["status"] for each in control.requests()] == [200, 200, refusal, 200, 200]


def test_the_next_session_comes_with_the_answer(client: AdeClient, control: AdeControl) -> None:
    control.behave(forget_rotated=True)
    for _ in range(3):
        client.account()
    assert [each["path"] for each in control.requests()] == ["/session", "/account", "/account", "/account"]


def test_a_token_that_was_replaced_or_has_ended_is_told(
    client: AdeClient, make_client: Callable[[AdeToken], AdeClient], control: AdeControl, name: str
) -> None:
    ended = open_token_file(
        control.make_server(name, KEY.pem, days=0), certificate=KEY.certificate, private_key=KEY.private_key
    )
    for each in client, make_client(ended):
        with pytest.raises(AppleRefusedError, match="renew it") as refused:
            each.account()
        assert refused.value.apple_code == "TOKEN_REFUSED"
        assert not_in(refused.value, each.token)


def not_in(error: PicoMDMError, token: AdeToken) -> bool:
    return not any(value in str(error) + repr(error) for value in token.document().values())


def test_terms_that_are_not_accepted_are_told(client: AdeClient, control: AdeControl, name: str) -> None:
    control.sign_terms(name, signed=False)
    with pytest.raises(AppleRefusedError, match="terms"):
        client.account()
    control.sign_terms(name)
    client.account()
    control.sign_terms(name, signed=False)
    with pytest.raises(AppleRefusedError) as refused:
        client.account()
    assert refused.value.apple_code == "T_C_NOT_SIGNED"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_worth_another_try(client: AdeClient, control: AdeControl, status: int) -> None:
    control.behave(answer_status=status, answer_times=1)
    with pytest.raises(UnavailableError):
        client.account()
    client.account()


def test_nobody_there_is_worth_another_try(make_client: Callable[..., AdeClient], token: AdeToken) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        make_client(token, "http://127.0.0.1:1").account()


def test_devices_are_fetched_and_synced_in_pages(client: AdeClient, control: AdeControl, name: str) -> None:
    bought = control.buy(name, count=5)
    first = client.fetch(cursor=None, limit=3)
    second = client.fetch(cursor=first.cursor, limit=3)
    assert [len(first.devices), first.more_to_follow, len(second.devices), second.more_to_follow] == [3, True, 2, False]
    with pytest.raises(AppleRefusedError) as refused:
        client.fetch(cursor=second.cursor, limit=3)
    assert refused.value.apple_code == "EXHAUSTED_CURSOR"
    control.remove(name, bought[:1])
    page = client.sync(cursor=second.cursor, limit=3)
    assert [(device["serial_number"], device["op_type"]) for device in page.devices] == [(bought[0], "deleted")]


def test_profiles_are_defined_assigned_and_cleared(client: AdeClient, control: AdeControl, name: str) -> None:
    bought = control.buy(name, count=2)
    profile_uuid = client.define_profile(PROFILE | {"allow_pairing": False})
    assert client.profile(profile_uuid)["allow_pairing"] is False
    control.behave(throttled={bought[0]: 1}, retry_after_seconds=7)
    assigned = client.assign(profile_uuid, [*bought, "UNKNOWN"])
    assert assigned.statuses == {bought[0]: "THROTTLED", bought[1]: "SUCCESS", "UNKNOWN": "NOT_ACCESSIBLE"}
    assert assigned.retry_after_seconds == 7
    assert client.clear(bought[1:]) == {bought[1]: "SUCCESS"}
    assert control.device(bought[1])["profile_status"] == "removed"
    with pytest.raises(AppleRefusedError) as refused:
        client.define_profile(PROFILE | {"url": "http://mdm.example.org"})
    assert refused.value.apple_code == "CONFIG_URL_INVALID"


def test_single_devices_are_told_locked_and_disowned(client: AdeClient, control: AdeControl, name: str) -> None:
    bought = control.buy(name)
    told = client.details([*bought, "UNKNOWN"])
    assert [told[bought[0]]["response_status"], told["UNKNOWN"]["response_status"]] == ["SUCCESS", "NOT_FOUND"]
    assert client.lock(bought[0], escrow_key="ab" * 32, lost_message=None) == "SUCCESS"
    assert client.disown(bought) == {bought[0]: "SUCCESS"}
    assert client.lock(bought[0], escrow_key=None, lost_message=None) == "NOT_ACCESSIBLE"


def test_an_organization_has_one_discovery_url(client: AdeClient) -> None:
    assert client.account_driven_url() is None
    client.set_account_driven_url("https://mdm.example.org/discovery")
    assert client.account_driven_url() == "https://mdm.example.org/discovery"
    client.set_account_driven_url(None)
    assert client.account_driven_url() is None
    assert client.beta_tokens()[0]["os"] == "iOS"


def test_a_request_of_somebody_else_goes_on_as_it_is(client: AdeClient, control: AdeControl, name: str) -> None:
    bought = control.buy(name)
    body = json.dumps({"devices": bought}).encode()
    headers = {"Content-Type": "application/json", "X-Server-Protocol-Version": "3"}
    answer = client.forward("POST", "/devices", body=body, headers=headers)
    assert answer.json()["devices"][bought[0]]["response_status"] == "SUCCESS"
    assert control.requests()[-1]["version"] == "3"
    assert client.forward("GET", "/profile?profile_uuid=none", body=b"", headers={}).text == "NOT_FOUND"


def test_a_token_tells_nothing_but_its_end(token: AdeToken) -> None:
    assert token.access_token_expiry > datetime.now(UTC)
    assert token.access_secret not in repr(token)

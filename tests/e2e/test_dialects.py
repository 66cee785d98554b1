"""Other servers' APIs at the deployed stack: signed at the admin API, and with a password at the devices' address."""

import json
import plistlib
import secrets
import ssl
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator

import httpx
import pytest

from local.administrator import Administrator
from local.device import SimulatedDevice
from local.life import World
from local.stack import Stack
from tests.ade_portal import Portal

KEY = "the key of the former server"

Call = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def scripts(stack: Stack, world: World, ready_for_enrollment: None) -> Iterator[httpx.Client]:
    """A script's connection, which knows nobody's password yet."""
    secret = stack.outputs["SecretArn"]
    document = json.loads(stack.emulator.secretsmanager.get_secret_value(SecretId=secret)["SecretString"])
    stack.emulator.secretsmanager.put_secret_value(
        SecretId=secret, SecretString=json.dumps(document | {"api_keys": [KEY]})
    )
    # What was read before the key was there is good for 30 seconds, which nobody shall wait for here.
    functions, name = stack.emulator.lambda_, f"{stack.name}-commands"
    environment = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": environment | {"STARTED_FOR": uuid.uuid4().hex}}
    )
    trust = ssl.create_default_context(cafile=str(world.trust))
    with httpx.Client(base_url=world.device_url, verify=trust, trust_env=False, timeout=60) as client:
        yield client
    functions.update_function_configuration(FunctionName=name, Environment={"Variables": environment})


@pytest.fixture(params=["signed", "micromdm", "nanomdm"])
def call(request: pytest.FixtureRequest, scripts: httpx.Client, administrator: Administrator) -> Call:
    """Calls as an administrator who signs, or as a script of one of the dialects."""

    def signed(method: str, path: str, *, body: bytes = b"") -> httpx.Response:
        # What is called JSON arrives as text, and a binary property list is none.
        kind = "application/json" if body.startswith(b"{") else "application/octet-stream"
        return administrator.request(method, path, body=body, headers={"Content-Type": kind} if body else None)

    if request.param == "signed":
        return signed

    def call(method: str, path: str, *, body: bytes = b"") -> httpx.Response:
        return scripts.request(method, path, content=body, auth=(request.param, KEY))

    return call


def command(command_uuid: str) -> bytes:
    return plistlib.dumps(
        {"CommandUUID": command_uuid, "Command": {"RequestType": "ProfileList"}}, fmt=plistlib.FMT_BINARY
    )


def test_raw_commands_of_both_dialects_reach_the_device(enroll: Callable[..., SimulatedDevice], call: Call) -> None:
    device = enroll()
    first, second, third = (str(uuid.uuid4()) for _ in range(3))
    # Nobody is woken: a device that connects by itself would empty the queue.
    enqueued = [call("PUT", f"/v1/enqueue/{device.udid}?nopush=1", body=command(each)) for each in (first, second)]
    assert [answer.status_code for answer in enqueued] == [200, 200]
    waiting = call("GET", f"/v1/commands/{device.udid}").json()["commands"]
    listed = call("GET", f"/v1/queue/{device.udid}").json()["commands"]

    assert [each["uuid"] for each in waiting] == [each["command_uuid"] for each in listed] == [first, second]
    assert b64decode(waiting[0]["payload"]) == command(first)
    assert [handled.request_type for handled in device.connect()] == ["ProfileList"] * 2
    assert call("POST", f"/v1/commands/{device.udid}", body=command(third)).status_code == 201
    assert call("DELETE", f"/v1/queue/{device.udid}").status_code == 204
    assert call("DELETE", f"/v1/commands/{device.udid}").json() == {}
    assert call("GET", f"/v1/commands/{device.udid}").json() == {}


def test_devices_are_found_woken_and_removed(enroll: Callable[..., SimulatedDevice], call: Call) -> None:
    device = enroll()
    pushed = call("GET", f"/push/{device.udid}")
    as_nanomdm = call("GET", f"/nanomdm/v1/push/{device.udid}")
    as_nanohub = call("GET", f"/api/v1/nanomdm/push/{device.udid}")
    as_micromdm = call("POST", f"/micromdm/v1/push/{device.udid}")
    by_udid = json.dumps({"filter_udid": [device.udid]}).encode()
    found = call("POST", "/v1/devices", body=by_udid).json()["devices"]
    query = json.dumps({"filter": {"ids": [device.udid], "enabled": True}}).encode()
    queried = call("POST", "/v1/enrollments/query", body=query).json()["enrollments"]

    assert pushed.json()["status"] == as_micromdm.json()["status"] == "success"
    assert list(as_nanomdm.json()["status"]) == list(as_nanohub.json()["status"]) == [device.udid]
    assert [(each["udid"], each["enrollment_status"]) for each in found] == [(device.udid, True)]
    assert [each["id"] for each in queried] == [device.udid]
    for action in ("block", "unblock"):
        assert call("POST", f"/v1/devices/{device.udid}/{action}").json() == {}
    removal = json.dumps({"Opts": {"udids": [device.udid]}}).encode()
    assert call("DELETE", "/v1/devices", body=removal).json() == {}
    assert call("POST", "/v1/devices", body=by_udid).json() == {"devices": None}
    assert device.connect() == []


def test_profiles_and_users_are_stored(call: Call) -> None:
    identifier = f"org.example.{uuid.uuid4()}"
    # The second one is too large for an item: it lies in the bucket.
    for filling in (b"first", secrets.token_bytes(300 * 1024), b"third"):
        profile = plistlib.dumps({"PayloadIdentifier": identifier, "PayloadContent": filling})
        stored = {"profile": {"Identifier": identifier, "Mobileconfig": b64encode(profile).decode()}}
        assert call("PUT", "/v1/profiles", body=json.dumps(stored).encode()).json() == {}
        (shown,) = call("POST", "/v1/profiles", body=json.dumps({"id": identifier}).encode()).json()["profiles"]
        assert b64decode(shown["Mobileconfig"]) == profile
    assert call("DELETE", "/v1/profiles", body=json.dumps({"ids": [identifier]}).encode()).json() == {}
    made = call("PUT", "/v1/users", body=b'{"user":{"user_shortname":"ada"}}').json()["user"]
    assert made in call("POST", "/v1/users", body=b"{}").json()["users"]


def test_the_push_certificate_is_shown_in_both_forms(world: World, call: Call) -> None:
    assert call("GET", f"/v1/pushcert?topic={world.topic}").json()["topic"] == world.topic
    assert b64decode(call("GET", "/v1/config/certificate").json()["cert"]).startswith(b"\x30\x82")
    assert len(call("POST", "/v1/challenge").json()["string"]) > 100


def test_what_is_not_there_is_told_in_a_form_that_clients_read(call: Call) -> None:
    answer = call("PUT", "/v1/profiles/nothing", body=b"{}")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_route")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("user", ["signed", "depserver"])
def test_nanodeps_scripts_set_up_a_server_and_ask_apple_through_the_proxy(
    stack: Stack, scripts: httpx.Client, administrator: Administrator, user: str
) -> None:
    portal, name = Portal(stack.ade.control), f"by-{user}"

    def ask(method: str, path: str, body: bytes = b"") -> httpx.Response:
        # As its scripts say it.
        kind = "application/json;charset=UTF8" if body.startswith(b"{") else "application/octet-stream"
        headers = {"Content-Type": kind} if body else None
        if user == "signed":
            return administrator.request(method, path, body=body, headers=headers)
        return scripts.request(method, path, content=body, headers=headers, auth=(user, KEY))

    certificate = ask("GET", f"/v1/tokenpki/{name}").text
    assert ask("PUT", f"/v1/tokenpki/{name}", portal.token(certificate)).json()["consumer_key"]
    devices = json.dumps({"devices": portal.buy()}).encode()
    told = [ask("GET", f"/proxy/{name}/account"), ask("POST", f"/proxy/{name}/devices", devices)]
    assert [answer.status_code for answer in told] == [200, 200]
    assert told[0].json()["server_name"] == portal.name()
    refused = ask("GET", f"/proxy/{name}/profile?profile_uuid=none")
    assert (refused.status_code, refused.text) == (404, "NOT_FOUND")
    assert administrator.request("DELETE", f"/v2/ade-servers/{name}").status_code == 204
    assert "x-adm-auth-session" not in told[0].headers


@pytest.mark.parametrize("user", ["micromdm", "nanomdm"])
def test_a_wrong_password_gets_nowhere(scripts: httpx.Client, user: str) -> None:
    for path in ("/v1/devices", "/micromdm/v1/devices", "/api/v1/nanomdm/enqueue/x", "/push/x", "/migration"):
        answer = scripts.post(path, auth=(user, f"{KEY}?"))
        assert (answer.status_code, answer.json()["error"]) == (401, "Unauthorized")
        assert answer.headers["www-authenticate"] == f'Basic realm="{user}"'
    assert scripts.get("/version").json()["server"] == "PicoMDM"


def test_the_own_api_is_not_at_the_devices_address(scripts: httpx.Client) -> None:
    for path in ("/v2/enrollments", "/micromdm/v2/enrollments/x/commands"):
        assert scripts.get(path, auth=("micromdm", KEY)).status_code == 404

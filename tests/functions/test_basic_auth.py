"""HTTP Basic: scripts of other servers at the devices' address, where API Gateway asks for no signature."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from functions.commands import app as function
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock
from tests.fleet import Fleet, FleetDevice
from tests.gateway import Answer, Gateway, http_event

KEY = "an-api-key-of-24-letters"
UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"
USERS = {
    "micromdm": 'Basic realm="micromdm"',
    "nanomdm": 'Basic realm="nanomdm"',
    "nanohub": 'Basic realm="NanoHUB API"',
    "nanocmd": 'Basic realm="nanocmd"',
    "depserver": 'Basic realm="depserver"',
    "kmfddm": 'Basic realm="kmfddm"',
}


def keep_keys(aws: Emulator, settings: Settings, *keys: str) -> None:
    secret = aws.secretsmanager.get_secret_value(SecretId=settings.secret_id)["SecretString"]
    changed = json.loads(secret) | {"api_keys": list(keys)}
    aws.secretsmanager.put_secret_value(SecretId=settings.secret_id, SecretString=json.dumps(changed))


@pytest.fixture
def gateway(aws: Emulator, environment: Settings) -> Gateway:
    keep_keys(aws, environment, KEY)
    return Gateway(function.lambda_handler)


@pytest.fixture
def device(aws: Emulator, environment: Settings, sealer: Sealer) -> FleetDevice:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC))).device(UDID)


def basic(user: str, password: str) -> dict[str, str]:
    """Return the header that ``curl -u`` sends."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def call(
    gateway: Gateway,
    method: str,
    path: str,
    body: str | None = None,
    *,
    headers: Mapping[str, str],
    api: str = "device-api",
    address: str = "203.0.113.1",
) -> Answer:
    event = http_event(method, path, body, headers=headers)
    event["requestContext"]["apiId"] = api
    event["requestContext"]["http"]["sourceIp"] = address
    return gateway.answer(event)


def test_micromdms_refusal_is_its_own(gateway: Gateway) -> None:
    answer = call(gateway, "POST", "/v1/devices", "{}", headers={})

    assert (answer.status, answer.headers["content-type"]) == (401, "application/json; charset=utf-8")
    assert answer.headers["www-authenticate"] == 'Basic realm="micromdm"'
    assert answer.headers["x-picomdm-www-authenticate"] == answer.headers["www-authenticate"]
    assert answer.body == b'{\n  "error": "Unauthorized",\n  "code": "unauthorized"\n}\n'


def test_nanomdms_refusal_is_its_own(gateway: Gateway) -> None:
    answer = call(gateway, "GET", f"/v1/push/{UDID}", headers=basic("nanomdm", "wrong"))

    assert (answer.status, answer.headers["content-type"]) == (401, "application/json")
    assert answer.headers["www-authenticate"] == 'Basic realm="nanomdm"'
    assert answer.body == b'{\n\t"error": "Unauthorized",\n\t"code": "unauthorized"\n}\n'


def test_every_user_has_the_same_key_and_a_realm_of_its_own(gateway: Gateway) -> None:
    for user, realm in USERS.items():
        refused = call(gateway, "POST", "/v1/devices", "{}", headers=basic(user, KEY + "x"))
        let_in = call(gateway, "POST", "/v1/devices", "{}", headers=basic(user, KEY))

        assert (refused.status, refused.headers["www-authenticate"]) == (401, realm)
        assert let_in.status == 200


def test_nobody_gets_past_without_the_key(gateway: Gateway) -> None:
    wrong: list[dict[str, str]] = [
        {},
        basic("micromdm", ""),
        basic("micromdm", KEY[:-1]),
        basic("micromdm", KEY.upper()),
        basic("", KEY),
        basic("admin", KEY),
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": "Basic"},
        {"Authorization": "Basic !"},
        {"Authorization": "Basic /////w=="},
        {"Authorization": f"Basic {b64encode(KEY.encode()).decode()}"},
        {"X-PicoMDM-Dialect": "micromdm"},
    ]
    for number, headers in enumerate(wrong):
        for path in ("/v1/devices", "/v1/unknown", "/micromdm/v1/devices", "/v2/enrollments/x/commands"):
            address = f"203.0.113.{number}"
            assert call(gateway, "POST", path, "{}", headers=headers, address=address).status == 401, (headers, path)


def test_nobody_gets_past_while_there_is_no_key(aws: Emulator, environment: Settings) -> None:
    gateway = Gateway(function.lambda_handler)
    for keys in ((), ("",), ("short",)):
        keep_keys(aws, environment, *keys)
        runtime.forget()
        assert call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", "".join(keys))).status == 401


def test_what_is_signed_needs_no_password(gateway: Gateway, environment: Settings) -> None:
    assert call(gateway, "POST", "/v1/devices", "{}", headers={}, api=environment.admin_api_id).status == 200


def test_the_version_is_told_to_everybody(gateway: Gateway) -> None:
    assert call(gateway, "GET", "/version", headers={}).document["server"] == "PicoMDM"
    assert call(gateway, "GET", "/nanomdm/version", headers={}).status == 200


def test_a_new_key_counts_at_once_and_the_former_as_long_as_it_is_there(
    aws: Emulator, environment: Settings, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(runtime, "now", clock)
    runtime.forget()
    other = "another-key-of-24-letter"
    assert call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY)).status == 200
    keep_keys(aws, environment, other, KEY)
    clock.advance(seconds=31)

    for key in (other, KEY):
        assert call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", key)).status == 200
    keep_keys(aws, environment, other)
    clock.advance(minutes=6)
    assert call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY)).status == 401


def test_who_guesses_has_to_wait_and_nobody_else_has_to(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(datetime.now(UTC))
    monkeypatch.setattr(runtime, "now", clock)
    runtime.forget()
    guesses = [
        call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", f"{KEY}{guess}")).status
        for guess in range(21)
    ]
    waiting = call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY))

    assert guesses == [401] * 20 + [429]
    assert (waiting.status, waiting.headers["retry-after"]) == (429, "60")
    elsewhere = call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY), address="203.0.113.2")
    assert elsewhere.status == 200
    clock.advance(seconds=60)
    assert call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY)).status == 200


def test_the_user_decides_where_paths_collide(gateway: Gateway, device: FleetDevice) -> None:
    as_micromdm = call(gateway, "POST", f"/v1/push/{UDID}", headers=basic("micromdm", KEY))
    as_nanomdm = call(gateway, "POST", f"/v1/push/{UDID}", headers=basic("nanomdm", KEY))

    # There is no push certificate.
    assert (as_micromdm.status, as_micromdm.document["code"]) == (409, "push_not_sent")
    assert (as_nanomdm.status, list(as_nanomdm.document)) == (500, ["status"])


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (f"/micromdm/v1/push/{UDID}", {"error", "code"}),
        (f"/nanomdm/v1/push/{UDID}", {"status"}),
        (f"/api/v1/nanomdm/push/{UDID}", {"status"}),
    ],
)
def test_a_prefix_decides_whoever_asks(gateway: Gateway, device: FleetDevice, path: str, keys: set[str]) -> None:
    for headers in (basic("micromdm", KEY), basic("nanohub", KEY)):
        assert set(call(gateway, "POST", path, headers=headers).document) == keys
    assert set(call(gateway, "POST", path, headers={}, api="api").document) == keys


def test_a_prefix_leads_to_no_other_api(gateway: Gateway, device: FleetDevice) -> None:
    for prefix in ("/micromdm", "/nanomdm"):
        answer = call(gateway, "GET", f"{prefix}/v2/enrollments/{UDID}/commands", headers=basic("micromdm", KEY))
        assert (answer.status, answer.document["code"]) == (404, "unknown_route")


def test_who_did_what_is_in_the_log_and_no_key_is(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    call(gateway, "POST", "/v1/devices", "{", headers=basic("micromdm", KEY))
    call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", f"{KEY}-wrong"))
    said = "\n".join(str(vars(record)) for record in caplog.records)

    assert KEY not in said
    assert b64encode(f"micromdm:{KEY}".encode()).decode()[:20] not in said
    assert "'user': 'micromdm'" in said


def test_a_secret_that_cannot_be_read_is_503(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_ID", "no-such-secret")
    runtime.forget()
    answer = call(gateway, "POST", "/v1/devices", "{}", headers=basic("micromdm", KEY))

    assert (answer.status, answer.document["code"]) == (503, "unavailable")

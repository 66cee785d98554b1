"""What must not work, over HTTP against the deployed stack: who is told what, and that nothing of it stays.

A device that is refused learns nothing but a status, which is never 401: that would un-enroll it. An administrator
learns what is wrong, with a code for machines.
"""

import base64
import json
import plistlib
import re
import ssl
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from local.administrator import Administrator, Keys
from local.customer import Customer
from local.device import Hardware, Identity, ScepRefused, ServerRefused, SignatureForm, SimulatedApns, SimulatedDevice
from local.device.cms import sign_message
from local.device.profile import EnrollmentProfile
from local.emulator import REGION, ROOT_KEYS
from local.life import World
from local.stack import Stack
from tests.e2e.stored import Stored

CHECK_IN = "application/x-apple-aspen-mdm-checkin"
CONNECT = "application/x-apple-aspen-mdm"
TOO_LARGE = 4_700_000
"""More than a function of ours takes (4.4 MiB), less than API Gateway does."""


# Who takes part


@pytest.fixture(scope="module")
def administrator(world: World) -> Iterator[Administrator]:
    with Administrator(world.admin_url, world.keys) as administrator:
        yield administrator


@pytest.fixture(scope="module")
def new_device(world: World, ready_for_enrollment: None) -> Iterator[Callable[[], SimulatedDevice]]:
    with ExitStack() as to_close:
        pushes = SimulatedApns(world.apns_control)
        to_close.callback(pushes.close)
        yield lambda: to_close.enter_context(SimulatedDevice(Hardware.iphone(), push=pushes, trust=world.trust))


@pytest.fixture(scope="module")
def new_link(administrator: Administrator, ready_for_enrollment: None) -> Callable[..., dict[str, Any]]:
    def make(**wishes: Any) -> dict[str, Any]:
        answer = administrator.request("POST", "/v2/enrollment-links", document=wishes)
        assert answer.status_code == 201, answer.text
        link: dict[str, Any] = answer.json()
        return link

    return make


@pytest.fixture(scope="module")
def device(new_device: Callable[[], SimulatedDevice], new_link: Callable[..., dict[str, Any]]) -> SimulatedDevice:
    """An enrolled device."""
    device = new_device()
    device.enroll(new_link()["url"])
    return device


@pytest.fixture(scope="module")
def other_device(new_device: Callable[[], SimulatedDevice], new_link: Callable[..., dict[str, Any]]) -> SimulatedDevice:
    """Another enrolled device, whose identity is as good, for itself."""
    device = new_device()
    device.enroll(new_link()["url"])
    return device


@pytest.fixture(scope="module")
def wire(world: World) -> Iterator[httpx.Client]:
    """Somebody on the way to the device edge."""
    with httpx.Client(verify=ssl.create_default_context(cafile=str(world.trust)), trust_env=False, timeout=60) as wire:
        yield wire


@pytest.fixture(scope="module")
def customer(world: World, administrator: Administrator) -> Iterator[Customer]:
    document = {"url": f"{world.webhook_url}-of-bad-input", "hmac_key": world.hmac_key}
    answer = administrator.request("POST", "/v2/webhooks", document=document)
    assert answer.status_code == 201, answer.text
    customer = Customer(world.webhook_control, path="/webhook-of-bad-input")
    yield customer
    administrator.request("DELETE", f"/v2/webhooks/{answer.json()['id']}")
    customer.close()


@pytest.fixture
def nothing_is_stored(stack: Stack, device: SimulatedDevice, other_device: SimulatedDevice) -> Iterator[None]:
    before = Stored.of(stack)
    yield
    assert Stored.of(stack) == before


# Devices


def signature(body: bytes, identity: Identity, *, form: SignatureForm = SignatureForm.DER_WITH_ATTRIBUTES) -> str:
    signed = sign_message(body, identity, form=form, digest="sha256", at=datetime.now(UTC))
    return base64.b64encode(signed).decode()


def foreign_identity(common_name: str = "PicoMDM Identity", issuer: x509.Name | None = None) -> Identity:
    """Return an identity that a CA of somebody else issued, whatever that one calls itself."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(rsa.generate_private_key(65537, 2048) if issuer else key, hashes.SHA256())
    )
    return Identity(key, certificate)


def idle(device: SimulatedDevice, **more: Any) -> bytes:
    return plistlib.dumps({"UDID": device.udid, "Status": "Idle", **more})


def token_update(device: SimulatedDevice) -> bytes:
    return plistlib.dumps(
        {
            "MessageType": "TokenUpdate",
            "Topic": device.profile.topic,
            "UDID": device.udid,
            "Token": bytes(32),
            "PushMagic": "taken over",
        }
    )


def broken(text: str) -> str:
    """Return a signature of which one bit of the last bytes, the RSA signature's, is another."""
    raw = bytearray(base64.b64decode(text))
    raw[-40] ^= 1
    return base64.b64encode(raw).decode()


SIGNATURES: dict[str, Callable[[bytes, SimulatedDevice, SimulatedDevice], str | None]] = {
    "none": lambda _body, _device, _other: None,
    "empty": lambda _body, _device, _other: "",
    "no base64": lambda _body, _device, _other: "{}!",
    "no CMS": lambda _body, _device, _other: base64.b64encode(b"\x30\x80" + bytes(64)).decode(),
    "of another body": lambda body, device, _other: signature(body + b" ", device.identity),
    "broken": lambda body, device, _other: broken(signature(body, device.identity)),
    "broken, without attributes": lambda body, device, _other: broken(
        signature(body, device.identity, form=SignatureForm.BER_NO_ATTRIBUTES)
    ),
    "by a self-made certificate": lambda body, _device, _other: signature(body, foreign_identity()),
    "by a CA of the same name": lambda body, device, _other: signature(
        body, foreign_identity(issuer=device.identity.certificate.issuer)
    ),
    "by the certificate of another enrollment": lambda body, _device, other: signature(body, other.identity),
}


@pytest.mark.parametrize("made", SIGNATURES.values(), ids=SIGNATURES.keys())
@pytest.mark.parametrize("path", ["/mdm/connect", "/mdm/checkin", "/mdm"])
def test_whoever_does_not_prove_to_be_the_device_is_refused(
    made: Callable[[bytes, SimulatedDevice, SimulatedDevice], str | None],
    path: str,
    device: SimulatedDevice,
    other_device: SimulatedDevice,
    world: World,
    wire: httpx.Client,
    nothing_is_stored: None,
) -> None:
    body, content_type = (token_update(device), CHECK_IN) if path == "/mdm/checkin" else (idle(device), CONNECT)
    headers = {"Content-Type": content_type}
    if (value := made(body, device, other_device)) is not None:
        headers["Mdm-Signature"] = value

    answer = wire.put(f"{world.device_url}{path}", content=body, headers=headers)

    assert_reveals_nothing(answer, 400)


def test_a_certificate_that_was_only_just_issued_says_nothing_for_an_enrollment(
    device: SimulatedDevice,
    new_device: Callable[[], SimulatedDevice],
    new_link: Callable[..., dict[str, Any]],
    world: World,
    wire: httpx.Client,
) -> None:
    stranger = new_device()
    stranger.enroll(new_link()["url"])
    body = idle(device)

    answer = wire.put(
        f"{world.device_url}/mdm/connect", content=body, headers={"Mdm-Signature": signature(body, stranger.identity)}
    )

    assert_reveals_nothing(answer, 400)


def test_a_certificate_serves_one_enrollment_only(
    device: SimulatedDevice, world: World, wire: httpx.Client, nothing_is_stored: None
) -> None:
    body = plistlib.dumps(
        {"MessageType": "Authenticate", "Topic": device.profile.topic, "UDID": str(uuid.uuid4()).upper()}
    )
    headers = {"Mdm-Signature": signature(body, device.identity), "Content-Type": CHECK_IN}

    answer = wire.put(f"{world.device_url}/mdm/checkin", content=body, headers=headers)

    assert_reveals_nothing(answer, 400)


BODIES = {
    "nothing": b"",
    "no plist": b"not a property list",
    "JSON": b'{"Status": "Idle"}',
    "a list": plistlib.dumps(["Idle"]),
    "half a plist": plistlib.dumps({"UDID": "x", "Status": "Idle"})[:-30],
    "half a binary plist": plistlib.dumps({"UDID": "x", "Status": "Idle"}, fmt=plistlib.FMT_BINARY)[:-8],
    "entities": b'<?xml version="1.0"?><!DOCTYPE p [<!ENTITY a "aaaa">]><plist><dict><key>UDID</key>'
    b"<string>&a;</string></dict></plist>",
    "nested too deeply": b"<plist>" + b"<array>" * 100_000 + b"</array>" * 100_000 + b"</plist>",
    "no enrollment": plistlib.dumps({"Status": "Idle"}),
    "no status and no type": plistlib.dumps({"UDID": "00008140-0000000000000000"}),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ["/mdm/connect", "/mdm/checkin"])
def test_what_is_no_message_is_refused_even_from_a_known_device(
    body: bytes, path: str, device: SimulatedDevice, world: World, wire: httpx.Client, nothing_is_stored: None
) -> None:
    headers = {"Mdm-Signature": signature(body, device.identity)}

    answer = wire.put(f"{world.device_url}{path}", content=body, headers=headers)

    assert_reveals_nothing(answer, 400)


def test_an_unknown_message_type_is_refused(
    device: SimulatedDevice, world: World, wire: httpx.Client, nothing_is_stored: None
) -> None:
    body = plistlib.dumps({"MessageType": "Take over!", "UDID": device.udid, "Topic": device.profile.topic})
    headers = {"Mdm-Signature": signature(body, device.identity), "Content-Type": CHECK_IN}

    answer = wire.put(f"{world.device_url}/mdm/checkin", content=body, headers=headers)

    assert_reveals_nothing(answer, 400)


@pytest.mark.parametrize("path", ["/mdm/connect", "/mdm/checkin"])
def test_a_body_that_no_function_takes_is_413(
    path: str, device: SimulatedDevice, world: World, wire: httpx.Client, nothing_is_stored: None
) -> None:
    body = plistlib.dumps({"UDID": device.udid, "Status": "Idle", "Padding": "x" * TOO_LARGE})
    headers = {"Mdm-Signature": signature(body, device.identity), "Content-Type": CONNECT}

    answer = wire.put(f"{world.device_url}{path}", content=body, headers=headers)

    assert_reveals_nothing(answer, 413)


def test_a_report_on_a_command_that_never_was_is_taken_and_only_told(
    device: SimulatedDevice, world: World, wire: httpx.Client, customer: Customer, nothing_is_stored: None
) -> None:
    body = plistlib.dumps({"UDID": device.udid, "Status": "Acknowledged", "CommandUUID": "never was"})
    headers = {"Mdm-Signature": signature(body, device.identity)}

    answer = wire.put(f"{world.device_url}/mdm/connect", content=body, headers=headers)

    assert (answer.status_code, answer.content) == (200, b"")
    told = customer.hear(lambda heard: heard.raw == body, what="the report")
    assert "request_type" not in told.document["acknowledge_event"]


def test_nobody_hears_of_what_was_refused(
    device: SimulatedDevice, other_device: SimulatedDevice, world: World, wire: httpx.Client, customer: Customer
) -> None:
    body = idle(device, Note="refused")
    forged = {"Mdm-Signature": signature(body, other_device.identity)}
    assert wire.put(f"{world.device_url}/mdm/connect", content=body, headers=forged).status_code == 400

    good = idle(device, Note="good")
    headers = {"Mdm-Signature": signature(good, device.identity)}
    assert wire.put(f"{world.device_url}/mdm/connect", content=good, headers=headers).status_code == 200

    customer.hear(lambda heard: heard.raw == good, what="the good one")
    assert not [heard for heard in customer.left_over() if heard.raw == body]


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/mdm/connect", "/mdm/checkin", "/nothing", "/v2/commands", "/v2/enrollments"])
def test_the_device_edge_serves_nothing_else(method: str, path: str, world: World, wire: httpx.Client) -> None:
    answer = wire.request(method, f"{world.device_url}{path}")

    assert answer.status_code in {404, 405}
    assert b"picomdm" not in answer.content.lower()


def assert_reveals_nothing(answer: httpx.Response, status: int) -> None:
    assert (answer.status_code, answer.content) == (status, b"")
    assert "www-authenticate" not in answer.headers


# Links and challenges


def test_a_device_goes_on_as_if_nothing_had_been(device: SimulatedDevice, other_device: SimulatedDevice) -> None:
    assert device.idle() is None
    assert other_device.idle() is None


def page_of(wire: httpx.Client, url: str) -> tuple[int, str]:
    answer = wire.get(url)
    assert answer.headers["content-type"].startswith("text/html")
    return answer.status_code, answer.text


def test_a_link_that_is_over_says_the_same_whatever_the_reason(
    stack: Stack,
    administrator: Administrator,
    new_device: Callable[[], SimulatedDevice],
    new_link: Callable[..., dict[str, Any]],
    world: World,
    wire: httpx.Client,
) -> None:
    expired, revoked, used = new_link(note="expired"), new_link(note="revoked"), new_link(max_uses=1)
    Stored.expire(stack, "enrollment_link", expired["id"])
    assert administrator.request("DELETE", f"/v2/enrollment-links/{revoked['id']}").status_code == 204
    new_device().enroll(used["url"])

    refused = [page_of(wire, link["url"]) for link in (expired, revoked, used)]

    assert {status for status, _ in refused} == {403}
    unknown = [page_of(wire, f"{world.device_url}/mdm/enroll/{token}") for token in ("x" * 43, "x", "x%20y")]
    assert {status for status, _ in unknown} == {404}
    assert len({page for _, page in (*refused, *unknown)}) == 1


def test_nobody_enrolls_without_a_link(world: World, wire: httpx.Client) -> None:
    assert page_of(wire, f"{world.device_url}/mdm/enroll")[0] == 403


def with_challenge(profile: EnrollmentProfile, challenge: str | None) -> EnrollmentProfile:
    return replace(profile, scep=replace(profile.scep, challenge=challenge))


CHALLENGES: dict[str, Callable[[str], str | None]] = {
    "none": lambda _good: None,
    "a guess": lambda _good: "secret",
    "too long": lambda good: good + "AAAA",
    "another expiry": lambda good: other_byte(good, 5),
    "another nonce": lambda good: other_byte(good, 12),
    "another link": lambda good: other_byte(good, 30),
    "another HMAC": lambda good: other_byte(good, -1),
}


def other_byte(challenge: str, index: int) -> str:
    raw = bytearray(base64.b64decode(challenge + "=" * (-len(challenge) % 4)))
    raw[index] ^= 1
    return base64.b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("made", CHALLENGES.values(), ids=CHALLENGES.keys())
def test_a_wrong_challenge_gets_no_certificate(
    made: Callable[[str], str | None],
    stack: Stack,
    new_device: Callable[[], SimulatedDevice],
    new_link: Callable[..., dict[str, Any]],
) -> None:
    device = new_device()
    profile = device.download_profile(new_link()["url"])
    before = Stored.of(stack)

    with pytest.raises(ScepRefused) as refused:
        device.install(with_challenge(profile, made(profile.scep.challenge or "")))

    assert refused.value.fail_info == 2
    assert Stored.of(stack) == before


def test_a_challenge_is_good_for_one_certificate(
    stack: Stack, new_device: Callable[[], SimulatedDevice], new_link: Callable[..., dict[str, Any]]
) -> None:
    first, second = new_device(), new_device()
    profile = first.download_profile(new_link()["url"])
    first.install(profile)
    before = Stored.of(stack)

    with pytest.raises(ScepRefused) as refused:
        second.install(profile)

    assert refused.value.fail_info == 2
    assert Stored.of(stack) == before


def test_a_challenge_that_has_expired_gets_no_certificate(
    stack: Stack, new_device: Callable[[], SimulatedDevice], new_link: Callable[..., dict[str, Any]]
) -> None:
    device, link = new_device(), new_link()
    profile = device.download_profile(link["url"])
    # Nobody can make one but the stack: its own code does, under its own secret, as an hour ago.
    expired = Stored.challenge_of(stack, link["id"], datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(ScepRefused) as refused:
        device.install(with_challenge(profile, expired))

    assert refused.value.fail_info == 2


def test_a_profile_of_a_revoked_link_gets_no_certificate(
    administrator: Administrator,
    new_device: Callable[[], SimulatedDevice],
    new_link: Callable[..., dict[str, Any]],
) -> None:
    device, link = new_device(), new_link()
    profile = device.download_profile(link["url"])
    administrator.request("DELETE", f"/v2/enrollment-links/{link['id']}")

    with pytest.raises(ScepRefused):
        device.install(profile)


SCEP_REQUESTS = {
    "no operation": ("GET", "", b""),
    "an unknown operation": ("GET", "operation=GetSecrets", b""),
    "no message": ("GET", "operation=PKIOperation", b""),
    "a message that is no CMS": ("POST", "operation=PKIOperation", b"\x30\x03abc"),
    "a message that is no base64": ("GET", "operation=PKIOperation&message=%21%21", b""),
}


@pytest.mark.parametrize(("method", "query", "body"), SCEP_REQUESTS.values(), ids=SCEP_REQUESTS.keys())
def test_what_is_no_scep_is_refused(
    method: str, query: str, body: bytes, world: World, wire: httpx.Client, nothing_is_stored: None
) -> None:
    answer = wire.request(method, f"{world.device_url}/scep?{query}", content=body or None)

    assert_reveals_nothing(answer, 400)


# Administrators


@pytest.fixture(scope="module")
def admin_routes(stack: Stack) -> list[dict[str, Any]]:
    """The routes of the admin API as they were deployed."""
    access_key, secret_key = ROOT_KEYS
    client = boto3.client(
        "apigatewayv2",
        endpoint_url=stack.emulator.url,
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )
    routes = client.get_routes(ApiId=stack.outputs["AdminApiId"], MaxResults="500")["Items"]
    assert len(routes) > 10
    return [dict(route) for route in routes]


def test_every_admin_route_asks_for_iam(admin_routes: list[dict[str, Any]]) -> None:
    """The emulator lets a header `Authorization: Bearer x` pass; AWS does not where IAM is asked for."""
    assert {route["AuthorizationType"] for route in admin_routes} == {"AWS_IAM"}


def test_whoever_does_not_sign_is_refused_on_every_route(
    admin_routes: list[dict[str, Any]], world: World, nothing_is_stored: None
) -> None:
    with Administrator(world.admin_url, world.keys) as nobody:
        for route in admin_routes:
            method, path = re.sub(r"\{[^}]*\}", "x", route["RouteKey"]).split()
            answer = nobody.request(method, path, body=b"{}", signed=False)

            assert answer.status_code == 403, route["RouteKey"]
            assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize(
    "keys",
    [
        lambda good: Keys(access_key=good.access_key, secret_key="x" * 40, region=good.region),
        lambda good: Keys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key=good.secret_key, region=good.region),
    ],
    ids=["another secret", "an unknown user"],
)
def test_whoever_signs_with_wrong_keys_is_refused(
    keys: Callable[[Keys], Keys], world: World, nothing_is_stored: None
) -> None:
    with Administrator(world.admin_url, keys(world.keys)) as impostor:
        answer = impostor.request("POST", "/v2/enrollment-links", document={})

    assert answer.status_code == 403


def test_a_signature_is_good_for_its_own_request_only(
    administrator: Administrator, world: World, nothing_is_stored: None
) -> None:
    headers = administrator.sign("POST", "/v2/enrollment-links", b'{"max_uses": 1}')

    changed = httpx.post(
        f"{world.admin_url}/v2/enrollment-links", content=b'{"max_uses": 9}', headers=headers, trust_env=False
    )
    elsewhere = httpx.post(
        f"{world.admin_url}/v2/webhooks", content=b'{"max_uses": 1}', headers=headers, trust_env=False
    )

    assert (changed.status_code, elsewhere.status_code) == (403, 403)


COMMANDS: dict[str, tuple[dict[str, Any], int, str, str | None]] = {
    "an unknown request type": ({"request_type": "MakeCoffee"}, 400, "unknown_request_type", "request_type"),
    "no request type": ({}, 400, "unknown_request_type", "request_type"),
    "a request type that is none": ({"request_type": 7}, 400, "invalid_field", "request_type"),
    "nobody": ({"request_type": "ProfileList", "udid": ""}, 400, "missing_field", "udid"),
    "a number for a list": ({"request_type": "DeviceInformation", "queries": 7}, 400, "invalid_field", "queries"),
    "no base64": ({"request_type": "InstallProfile", "payload": "!"}, 400, "invalid_field", "payload"),
    "an unknown enrollment": (
        {"request_type": "ProfileList", "udid": "00008140-FFFFFFFFFFFFFFFF"},
        404,
        "unknown_enrollment",
        "udid",
    ),
    "a key of the tables": ({"request_type": "ProfileList", "udid": "cert#00"}, 400, "invalid_field", "udid"),
}


@pytest.mark.parametrize(("document", "status", "code", "field"), COMMANDS.values(), ids=COMMANDS.keys())
def test_an_administrator_is_told_what_is_wrong_with_a_command(
    document: Mapping[str, Any],
    status: int,
    code: str,
    field: str | None,
    administrator: Administrator,
    device: SimulatedDevice,
    nothing_is_stored: None,
) -> None:
    answer = administrator.request("POST", "/v1/commands", document={"udid": device.udid, **document})

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    told = answer.json()
    assert (told["code"], told.get("field")) == (code, field)
    assert told["error"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"udid": NaN}', b"[" * 100_000],
    ids=["empty", "half", "a list", "a string", "no UTF-8", "NaN", "nested too deeply"],
)
@pytest.mark.parametrize("path", ["/v1/commands", "/v2/enrollment-links", "/v2/webhooks"])
def test_an_administrator_is_told_that_a_body_is_no_json(
    body: bytes, path: str, administrator: Administrator, nothing_is_stored: None
) -> None:
    answer = administrator.request("POST", path, body=body)

    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_body"


def test_an_administrator_is_told_that_a_body_is_too_large(
    administrator: Administrator, device: SimulatedDevice, nothing_is_stored: None
) -> None:
    payload = base64.b64encode(bytes(TOO_LARGE * 3 // 4)).decode()

    answer = administrator.request(
        "POST",
        "/v1/commands",
        document={"udid": device.udid, "request_type": "InstallProfile", "payload": payload},
    )

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_a_command_uuid_is_good_for_one_command(administrator: Administrator, device: SimulatedDevice) -> None:
    document = {"udid": device.udid, "request_type": "ProfileList", "command_uuid": str(uuid.uuid4())}
    assert administrator.request("POST", "/v1/commands", document=document).status_code == 201

    answer = administrator.request("POST", "/v1/commands", document=document | {"request_type": "SecurityInfo"})

    assert (answer.status_code, answer.json()["code"]) == (409, "duplicate_command_uuid")
    assert [handled.request_type for handled in device.connect()] == ["ProfileList"]


V2_REQUESTS: dict[str, tuple[str, str, Any, int, str]] = {
    "a misspelt limit": ("POST", "/v2/enrollment-links", {"max_use": 1}, 400, "unknown_field"),
    "a link for no time": ("POST", "/v2/enrollment-links", {"expires_in": 0}, 400, "invalid_field"),
    "a webhook to nowhere": ("POST", "/v2/webhooks", {"url": "ftp://example.org"}, 400, "bad_request"),
    "no such link": ("DELETE", "/v2/enrollment-links/" + "0" * 32, None, 404, "link_not_found"),
    "no such enrollment": ("GET", "/v2/enrollments/00008140-FFFFFFFFFFFFFFFF", None, 404, "unknown_enrollment"),
    "results of nobody": ("GET", "/v2/enrollments/nobody/results", None, 404, "unknown_enrollment"),
    "a cursor of another API": ("GET", "/v2/enrollments?cursor=x", None, 400, "invalid_cursor"),
}


@pytest.mark.parametrize(("method", "path", "document", "status", "code"), V2_REQUESTS.values(), ids=V2_REQUESTS.keys())
def test_the_api_of_its_own_tells_problems_as_documents(
    method: str,
    path: str,
    document: Any,
    status: int,
    code: str,
    administrator: Administrator,
    nothing_is_stored: None,
) -> None:
    answer = administrator.request(method, path, document=document)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]


def test_a_push_certificate_has_to_be_one(administrator: Administrator, world: World, nothing_is_stored: None) -> None:
    apple = httpx.post(f"{world.apns_control}/certificates", json={"topic": world.topic}, trust_env=False).content
    certificate, _, key = apple.partition(b"-----BEGIN PRIVATE")
    other = httpx.post(f"{world.apns_control}/certificates", json={"topic": world.topic}, trust_env=False).content
    wrong = {
        "nothing": b"",
        "no PEM": b"certificate",
        "no key": certificate,
        "another's key": certificate + b"-----BEGIN PRIVATE" + other.partition(b"-----BEGIN PRIVATE")[2],
    }

    for what, body in wrong.items():
        answer = administrator.request("PUT", "/v1/pushcert", body=body)
        assert answer.status_code == 400, what
        assert json.loads(answer.text)["code"], what
        assert key.strip().decode()[:40] not in answer.text


def test_the_refused_do_not_stop_anything(device: SimulatedDevice) -> None:
    with pytest.raises(ServerRefused):
        device.enrollment.check_in({"MessageType": "no type", "UDID": device.udid})
    assert device.idle() is None
    assert not device.violations

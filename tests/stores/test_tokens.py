"""GetToken: tokens of Apple's services, made here or elsewhere."""

import hmac
import json
import plistlib
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mdmlib.errors import BadRequestError, IdentityError, NotFoundError, UnavailableError
from mdmlib.store.tables import AdeServer
from tests.event_schemas import assert_conforms
from tests.fleet import Fleet, FleetDevice
from tests.http_server import HttpServer, http_server

PAIRING = "com.apple.watch.pairing"
PARAMETERS = {"PhoneUDID": "P1", "SecurityToken": "the-security-token", "WatchUDID": "W1"}
KEY = generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def source() -> Iterator[HttpServer]:
    with http_server() as server:
        yield server


def token(device: FleetDevice, service: str, **fields: Any) -> bytes:
    body = device.checkin("GetToken", TokenServiceType=service, **fields)
    assert body is not None
    answer = plistlib.loads(body)
    assert set(answer) == {"TokenData"}
    return bytes(answer["TokenData"])


def ade_server(
    fleet: Fleet, name: str, *, uuid: str | None, key: "RSAPrivateKey | ec.EllipticCurvePrivateKey | None" = KEY
) -> None:
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()) if key else None
    sealed = fleet.sealer.seal(der, place=f"ade_server/{name}") if der else None
    AdeServer("ade_server", name, server_uuid=uuid, private_key=sealed).save()


def claims(jwt: bytes, key: RSAPrivateKey = KEY) -> dict[str, Any]:
    head, body, signature = (part + b"=" * (-len(part) % 4) for part in jwt.split(b"."))
    key.public_key().verify(urlsafe_b64decode(signature), jwt.rpartition(b".")[0], PKCS1v15(), SHA256())
    assert json.loads(urlsafe_b64decode(head))["alg"] == "RS256"
    document: dict[str, Any] = json.loads(urlsafe_b64decode(body))
    return document


def test_a_maid_token_is_signed_with_the_key_that_apple_knows(fleet: Fleet) -> None:
    ade_server(fleet, "school", uuid="S-UUID")
    device = fleet.device()

    first, second = (claims(token(device, "com.apple.maid")) for _ in range(2))

    assert first.pop("jti") != second.pop("jti")
    assert first == second == {"iss": "S-UUID", "iat": int(fleet.clock().timestamp()), "service_type": "com.apple.maid"}


def test_a_server_whose_key_or_identifier_is_missing_is_passed_over(fleet: Fleet) -> None:
    ade_server(fleet, "a", uuid=None)
    ade_server(fleet, "b", uuid="B", key=None)
    ade_server(fleet, "c", uuid="C", key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(BadRequestError):
        token(fleet.device(), "com.apple.maid")

    ade_server(fleet, "d", uuid="D")
    assert claims(token(fleet.device(), "com.apple.maid"))["iss"] == "D"


@pytest.mark.parametrize("service", ["com.apple.maid", PAIRING, "com.apple.unheard", "no service!"])
def test_a_token_that_nobody_makes_is_a_bad_request_and_published(fleet: Fleet, service: str) -> None:
    device = fleet.device()
    fleet.bus.take()

    with pytest.raises(BadRequestError) as refused:
        token(device, service, TokenParameters=PARAMETERS)
    assert refused.value.code == "token_service_unknown"
    (document,) = fleet.bus.take()
    assert document["topic"] == "mdm.GetToken"
    assert_conforms(document)
    assert "raw_payload" not in document["checkin_event"], "the security token is sealed"


def test_a_token_source_makes_tokens_of_its_service(fleet: Fleet, source: HttpServer) -> None:
    source.body = json.dumps({"token": b64encode(b"\0the token").decode()}).encode()
    fleet.token_sources.put(PAIRING, url=f"{source.url}/tokens?a=b", hmac_key="key")
    device = fleet.device()

    assert token(device, PAIRING, TokenParameters=PARAMETERS) == b"\0the token"
    (request,) = source.requests
    assert (request.method, request.path) == ("POST", "/tokens?a=b")
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert b64decode(request.headers["x-hmac-signature"]) == hmac.digest(b"key", request.body, sha256)
    assert json.loads(request.body) == {
        "token_service_type": PAIRING,
        "token_parameters": PARAMETERS,
        "ids": {"id": str(device), "type": "Device"},
        "serial_number": "C02XXXX",
        "requested_at": "2026-11-20T12:00:00Z",
    }


def test_a_token_source_goes_before_what_is_built_in(fleet: Fleet, source: HttpServer) -> None:
    ade_server(fleet, "school", uuid="S-UUID")
    source.body = json.dumps({"token": b64encode(b"theirs").decode()}).encode()
    fleet.token_sources.put("com.apple.maid", url=source.url, hmac_key="key")
    device = fleet.device()

    assert token(device, "com.apple.maid") == b"theirs"
    source.status = 404
    assert claims(token(device, "com.apple.maid"))["iss"] == "S-UUID"


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (401, b""), (302, b""), (200, b""), (200, b"[]"), (200, b'{"token":"?"}'), (200, b'{"token":1}')],
)
def test_a_device_comes_back_when_a_token_source_fails(
    fleet: Fleet, source: HttpServer, status: int, body: bytes
) -> None:
    source.status, source.body = status, body
    fleet.token_sources.put(PAIRING, url=source.url, hmac_key="key")

    with pytest.raises(UnavailableError):
        token(fleet.device(), PAIRING, TokenParameters=PARAMETERS)


def test_a_device_comes_back_when_a_token_source_cannot_be_reached(fleet: Fleet) -> None:
    fleet.token_sources.put(PAIRING, url="http://127.0.0.1:1", hmac_key="key")

    with pytest.raises(UnavailableError) as failed:
        token(fleet.device(), PAIRING, TokenParameters=PARAMETERS)
    assert "127.0.0.1" not in failed.value.message


def test_nobody_gets_a_token_for_a_device_that_is_not_theirs(fleet: Fleet) -> None:
    ade_server(fleet, "school", uuid="S-UUID")
    fleet.device("D1")

    with pytest.raises(IdentityError):
        token(FleetDevice(fleet, "D1", identity="stranger"), "com.apple.maid")
    with pytest.raises(IdentityError):
        token(FleetDevice(fleet, "D2"), "com.apple.maid")


def test_a_token_source_is_listed_replaced_and_removed(fleet: Fleet) -> None:
    fleet.token_sources.put(PAIRING, url="https://one.example.org", hmac_key="key")
    fleet.token_sources.put(PAIRING, url="https://two.example.org", hmac_key="key")

    (kept,) = fleet.token_sources.list()
    assert (kept.name, kept.url) == (PAIRING, "https://two.example.org")
    assert b"key" not in kept.hmac_key
    fleet.token_sources.delete(PAIRING)
    assert fleet.token_sources.list() == []
    with pytest.raises(NotFoundError):
        fleet.token_sources.delete(PAIRING)


@pytest.mark.parametrize(
    ("service", "url", "key"),
    [
        ("", "https://example.org", "key"),
        ("com apple", "https://example.org", "key"),
        (PAIRING, "http://example.org", "key"),
        (PAIRING, "ftp://example.org", "key"),
        (PAIRING, "https://user:password@example.org", "key"),
        (PAIRING, "https://example.org/#part", "key"),
        (PAIRING, "https://", "key"),
        (PAIRING, "https://example.org", ""),
    ],
)
def test_a_token_source_that_could_not_be_trusted_is_not_taken(fleet: Fleet, service: str, url: str, key: str) -> None:
    with pytest.raises(BadRequestError):
        fleet.token_sources.put(service, url=url, hmac_key=key)

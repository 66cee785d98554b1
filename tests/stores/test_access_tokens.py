"""Access tokens of an issuer that answers over HTTP: who is let in, and what a made-up token costs."""

import base64
import hmac
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from mdmlib.clients.signed_http import SignedHttpClient
from mdmlib.errors import BadRequestError, ForbiddenError, UnavailableError
from mdmlib.services.access_tokens import MAX_TOKEN, AccessTokens
from tests.deployment import Clock
from tests.oidc_issuer import AUDIENCE, OidcIssuer
from tests.scep_client import rsa_key

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def issuer() -> Iterator[OidcIssuer]:
    with OidcIssuer.running() as issuer:
        yield issuer


class Door:
    """Verifies tokens of one issuer."""

    def __init__(self, issuer: OidcIssuer, clock: Clock) -> None:
        self.issuer, self.clock = issuer, clock
        client = SignedHttpClient(user_agent="test", timeout_seconds=5)
        self.tokens = AccessTokens(lambda: client, now=clock)

    def token(self, **options: Any) -> str:
        return self.issuer.token(at=self.clock().timestamp(), **options)

    def claims(self, token: str) -> Any:
        return self.tokens.verify(
            token, issuer=self.issuer.url, jwks_url=f"{self.issuer.url}/keys", audiences=["other", AUDIENCE]
        )

    def refusal(self, token: str) -> str:
        with pytest.raises(ForbiddenError) as refused:
            self.claims(token)
        assert token not in refused.value.message
        return refused.value.code


@pytest.fixture
def door(issuer: OidcIssuer, clock: Clock) -> Door:
    return Door(issuer, clock)


@pytest.mark.parametrize("key", ["rsa-1", "ec-1"])
def test_a_token_of_the_issuer_says_who_signed_in(door: Door, key: str) -> None:
    assert door.claims(door.token(key=key))["email"] == "ada@example.org"


def test_an_audience_may_be_one_of_several(door: Door) -> None:
    assert door.claims(door.token(aud=["somebody", AUDIENCE]))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"aud": "somebody"}, "token_refused"),
        ({"aud": None}, "token_refused"),
        ({"iss": "https://elsewhere.example.org"}, "token_refused"),
        ({"iss": None}, "token_refused"),
        ({"exp": None}, "token_refused"),
        ({"exp": "never"}, "token_malformed"),
        ({"exp": True}, "token_malformed"),
        ({"nbf": 4_000_000_000}, "token_expired"),
        ({"key": "unknown", "signing_key": rsa_key("forger"), "algorithm": "RS256"}, "token_key_unknown"),
        ({"signing_key": rsa_key("forger")}, "token_refused"),
        ({"key": "ec-1", "signing_key": rsa_key("issuer"), "algorithm": "RS256"}, "token_key_unknown"),
        ({"algorithm": "RS512"}, "token_algorithm"),
        ({"algorithm": "HS256", "signing_key": "secret" * 10}, "token_algorithm"),
    ],
)
def test_any_other_token_is_refused(door: Door, options: dict[str, Any], code: str) -> None:
    assert door.refusal(door.token(**options)) == code


def test_a_public_key_is_no_secret_to_sign_with(door: Door) -> None:
    pem = rsa_key("issuer").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "rsa-1"}).encode()).rstrip(b"=")
    signed = header + b"." + door.token().split(".")[1].encode()
    signature = base64.urlsafe_b64encode(hmac.digest(pem, signed, "sha256")).rstrip(b"=")

    assert door.refusal((signed + b"." + signature).decode()) == "token_algorithm"


def test_an_unsigned_token_is_refused(door: Door) -> None:
    header, claims, _ = door.token().split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": "rsa-1"}).encode()).decode().rstrip("=")

    assert door.refusal(f"{none}.{claims}.") == "token_algorithm"
    assert door.refusal(f"{header}.{claims}.") == "token_refused"


def test_a_token_is_over_a_minute_after_its_end(door: Door, clock: Clock) -> None:
    token = door.token()

    clock.advance(minutes=60, seconds=59)
    assert door.claims(token)
    clock.advance(seconds=1)
    assert door.refusal(token) == "token_expired"


def test_keys_are_kept_for_an_hour_and_new_ones_are_found(door: Door, issuer: OidcIssuer, clock: Clock) -> None:
    for _ in range(3):
        door.claims(door.token())
    assert issuer.asked == ["/keys"]

    issuer.keys["ec-2"] = ec.generate_private_key(ec.SECP256R1())
    assert door.refusal(door.token(key="ec-2")) == "token_key_unknown"
    clock.advance(seconds=61)
    assert door.claims(door.token(key="ec-2"))
    assert len(issuer.asked) == 2

    del issuer.keys["rsa-1"]
    clock.advance(minutes=61)
    token = door.token(key="rsa-1", signing_key=rsa_key("issuer"), algorithm="RS256")
    assert door.refusal(token) == "token_key_unknown"


def test_made_up_tokens_ask_the_issuer_once_a_minute(door: Door, issuer: OidcIssuer) -> None:
    for number in range(20):
        door.refusal(door.token(key=f"unknown-{number}", signing_key=rsa_key("forger"), algorithm="RS256"))

    assert len(issuer.asked) == 1


def test_keys_of_other_kinds_do_no_harm(door: Door, issuer: OidcIssuer) -> None:
    issuer.more_keys = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "symmetric"},
        {"kty": "RSA", "kid": "broken"},
        {"kty": "EC", "crv": "P-999", "kid": "odd", "x": "AA", "y": "AA"},
        {"kty": "RSA", "use": "enc", "kid": "rsa-1", "n": "AQAB", "e": "AQAB"},
        "no key",
        {},
    ]

    assert door.claims(door.token())


def test_an_issuer_that_is_down_is_no_fault_of_the_device(door: Door, issuer: OidcIssuer) -> None:
    issuer.is_down = True

    with pytest.raises(UnavailableError):
        door.claims(door.token())


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(st.binary(max_size=60), min_size=3, max_size=3).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    )
    | st.just("x" * (MAX_TOKEN + 1))
)
def test_noise_is_refused_and_nothing_else(token: str) -> None:
    def nobody() -> SignedHttpClient:
        raise AssertionError("asked for keys")

    with pytest.raises(ForbiddenError):
        AccessTokens(nobody, now=Clock(NOW)).verify(token, issuer="x", jwks_url="x", audiences=["x"])


@pytest.mark.parametrize("claims", ["[]", '"text"', "1", "{", "[" * 3000, '{"exp":1e999}', '{"exp":NaN}'])
def test_odd_claims_under_a_good_signature_are_refused(door: Door, claims: str) -> None:
    token = jwt.PyJWS().encode(
        claims.encode(), rsa_key("issuer"), algorithm="RS256", headers={"kid": "rsa-1", "typ": "JWT"}
    )

    with pytest.raises(ForbiddenError):
        door.claims(token)


# Discovery


def test_an_issuer_says_where_its_keys_are(door: Door, issuer: OidcIssuer) -> None:
    found = door.tokens.discover(issuer.url)

    assert (found.jwks_url, found.token_url) == (f"{issuer.url}/keys", f"{issuer.url}/token")


@pytest.mark.parametrize(
    "change", [{"issuer": "https://elsewhere.example.org"}, {"issuer": None}, {"jwks_uri": None}, {"jwks_uri": 5}]
)
def test_an_issuer_that_is_none_is_refused(door: Door, issuer: OidcIssuer, change: dict[str, Any]) -> None:
    issuer.metadata |= change

    with pytest.raises(BadRequestError) as refused:
        door.tokens.discover(issuer.url)
    assert (refused.value.code, refused.value.field) == ("issuer_unusable", "issuer")


def test_an_issuer_that_does_not_answer_is_refused(door: Door, issuer: OidcIssuer) -> None:
    for url in (f"{issuer.url}/nowhere", "http://127.0.0.1:9"):
        with pytest.raises(BadRequestError):
            door.tokens.discover(url)

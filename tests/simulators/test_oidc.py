"""The simulated OpenID Connect issuer, looked at by a library that others wrote."""

import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from local.ca import LocalAuthority
from local.processes import Program

REDIRECT = "apple-remotemanagement-user-login:/oauth2/redirection"
ADA = {"username": "ada@example.org", "password": "correct horse"}


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    directory = tmp_path_factory.mktemp("issuer")
    made = LocalAuthority.open(directory / "tls").server_certificate("127.0.0.1")
    arguments = ["--certificate", str(made.certificate), "--key", str(made.key)]
    arguments += ["--user", "ada@example.org=correct horse"]
    program = Program.start("oidc", "local.oidc", arguments, directory=directory)
    yield {**program.ready, "root": directory / "tls" / "root.pem"}
    program.stop()


@pytest.fixture
def client(issuer: Mapping[str, Any]) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(issuer["root"]))
    with httpx.Client(verify=context, trust_env=False) as client:
        yield client
        client.post(issuer["control"], json={"claims": {}, "algorithm": "RS256"})


def claims_of(token: str, issuer: Mapping[str, Any]) -> dict[str, Any]:
    metadata = httpx.get(f"{issuer['issuer']}/.well-known/openid-configuration", trust_env=False).json()
    assert metadata["issuer"] == issuer["issuer"]
    keys = jwt.PyJWKSet.from_dict(httpx.get(metadata["jwks_uri"], trust_env=False).json())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    decoded: dict[str, Any] = jwt.decode(
        token, key, algorithms=["RS256", "ES256"], audience="picomdm", issuer=issuer["issuer"]
    )
    return decoded


def sign_in(client: httpx.Client, issuer: Mapping[str, Any]) -> str:
    answer = client.post(issuer["sign_in"], data=ADA)
    assert answer.status_code == 308
    location = urlsplit(answer.headers["location"])
    assert (location.scheme, location.netloc) == ("apple-remotemanagement-user-login", "authentication-results")
    [token] = parse_qs(location.query)["access-token"]
    return token


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_who_signs_in_gets_a_token_that_says_who_it_is(
    client: httpx.Client, issuer: Mapping[str, Any], algorithm: str
) -> None:
    client.post(issuer["control"], json={"algorithm": algorithm})
    page = client.get(issuer["sign_in"], params={"user-identifier": 'ada"@example.org'})
    assert 'value="ada&quot;@example.org"' in page.text

    token = sign_in(client, issuer)
    assert jwt.get_unverified_header(token)["alg"] == algorithm
    assert claims_of(token, issuer)["email"] == "ada@example.org"


@pytest.mark.parametrize("form", [{}, ADA | {"password": "wrong horse"}, ADA | {"username": "bob@example.org"}])
def test_who_has_no_password_gets_nothing(
    client: httpx.Client, issuer: Mapping[str, Any], form: dict[str, str]
) -> None:
    assert client.post(issuer["sign_in"], data=form).status_code == 403


def test_tokens_claim_what_they_are_told_to(client: httpx.Client, issuer: Mapping[str, Any]) -> None:
    client.post(issuer["control"], json={"claims": {"email": None, "upn": "ada@corp.example", "exp": 1}})
    with pytest.raises(jwt.ExpiredSignatureError):
        claims_of(sign_in(client, issuer), issuer)
    client.post(issuer["control"], json={"claims": {"email": None, "upn": "ada@corp.example"}})
    claims = claims_of(sign_in(client, issuer), issuer)
    assert (claims.get("email"), claims["upn"]) == (None, "ada@corp.example")


def test_a_key_that_was_rotated_away_is_known_no_more(client: httpx.Client, issuer: Mapping[str, Any]) -> None:
    token = sign_in(client, issuer)
    client.post(issuer["control"], json={"rotate": True})
    with pytest.raises(KeyError):
        claims_of(token, issuer)


def authorize(client: httpx.Client, issuer: Mapping[str, Any], **changes: str) -> httpx.Response:
    asked = {"response_type": "code", "client_id": "devices", "redirect_uri": REDIRECT, "state": "s", "scope": "openid"}
    return client.get(issuer["sign_in"].replace("/sign-in", "/authorize"), params=asked | changes)


def test_a_code_is_good_for_one_token(client: httpx.Client, issuer: Mapping[str, Any]) -> None:
    assert authorize(client, issuer, login_hint="ada@example.org").status_code == 200
    answer = client.post(issuer["sign_in"].replace("/sign-in", "/authorize"), data=ADA | {"state": "s"})
    assert answer.status_code == 308
    assert answer.headers["location"].startswith(f"{REDIRECT}?code=")
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["state"] == ["s"]

    form = {
        "grant_type": "authorization_code",
        "code": query["code"][0],
        "redirect_uri": REDIRECT,
        "client_id": "devices",
    }
    url = issuer["sign_in"].replace("/sign-in", "/token")
    granted = client.post(url, data=form)
    assert granted.status_code == 200
    assert claims_of(granted.json()["access_token"], issuer)["email"] == "ada@example.org"
    assert client.post(url, data=form).json() == {"error": "invalid_grant"}
    refresh = {"grant_type": "refresh_token", "refresh_token": granted.json()["refresh_token"], "client_id": "devices"}
    assert claims_of(client.post(url, data=refresh).json()["access_token"], issuer)["email"] == "ada@example.org"
    assert client.post(url, data=refresh).status_code == 400


@pytest.mark.parametrize(
    "changes", [{"client_id": "x"}, {"redirect_uri": "https://x"}, {"response_type": "token"}, {"state": ""}]
)
def test_a_request_that_is_not_the_registered_clients_is_refused(
    client: httpx.Client, issuer: Mapping[str, Any], changes: dict[str, str]
) -> None:
    assert authorize(client, issuer, **changes).status_code == 400


def test_each_side_serves_only_its_own(client: httpx.Client, issuer: Mapping[str, Any]) -> None:
    assert client.get(issuer["sign_in"].replace("/sign-in", "/keys")).status_code == 404
    assert client.get(f"{issuer['issuer']}/sign-in").status_code == 404

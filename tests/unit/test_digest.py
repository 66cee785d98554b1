"""Digest authentication of network users."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.device.network_login import respond
from mdmlib.apple.digest import DigestResponse, challenge, password_digest
from mdmlib.errors import MalformedBodyError

# Apple's page shows this response to its challenge.
APPLES = (
    'Digest username="net1",realm="fusion.home",nonce="8BrAkk4GZgrG2XaDLMSSSo89VenjV5E8Se73z98RvSW7Rs", uri="/",'
    'response="84db40bbaf5e0d49cabb0ef7d8cac369"'
)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def responded(method: str, password: str = "secret", *, user: str = "anna", qop: str = "") -> DigestResponse:
    ha1, ha2 = md5(f"{user}:PicoMDM:{password}"), md5(f"{method}:/")
    middle = "00000001:c:auth:" if qop else ""
    more = ', qop=auth, nc=00000001, cnonce="c"' if qop else ""
    response = md5(f"{ha1}:N:{middle}{ha2}")
    return DigestResponse.parse(
        f'Digest username="{user}", realm="PicoMDM", nonce="N", uri="/", response="{response}"{more}'
    )


def test_a_challenge_has_the_form_of_apples() -> None:
    assert challenge(realm="fusion.home", nonce="N") == 'Digest nonce="N",realm="fusion.home"'


def test_apples_response_is_read() -> None:
    response = DigestResponse.parse(APPLES)

    assert (response.user, response.realm, response.uri) == ("net1", "fusion.home", "/")
    assert response.nonce == "8BrAkk4GZgrG2XaDLMSSSo89VenjV5E8Se73z98RvSW7Rs"
    assert response.response == "84db40bbaf5e0d49cabb0ef7d8cac369"
    assert "84db40" not in repr(response)


@pytest.mark.parametrize("method", ["PUT", "POST", "GET"])
@pytest.mark.parametrize("qop", ["", "auth"])
def test_who_has_the_password_answers_the_challenge(method: str, qop: str) -> None:
    response = responded(method, qop=qop)

    assert response.answers(password_digest("anna", "PicoMDM", "secret"))
    assert not response.answers(password_digest("anna", "PicoMDM", "Secret"))
    assert not response.answers(password_digest("anna", "Elsewhere", "secret"))


@pytest.mark.parametrize("password", ["secret", "пароль 密码"])
def test_a_simulated_mac_answers_the_challenge(password: str) -> None:
    text = respond(challenge(realm="PicoMDM", nonce="N"), user="anna", password=password, client_nonce="c")
    response = DigestResponse.parse(text)

    assert (response.user, response.realm, response.nonce) == ("anna", "PicoMDM", "N")
    assert response.answers(password_digest("anna", "PicoMDM", password))
    assert not response.answers(password_digest("anna", "PicoMDM", password + "!"))


def test_names_and_passwords_of_any_script_are_taken() -> None:
    response = responded("PUT", "пароль 密码", user="ünal")

    assert response.answers(password_digest("ünal", "PicoMDM", "пароль 密码"))


def test_quoted_characters_and_the_schemes_case_do_not_matter() -> None:
    response = DigestResponse.parse(r'DIGEST username="a\"b\\c",realm=r,nonce="n,=",uri="/",RESPONSE="AB"')

    assert (response.user, response.nonce, response.response) == ('a"b\\c', "n,=", "ab")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Digest",
        "Digest ",
        "Basic YTpi",
        APPLES.replace('username="net1",', ""),
        APPLES.replace('response="84db40bbaf5e0d49cabb0ef7d8cac369"', ""),
        APPLES + ",,",
        APPLES + ' more="unterminated',
        "Digest " + ",".join(f"a{'b' * number}=1" for number in range(30)),
    ],
)
def test_what_is_no_response_is_refused(text: str) -> None:
    with pytest.raises(MalformedBodyError):
        DigestResponse.parse(text)


@given(st.text() | st.text(alphabet='Digest ="\\,aze').map(lambda text: "Digest " + text))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        response = DigestResponse.parse(text)
    except MalformedBodyError:
        return
    assert not response.answers(password_digest("anna", "PicoMDM", "secret"))

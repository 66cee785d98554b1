import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.ade.portal import new_token, token_file
from mdmlib.apple.ade_token import AdeToken, open_token_file
from mdmlib.apple.cms_envelope import AES_256, seal
from mdmlib.errors import BadRequestError, MalformedBodyError
from tests.ade_token import ServerKey

KEY = ServerKey.new()
# Of the same issuer and serial number, as all are that a server makes for itself.
OTHER = ServerKey.new()
TOKEN = {
    "consumer_key": "CK_1",
    "consumer_secret": "CS_1",
    "access_token": "AT_1",
    "access_secret": "AS_1",
    "access_token_expiry": "2027-11-29T12:00:00Z",
}
FILE = token_file(new_token(days=365), KEY.pem)


def opened(file: bytes) -> AdeToken:
    return open_token_file(file, certificate=KEY.certificate, private_key=KEY.private_key)


def sealed(content: bytes) -> bytes:
    return seal(content, recipient=KEY.certificate, cipher=AES_256)


def message(document: object) -> bytes:
    return b"-----BEGIN MESSAGE-----\n" + json.dumps(document).encode() + b"\n-----END MESSAGE-----\n"


def test_the_portals_file_is_read() -> None:
    token = opened(FILE)
    assert token.consumer_key.startswith("CK_")
    assert AdeToken.from_document(token.document()) == token


def test_the_envelope_alone_is_read_too() -> None:
    body = FILE.partition(b"\r\n\r\n")[2]
    assert opened(base64.b64decode(body)) == opened(FILE)


def test_a_file_with_unix_line_ends_is_read() -> None:
    assert opened(FILE.replace(b"\r\n", b"\n")) == opened(FILE)


def test_a_token_for_another_key_is_told_as_such() -> None:
    with pytest.raises(BadRequestError) as refused:
        opened(token_file(new_token(days=365), OTHER.pem))
    assert refused.value.code == "token_for_another_key"


@pytest.mark.parametrize("file", [b"", b"nonsense", b"0", b"0\x80", FILE[:300], b"x" * 100_000])
def test_what_is_no_file_of_the_portal_is_malformed(file: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        opened(file)


@pytest.mark.parametrize("content", [message([]), b"-----BEGIN MESSAGE-----\n{\n-----END MESSAGE-----"])
def test_an_envelope_without_a_token_is_malformed_and_shows_nothing(content: bytes) -> None:
    with pytest.raises(MalformedBodyError) as refused:
        opened(sealed(content))
    assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", TOKEN)
@pytest.mark.parametrize("value", [None, "", 7])
def test_every_part_of_a_token_is_needed(name: str, value: Any) -> None:
    with pytest.raises(MalformedBodyError) as refused:
        opened(sealed(message(TOKEN | {name: value})))
    assert refused.value.field == name


@given(st.binary(max_size=400))
def test_whatever_is_brought_makes_a_token_or_is_refused(file: bytes) -> None:
    with pytest.raises(BadRequestError):
        opened(file)

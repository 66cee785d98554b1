"""Certificate headers: every proxy's form, and nothing that could be somebody else's certificate."""

from base64 import b64encode
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.errors import IdentityError
from mdmlib.services.certificate_header import decode_certificate_header, decode_pem


def certificate(name: str) -> x509.Certificate:
    return new_certificate_authority(name, now=datetime(2026, 11, 20, tzinfo=UTC)).certificate


LEAF, ISSUER = certificate("device"), certificate("issuer")
DER = LEAF.public_bytes(Encoding.DER)
PEM = LEAF.public_bytes(Encoding.PEM).decode()
CHAIN = PEM + ISSUER.public_bytes(Encoding.PEM).decode()
BASE64 = b64encode(DER).decode()


def alb(pem: str) -> str:
    """Encode as AWS' load balancer does: in a URL's way, but with + = and / as they are."""
    return quote(pem, safe="+=/")


@pytest.mark.parametrize(
    "value",
    [
        f":{BASE64}:",
        f"  :{BASE64}: ",
        quote(PEM, safe=""),
        quote(PEM),
        quote_plus(PEM),
        alb(PEM),
        alb(CHAIN),
        quote(CHAIN, safe=""),
        PEM.replace("\n", ""),
        PEM.replace("\n", "\n\t"),
        BASE64,
        quote(BASE64, safe=""),
    ],
    ids=[
        "RFC 9440",
        "RFC 9440 with blanks",
        "nginx",
        "with slashes",
        "blanks as plus",
        "ALB",
        "ALB's chain",
        "a chain",
        "on one line",
        "folded",
        "Traefik",
        "Traefik, escaped",
    ],
)
def test_every_form_tells_of_the_same_certificate(value: str) -> None:
    assert "+" in BASE64, "the sample holds what load balancers forget to encode"
    assert decode_certificate_header(value) == DER


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "::",
        f":{BASE64}",
        f":{BASE64}:;a=1",
        f":{BASE64}:, :{BASE64}:",
        f"{alb(PEM)},{alb(PEM)}",
        f"{BASE64},{BASE64}",
        "-----BEGIN CERTIFICATE----------END CERTIFICATE-----",
        "not base64!",
        "%FF%FE",
        "(null)",
    ],
)
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(IdentityError):
        decode_certificate_header(value)


def test_a_pem_is_read_without_decoding_it_as_a_url() -> None:
    assert decode_pem(PEM) == decode_pem(CHAIN) == DER


@given(st.text(max_size=200) | st.from_regex(r":?[A-Za-z0-9+/%=]{0,80}:?", fullmatch=True))
def test_what_somebody_made_up_is_refused_or_some_bytes(value: str) -> None:
    with suppress(IdentityError):
        assert decode_certificate_header(value)

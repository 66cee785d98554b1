"""Bundles of CA certificates, as administrators have them."""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.authority_bundle import MAX_BYTES, decode_authority_bundle
from mdmlib.errors import BadRequestError
from tests.genuine_devices import Authority

ROOT = Authority.named("Corporate Root")
INTERMEDIATE = Authority.named("Corporate Devices", above=ROOT)
SECOND = Authority.named("Corporate Phones", above=INTERMEDIATE)
STRANGER = Authority.named("Somebody Else")
NAMESAKE = Authority.named("Corporate Laptops", above=Authority(ROOT.certificate, STRANGER.key))
"""Names the root as its issuer, but another key signed it."""
LEAF = ROOT.device()


@pytest.mark.parametrize(
    "authorities",
    [
        [ROOT],
        [INTERMEDIATE],
        [ROOT, INTERMEDIATE, SECOND],
        [SECOND, INTERMEDIATE, ROOT],
        [SECOND, ROOT],
        [STRANGER, ROOT],
    ],
    ids=["a root", "an intermediate", "a chain", "upside down", "with a gap", "two that do not know each other"],
)
def test_a_bundle_is_read_in_its_order(authorities: list[Authority]) -> None:
    pem = b"# made by hand\n" + b"\n".join(authority.pem for authority in authorities)

    assert decode_authority_bundle(pem) == [authority.certificate for authority in authorities]


def test_one_certificate_may_be_in_der() -> None:
    assert decode_authority_bundle(ROOT.certificate.public_bytes(Encoding.DER)) == [ROOT.certificate]


def test_a_certificate_that_is_there_twice_counts_once() -> None:
    assert decode_authority_bundle(ROOT.pem + INTERMEDIATE.pem + ROOT.pem) == [
        ROOT.certificate,
        INTERMEDIATE.certificate,
    ]


KEY = ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("bundle", "code"),
    [
        (b"", "certificate_unreadable"),
        (b"no certificate", "certificate_unreadable"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate_unreadable"),
        (b"-----BEGIN NOTHING-----\n", "certificate_unreadable"),
        (ROOT.pem + KEY, "private_key"),
        (KEY, "private_key"),
        (LEAF.certificate.public_bytes(Encoding.PEM), "certificate_not_authority"),
        (ROOT.pem + LEAF.certificate.public_bytes(Encoding.PEM), "certificate_not_authority"),
        (ROOT.pem + NAMESAKE.pem, "chain_broken"),
        (ROOT.pem + b" " * MAX_BYTES, "bundle_too_large"),
        (
            b"".join(Authority.named(f"CA {number}", above=ROOT, key=ROOT.key).pem for number in range(17)),
            "bundle_too_large",
        ),
    ],
    ids=[
        "empty",
        "nothing",
        "no certificate inside",
        "another PEM",
        "with a key",
        "only a key",
        "a device's",
        "with a device's",
        "a chain that is none",
        "large",
        "many",
    ],
)
def test_what_is_no_bundle_is_refused(bundle: bytes, code: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        decode_authority_bundle(bundle)

    assert refused.value.code == code


@given(st.binary(max_size=400))
def test_what_somebody_made_up_is_refused(noise: bytes) -> None:
    with pytest.raises(BadRequestError):
        decode_authority_bundle(noise)

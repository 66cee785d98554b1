"""What a profile of ADE may say."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from local.ade.profiles import check_profile
from mdmlib.apple.ade_profile import checked_profile, complete_profile
from mdmlib.apple.ade_profile_keys import CERTIFICATES, FLAGS, KEYS, TEXTS
from mdmlib.apple.skip_items import skip_items
from mdmlib.errors import BadRequestError
from tests.ade_token import ServerKey
from tools.skip_items import LIST, list_text

CERTIFICATE = ServerKey.new().certificate
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
DER = b64encode(CERTIFICATE.public_bytes(Encoding.DER)).decode()
SCHEMA = Path(__file__).parents[3] / "shared" / "apple-device-management"


def complete(said: dict[str, Any]) -> dict[str, Any]:
    return complete_profile(checked_profile(said), name="pupils", url="https://mdm.example.org", org_magic="1")


def test_nothing_said_is_a_profile_that_apple_takes() -> None:
    check_profile(complete({}))


def test_false_is_said_and_nothing_is_left_out() -> None:
    profile = complete(dict.fromkeys(FLAGS, False) | {"is_mdm_removable": True, "department": "", "region": None})

    assert {name for name in FLAGS if profile[name] is False} == FLAGS - {"is_mdm_removable"}
    assert not {"department", "region"} & profile.keys()
    check_profile(profile)


def test_a_certificate_may_be_pem_or_der() -> None:
    lines = "\n".join(DER[start : start + 60] for start in range(0, len(DER), 60))

    assert complete({"anchor_certs": [PEM, DER, lines]})["anchor_certs"] == [DER] * 3


def test_each_pane_is_skipped_once() -> None:
    said = checked_profile({"skip_setup_items": ["Siri", "AppleID", "Siri"]})

    assert said == {"skip_setup_items": ["Siri", "AppleID"]}
    assert checked_profile({"skip_setup_items": ["Hologram"]}, unknown_skip_items=True)


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ("Syri", "do you mean Siri"),
        ("appleid", "do you mean AppleID"),
        ("AgeAssurance", "no device knows"),
        ("", "a list of"),
    ],
)
def test_a_pane_that_there_is_not_is_refused_with_a_hint(item: str, hint: str) -> None:
    with pytest.raises(BadRequestError, match=hint) as refused:
        checked_profile({"skip_setup_items": [item]})
    assert refused.value.field == "skip_setup_items"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("devices", ["C02X"]),
        ("surprise", 1),
        ("is_supervised", "true"),
        ("department", "x" * 126),
        ("department", 1),
        ("url", "http://mdm.example.org"),
        ("url", "https://"),
        ("url", "https://[mdm"),
        ("configuration_web_url", "mdm.example.org"),
        ("language", "english"),
        ("language", "EN"),
        ("region", "us"),
        ("support_email_address", "nobody"),
        ("anchor_certs", PEM),
        ("anchor_certs", ["nonsense"]),
        ("anchor_certs", [PEM[:200]]),
        ("supervising_host_certs", ["x" * 20_001]),
        ("skip_setup_items", "Siri"),
        ("skip_setup_items", [1]),
    ],
)
def test_what_apple_would_refuse_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(BadRequestError) as refused:
        checked_profile({name: value})
    assert refused.value.field == name


def test_a_profile_that_stays_needs_supervision() -> None:
    with pytest.raises(BadRequestError) as refused:
        complete({"is_mdm_removable": False, "is_supervised": False})
    assert refused.value.field == "is_mdm_removable"
    check_profile(complete({"is_mdm_removable": False}))


values = st.none() | st.booleans() | st.text(max_size=5) | st.just(PEM) | st.lists(st.sampled_from(["Siri", PEM, ""]))


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), values, max_size=6))
def test_whatever_is_said_apple_takes_or_we_refuse(said: dict[str, Any]) -> None:
    try:
        profile = complete(said)
    except BadRequestError:
        return
    check_profile(profile)
    assert all(isinstance(profile[name], bool) for name in FLAGS & profile.keys())
    assert profile.keys() <= FLAGS | TEXTS.keys() | CERTIFICATES | {"skip_setup_items"}


@pytest.mark.skipif(not SCHEMA.exists(), reason="needs a checkout of Apple's schema")
def test_the_list_of_panes_is_apples() -> None:
    assert LIST.read_text() == list_text(SCHEMA)


def test_panes_of_newer_releases_are_known() -> None:
    assert skip_items()["LiquidGlass"] == {"iOS": "27.0", "macOS": "27.0"}
    assert "" not in skip_items()

"""Variables in profiles: what becomes of them, and what stays as it was."""

import plistlib
from typing import Any

import pytest

from mdmlib.apple.profile_variables import filled, unknown_variables, variables_of
from mdmlib.errors import ConflictError


def profile(text: str, fmt: Any = plistlib.FMT_XML) -> bytes:
    return plistlib.dumps({"PayloadUUID": "U1", "PayloadContent": [{"SSID": text}]}, fmt=fmt)


@pytest.mark.parametrize("fmt", [plistlib.FMT_XML, plistlib.FMT_BINARY])
@pytest.mark.parametrize("text", ["{{serial_number}}", "a {{ serial_number }} b", "ä {{serial_number}}"])
def test_variables_are_found_and_filled(text: str, fmt: Any) -> None:
    template = profile(text, fmt)

    assert variables_of(template) == {"serial_number"}
    document = plistlib.loads(filled(template, {"serial_number": "<C02&>"}.get))
    assert document["PayloadContent"][0]["SSID"] == text.replace(text[text.index("{") : text.index("}") + 2], "<C02&>")


def test_the_uuid_tells_what_is_in_it() -> None:
    template = profile("{{serial_number}}")
    uuids = [plistlib.loads(filled(template, {"serial_number": value}.get))["PayloadUUID"] for value in ("A", "B", "A")]

    assert uuids[0] == uuids[2] != uuids[1]
    assert "U1" not in uuids


@pytest.mark.parametrize("text", ["plain", "{serial_number}", "{{ Serial }}", "{{a.b.c}}", "{{}}"])
def test_a_profile_without_variables_stays_byte_for_byte(text: str) -> None:
    template = b"  " + profile(text)

    assert variables_of(template) == set()
    assert filled(template, lambda _name: None) is template


def test_a_signed_profile_is_never_altered() -> None:
    signed = b"\x30\x82{{serial_number}}"

    assert filled(signed, {"serial_number": "C02"}.get) is signed


def test_what_has_no_value_is_named() -> None:
    with pytest.raises(ConflictError, match=r"no value for {{imei}}, {{values\.room}}\."):
        filled(profile("{{values.room}} {{imei}} {{model}}"), {"model": "Mac", "imei": ""}.get)
    assert unknown_variables(profile("{{values.room}} {{phone}} {{model}}")) == ["phone"]

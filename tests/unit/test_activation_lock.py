import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.activation_lock import BypassCode
from mdmlib.errors import BadRequestError

VECTORS = [
    (
        "00000000000000000000000000000000",
        "00000-00000-0000-0000-0000-0000",
        "deab860d28deb5b7121d6d8fcf0f78e1471756d1b2c566c03277c23ea8930b4f",
    ),
    (
        "1ea841db5edfafe6075b5ae0d845d254",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4",
        "6ab40d5eabe7218ec04182f461005600c7e3426bddd82cdb405bde9a1e0014b5",
    ),
    (
        "60110f362c6f7a90dd1ef2845f32482f",
        "D08HY-EJDEX-X91Q-8YYA-25YD-K857",
        "4d19162b50dd61536d72c0662dce9d533a1f46137d6db97501ceb171fcbae7dd",
    ),
]
"""Published with NanoDEP."""


@pytest.mark.parametrize(("raw", "text", "escrow_key"), VECTORS)
def test_a_code_is_written_read_and_hashed_as_everywhere(raw: str, text: str, escrow_key: str) -> None:
    code = BypassCode(bytes.fromhex(raw))

    assert (code.text, code.escrow_key) == (text, escrow_key)
    assert BypassCode.from_text(text) == BypassCode.from_text(text.lower().replace("-", " ")) == code


@given(st.binary(min_size=16, max_size=16))
def test_what_is_written_is_read(raw: bytes) -> None:
    assert BypassCode.from_text(BypassCode(raw).text).raw == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA",
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA44",
        "OUM43-PUYVY-QYD1-UVCC-HEHJ-FKA4",
        # The last character is three bits.
        "3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA8",
    ],
)
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        BypassCode.from_text(text)
    with pytest.raises(BadRequestError):
        BypassCode(text.encode()[:15])


def test_a_code_is_not_shown() -> None:
    assert repr(BypassCode(bytes(16))) == "BypassCode()"

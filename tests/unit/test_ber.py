import contextlib

import pytest
from asn1crypto import core
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple import ber
from mdmlib.errors import MalformedBodyError
from tests.scep_client import indefinite

PRIMITIVES = st.one_of(
    st.integers(min_value=-(2**80), max_value=2**80).map(core.Integer),
    st.binary(max_size=300).map(core.OctetString),
    st.text(alphabet="abc 123", max_size=20).map(core.PrintableString),
    st.just(core.Null()),
).map(lambda value: bytes(value.dump()))


def _sequence(children: list[bytes]) -> bytes:
    return bytes(core.Sequence(contents=b"".join(children)).dump())


VALUES = st.recursive(PRIMITIVES, lambda inner: st.lists(inner, max_size=4).map(_sequence), max_leaves=20)


@given(VALUES)
def test_what_der_says_is_read_whatever_the_lengths_are(der: bytes) -> None:
    element = ber.decode(der)

    assert element.encoded == der
    assert element.to_der() == der
    assert ber.decode(indefinite(der, depth=6)).to_der() == der


@given(st.binary(max_size=200) | VALUES.flatmap(lambda der: st.just(der[:-1])))
def test_what_is_no_ber_is_malformed_and_nothing_else(data: bytes) -> None:
    def walk(element: ber.Element) -> None:
        if element.tag & 0x20:
            for child in element.children():
                walk(child)

    with contextlib.suppress(MalformedBodyError):
        walk(ber.decode(data))
        ber.decode(data).to_der()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x80",
        b"\x30\x80\x00",
        b"\x04\x80\x00\x00",
        b"\x30\x85\x01\x00\x00\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x1f\x81\x01\x00",
        b"\x05\x00\x00",
        b"\x30\x80" * 5_000,
        b"\x24\x80" * 5_000,
    ],
)
def test_an_encoding_that_ends_early_late_or_never_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        ber.decode(data)


def test_a_string_nested_too_deep_is_malformed() -> None:
    string = b"\x04\x01x"
    for _ in range(40):
        string = ber.der(0x24, string)

    with pytest.raises(MalformedBodyError):
        ber.decode(string).octets()


def test_a_value_nested_too_deep_has_no_der() -> None:
    value = b"\x05\x00"
    for _ in range(5_000):
        value = ber.der(ber.SEQUENCE, value)

    with pytest.raises(MalformedBodyError):
        ber.decode(value).to_der()


@given(st.integers(min_value=-(2**200), max_value=2**200))
def test_integers_are_written_as_der_has_them(value: int) -> None:
    assert ber.der_integer(value) == core.Integer(value).dump()
    assert ber.decode(ber.der_integer(value)).integer() == value


@pytest.mark.parametrize("oid", ["1.2.840.113549.1.7.2", "2.16.840.1.113733.1.9.7", "2.5.29.37", "0.9.2342.19200300"])
def test_object_identifiers_are_written_as_der_has_them(oid: str) -> None:
    assert ber.der_oid(oid) == core.ObjectIdentifier(oid).dump()


@given(st.binary(max_size=70_000))
def test_lengths_are_written_as_der_has_them(content: bytes) -> None:
    assert ber.der(ber.OCTET_STRING, content) == core.OctetString(content).dump()


def test_asking_for_another_form_than_there_is_is_malformed() -> None:
    with pytest.raises(MalformedBodyError):
        ber.decode(b"\x04\x01x").children()
    with pytest.raises(MalformedBodyError):
        ber.decode(b"\x04\x01x").integer()
    with pytest.raises(MalformedBodyError):
        ber.decode(b"\x02\x00").integer()
    with pytest.raises(MalformedBodyError):
        ber.decode(b"\x30\x00").only_child()
    with pytest.raises(MalformedBodyError):
        ber.decode(b"\x24\x02\x05\x00").octets()

"""Property lists in XML, and what both forms have in common."""

import plistlib
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple import plist
from mdmlib.apple.plist_limits import MAX_DEPTH, MAX_VALUES
from mdmlib.errors import BodyTooLargeError, MalformedBodyError
from tests.unit.plists import DOCUMENTS, message, xml

APPLE_DOCTYPE = '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">'


def refused(body: bytes) -> str:
    with pytest.raises(MalformedBodyError) as error:
        plist.loads(body)
    return error.value.message


@given(DOCUMENTS)
def test_what_is_written_is_read_back(document: dict[str, Any]) -> None:
    assert plist.loads(plist.dumps(document)) == document


@given(DOCUMENTS)
def test_what_another_writer_writes_is_read_as_its_reader_reads_it(document: dict[str, Any]) -> None:
    naive = _without_zones(document)

    for form in (plistlib.FMT_XML, plistlib.FMT_BINARY):
        body = plistlib.dumps(naive, fmt=form)
        assert _without_zones(plist.loads(body)) == plistlib.loads(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_plist_or_refused(body: bytes) -> None:
    _read_or_refuse(body)


@given(st.data())
def test_a_damaged_xml_plist_is_a_plist_or_refused(data: st.DataObject) -> None:
    body = bytearray(message("Authenticate"))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position : position + data.draw(st.integers(0, 12))] = data.draw(
            st.sampled_from([b"", b"<", b"</dict>", b"<dict>", b"<array>", b"&amp;", b"&x;", b"<key>", b"\xff", b"\0"])
        )

    _read_or_refuse(bytes(body))


def test_a_message_of_a_device_is_read(any_message: bytes) -> None:
    assert plist.loads(any_message) == plistlib.loads(any_message)


def test_every_type_is_read() -> None:
    document = plist.loads(
        xml(
            "<dict>"
            "<key>text</key><string>a &lt;b&gt; &#65;<![CDATA[<c>]]></string>"
            "<key>data</key><data>\n\tAAEC\n\t/w==\n</data>"
            "<key>integer</key><integer> -3 </integer>"
            "<key>hexadecimal</key><integer>0xFf</integer>"
            "<key>real</key><real>1.5e3</real>"
            "<key>yes</key><true/><key>no</key><false></false>"
            "<key>date</key><date>2026-11-20T12:00:00Z</date>"
            "<key>array</key><array><string/><array/><dict/></array>"
            "</dict>"
        )
    )

    assert document == {
        "text": "a <b> A<c>",
        "data": b"\0\1\2\xff",
        "integer": -3,
        "hexadecimal": 255,
        "real": 1500.0,
        "yes": True,
        "no": False,
        "date": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "array": ["", [], {}],
    }


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"\n  \t", b"\xef\xbb\xbf\r\n"])
def test_a_byte_order_mark_and_space_in_front_are_skipped(prefix: bytes) -> None:
    assert plist.loads(prefix + message("CheckOut"))["MessageType"] == "CheckOut"


def test_comments_and_instructions_are_skipped() -> None:
    body = xml("<!-- a --><dict><!-- b --><key>a<!-- c -->b</key><?d?><string>e<!-- f -->g</string></dict>")

    assert plist.loads(body) == {"ab": "eg"}


def test_a_key_that_stands_twice_has_its_last_value() -> None:
    assert plist.loads(xml("<dict><key>a</key><string>1</string><key>a</key><string>2</string></dict>")) == {"a": "2"}


def test_long_texts_arrive_whole() -> None:
    text = "Grüße, " * 50_000

    assert plist.loads(xml(f"<dict><key>a</key><string>{text}</string></dict>")) == {"a": text}


@pytest.mark.parametrize(
    "root",
    [
        "<array/>",
        "<string>a</string>",
        "<integer>1</integer>",
        "<true/>",
        "<data/>",
        "<date>2026-11-20T12:00:00Z</date>",
    ],
)
def test_a_root_that_is_no_dictionary_is_refused(root: str) -> None:
    assert "dictionary" in refused(xml(root))


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<dict/><dict/>",
        "text",
        "text<dict/>",
        "<dict>text</dict>",
        "<dict><key>a</key>text<string/></dict>",
        "<dict><key>a</key></dict>",
        "<dict><key>a</key><key>b</key><string/></dict>",
        "<dict><string/></dict>",
        "<dict><array/></dict>",
        "<dict><key>a</key><array><key>b</key></array></dict>",
        "<key>a</key>",
        "<dict><key>a<b/></key><string/></dict>",
        "<dict><key>a</key><string><string/></string></dict>",
        "<dict><key>a</key><true>yes</true></dict>",
        "<dict><key>a</key><unknown/></dict>",
        "<dict><key>a</key><plist><string/></plist></dict>",
        "<DICT/>",
        "<dict>",
    ],
)
def test_elements_out_of_place_are_refused(inner: str) -> None:
    refused(xml(inner))


@pytest.mark.parametrize("document", [b"", b" ", b"<", b"<dict/>", b"<html/>", b"{}", b"{ a = b; }", b"\0", b"<?xml"])
def test_what_is_no_plist_is_refused(document: bytes) -> None:
    refused(document)


@pytest.mark.parametrize(
    "value",
    [
        "<integer/>",
        "<integer>1.0</integer>",
        "<integer>1_000</integer>",
        "<integer>\u0661</integer>",
        "<integer>18446744073709551616</integer>",
        "<integer>-9223372036854775809</integer>",
        "<integer>0x10000000000000000</integer>",
        "<real/>",
        "<real>1_0</real>",
        "<real>\u0661</real>",
        "<real>much</real>",
        "<date/>",
        "<date>2026-11-20</date>",
        "<date>2026-02-30T00:00:00Z</date>",
        "<date>2026-11-20T12:00:00+01:00</date>",
        "<data>A</data>",
        "<data>A*AA</data>",
        "<data>\u00e4</data>",
    ],
)
def test_values_that_cannot_be_read_are_refused(value: str) -> None:
    refused(xml(f"<dict><key>a</key>{value}</dict>"))


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", "0xffffffffffffffff"])
def test_integers_have_64_bits(number: str) -> None:
    assert plist.loads(xml(f"<dict><key>a</key><integer>{number}</integer></dict>")) == {"a": int(number, 0)}


@pytest.mark.parametrize("digits", ["9", "0x9"])
def test_an_integer_of_a_million_digits_is_refused_at_once(digits: str) -> None:
    started = time.process_time()

    refused(xml(f"<dict><key>a</key><integer>{digits}{'9' * 1_000_000}</integer></dict>"))

    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "document_type",
    [
        '<!DOCTYPE plist [<!ENTITY a "b">]>',
        '<!DOCTYPE plist [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE plist [<!ENTITY % a SYSTEM "http://127.0.0.1/"> %a;]>',
        '<!DOCTYPE plist [<!ATTLIST dict a CDATA "b">]>',
        '<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://127.0.0.1/" [<!ENTITY a "b">]>',
    ],
)
def test_declarations_are_refused_whether_used_or_not(document_type: str) -> None:
    assert "not allowed" in refused(document_type.encode() + xml("<dict/>", head=""))


def test_entities_that_expand_into_each_other_are_refused_before_they_expand() -> None:
    entities = '<!ENTITY e0 "ha">' + "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    body = f"<!DOCTYPE plist [{entities}]><plist><dict><key>a</key><string>&e11;</string></dict></plist>"
    started = time.process_time()

    refused(body.encode())

    assert time.process_time() - started < 1


def test_an_undefined_entity_is_refused_and_not_dropped() -> None:
    body = xml("<dict><key>UDID</key><string>a&other;b</string></dict>", head=APPLE_DOCTYPE)

    assert "Entities" in refused(body)


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16", "utf-7", "nonsense", "idna"])
def test_encodings_other_than_utf_8_are_refused(encoding: str) -> None:
    assert "UTF-8" in refused(xml("<dict/>", head=f'<?xml version="1.0" encoding="{encoding}"?>'))


def test_a_plist_in_utf_16_is_refused() -> None:
    refused('<?xml version="1.0" encoding="UTF-16"?><plist><dict/></plist>'.encode("utf-16"))


@pytest.mark.parametrize("text", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\x0b", b"&#0;", b"&#xd800;"])
def test_text_that_is_no_text_is_refused(text: bytes) -> None:
    refused(xml("<dict><key>a</key><string>@</string></dict>").replace(b"@", text))


def test_nesting_has_a_limit() -> None:
    deepest = "<array>" * (MAX_DEPTH - 1) + "</array>" * (MAX_DEPTH - 1)
    deeper = "<array>" * MAX_DEPTH + "</array>" * MAX_DEPTH

    assert plist.loads(xml(f"<dict><key>a</key>{deepest}</dict>"))
    assert "deep" in refused(xml(f"<dict><key>a</key>{deeper}</dict>"))
    assert "deep" in refused(xml("<dict><key>a</key>" + "<dict><key>a</key>" * 200_000))


def test_elements_of_any_depth_are_refused() -> None:
    refused(b"<plist>" * 600_000)
    refused(b"<a>" * 1_500_000)


def test_the_number_of_values_has_a_limit() -> None:
    body = xml("<dict><key>a</key><array>" + "<true/>" * MAX_VALUES + "</array></dict>")
    started = time.process_time()

    assert "values" in refused(body)
    assert time.process_time() - started < 5


def test_a_body_above_the_limit_is_too_large() -> None:
    with pytest.raises(BodyTooLargeError):
        plist.loads(b" " * (plist.MAX_BYTES + 1))


def test_a_refusal_says_where_and_quotes_nothing() -> None:
    reasons = [
        refused(xml("<dict>\n<key>PIN</key>\n<integer>secret</integer></dict>")),
        refused(xml("<dict>\n<key>PIN</key>\n<real>secret</real></dict>")),
        refused(xml("<dict>\n<key>PIN</key>\n<data>secret!</data></dict>")),
        refused(xml("<dict>\n<key>PIN</key>\n<secret/></dict>")),
        refused(xml("<dict>\n<key>PIN</key>\n<string>secret")),
    ]

    for reason in reasons:
        assert "line 3" in reason
        assert "secret" not in reason


def test_keys_are_written_in_their_order() -> None:
    assert list(plist.loads(plist.dumps({"b": 1, "a": 2}))) == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "error"), [(None, TypeError), (1 << 64, OverflowError), ("\0", ValueError), ("\ud800", ValueError)]
)
def test_what_a_plist_cannot_hold_is_not_written(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        plist.dumps({"a": value})


def test_reading_a_small_message_takes_a_fraction_of_a_millisecond() -> None:
    body = message("Acknowledged")
    best = min(_cpu_seconds(body) for _ in range(5))

    # About 0.013 ms on a quiet machine; the bound is what a connect can afford.
    assert best < 0.0001


def _cpu_seconds(body: bytes, repetitions: int = 200) -> float:
    started = time.process_time()
    for _ in range(repetitions):
        plist.loads(body)
    return (time.process_time() - started) / repetitions


def _read_or_refuse(body: bytes) -> None:
    try:
        document = plist.loads(body)
    except MalformedBodyError:
        return
    assert isinstance(document, dict)


def _without_zones(value: Any) -> Any:
    """plistlib's dates are naive."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, dict):
        return {key: _without_zones(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_zones(item) for item in value]
    return value

"""The admin edge without AWS: bodies, fields, and who is spoken to."""

import json
from base64 import b64encode
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.errors import (
    BadRequestError,
    BodyTooLargeError,
    ConflictError,
    ForbiddenError,
    MalformedBodyError,
    NotFoundError,
    PicoMDMError,
    UnavailableError,
)
from mdmlib.http.admin_edge import AdminRequest, Dialect, decode, dialect_of, go_json, refusal
from mdmlib.http.fields import Fields, Query
from mdmlib.http.gateway import MAX_BODY_BYTES, body_of
from tests.gateway import http_event

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def event(**parts: Any) -> APIGatewayProxyEventV2:
    return APIGatewayProxyEventV2(http_event("POST", "/v1/commands") | parts)


def request(body: bytes) -> AdminRequest:
    return AdminRequest(body=body, query={}, dialect=Dialect.MICROMDM)


# Bodies


@given(st.binary())
def test_a_body_arrives_as_it_was_sent_however_the_gateway_passes_it_on(body: bytes) -> None:
    assert body_of(event(body=b64encode(body).decode(), isBase64Encoded=True)) == body


@given(st.text())
def test_a_text_arrives_as_it_was_sent(text: str) -> None:
    assert body_of(event(body=text)) == text.encode()


def test_no_body_is_an_empty_one() -> None:
    assert body_of(event()) == b""
    assert body_of(event(body=None)) == b""


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, MAX_BODY_BYTES - 1])
def test_the_largest_body_is_taken(size: int) -> None:
    assert len(body_of(event(body=b64encode(b"x" * size).decode(), isBase64Encoded=True))) == size
    assert len(body_of(event(body="x" * size))) == size


def test_a_larger_one_is_not() -> None:
    for parts in (
        {"body": "x" * (MAX_BODY_BYTES + 1)},
        {"body": b64encode(b"x" * (MAX_BODY_BYTES + 1)).decode(), "isBase64Encoded": True},
        {"body": "!" * 10_000_000, "isBase64Encoded": True},
    ):
        with pytest.raises(BodyTooLargeError):
            body_of(event(**parts))


def test_base64_that_is_none_is_malformed() -> None:
    with pytest.raises(MalformedBodyError):
        body_of(event(body="!", isBase64Encoded=True))


@given(st.binary())
def test_whatever_is_sent_is_an_object_or_malformed(body: bytes) -> None:
    try:
        document = request(body).json()
    except MalformedBodyError:
        return
    assert isinstance(document, dict)


@given(st.dictionaries(st.text(), DOCUMENTS))
def test_every_object_is_read(document: dict[str, Any]) -> None:
    assert request(json.dumps(document).encode()).json() == document
    assert request(b"\xef\xbb\xbf" + json.dumps(document, ensure_ascii=False).encode()).json() == document


def test_what_is_said_of_a_malformed_body_quotes_nothing_of_it() -> None:
    with pytest.raises(MalformedBodyError) as refused:
        request(b'{"pin": "839201", }').json()
    assert "839201" not in refused.value.message
    assert "line 1" in refused.value.message


# Fields


@given(
    st.sampled_from(["text", "required_text", "integer", "flag", "texts"]),
    DOCUMENTS,
)
def test_whatever_a_field_holds_it_is_right_or_named(kind: str, value: Any) -> None:
    options: dict[str, dict[str, Any]] = {"integer": {"least": 1, "most": 10}, "flag": {"default": True}}
    fields = Fields({"field": value}, known=("field",))
    expected = {"integer": int | None, "flag": bool, "texts": list | None, "text": str | None, "required_text": str}
    try:
        taken = getattr(fields, kind)("field", **options.get(kind, {}))
    except BadRequestError as error:
        named = (error.field, error.code)
    else:
        assert isinstance(taken, expected[kind])
        return
    assert named in {("field", "invalid_field"), ("field", "missing_field")}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("10", 10),
        ("0", None),
        ("11", None),
        ("-1", None),
        ("\N{ARABIC-INDIC DIGIT ONE}", None),
        ("1.0", None),
    ],
)
def test_numbers_of_a_query_are_read_from_text(text: str, number: int | None) -> None:
    fields = Fields(Query({"n": text}), known=("n",))
    if number is None:
        with pytest.raises(BadRequestError):
            fields.integer("n", least=1, most=10)
    else:
        assert fields.integer("n", least=1, most=10) == number


def test_what_is_text_in_a_query_is_no_number_flag_or_list_in_json() -> None:
    query = Fields(Query({"n": "1", "flag": "true", "texts": "a,b"}), known=("n", "flag", "texts"))
    json_ = Fields({"n": "1", "flag": "true", "texts": "a,b"}, known=("n", "flag", "texts"))
    read: dict[str, Any] = {
        "n": lambda fields: fields.integer("n", least=1, most=10),
        "flag": lambda fields: fields.flag("flag", default=False),
        "texts": lambda fields: fields.texts("texts"),
    }

    assert [take(query) for take in read.values()] == [1, True, ["a", "b"]]
    for name, take in read.items():
        with pytest.raises(BadRequestError) as refused:
            take(json_)
        assert (refused.value.code, refused.value.field) == ("invalid_field", name)


def test_a_misspelt_field_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BadRequestError) as refused:
        Fields({"max_use": 1}, known=("note", "max_uses"))
    assert (refused.value.code, refused.value.field) == ("unknown_field", "max_use")
    assert "max_uses, note" in refused.value.message


# Who is spoken to


@pytest.mark.parametrize(
    ("method", "path", "headers", "dialect"),
    [
        ("POST", "/v1/commands", {}, Dialect.MICROMDM),
        ("GET", "/v1/pushcert", {}, Dialect.NANOMDM),
        ("PUT", "/v1/pushcert", {}, Dialect.NANOMDM),
        ("POST", "/v1/push/x", {"X-PicoMDM-Dialect": "NanoMDM"}, Dialect.NANOMDM),
        ("GET", "/v1/push/x", {"x-picomdm-dialect": "micromdm"}, Dialect.MICROMDM),
        ("GET", "/v1/push/x", {"X-PicoMDM-Dialect": "v2"}, Dialect.NANOMDM),
        ("POST", "/v2/webhooks", {"X-PicoMDM-Dialect": "micromdm"}, Dialect.V2),
    ],
)
def test_method_path_and_header_say_whose_api_is_meant(
    method: str, path: str, headers: dict[str, str], dialect: Dialect
) -> None:
    assert dialect_of(APIGatewayProxyEventV2(http_event(method, path, headers=headers))) is dialect


def test_a_request_does_not_show_its_body() -> None:
    assert "839201" not in repr(decode(event(body='{"pin": "839201"}')))


def test_json_is_written_as_go_writes_it() -> None:
    document = {"a": "<&>\u2028\u2029ü", "empty": {}, "none": [], "list": [1, True, None]}

    assert go_json(document, indent="  ") == (
        '{\n  "a": "\\u003c\\u0026\\u003e\\u2028\\u2029ü",\n  "empty": {},\n  "none": [],\n'
        '  "list": [\n    1,\n    true,\n    null\n  ]\n}\n'
    )


@given(DOCUMENTS)
def test_what_go_would_write_is_json_still(document: Any) -> None:
    assert json.loads(go_json(document, indent="\t")) == document


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (PicoMDMError, 500),
        (BadRequestError, 400),
        (MalformedBodyError, 400),
        (BodyTooLargeError, 413),
        (ForbiddenError, 403),
        (NotFoundError, 404),
        (ConflictError, 409),
        (UnavailableError, 503),
    ],
)
def test_every_refusal_has_a_status_a_code_and_a_reason(
    dialect: Dialect, kind: type[PicoMDMError], status: int
) -> None:
    answer = refusal(kind("What is wrong.", field="x"), dialect=dialect)
    document = json.loads(str(answer.body))

    assert answer.status_code == status
    assert document["code"] == kind.default_code
    assert document["field"] == "x"
    assert document["detail" if dialect is Dialect.V2 else "error"] == "What is wrong."


def test_what_passes_says_when_to_come_back() -> None:
    assert refusal(UnavailableError("Busy."), dialect=Dialect.V2).headers["Retry-After"] == "5"

"""Declarative management's documents."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.declarations import KINDS, Declaration, DeclarationSet, decode_status_report
from mdmlib.errors import MalformedBodyError

EMPTY_ITEMS: dict[str, list[Any]] = {"Activations": [], "Assets": [], "Configurations": [], "Management": []}


def declaration(identifier: str, kind: str = "configuration", token: str = "1") -> Declaration:
    return Declaration(kind=kind, identifier=identifier, server_token=token, body=f'{{"{identifier}":1}}'.encode())


def test_the_items_of_an_empty_set_have_all_lists() -> None:
    items = json.loads(DeclarationSet().items_response())

    assert items["Declarations"] == EMPTY_ITEMS
    assert 0 < len(items["DeclarationsToken"]) <= 256


def test_tokens_and_items_tell_the_same_token_every_time() -> None:
    tokens = json.loads(DeclarationSet().tokens_response(datetime(2026, 11, 20, 12, tzinfo=UTC)))

    assert tokens == {
        "SyncTokens": {
            "DeclarationsToken": json.loads(DeclarationSet().items_response())["DeclarationsToken"],
            "Timestamp": "2026-11-20T12:00:00Z",
        }
    }


@given(st.permutations([declaration("a"), declaration("b"), declaration("a", "asset"), declaration("c", "activation")]))
def test_the_order_of_declarations_changes_nothing(declarations: list[Declaration]) -> None:
    ordered = DeclarationSet(sorted(declarations, key=lambda one: (one.identifier, one.kind)))

    assert DeclarationSet(declarations).token == ordered.token
    assert DeclarationSet(declarations).items_response() == ordered.items_response()


def test_every_change_changes_the_token() -> None:
    sets = [
        DeclarationSet(),
        DeclarationSet([declaration("a")]),
        DeclarationSet([declaration("b")]),
        DeclarationSet([declaration("a", token="2")]),
        DeclarationSet([declaration("a", "asset")]),
        DeclarationSet([declaration("a"), declaration("b")]),
    ]

    assert len({one.token for one in sets}) == len(sets)


def test_items_are_listed_by_kind_and_found_by_kind_and_identifier() -> None:
    declarations = DeclarationSet([declaration("a", kind) for kind in KINDS])

    items = json.loads(declarations.items_response())["Declarations"]
    assert items == {name: [{"Identifier": "a", "ServerToken": "1"}] for name in EMPTY_ITEMS}
    found = declarations.find("asset", "a")
    assert found is not None
    assert found.body == b'{"a":1}'
    assert declarations.find("asset", "b") is None
    assert declarations.find("profile", "a") is None


def test_a_status_report_is_read() -> None:
    report = decode_status_report(
        b'{"StatusItems":{"device":{"model":{"family":"Mac"}}},"Errors":[],"FullReport":true}'
    )

    assert report["StatusItems"]["device"]["model"]["family"] == "Mac"
    assert decode_status_report(b"{}") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"StatusItems":[]}',
        b'{"Errors":{}}',
        b'{"StatusItems":{"a":NaN}}',
        b'{"StatusItems":{"a":1e999}}',
        b'{"StatusItems":{"a":-Infinity}}',
        b"\xff\xfe",
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b"[" * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=range(14),
)
def test_a_status_report_that_cannot_be_read_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        decode_status_report(data)


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    try:
        report = decode_status_report(data)
    except MalformedBodyError:
        return
    assert json.loads(json.dumps(report, allow_nan=False)) == report

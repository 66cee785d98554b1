"""Property lists as JSON."""

import plistlib
from datetime import datetime

import pytest

from mdmlib.apple.plist_json import MAX_CHARACTERS, readable


@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_every_type_of_a_plist_has_its_form_in_json(form: plistlib.PlistFormat) -> None:
    report = {
        "Data": b"data",
        "Date": datetime(2026, 11, 20, 12, 0, 5),  # noqa: DTZ001 - plists have no time zone
        "Inner": {"List": [1, -1, 1.5, True, "ü"]},
    }

    assert readable(plistlib.dumps(report, fmt=form)) == {
        "Data": "ZGF0YQ==",
        "Date": "2026-11-20T12:00:05Z",
        "Inner": {"List": [1, -1, 1.5, True, "ü"]},
    }


def test_numbers_that_json_does_not_have_are_texts() -> None:
    report = {"N": [float("nan"), float("inf")]}

    assert readable(plistlib.dumps(report, fmt=plistlib.FMT_BINARY)) == {"N": ["nan", "inf"]}


@pytest.mark.parametrize("raw", [b"", b"junk", plistlib.dumps([1]), plistlib.dumps({"x": b"x" * MAX_CHARACTERS})])
def test_what_cannot_be_read_or_is_too_long_is_nothing(raw: bytes) -> None:
    assert readable(raw) is None

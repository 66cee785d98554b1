"""Which events a webhook is about, and which headers it may have."""

import json
from typing import Any

import pytest

from mdmlib.errors import BadRequestError
from mdmlib.services.webhook_filters import MAX_PATTERN, WebhookFilter
from mdmlib.services.webhook_headers import MAX_BYTES, checked_headers


def test_a_filter_becomes_the_pattern_of_a_rule() -> None:
    wanted = WebhookFilter.checked({"topics": ["mdm.Connect", "dep.*", "mdm.Connect"], "statuses": ["Error"]})

    assert wanted.pattern() == {
        "source": ["picomdm.mdm"],
        "detail-type": [{"prefix": "dep."}, "mdm.Connect"],
        "detail": {"acknowledge_event": {"status": ["Error"]}},
    }


def test_what_several_kinds_of_events_have_is_looked_for_in_each() -> None:
    wanted = WebhookFilter.checked({"request_types": ["RestartDevice"]})

    assert wanted.pattern()["detail"] == {
        "$or": [
            {"acknowledge_event": {"request_type": ["RestartDevice"]}},
            {"command_event": {"request_type": ["RestartDevice"]}},
        ]
    }


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"topics": ["Connect"]}, "topics"),
        ({"topics": []}, "topics"),
        ({"enrollment_types": ["Phone"]}, "enrollment_types"),
        ({"request_types": ["Device Information"]}, "request_types"),
        ({"statuses": ['Error"]}']}, "statuses"),
        ({"statuses": [f"S{number}" for number in range(51)]}, "statuses"),
        ({"topics": [f"mdm.{'T' * 60}{number}" for number in range(50)]}, None),
    ],
)
def test_a_filter_that_is_none_is_refused(asked: dict[str, list[str]], field: str | None) -> None:
    with pytest.raises(BadRequestError) as caught:
        WebhookFilter.checked(asked)
    assert caught.value.field == field


def test_no_filter_is_longer_than_the_bus_takes() -> None:
    asked = {"topics": [f"mdm.{'T' * 10}{number}" for number in range(50)], "enrollment_types": ["Device", "User"]}

    assert len(json.dumps(WebhookFilter.checked(asked).pattern())) <= MAX_PATTERN


def test_headers_are_sent_as_they_were_given() -> None:
    assert checked_headers({"X-Tenant": "a b", "Authorization": "Bearer x"}) == {
        "Authorization": "Bearer x",
        "X-Tenant": "a b",
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "a\r\nX-B: b"},
        {"X-A": "a\nb"},
        {"X-A\r\nX-B": "a"},
        {"X-A": " a"},
        {"X-A": ""},
        {"X-A": "ä"},
        {"X-A": 1},
        {"X-A": None},
        {"": "a"},
        {"X A": "a"},
        {"X-A": "a", "x-a": "b"},
        {"Content-Type": "text/plain"},
        {"host": "example.org"},
        {"Transfer-Encoding": "chunked"},
        {"X-Hmac-Signature": "forged"},
        {"X-Hmac-Signature-Next": "forged"},
        {"X-A": "a" * MAX_BYTES},
        {f"X-{number}": "a" for number in range(21)},
    ],
)
def test_a_header_that_would_break_a_delivery_is_refused_and_not_quoted(headers: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        checked_headers(headers)
    assert caught.value.field == "headers"
    assert "forged" not in caught.value.message

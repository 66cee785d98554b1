"""Requests with an ``Idempotency-Key`` are carried out once."""

from typing import Any

import pytest
from pynamodb.exceptions import UpdateError

from functions.admin import app
from mdmlib import runtime
from mdmlib.services.idempotent_requests import IdempotentRequests
from mdmlib.settings import Settings
from mdmlib.store.tables import IdempotentRequest
from tests.deployment import Clock
from tests.gateway import Answer, Gateway

REQUESTS = "/v2/push-certificate-requests"
KEY = "0b1f7f9e-0d7e-4a7e-9a52-1f6f6d3c9a11"


@pytest.fixture
def gateway(environment: Settings) -> Gateway:
    return Gateway(app.lambda_handler)


def make(gateway: Gateway, *, key: str = KEY, email: str = "it@example.org") -> Answer:
    body = f'{{"email": "{email}"}}'
    return gateway.request("POST", REQUESTS, body, headers={"Idempotency-Key": key, "Content-Type": "application/json"})


def made(gateway: Gateway) -> int:
    return len(gateway.get(REQUESTS).document["push_certificate_requests"])


def test_the_same_request_again_gets_the_same_answer_and_does_nothing(gateway: Gateway) -> None:
    first, again = make(gateway), make(gateway)

    assert (first.status, again.status, made(gateway)) == (201, 201, 1)
    assert again.body == first.body
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert make(gateway, key="another").document["id"] != first.document["id"]


def test_a_key_is_for_one_request(gateway: Gateway) -> None:
    make(gateway)
    reused = make(gateway, email="other@example.org")
    assert (reused.status, reused.document["code"], made(gateway)) == (409, "idempotency_key_reused", 1)


def test_what_failed_may_be_sent_again_under_its_key(gateway: Gateway) -> None:
    assert make(gateway, email="").status == 400
    assert make(gateway).status == 201


def test_two_at_once_are_told_apart(environment: Settings) -> None:
    requests = runtime.idempotent_requests()
    assert requests.begin(REQUESTS, KEY, b"{}") is None
    second = make(Gateway(app.lambda_handler))
    assert (second.status, second.document["code"]) == (409, "idempotency_key_reused")
    requests.end(REQUESTS, KEY, None)
    assert make(Gateway(app.lambda_handler)).status == 201


def test_a_request_that_was_cut_off_may_be_sent_again_after_a_minute(environment: Settings, clock: Clock) -> None:
    requests = IdempotentRequests(sealer=runtime.sealer(), now=clock)
    runtime.bind_tables()
    assert requests.begin("/", KEY, b"{}") is None
    with pytest.raises(Exception, match="still being carried out"):
        requests.begin("/", KEY, b"{}")
    clock.advance(minutes=2)
    assert requests.begin("/", KEY, b"{}") is None


def test_an_answer_is_kept_sealed(gateway: Gateway) -> None:
    subject = make(gateway).document["id"]
    (item,) = IdempotentRequest.query("idempotent_request")
    assert subject.encode() not in item.answer


@pytest.mark.parametrize("key", ["x" * 256, "caf\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    assert make(gateway, key=key).status == 400


def test_a_request_whose_answer_cannot_be_kept_fails_and_says_so(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise UpdateError("throttled")

    monkeypatch.setattr(IdempotentRequest, "update", fail)
    assert make(gateway).status == 503

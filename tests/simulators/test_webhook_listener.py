"""A customer's webhook: what it complains about, and how it misbehaves when told to."""

import base64
import hashlib
import hmac
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.webhook_listener import CONTENT_TYPE, WebhookListener

KEY = b"a key"
EVENT: dict[str, Any] = {
    "topic": "mdm.Connect",
    "event_id": "0190b9a2-0000-7000-8000-000000000000",
    "created_at": "2026-11-20T12:00:00Z",
    "acknowledge_event": {"udid": "U1", "status": "Idle", "raw_payload": "PD94bWwg"},
}


@pytest.fixture
def listener() -> Iterator[WebhookListener]:
    with WebhookListener(hmac_key=KEY) as listener:
        yield listener


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def post(
    client: httpx.Client, url: str, document: Any = EVENT, *, key: bytes | None = KEY, content_type: str = CONTENT_TYPE
) -> int:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    sent = {"Content-Type": content_type}
    if key is not None:
        sent["X-Hmac-Signature"] = base64.b64encode(hmac.new(key, body, hashlib.sha256).digest()).decode()
    return client.post(url, content=body, headers=sent).status_code


def test_a_good_delivery_is_kept_as_it_came(client: httpx.Client, listener: WebhookListener) -> None:
    assert post(client, listener.url) == 200

    delivery = listener.wait_for(lambda one: one.topic == "mdm.Connect")
    assert delivery.problems == ()
    assert delivery.document == EVENT
    assert delivery.body == json.dumps(EVENT).encode()
    assert delivery.path == "/webhook"


@pytest.mark.parametrize("key", [None, b"another key"])
def test_a_delivery_without_a_good_signature_is_refused(
    client: httpx.Client, listener: WebhookListener, key: bytes | None
) -> None:
    assert post(client, listener.url, key=key) == 401
    [delivery] = listener.deliveries()
    assert "signature" in delivery.problems[0]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"[", "JSON"),
        (b"[]", "object"),
        (b"\xff", "UTF-8"),
        (EVENT | {"topic": ""}, "topic"),
        (EVENT | {"event_id": None}, "event_id"),
        (EVENT | {"checkin_event": {"raw_payload": ""}}, "exclude each other"),
        (EVENT | {"acknowledge_event": {"status": "Idle"}}, "raw_payload"),
        (EVENT | {"acknowledge_event": {"raw_payload": "?"}}, "raw_payload"),
    ],
)
def test_a_delivery_of_another_shape_is_refused(
    client: httpx.Client, listener: WebhookListener, document: Any, problem: str
) -> None:
    assert post(client, listener.url, document) == 400
    [delivery] = listener.deliveries()
    assert problem in delivery.problems[0]


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=UTF-8"])
def test_the_content_type_is_micromdms_to_the_letter(
    client: httpx.Client, listener: WebhookListener, content_type: str
) -> None:
    assert post(client, listener.url, content_type=content_type) == 400


def test_each_hook_may_have_a_key_of_its_own(client: httpx.Client, listener: WebhookListener) -> None:
    listener.set_key("/other", b"other")
    listener.set_key("/open", None)
    assert post(client, f"{listener.address}/other", key=b"other") == 200
    assert post(client, f"{listener.address}/other") == 401
    assert post(client, f"{listener.address}/open", key=None) == 200


def test_it_fails_as_often_as_it_is_told_and_only_where(client: httpx.Client, listener: WebhookListener) -> None:
    listener.behave(status=503, times=2, path="/webhook")
    assert [post(client, url) for url in [listener.url, f"{listener.address}/b", listener.url, listener.url]] == [
        503,
        200,
        503,
        200,
    ]
    assert [one.status for one in listener.deliveries()] == [503, 200, 503, 200]


def test_it_hangs_up_without_an_answer(client: httpx.Client, listener: WebhookListener) -> None:
    listener.behave(status=0, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        post(client, listener.url)
    assert post(client, listener.url) == 200


def test_it_takes_its_time(listener: WebhookListener) -> None:
    listener.behave(delay_seconds=5, times=1)
    with httpx.Client(trust_env=False, timeout=0.05) as hasty, pytest.raises(httpx.ReadTimeout):
        post(hasty, listener.url)


def test_it_is_told_and_asked_over_http(client: httpx.Client, listener: WebhookListener) -> None:
    control = f"{listener.address}/_control"
    assert client.put(f"{control}/keys", json={"path": "/webhook", "hmac_key": "new"}).status_code == 204
    assert client.put(f"{control}/behaviour", json={"status": 500, "times": 1}).status_code == 204
    assert client.put(f"{control}/behaviour", json={"mood": "bad"}).status_code == 400
    assert post(client, listener.url, key=b"new") == 500
    assert client.put(f"{control}/behaviour", json={"status": 500}).status_code == 204
    assert client.delete(f"{control}/behaviour").status_code == 204
    assert post(client, listener.url, key=b"new") == 200

    answer = client.get(f"{control}/deliveries", params={"after": 1}).json()
    assert [one["number"] for one in answer["deliveries"]] == [2]
    assert answer["next"] == 2
    assert base64.b64decode(answer["deliveries"][0]["body"]) == json.dumps(EVENT).encode()
    assert client.delete(f"{control}/deliveries").status_code == 204
    assert client.get(f"{control}/deliveries").json() == {"deliveries": [], "next": 0}
    assert client.get(f"{control}/deliveries", params={"after": "x"}).status_code == 400


def test_who_waits_is_answered_when_a_delivery_comes(client: httpx.Client, listener: WebhookListener) -> None:
    found: list[Any] = []

    def wait() -> None:
        answer = httpx.get(f"{listener.address}/_control/deliveries?wait=10", trust_env=False, timeout=15)
        found.extend(answer.json()["deliveries"])

    waiting = threading.Thread(target=wait)
    waiting.start()
    post(client, listener.url)
    waiting.join(timeout=10)
    assert [one["document"] for one in found] == [EVENT]


def test_waiting_in_vain_says_what_came_instead(client: httpx.Client, listener: WebhookListener) -> None:
    post(client, listener.url)
    with pytest.raises(TimeoutError, match=r"mdm\.Connect"):
        listener.wait_for(lambda one: one.topic == "mdm.CheckOut", seconds=0.01)


def test_as_a_program_it_says_where_it_is_and_stops_when_asked(client: httpx.Client, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY + b"\n")
    command = [sys.executable, "-m", "local.webhook_listener", "--hmac-key-file", str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            assert post(client, ready["url"]) == 200
            assert len(client.get(f"{ready['control']}/deliveries").json()["deliveries"]) == 1
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - begun < 5
        finally:
            process.kill()

"""The simulated APNs holds a provider that is not ours, httpx, to Apple's rules."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from h2.connection import H2Connection

from local.apns.process import ApnsControl, ApnsSimulator, ApnsSimulatorError

TOPIC = "com.apple.mgmt.External.0f5a3f0e-0000-4000-8000-000000000002"
TOKEN = "c0ffee"
HEADERS = {
    "apns-topic": TOPIC,
    "apns-push-type": "mdm",
    "apns-id": "0f5a3f0e-aaaa-4000-8000-000000000002",
    "apns-priority": "10",
    "apns-expiration": "1900000000",
}
PAYLOAD = b'{"mdm":"MAGIC"}'


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApnsSimulator]:
    simulator = ApnsSimulator.start(tmp_path_factory.mktemp("apns"))
    yield simulator
    simulator.stop()


@pytest.fixture
def apns(simulator: ApnsSimulator) -> ApnsControl:
    simulator.control.reset()
    simulator.control.register(TOKEN, topic=TOPIC, magic="MAGIC")
    simulator.control.wait(TOKEN, seconds=0)  # what an earlier test left
    return simulator.control


def provider(simulator: ApnsSimulator, pem: bytes | None, folder: Path) -> httpx.Client:
    context = ssl.create_default_context(cadata=simulator.trust_anchor)
    if pem:
        (folder / "push.pem").write_bytes(pem)
        context.load_cert_chain(folder / "push.pem")
    return httpx.Client(base_url=simulator.url, http2=True, verify=context)


@pytest.fixture
def client(simulator: ApnsSimulator, apns: ApnsControl, tmp_path: Path) -> Iterator[httpx.Client]:
    with provider(simulator, apns.issue(TOPIC), tmp_path) as client:
        yield client


def push(client: httpx.Client, token: str = TOKEN, payload: bytes = PAYLOAD, **headers: str | None) -> httpx.Response:
    """Push with ``headers`` (``_`` for ``-``) in the place of the good ones; None: without it."""
    changed: dict[str, Any] = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(
        f"/3/device/{token}",
        content=payload,
        headers={name: value for name, value in changed.items() if value is not None},
    )


def test_a_push_by_the_rules_is_accepted_and_arrives(client: httpx.Client, apns: ApnsControl) -> None:
    response = push(client)

    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["apns-id"] == HEADERS["apns-id"]
    woken = apns.wait(TOKEN)
    assert woken
    assert woken["apns_id"] == HEADERS["apns-id"]
    assert apns.violations() == []


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"apns_push_type": None}, 400, "InvalidPushType"),
        ({"apns_push_type": "alert"}, 400, "InvalidPushType"),
        ({"apns_topic": None}, 400, "MissingTopic"),
        ({"apns_topic": "com.example.app"}, 400, "BadTopic"),
        ({"apns_topic": "com.apple.mgmt.External.another"}, 400, "TopicDisallowed"),
        ({"apns_id": "17"}, 400, "BadMessageId"),
        ({"apns_id": HEADERS["apns-id"].upper()}, 400, "BadMessageId"),
        ({"apns_priority": "7"}, 400, "BadPriority"),
        ({"apns_expiration": "tomorrow"}, 400, "BadExpirationDate"),
        ({"apns_collapse_id": "x" * 65}, 400, "BadCollapseId"),
        ({"token": "c0ffee00"}, 400, "BadDeviceToken"),
        ({"token": "C0FFEE"}, 400, "BadDeviceToken"),
        ({"token": ""}, 400, "MissingDeviceToken"),
        ({"payload": b""}, 400, "PayloadEmpty"),
        ({"payload": b'{"mdm":"' + b"x" * 4096 + b'"}'}, 413, "PayloadTooLarge"),
    ],
)
def test_a_push_against_the_rules_is_refused_with_apples_reason(
    client: httpx.Client, apns: ApnsControl, changes: dict[str, Any], status: int, reason: str
) -> None:
    response = push(client, **changes)

    assert (response.status_code, response.json()) == (status, {"reason": reason})
    assert apns.wait(TOKEN, seconds=0) is None


def test_a_header_that_comes_twice_is_refused(client: httpx.Client) -> None:
    headers = [*HEADERS.items(), ("apns-priority", "5")]

    response = client.post(f"/3/device/{TOKEN}", content=PAYLOAD, headers=headers)

    assert response.json() == {"reason": "DuplicateHeaders"}


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [("GET", f"/3/device/{TOKEN}", 405, "MethodNotAllowed"), ("POST", "/2/device/c0ffee", 404, "BadPath")],
)
def test_there_is_one_method_and_one_path(
    client: httpx.Client, method: str, path: str, status: int, reason: str
) -> None:
    response = client.request(method, path, headers=HEADERS)

    assert (response.status_code, response.json()) == (status, {"reason": reason})


@pytest.mark.parametrize(
    "payload",
    [b'{"mdm":"MAGIC","aps":{}}', b'{"aps":{"content-available":1}}', b'{"mdm":7}', b"[]", b"mdm", b'{"mdm":"OTHER"}'],
)
def test_what_a_device_would_not_understand_wakes_nobody_and_is_a_violation(
    client: httpx.Client, apns: ApnsControl, payload: bytes
) -> None:
    assert push(client, payload=payload).status_code == 200

    assert apns.wait(TOKEN, seconds=0) is None
    assert len(apns.violations()) == 1


def test_a_device_that_is_gone_is_answered_410_until_it_registers_again(
    client: httpx.Client, apns: ApnsControl
) -> None:
    apns.unregister(TOKEN, timestamp=1_700_000_000_000)
    gone = push(client)
    apns.register(TOKEN, topic=TOPIC, magic="MAGIC")

    assert (gone.status_code, gone.json()) == (410, {"reason": "Unregistered", "timestamp": 1_700_000_000_000})
    assert push(client).status_code == 200


def test_no_certificate_is_403(simulator: ApnsSimulator, apns: ApnsControl, tmp_path: Path) -> None:
    with provider(simulator, None, tmp_path) as client:
        response = push(client)

    assert (response.status_code, response.json()) == (403, {"reason": "MissingProviderToken"})


def test_a_certificate_of_another_authority_fails_the_handshake(
    simulator: ApnsSimulator, apns: ApnsControl, tmp_path: Path
) -> None:
    with (
        provider(simulator, apns.issue(TOPIC, foreign=True), tmp_path) as client,
        pytest.raises(httpx.TransportError),
    ):
        push(client)


def test_more_streams_than_allowed_end_the_connection_and_are_a_violation(
    simulator: ApnsSimulator, apns: ApnsControl, tmp_path: Path
) -> None:
    apns.behave(max_streams=2, latency=5)
    context = ssl.create_default_context(cadata=simulator.trust_anchor)
    context.set_alpn_protocols(["h2"])
    (tmp_path / "push.pem").write_bytes(apns.issue(TOPIC))
    context.load_cert_chain(tmp_path / "push.pem")
    port = httpx.URL(simulator.url).port
    greedy = H2Connection()
    greedy.initiate_connection()
    for stream_id in (1, 3, 5):
        headers = {":method": "POST", ":scheme": "https", ":path": f"/3/device/{TOKEN}", ":authority": "apns"}
        greedy.send_headers(stream_id, [*headers.items(), *HEADERS.items()])

    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(greedy.data_to_send())
        while tls.recv(65536):
            pass

    assert [violation["violation"].partition(":")[0] for violation in apns.violations()] == ["TooManyStreamsError"]


class TestWaiting:
    def test_a_device_that_waits_is_woken(self, client: httpx.Client, apns: ApnsControl) -> None:
        woken: list[dict[str, Any] | None] = []
        device = threading.Thread(target=lambda: woken.append(apns.wait(TOKEN, seconds=20)))
        device.start()
        push(client)
        device.join()

        assert woken[0]
        assert woken[0]["apns_id"] == HEADERS["apns-id"]

    def test_several_pushes_for_a_device_that_is_off_are_one(self, client: httpx.Client, apns: ApnsControl) -> None:
        push(client)
        push(client, apns_id="0f5a3f0e-bbbb-4000-8000-000000000002")

        woken = apns.wait(TOKEN)

        assert woken
        assert woken["apns_id"].startswith("0f5a3f0e-bbbb")
        assert apns.wait(TOKEN, seconds=0) is None

    @pytest.mark.parametrize("expiration", ["0", str(int(time.time()) - 1)], ids=["now", "a second ago"])
    def test_a_push_that_has_expired_is_not_kept(
        self, client: httpx.Client, apns: ApnsControl, expiration: str
    ) -> None:
        assert push(client, apns_expiration=expiration).status_code == 200

        assert apns.wait(TOKEN, seconds=0) is None

    def test_an_unknown_device_cannot_wait(self, apns: ApnsControl) -> None:
        with pytest.raises(ApnsSimulatorError, match="404"):
            apns.wait("00")


def test_devices_and_authorities_outlive_a_restart(tmp_path: Path) -> None:
    first = ApnsSimulator.start(tmp_path / "state")
    pem = first.control.issue(TOPIC)
    first.control.register(TOKEN, topic=TOPIC, magic="MAGIC")
    first.stop()

    second = ApnsSimulator.start(tmp_path / "state")
    try:
        with provider(second, pem, tmp_path) as client:
            assert push(client).status_code == 200
    finally:
        second.stop()


def test_unknown_trouble_is_refused(apns: ApnsControl) -> None:
    with pytest.raises(ApnsSimulatorError, match="unknown: explode"):
        apns.behave(explode=True)

"""The authenticating proxy: who gets through, what the server behind it sees, and what comes back."""

import gzip
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from functions.checkin import app as checkin
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.clients.reverse_proxy import MAX_ANSWER_BYTES
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from tests.aws_calls import DynamoDBCalls
from tests.gateway import Answer, Gateway, http_event
from tests.signed_device import SignedDevice, trusted_authority

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"


class Upstream(ThreadingHTTPServer):
    """The server behind the proxy: it remembers what it was asked, and answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 200
        self.headers = {"Content-Type": "text/plain"}
        self.body = b"hello"


class _Handler(BaseHTTPRequestHandler):
    server: Upstream

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, self.path, headers, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    do_GET = do_HEAD = do_PUT = do_POST = handle_any  # noqa: N815 - as http.server looks them up

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        thread = Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield upstream
        upstream.shutdown()
        thread.join()


class Proxied:
    """An enrolled device that asks the proxy."""

    def __init__(self, device: SignedDevice) -> None:
        self.device = device
        self.gateway = Gateway(enroll.lambda_handler)

    def ask(self, path: str, body: bytes = b"", *, method: str = "GET", query: str = "", **headers: str) -> Answer:
        sent = {
            "Mdm-Signature": self.device.sign(body),
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        event = http_event(method, path, body or None, headers={key: value for key, value in sent.items() if value})
        event["rawQueryString"] = query
        return self.gateway.answer(event)


@pytest.fixture
def proxied(aws: Emulator, environment: Settings, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Proxied:
    monkeypatch.setenv("AUTH_PROXY_URL", f"{upstream.url}/base/")
    runtime.forget()
    runtime.bind_tables()
    device = SignedDevice(trusted_authority(), UDID)
    for message in (
        device.checkin("Authenticate", SerialNumber="C02XXXX"),
        device.checkin("TokenUpdate", PushMagic="magic", Token=b"token"),
    ):
        assert Gateway(checkin.lambda_handler).answer(message).status == 200
    return Proxied(device)


def test_an_enrolled_device_is_passed_on_with_its_id(proxied: Proxied, upstream: Upstream) -> None:
    answer = proxied.ask("/authproxy/some/file.plist", query="a=b%2Fc&d", User_Agent="MDM/1.0", Accept_Language="de")

    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/plain", b"hello")
    ((method, path, headers, body),) = upstream.asked
    assert (method, path, body) == ("GET", "/base/some/file.plist?a=b%2Fc&d", b"")
    assert headers["x-enrollment-id"] == UDID
    assert headers["x-trace-id"]
    assert (headers["user-agent"], headers["accept-language"]) == ("MDM/1.0", "de")
    assert headers["host"] == upstream.url.removeprefix("http://")
    assert "mdm-signature" not in headers


def test_a_body_is_passed_on_as_it_was_signed(proxied: Proxied, upstream: Upstream) -> None:
    proxied.ask("/authproxy/report", b"\x00\xff", method="PUT", Content_Type="application/octet-stream")

    method, path, headers, body = upstream.asked[0]
    assert (method, path, body) == ("PUT", "/base/report", b"\x00\xff")
    assert headers["content-type"] == "application/octet-stream"


def test_nobody_can_say_who_they_are(proxied: Proxied, upstream: Upstream) -> None:
    proxied.ask(
        "/authproxy/x",
        X_Enrollment_ID="somebody else",
        X_PicoMDM_Proxy_Secret="secret",
        Client_Cert=":AAAA:",
        Connection="X-Private",
        X_Private="x",
    )

    headers = upstream.asked[0][2]
    assert headers["x-enrollment-id"] == UDID
    assert not {"x-picomdm-proxy-secret", "client-cert", "x-private"} & set(headers)


@pytest.mark.parametrize("status", [204, 302, 401, 404, 500])
def test_an_answer_comes_back_as_it_is(proxied: Proxied, upstream: Upstream, status: int) -> None:
    upstream.status, upstream.body = status, b"" if status == 204 else b"no"
    upstream.headers = {"Location": "https://elsewhere.example.org/", "ETag": '"1"', "Keep-Alive": "timeout=5"}

    answer = proxied.ask("/authproxy/x")

    assert (answer.status, answer.body) == (status, upstream.body)
    assert (answer.headers["location"], answer.headers["etag"]) == ("https://elsewhere.example.org/", '"1"')
    assert "keep-alive" not in answer.headers


def test_json_comes_back_also_when_it_is_compressed(proxied: Proxied, upstream: Upstream) -> None:
    upstream.body = gzip.compress(json.dumps({"a": 1}).encode())
    upstream.headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    answer = proxied.ask("/authproxy/x", Accept_Encoding="gzip")

    assert (answer.headers["content-encoding"], answer.body) == ("gzip", upstream.body)
    assert json.loads(gzip.decompress(answer.body)) == {"a": 1}


def test_who_is_not_enrolled_gets_400_and_never_401(proxied: Proxied, upstream: Upstream) -> None:
    stranger = SignedDevice(new_certificate_authority("Strangers", now=runtime.now()), UDID)
    another = Proxied(SignedDevice(trusted_authority("Others"), UDID))
    runtime.forget()

    assert proxied.ask("/authproxy/x", Mdm_Signature="").status == 400
    assert proxied.ask("/authproxy/x", b"changed", method="PUT", Mdm_Signature=proxied.device.sign(b"")).status == 400
    assert Proxied(stranger).ask("/authproxy/x").status == 400
    assert another.ask("/authproxy/x").status == 400
    assert upstream.asked == []


@pytest.mark.parametrize("change", [Enrollment.state.set("checked_out"), Enrollment.blocked.set(True)])
def test_who_has_left_or_is_blocked_does_not_get_through(proxied: Proxied, upstream: Upstream, change: Any) -> None:
    Enrollment(UDID, tables.RECORD).update([change])

    assert proxied.ask("/authproxy/x").status == 400
    assert upstream.asked == []


@pytest.mark.parametrize(
    "path", ["/authproxy/../admin", "/authproxy/a/../../b", "/authproxy/a\\..\\..\\b", "/authproxy/a\nb"]
)
def test_no_path_leads_out(proxied: Proxied, upstream: Upstream, path: str) -> None:
    assert proxied.ask(path).status in {400, 404}
    assert upstream.asked == []


def test_what_the_gateway_has_decoded_is_encoded_again(proxied: Proxied, upstream: Upstream) -> None:
    proxied.ask("/authproxy/Ä b/50%?#.txt")

    assert upstream.asked[0][1] == "/base/%C3%84%20b/50%25%3F%23.txt"


def test_a_server_that_does_not_answer_is_a_bad_gateway(proxied: Proxied, upstream: Upstream) -> None:
    upstream.body = bytes(MAX_ANSWER_BYTES + 1)
    assert proxied.ask("/authproxy/x").status == 502

    upstream.server_close()
    assert proxied.ask("/authproxy/x").status == 502


def test_it_is_off_unless_it_is_set(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_PROXY_URL", "")
    runtime.forget()

    assert proxied.ask("/authproxy/x").status == 404


def test_it_reads_twice_and_writes_nothing_and_a_forger_costs_nothing(proxied: Proxied) -> None:
    proxied.ask("/authproxy/x")
    calls = DynamoDBCalls(runtime.dynamodb_client())

    proxied.ask("/authproxy/x")
    assert calls.take() == ["GetItem", "GetItem"]
    assert Proxied(SignedDevice(trusted_authority("Forgers"), UDID)).ask("/authproxy/x").status == 400
    calls.take()
    proxied.ask("/authproxy/x", Mdm_Signature="noise")
    assert calls.take() == []

"""The HTTPS edge: what devices send arrives as they sent it, and what API Gateway refuses comes no further."""

import http.client
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from local.edge import MAX_BODY_BYTES, MAX_HEAD_BYTES, DeviceEdge


class Api(ThreadingHTTPServer):
    """Keeps what it was asked, and answers with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, list[tuple[str, str]], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Api
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, self.headers.items(), body))
        self.send_response(202)
        self.send_header("X-Twice", "a")
        self.send_header("X-Twice", "b")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = answer  # noqa: N815  # http.server looks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server names it
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as api:
        thread = Thread(target=api.serve_forever)
        thread.start()
        yield api
        api.shutdown()
        thread.join()


@pytest.fixture
def edge(api: Api, tmp_path: Path) -> Iterator[DeviceEdge]:
    edge = DeviceEdge(tmp_path)
    edge.lead_to(f"http://127.0.0.1:{api.server_port}", "api1")
    yield edge
    edge.stop()


def request(
    edge: DeviceEdge, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> http.client.HTTPResponse:
    tls = ssl.create_default_context(cafile=edge.trust_anchor)
    connection = http.client.HTTPSConnection("127.0.0.1", edge.port, context=tls, timeout=30)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_path_headers_and_body_arrive_as_they_were_sent(edge: DeviceEdge, api: Api) -> None:
    body = bytes(range(256)) * 20_000
    sent = {"Mdm-Signature": "MIIB+/=", "X-Odd-Case": " two  words "}
    answer = request(edge, "PUT", "/mdm/checkin?a=%2F+%20b&a=%C3%A9", body, sent)

    ((method, path, headers, received),) = api.asked
    assert (method, path) == ("PUT", "/_aws/execute-api/api1/mdm/checkin?a=%2F+%20b&a=%C3%A9")
    assert received == body
    assert ("Mdm-Signature", "MIIB+/=") in headers
    assert ("X-Odd-Case", "two  words") in headers
    assert ("Host", f"127.0.0.1:{edge.port}") in headers
    assert answer.status == 202
    assert answer.headers.get_all("X-Twice") == ["a", "b"]


def test_nothing_is_added_to_a_request(edge: DeviceEdge, api: Api) -> None:
    # A device that sends no Content-Type must not get one on the way: bodies without one arrive in base64.
    request(edge, "PUT", "/mdm/connect", b"plist")

    assert {name.lower() for name, _ in api.asked[0][2]} == {"host", "accept-encoding", "content-length"}


def test_what_api_gateway_refuses_comes_no_further(edge: DeviceEdge, api: Api) -> None:
    head = request(edge, "GET", "/scep", headers={"X-Long": "x" * (MAX_HEAD_BYTES // 2), "X-More": "y" * 5_200})
    body = request(edge, "PUT", "/mdm/checkin", b"x" * (MAX_BODY_BYTES + 1))

    assert (head.status, body.status) == (431, 413)
    assert not api.asked


def test_before_there_is_an_api_the_edge_says_so(tmp_path: Path) -> None:
    edge = DeviceEdge(tmp_path)
    try:
        assert request(edge, "GET", "/scep").status == 503
    finally:
        edge.stop()


def test_the_same_port_can_be_had_again(tmp_path: Path) -> None:
    first = DeviceEdge(tmp_path)
    first.stop()
    second = DeviceEdge(tmp_path, port=first.port)
    second.stop()

    assert second.url == first.url

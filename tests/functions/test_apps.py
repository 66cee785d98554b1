"""Apps: uploaded, looked into, listed, and fetched by devices."""

import hashlib
import json
import plistlib
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from functions.enroll.app import lambda_handler as enroll
from functions.workflow.app import lambda_handler
from local.emulator import Emulator
from local.packages import package
from mdmlib.apple.package import CHUNK_BYTES
from mdmlib.settings import Settings
from tests import admin_api, interruptions
from tests.api_description import DescribedGateway
from tests.gateway import Answer, Gateway
from tests.queues import QueueSource

PACKAGE = package(filling=1_000)


@pytest.fixture
def gateway(environment: Settings) -> Iterator[Gateway]:
    yield DescribedGateway(admin_api.handle)
    interruptions.forget()


@pytest.fixture
def devices(environment: Settings) -> Gateway:
    return Gateway(enroll)


@pytest.fixture
def source(aws: Emulator, environment: Settings) -> QueueSource:
    return QueueSource(aws, environment.workflow_queue_url, lambda_handler)


def upload(gateway: Gateway, content: bytes, name: str = "munki.pkg") -> dict[str, Any]:
    begun = gateway.post("/v2/app-uploads", {"name": name, "size": len(content)})
    assert begun.status == 201, begun.document
    answer = httpx.put(begun.document["url"], content=content, trust_env=False)
    assert answer.is_success, answer.text
    document: dict[str, Any] = begun.document
    return document


def finish(gateway: Gateway, begun: dict[str, Any]) -> Answer:
    return gateway.post(f"/v2/app-uploads/{begun['id']}/finished", {})


def form(**parts: bytes) -> bytes:
    boundary = b"--xyz"
    body = b""
    for name, content in parts.items():
        body += boundary + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"; filename="f"\r\n\r\n'
        body += content + b"\r\n"
    return body + boundary + b"--\r\n"


def test_a_package_is_uploaded_to_the_bucket_hashed_and_fetched_by_devices(
    gateway: Gateway, devices: Gateway, source: QueueSource
) -> None:
    content = PACKAGE + bytes(CHUNK_BYTES)
    begun = upload(gateway, content)
    assert finish(gateway, begun).document["state"] == "hashing"
    assert gateway.get("/v2/apps").document["apps"] == []
    assert len(source.invoke().done) == 1
    assert gateway.get(f"/v2/app-uploads/{begun['id']}").document["state"] == "ready"

    (app,) = gateway.get("/v2/apps").document["apps"]
    assert app == gateway.get("/v2/apps/munki.pkg").document
    assert (app["identifier"], app["version"], app["size"]) == ("com.example.munki", "6.1", len(content))
    assert app["manifest_url"] == "https://mdm.example.org/repo/munki.plist"
    manifest = devices.get("/repo/munki.plist")
    assert manifest.headers["content-type"] == "application/xml"
    (asset,) = plistlib.loads(manifest.body)["items"][0]["assets"]
    chunks = [content[:CHUNK_BYTES], content[CHUNK_BYTES:]]
    assert asset["sha256s"] == [hashlib.sha256(chunk).hexdigest() for chunk in chunks]
    assert asset["url"] == "https://mdm.example.org/repo/munki.pkg"
    led = devices.get("/repo/munki.pkg")
    assert led.status == 302
    assert httpx.get(led.headers["location"], trust_env=False).content == content
    assert devices.get("/repo/nowhere.plist").status == 404


def test_another_package_takes_the_place_of_the_former_and_is_forgotten(
    gateway: Gateway, devices: Gateway, source: QueueSource
) -> None:
    for filling in (10, 20):
        finish(gateway, upload(gateway, package(filling=filling)))
        source.invoke()
    former = devices.get("/repo/munki.pkg").headers["location"]

    assert len(httpx.get(former, trust_env=False).content) == len(package(filling=20))
    assert gateway.delete("/v2/apps/munki.pkg").status == 204
    assert gateway.delete("/v2/apps/munki.pkg").status == 204
    assert gateway.get("/v2/apps/munki.pkg").status == 404
    assert httpx.get(former, trust_env=False).status_code == 404


def test_what_is_no_package_is_refused_and_gone(gateway: Gateway, source: QueueSource) -> None:
    begun = upload(gateway, b"PK" + bytes(100))

    assert (finish(gateway, begun).status, finish(gateway, begun).document["state"]) == (400, "refused")
    told = gateway.get(f"/v2/app-uploads/{begun['id']}").document
    assert told["reason"] == "This is no installer package: it does not begin as one."
    assert gateway.get("/v2/apps").document["apps"] == []


def test_what_was_not_uploaded_whole_is_not_finished(gateway: Gateway) -> None:
    begun = gateway.post("/v2/app-uploads", {"name": "a.pkg", "size": 1_000}).document

    assert finish(gateway, begun).document["code"] == "not_uploaded"
    assert finish(gateway, {"id": "nowhere"}).status == 404


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"name": "a.dmg", "size": 1}, "name"),
        ({"name": "../a.pkg", "size": 1}, "name"),
        ({"name": "a.pkg"}, "size"),
        ({"name": "a.pkg", "size": 6 * 1024**3}, "size"),
        ({"size": 1}, "name"),
    ],
)
def test_what_is_wrong_is_named(gateway: Gateway, document: dict[str, Any], field: str) -> None:
    answer = gateway.post("/v2/app-uploads", document)

    assert (answer.status, answer.document["field"]) == (400, field)


def test_mdmctl_uploads_and_lists_apps(gateway: Gateway, devices: Gateway) -> None:
    manifest = plistlib.dumps({"items": [{"assets": [{"url": "https://mdm.example.org/repo/a.pkg"}]}]})
    body = form(
        app_manifest_filedata=manifest, app_manifest_filename=b"a.plist", pkg_filedata=PACKAGE, pkg_name=b"a.pkg"
    )

    assert gateway.post("/v1/apps", {}).document == {}
    assert gateway.request("PUT", "/v1/apps", body).document == {}
    assert gateway.request("PUT", "/v1/apps", form(pkg_filedata=PACKAGE, pkg_name=b"b.pkg")).document == {}
    listed = gateway.post("/v1/apps", {"filter_name": [""]}).document["apps"]
    assert [app["name"] for app in listed] == ["a.plist", "b.plist"]
    assert b64decode(listed[0]["payload"]) == manifest
    (one,) = gateway.post("/v1/apps", {"Opts": {"filter_name": ["b.plist"]}}).document["apps"]
    assert plistlib.loads(b64decode(one["payload"]))["items"][0]["metadata"]["title"] == "Munki tools"
    assert devices.get("/repo/a.plist").body == manifest
    assert httpx.get(devices.get("/repo/a.pkg").headers["location"], trust_env=False).content == PACKAGE


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        (b"{}", 400, "malformed_body", ""),
        (form(other=b"x"), 400, "malformed_body", "pkg_filedata"),
        (form(pkg_filedata=PACKAGE), 400, "malformed_body", "pkg_name"),
        (form(pkg_filedata=b"x", pkg_name=b"a.pkg"), 400, "not_a_package", "pkg"),
        (form(pkg_filedata=PACKAGE, pkg_name=b"a/b.pkg"), 400, "invalid_field", "name"),
        (form(app_manifest_filedata=b"x", app_manifest_filename=b"a.plist"), 400, "malformed_body", "app_manifest"),
        (form(pkg_filedata=package(filling=4_300_000), pkg_name=b"a.pkg"), 413, "body_too_large", ""),
        (form(pkg_filedata=package(filling=4_700_000), pkg_name=b"a.pkg"), 413, "body_too_large", ""),
    ],
)
def test_what_is_wrong_with_mdmctls_upload_is_told_in_its_form(
    gateway: Gateway, body: bytes, status: int, code: str, field: str
) -> None:
    answer = gateway.request("PUT", "/v1/apps", body)

    assert (answer.status, answer.document["code"], answer.document.get("field", "")) == (status, code, field)
    if status == 413:
        assert "picomdm apps upload" in answer.document["error"]


def test_a_blueprint_names_an_app_that_is_there(gateway: Gateway) -> None:
    blueprint = json.dumps({"apps": [{"app": "a.pkg"}]})

    assert gateway.request("PUT", "/v2/blueprints/macs", blueprint).document["field"] == "apps"
    gateway.request("PUT", "/v1/apps", form(pkg_filedata=PACKAGE, pkg_name=b"a.pkg"))
    assert gateway.request("PUT", "/v2/blueprints/macs", blueprint).status == 200

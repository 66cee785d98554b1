"""The admin function: who may enroll, and what devices are handed for it."""

import json
import plistlib
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from functions.admin import app as function
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.device_certificate import SignedContent
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.api_description import DescribedGateway
from tests.gateway import Answer, Gateway
from tests.genuine_devices import IPHONE, MAC, Authority
from tests.portal import push_certificate
from tests.profile_templates import template

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"

AUTHORITIES = "/v2/device-certificate-authorities"
SERIALS = "/v2/ade-serial-numbers"
MINIMUM = "/v2/minimum-os-versions"


@pytest.fixture
def gateway(aws: Emulator, environment: Settings) -> Gateway:
    return DescribedGateway(function.lambda_handler)


# Device authorities


def test_an_authority_is_uploaded_listed_replaced_and_deleted(gateway: Gateway) -> None:
    authority, other = Authority.named("Fruit Phone Device CA"), Authority.named("Fruit Watch Device CA")

    stored = gateway.request("PUT", f"{AUTHORITIES}/phone", authority.pem)
    assert stored.status == 200
    assert stored.document["subject"] == "CN=Fruit Phone Device CA,O=Fruit"
    assert stored.document["sha256"] == authority.certificate.fingerprint(SHA256()).hex()
    assert datetime.fromisoformat(stored.document["not_after"]).year == 2014
    assert gateway.get(AUTHORITIES).document["device_certificate_authorities"] == [stored.document]

    replaced = gateway.request("PUT", f"{AUTHORITIES}/phone", other.certificate.public_bytes(Encoding.DER))
    assert gateway.get(AUTHORITIES).document["device_certificate_authorities"] == [replaced.document]

    assert [gateway.delete(f"{AUTHORITIES}/phone").status for _ in range(2)] == [204, 204]
    assert gateway.get(AUTHORITIES).document["device_certificate_authorities"] == []


@pytest.mark.parametrize(
    ("name", "body", "code"),
    [
        ("phone", b"", "certificate_unreadable"),
        ("phone", b"no certificate", "certificate_unreadable"),
        ("-phone", Authority.named("Fruit Phone Device CA").pem, "invalid_field"),
        ("phone", Authority.named("Fruit Phone Device CA").pem * 2, "certificate_not_single"),
    ],
)
def test_what_is_wrong_with_an_authority_is_told(gateway: Gateway, name: str, body: bytes, code: str) -> None:
    answer = gateway.request("PUT", f"{AUTHORITIES}/{name}", body)

    assert (answer.status, answer.document["code"]) == (400, code)
    assert gateway.get(AUTHORITIES).document["device_certificate_authorities"] == []


# Serial numbers


def test_serial_numbers_are_added_in_capitals_listed_and_removed(gateway: Gateway) -> None:
    added = gateway.post(SERIALS, {"serial_numbers": [MAC["SERIAL"].lower(), IPHONE["SERIAL"]], "note": "Ada"})
    assert added.status == 201
    listed = gateway.get(SERIALS).document["ade_serial_numbers"]

    assert [entry["serial_number"] for entry in listed] == sorted([MAC["SERIAL"], IPHONE["SERIAL"]])
    assert {entry["note"] for entry in listed} == {"Ada"}
    assert gateway.delete(f"{SERIALS}/{MAC['SERIAL'].lower()}").status == 204
    assert gateway.delete(f"{SERIALS}/{MAC['SERIAL']}").status == 204
    assert [entry["serial_number"] for entry in gateway.get(SERIALS).document["ade_serial_numbers"]] == [
        IPHONE["SERIAL"]
    ]


def test_a_long_list_is_read_page_by_page(gateway: Gateway) -> None:
    numbers = [f"C02{number:09d}" for number in range(7)]
    gateway.post(SERIALS, {"serial_numbers": numbers})

    found, query = [], {"limit": "3"}
    while True:
        page = gateway.get(SERIALS, **query).document
        found.append([entry["serial_number"] for entry in page["ade_serial_numbers"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == [numbers[:3], numbers[3:6], numbers[6:]]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({}, "missing_field"),
        ({"serial_numbers": []}, "missing_field"),
        ({"serial_numbers": ["C02FX0AAMD6M", "short"]}, "invalid_field"),
        ({"serial_numbers": ["C02FX0AAMD6M; x"]}, "invalid_field"),
        ({"serial_numbers": ["C02FX0AAMD6M"] * 1_001}, "invalid_field"),
    ],
)
def test_serial_numbers_that_are_none_are_refused_all_together(
    gateway: Gateway, document: dict[str, Any], code: str
) -> None:
    answer = gateway.post(SERIALS, document)

    assert (answer.status, answer.document["code"], answer.document["field"]) == (400, code, "serial_numbers")
    assert gateway.get(SERIALS).document["ade_serial_numbers"] == []


# Minimum OS


def put_minimum(gateway: Gateway, platform: str, document: str) -> Any:
    return gateway.request("PUT", f"{MINIMUM}/{platform}", document)


def test_a_platform_is_asked_for_a_version_and_for_none_again(gateway: Gateway) -> None:
    assert put_minimum(gateway, "iOS", '{"os_version": "17.4"}').status == 200
    assert put_minimum(gateway, "iOS", '{"os_version": "17.5", "build_version": "21F79"}').status == 200
    assert put_minimum(gateway, "macOS", '{"os_version": "14.5"}').status == 200

    assert gateway.get(MINIMUM).document["minimum_os_versions"] == [
        {"platform": "iOS", "os_version": "17.5", "build_version": "21F79"},
        {"platform": "macOS", "os_version": "14.5", "build_version": None},
    ]
    assert gateway.delete(f"{MINIMUM}/iOS").status == gateway.delete(f"{MINIMUM}/macOS").status == 204
    assert gateway.get(MINIMUM).document["minimum_os_versions"] == []
    assert gateway.delete(f"{MINIMUM}/Windows").status == 404


@pytest.mark.parametrize(
    ("platform", "document", "field"),
    [
        ("ios", '{"os_version": "17.4"}', "platform"),
        ("iOS", "{}", "os_version"),
        ("iOS", '{"os_version": "latest"}', "os_version"),
        ("iOS", '{"os_version": "17.4", "build_version": "newest"}', "build_version"),
    ],
)
def test_a_version_that_is_none_is_refused(gateway: Gateway, platform: str, document: str, field: str) -> None:
    answer = put_minimum(gateway, platform, document)

    assert (answer.status, answer.document["field"]) == (400, field)


# Enrollment profiles

PROFILE = "/v2/enrollment-profile"
DEFAULTS = {
    "identifier": "com.github.picomdm.enroll",
    "organization": None,
    "display_name": None,
    "description": None,
    "access_rights": 8191,
    "server_capabilities": [
        "com.apple.mdm.per-user-connections",
        "com.apple.mdm.bootstraptoken",
        "com.apple.mdm.token",
    ],
    "key_size": 2048,
    "trust_certificates": None,
    "topic": None,
    "template": None,
    "signing_identity": None,
}


def put_profile(gateway: Gateway, **document: Any) -> Answer:
    return gateway.request("PUT", PROFILE, json.dumps(document))


def download() -> bytes:
    """Open a new link."""
    _, url = runtime.enrollment_links().create(expires_in=timedelta(days=1), topic=TOPIC)
    return Gateway(enroll.lambda_handler).get(f"/mdm/enroll/{url.rsplit('/', 1)[1]}").body


@pytest.fixture
def with_push_certificate(gateway: Gateway) -> None:
    runtime.push_certificates().upload(push_certificate(TOPIC))


@pytest.mark.usefixtures("with_push_certificate")
def test_profiles_look_as_it_is_said_and_as_at_first_again(gateway: Gateway) -> None:
    assert gateway.get(PROFILE).document == DEFAULTS

    root = Authority.named("Private Root")
    stored = put_profile(
        gateway,
        organization="School",
        display_name="School iPad",
        access_rights=3,
        key_size=4096,
        server_capabilities=["com.apple.mdm.token"],
        trust_certificates=root.pem.decode(),
        topic=TOPIC,
    )
    assert stored.status == 200
    assert stored.document == gateway.get(PROFILE).document
    assert stored.document["trust_certificates"] == root.pem.decode()
    profile = plistlib.loads(download())
    assert profile["PayloadDisplayName"] == "School iPad"
    assert len(profile["PayloadContent"]) == 3

    assert put_profile(gateway).document == DEFAULTS
    assert plistlib.loads(download())["PayloadDisplayName"] == "PicoMDM Enrollment"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identifier", "with space"),
        ("identifier", "x" * 129),
        ("organization", "x" * 65),
        ("access_rights", 0),
        ("access_rights", 2),
        ("access_rights", "all"),
        ("key_size", 3072),
        ("key_size", 1024),
        ("server_capabilities", ["com.apple.mdm.everything"]),
        ("trust_certificates", "no PEM"),
        ("topic", "com.apple.mgmt.External.unknown"),
    ],
)
@pytest.mark.usefixtures("with_push_certificate")
def test_what_a_profile_cannot_have_is_named(gateway: Gateway, field: str, value: Any) -> None:
    answer = put_profile(gateway, **{field: value})

    assert (answer.status, answer.document["field"]) == (400, field)
    assert gateway.get(PROFILE).document == DEFAULTS


@pytest.mark.usefixtures("with_push_certificate")
def test_profiles_are_made_from_a_template_until_it_is_removed(gateway: Gateway) -> None:
    stored = gateway.request("PUT", f"{PROFILE}/template", plistlib.dumps(template()))
    assert stored.status == 200
    assert stored.document["template"]["uploaded_at"]

    profile = plistlib.loads(download())
    assert profile["PayloadDisplayName"] == "Ours"
    assert profile["PayloadContent"][1]["Topic"] == TOPIC
    item = tables.EnrollmentProfileDesign.get("enrollment_profile", "default")
    assert b"org.example" not in item.template

    assert put_profile(gateway, organization="School").document["template"] == stored.document["template"]
    assert [gateway.delete(f"{PROFILE}/template").status for _ in range(2)] == [204, 204]
    assert plistlib.loads(download())["PayloadOrganization"] == "School"


def test_a_template_that_cannot_be_used_is_refused_with_a_reason(gateway: Gateway) -> None:
    answer = gateway.request("PUT", f"{PROFILE}/template", plistlib.dumps(template() | {"PayloadContent": []}))

    assert (answer.status, answer.document["code"]) == (400, "template_unusable")
    assert "no payloads of type com.apple.mdm" in answer.document["detail"]
    assert gateway.request("PUT", f"{PROFILE}/template", b"x").status == 400
    assert gateway.get(PROFILE).document["template"] is None


@pytest.mark.usefixtures("with_push_certificate")
def test_profiles_are_signed_by_whoever_was_uploaded(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    signer = Authority.named("Signing Root").device()
    key = signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = signer.certificate.public_bytes(Encoding.PEM) + key

    stored = gateway.request("PUT", f"{PROFILE}/signing-identity", pem)

    assert stored.document["signing_identity"]["subject"].startswith("CN=device")
    signed = SignedContent.verify(download())
    assert signed.signer.der == signer.certificate.public_bytes(Encoding.DER)
    assert plistlib.loads(signed.content)["PayloadType"] == "Configuration"
    assert key not in tables.EnrollmentProfileDesign.get("enrollment_profile", "default").signing_key
    assert gateway.request("PUT", f"{PROFILE}/signing-identity", key).document["code"] == "certificate_unreadable"
    assert "PRIVATE KEY" not in capsys.readouterr().out

    assert [gateway.delete(f"{PROFILE}/signing-identity").status for _ in range(2)] == [204, 204]
    assert plistlib.loads(download())

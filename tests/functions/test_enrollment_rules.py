"""The admin function: who may enroll, and what devices are handed for it."""

from datetime import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from functions.admin import app as function
from local.emulator import Emulator
from mdmlib.settings import Settings
from tests.api_description import DescribedGateway
from tests.gateway import Gateway
from tests.genuine_devices import IPHONE, MAC, Authority

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

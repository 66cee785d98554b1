"""Automated Device Enrollment at the enroll function: who is given a profile, and what the others are told."""

import logging
import plistlib
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.ade_devices import AdeDeviceStore
from tests.aws_calls import DynamoDBCalls
from tests.gateway import Answer, Gateway
from tests.genuine_devices import IPHONE, MAC, Authority
from tests.portal import push_certificate

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
OTHER_TOPIC = "com.apple.mgmt.External.66666666-7777-8888-9999-000000000000"
PROFILE = "application/x-apple-aspen-config"


class SetupAssistant(Gateway):
    """What a device asks in front of its new owner."""

    def __init__(self) -> None:
        super().__init__(enroll.lambda_handler)

    def ask(self, message: bytes) -> Answer:
        return self.request("POST", "/mdm/enroll", message, headers={"Content-Type": "application/pkcs7-signature"})


@pytest.fixture
def assistant(aws: Emulator, environment: Settings) -> SetupAssistant:
    runtime.push_certificates().upload(push_certificate(TOPIC))
    return SetupAssistant()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.named("Fruit Phone Device CA")


@pytest.fixture
def trusted(assistant: SetupAssistant, authority: Authority) -> Authority:
    runtime.device_authorities().upload("fruit", authority.pem)
    return authority


def challenge_of(answer: Answer) -> Any:
    profile = plistlib.loads(answer.body)
    scep = next(each for each in profile["PayloadContent"] if each["PayloadType"] == "com.apple.security.scep")
    return runtime.scep_challenges().recognize(scep["PayloadContent"]["Challenge"])


def test_a_genuine_device_is_given_a_profile_for_itself_alone(assistant: SetupAssistant, trusted: Authority) -> None:
    answer = assistant.ask(trusted.device().machine_info())

    assert (answer.status, answer.headers["content-type"]) == (200, PROFILE)
    assert answer.headers["cache-control"] == "no-store"
    challenge = challenge_of(answer)
    assert challenge.link_id is None
    assert challenge.serial_hash == serial_hash(IPHONE["SERIAL"])


def test_the_other_certificate_of_the_authority_will_do(assistant: SetupAssistant, authority: Authority) -> None:
    runtime.device_authorities().upload("fruit-sha1", authority.with_sha1.public_bytes(Encoding.DER))

    assert assistant.ask(authority.device(MAC).machine_info()).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_web_page_leads_to_the_profile_with_the_machine_info_in_a_header(
    assistant: SetupAssistant, trusted: Authority, method: str
) -> None:
    headers = {"X-Apple-Aspen-DeviceInfo": trusted.device().header()}

    answer = assistant.request(method, "/mdm/enroll", headers=headers)

    assert (answer.status, answer.headers["content-type"]) == (200, PROFILE)


def test_a_device_of_somebody_else_is_refused_without_a_reason(
    assistant: SetupAssistant, trusted: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    answer = assistant.ask(Authority.named("Forger").device().machine_info())

    assert (answer.status, answer.body) == (400, b"")
    assert caplog.records[-1].__dict__["code"] == "device_not_verified"


def test_nobody_enrolls_while_there_is_no_authority(
    assistant: SetupAssistant, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    answer = assistant.ask(authority.device().machine_info())

    assert answer.status == 403
    assert caplog.records[-1].__dict__["code"] == "device_authorities_missing"


def test_the_first_authority_counts_for_warm_functions_half_a_minute_after_its_upload(
    assistant: SetupAssistant, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = runtime.now()
    assert assistant.ask(authority.device().machine_info()).status == 403
    encoded = authority.certificate.public_bytes(Encoding.DER)
    tables.DeviceCertificateAuthority("device_ca", "first", certificate=encoded, uploaded_at=0).save()

    monkeypatch.setattr(runtime.device_authorities(), "_now", lambda: now + timedelta(seconds=40))
    assert assistant.ask(authority.device().machine_info()).status == 200


def test_a_setting_lets_unverified_devices_in_while_there_is_no_authority(
    assistant: SetupAssistant, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADE_UNVERIFIED", "on")
    runtime.forget()
    assert assistant.ask(authority.device().machine_info()).status == 200

    runtime.device_authorities().upload("other", Authority.named("Other").pem)
    assert assistant.ask(authority.device().machine_info()).status == 400


def test_where_everybody_may_enroll_a_device_need_not_be_verified(
    assistant: SetupAssistant, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENROLLMENT_ACCESS", "open")
    runtime.forget()

    assert assistant.ask(authority.device().machine_info()).status == 200
    assert assistant.ask(b"no message").status == 400


def test_an_authority_is_known_to_warm_functions_half_a_minute_after_its_upload(
    assistant: SetupAssistant, trusted: Authority, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Authority.named("Fruit Watch Device CA")
    now = runtime.now()
    authorities = runtime.device_authorities()
    assert assistant.ask(late.device().machine_info()).status == 400
    tables.DeviceCertificateAuthority(
        "device_ca", "late", certificate=late.certificate.public_bytes(Encoding.DER), uploaded_at=0
    ).save()
    assert assistant.ask(late.device().machine_info()).status == 400
    monkeypatch.setattr(authorities, "_now", lambda: now + timedelta(seconds=40))
    assert assistant.ask(late.device().machine_info()).status == 200


# Serial numbers


def test_a_list_of_serial_numbers_closes_the_door_to_all_others(assistant: SetupAssistant, trusted: Authority) -> None:
    runtime.ade_serial_numbers().add([MAC["SERIAL"].lower()], note="Ada")

    assert assistant.ask(trusted.device(MAC).machine_info()).status == 200
    assert assistant.ask(trusted.device().machine_info()).status == 403
    runtime.ade_serial_numbers().remove(MAC["SERIAL"])
    assert assistant.ask(trusted.device().machine_info()).status == 200


def test_a_device_in_apples_list_of_a_server_may_enroll_whatever_is_listed(
    assistant: SetupAssistant, trusted: Authority
) -> None:
    runtime.ade_serial_numbers().add([MAC["SERIAL"]], note=None)
    tables.AdeServer("ade_server", "school").save()
    device = AdeDeviceStore().new("school", IPHONE["SERIAL"])
    device.record, device.first_seen_at, device.changed_at = {"serial_number": IPHONE["SERIAL"]}, 0, 0
    AdeDeviceStore().save("school", [device])

    assert assistant.ask(trusted.device().machine_info()).status == 200
    device.deleted_at = 1
    AdeDeviceStore().save("school", [device])
    assert assistant.ask(trusted.device().machine_info()).status == 403


def test_a_device_without_a_serial_number_does_not_enroll_itself(assistant: SetupAssistant, trusted: Authority) -> None:
    assert assistant.ask(trusted.device().machine_info(SERIAL=None)).status == 400


# What a device has to do first


def test_a_device_that_is_too_old_is_told_to_update(assistant: SetupAssistant, trusted: Authority) -> None:
    runtime.minimum_os_versions().set("iOS", "17.5", build_version="21F79")

    answer = assistant.ask(trusted.device().machine_info())

    assert (answer.status, answer.headers["content-type"]) == (403, "application/json")
    assert answer.document == {
        "code": "com.apple.softwareupdate.required",
        "description": "The device has to update to iOS 17.5.",
        "message": "This device needs iOS 17.5 to be enrolled.",
        "details": {"OSVersion": "17.5", "BuildVersion": "21F79"},
    }
    assert assistant.ask(trusted.device().machine_info(OS_VERSION="17.5")).status == 200
    assert assistant.ask(trusted.device(MAC).machine_info()).status == 200


@pytest.mark.parametrize(
    "changes",
    [{"MDM_CAN_REQUEST_SOFTWARE_UPDATE": False}, {"MDM_CAN_REQUEST_SOFTWARE_UPDATE": None, "OS_VERSION": None}],
)
def test_a_device_that_could_not_update_is_let_in(
    assistant: SetupAssistant, trusted: Authority, changes: dict[str, Any]
) -> None:
    runtime.minimum_os_versions().set("iOS", "17.5", build_version=None)

    assert assistant.ask(trusted.device().machine_info(**changes)).status == 200


def test_a_watch_is_sent_to_its_iphone_for_a_pairing_token(assistant: SetupAssistant, trusted: Authority) -> None:
    watch = trusted.device(IPHONE | {"PRODUCT": "Watch7,1"})

    first, again = assistant.ask(watch.machine_info()), assistant.ask(watch.machine_info())

    assert first.status == 403
    assert first.document["code"] == "com.apple.watch.pairing.token.missing"
    tokens = {answer.document["details"]["security-token"] for answer in (first, again)}
    assert len({UUID(token) for token in tokens}) == 2
    assert assistant.ask(watch.machine_info(PAIRING_TOKEN=b"token")).status == 200


# What it costs, and what stays


def test_with_several_push_certificates_a_design_says_which(assistant: SetupAssistant, trusted: Authority) -> None:
    runtime.push_certificates().upload(push_certificate(OTHER_TOPIC))
    assert assistant.ask(trusted.device().machine_info()).status == 400

    design = runtime.enrollment_profiles().design()
    runtime.enrollment_profiles().set_options(design.options, topic=OTHER_TOPIC)

    profile = plistlib.loads(assistant.ask(trusted.device().machine_info()).body)
    assert next(each for each in profile["PayloadContent"] if "Topic" in each)["Topic"] == OTHER_TOPIC


def test_nothing_is_written_for_a_profile_and_nothing_is_asked_for_a_forger(
    assistant: SetupAssistant, trusted: Authority
) -> None:
    calls = DynamoDBCalls(runtime.dynamodb_client())
    assistant.ask(trusted.device().machine_info())
    assert calls.take_writes() == []

    for message in (b"", b"noise", Authority.named("Forger").device().machine_info()):
        assistant.ask(message)
    assert calls.take() == []


@pytest.mark.parametrize("size", [200_000, 4_000_000])
def test_a_huge_message_costs_little(assistant: SetupAssistant, trusted: Authority, size: int) -> None:
    began = time.monotonic()

    assert assistant.ask(b"\x30\x80" * (size // 2)).status == 400
    assert time.monotonic() - began < 2


def test_nothing_secret_is_logged(
    assistant: SetupAssistant, trusted: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = assistant.ask(trusted.device().machine_info())

    challenge = plistlib.loads(answer.body)["PayloadContent"][0]["PayloadContent"]["Challenge"]
    assert challenge not in "".join(str(record.__dict__) for record in caplog.records)

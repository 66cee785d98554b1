"""What a device does once it is enrolled: its messages on the wire, commands and reports, the end."""

import base64
import plistlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from local.device import (
    Exchange,
    Habits,
    Handled,
    Hardware,
    Identity,
    MessageForm,
    NoAnswer,
    ProtocolViolation,
    Renewal,
    ServerRefused,
    SignatureForm,
    SimulatedDevice,
    Unenrolled,
    cms,
)
from tests.simulators.fake_server import FakeServer, Seen, command, enrollment_profile

Make = Callable[..., SimulatedDevice]


def statuses(server: FakeServer) -> list[tuple[str, str | None]]:
    """What the device reported, in order: status and command."""
    return [(report["Status"], report.get("CommandUUID")) for report in server.messages() if "Status" in report]


def rules(device: SimulatedDevice) -> list[str]:
    return [violation.rule for violation in device.violations]


def detached(request: Seen) -> asn1_cms.SignedData:
    return asn1_cms.ContentInfo.load(base64.b64decode(request.headers["mdm-signature"], validate=True))["content"]


@pytest.mark.parametrize("form", SignatureForm)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("null_parameters", [True, False])
def test_messages_are_signed_over_the_exact_body(
    make_device: Make, server: FakeServer, form: SignatureForm, digest: cms.Digest, *, null_parameters: bool
) -> None:
    habits = Habits(message=MessageForm(signature=form, digest=digest, null_parameters=null_parameters))
    device = make_device(habits=habits)
    device.enroll(server.profile_url)

    request = server.seen[-1]
    signed = detached(request)
    [signer_info] = signed["signer_infos"]
    key = x509.load_der_x509_certificate(signed["certificates"][0].chosen.dump()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key == device.identity.certificate.public_key()
    kind = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[digest]
    covered = request.body
    if form is SignatureForm.DER_WITH_ATTRIBUTES:
        attributes = {one["type"].native: one["values"][0] for one in signer_info["signed_attrs"]}
        assert attributes.keys() == {"content_type", "message_digest", "signing_time"}
        hasher = hashes.Hash(kind)
        hasher.update(request.body)
        assert attributes["message_digest"].native == hasher.finalize()
        covered = signer_info["signed_attrs"].untag().dump()
    key.verify(signer_info["signature"].native, covered, padding.PKCS1v15(), kind)
    assert (signer_info["digest_algorithm"]["parameters"].dump() == b"\x05\x00") is null_parameters


def test_the_old_form_has_indefinite_lengths_and_no_attributes(make_device: Make, server: FakeServer) -> None:
    form = MessageForm(signature=SignatureForm.BER_NO_ATTRIBUTES, digest="sha1")
    make_device(habits=Habits(message=form)).enroll(server.profile_url)

    signature = base64.b64decode(server.seen[-1].headers["mdm-signature"])
    assert signature.startswith(b"\x30\x80\x06\x09")
    assert signature.endswith(b"\x00" * 6)
    [signer_info] = detached(server.seen[-1])["signer_infos"]
    assert not signer_info["signed_attrs"]


def test_an_identity_on_a_curve_signs_too(ca: Identity) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    assert isinstance(ca.key, rsa.RSAPrivateKey)
    certificate = (
        x509.CertificateBuilder(ca.certificate.subject, csr.subject, csr.public_key(), 4711)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2027, 1, 1, tzinfo=UTC))
        .sign(ca.key, hashes.SHA256())
    )
    signature = cms.sign_message(
        b"body",
        Identity(key, certificate),
        form=SignatureForm.BER_NO_ATTRIBUTES,
        digest="sha256",
        at=datetime(2026, 11, 20, tzinfo=UTC),
    )
    [signer_info] = asn1_cms.ContentInfo.load(signature)["content"]["signer_infos"]
    key.public_key().verify(signer_info["signature"].native, b"body", ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        (MessageForm(), b"<?xml"),
        (MessageForm(byte_order_mark=True), b"\xef\xbb\xbf<?xml"),
        (MessageForm(binary=True), b"bplist00"),
    ],
)
def test_messages_are_property_lists_of_each_form(
    make_device: Make, server: FakeServer, form: MessageForm, begins: bytes
) -> None:
    make_device(habits=Habits(message=form)).enroll(server.profile_url)
    assert all(one.body.startswith(begins) for one in server.seen if one.method == "PUT")


@pytest.mark.parametrize("content_type", [True, False])
def test_a_report_may_come_without_a_content_type(make_device: Make, server: FakeServer, *, content_type: bool) -> None:
    device = make_device(habits=Habits(message=MessageForm(connect_content_type=content_type)))
    device.enroll(server.profile_url)
    device.connect()

    check_in, report = server.seen[-2:]
    assert check_in.headers["content-type"] == "application/x-apple-aspen-mdm-checkin"
    assert report.headers.get("content-type") == ("application/x-apple-aspen-mdm" if content_type else None)
    assert report.headers["user-agent"].startswith("MDM/")


def test_a_connection_goes_on_until_there_is_nothing_more(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1"), command("C2", "ProfileList")]

    assert enrolled.connect() == [
        Handled(uuid="C1", request_type="SecurityInfo", status="Acknowledged"),
        Handled(uuid="C2", request_type="ProfileList", status="Acknowledged"),
    ]
    assert statuses(server) == [("Idle", None), ("Acknowledged", "C1"), ("Acknowledged", "C2")]
    assert not enrolled.violations


def test_a_deferred_command_is_done_at_the_next_connection(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1"), command("C2")]
    enrolled.defer()

    enrolled.connect()
    enrolled.connect()

    assert statuses(server) == [
        ("Idle", None),
        ("NotNow", "C1"),
        ("Acknowledged", "C2"),
        ("Acknowledged", "C1"),
        ("Idle", None),
    ]
    assert not enrolled.violations


def test_only_the_named_request_type_is_deferred_or_fails(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1"), command("C2", "ProfileList"), command("C3", "CertificateList")]
    enrolled.defer(request_type="ProfileList")
    enrolled.fail(request_type="CertificateList", status="CommandFormatError")

    assert [(one.uuid, one.status) for one in enrolled.connect()] == [
        ("C1", "Acknowledged"),
        ("C2", "NotNow"),
        ("C3", "CommandFormatError"),
        ("C2", "Acknowledged"),
    ]


def test_the_same_command_after_its_final_report_is_a_violation(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1")]
    enrolled.connect()
    server.queue = [command("C1")]
    enrolled.connect()

    assert rules(enrolled) == ["repeated-command"]


def test_a_queue_that_never_ends_is_a_violation(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1")]
    server.forgetful = True

    with pytest.raises(ProtocolViolation, match="endless-queue"):
        enrolled.connect()


def test_a_command_that_comes_back_at_once_after_not_now_is_a_violation(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    server.queue = [command("C1")]
    server.forgetful = True
    enrolled.defer(10)

    enrolled.connect()
    assert rules(enrolled) == ["deferred-command"]


def test_a_command_whose_answer_was_lost_may_come_again(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.queue = [command("C1")]
    server.forgetful = True
    enrolled.lose_answers(what="SecurityInfo Acknowledged")
    with pytest.raises(NoAnswer):
        enrolled.connect()

    again = enrolled.idle()
    assert again
    assert again.uuid == "C1"
    assert not enrolled.violations


def test_a_report_whose_answer_was_lost_is_sent_again_as_it_was(
    make_device: Make, server: FakeServer, slept: list[float]
) -> None:
    device = make_device()
    device.enroll(server.profile_url)
    server.queue = [command("C1")]
    device.lose_answers(what="SecurityInfo Acknowledged")
    device.connect()

    first, second = (one for one in server.seen if one.method == "PUT" and one.message.get("CommandUUID") == "C1")
    assert first.body == second.body
    assert slept == [0.2]
    assert not device.violations


@pytest.mark.parametrize(
    "body",
    [b"\n", b"not a plist", plistlib.dumps([]), plistlib.dumps({"Command": {}}), plistlib.dumps(command("C1"))[:-20]],
)
def test_an_answer_that_is_neither_a_command_nor_empty_is_a_violation(
    enrolled: SimulatedDevice, server: FakeServer, body: bytes
) -> None:
    server.bodies["next"] = body
    with pytest.raises(ProtocolViolation):
        enrolled.connect()
    assert rules(enrolled) == ["command"]


def test_401_ends_the_enrollment_without_a_word(enrolled: SimulatedDevice, server: FakeServer) -> None:
    server.statuses["Idle"] = [401]

    with pytest.raises(Unenrolled):
        enrolled.connect()
    assert not enrolled.is_enrolled
    assert not server.messages("CheckOut")
    with pytest.raises(Unenrolled):
        enrolled.connect()


@pytest.mark.parametrize(
    ("os_version", "code", "ends"),
    [
        ("17.0", "com.apple.unrecognized.device", True),
        ("16.7", "com.apple.unrecognized.device", False),
        ("17.0", "com.apple.softwareupdate.required", False),
    ],
)
def test_a_403_ends_the_enrollment_only_with_apples_code(
    make_device: Make, server: FakeServer, os_version: str, code: str, *, ends: bool
) -> None:
    device = make_device(Hardware.iphone(os_version=os_version))
    device.enroll(server.profile_url)
    server.statuses["Idle"] = [403]
    server.bodies["Idle"] = plistlib.dumps({"code": code})
    server.types["Idle"] = "application/xml"

    with pytest.raises(Unenrolled if ends else ServerRefused):
        device.connect()
    assert device.is_enrolled is not ends


@pytest.mark.parametrize("status", [400, 404, 500])
def test_other_statuses_end_nothing(enrolled: SimulatedDevice, server: FakeServer, status: int) -> None:
    server.statuses["Idle"] = [status]
    with pytest.raises(ServerRefused):
        enrolled.connect()
    assert enrolled.is_enrolled
    assert enrolled.connect() == []


def test_check_out_is_sent_once_whatever_becomes_of_it(make_device: Make, server: FakeServer) -> None:
    device = make_device()
    device.enroll(server.profile_url)
    server.statuses["CheckOut"] = [503]

    with pytest.raises(ServerRefused):
        device.check_out()
    assert not device.is_enrolled
    assert len(server.messages("CheckOut")) == 1


def test_no_check_out_is_sent_when_the_profile_asks_for_none(device: SimulatedDevice, server: FakeServer) -> None:
    server.mdm["CheckOutWhenRemoved"] = False
    device.enroll(server.profile_url)
    device.check_out()
    assert not server.messages("CheckOut")


def last_report(server: FakeServer) -> dict[str, Any]:
    return server.messages()[-1]


def test_some_commands_need_a_supervised_device(make_device: Make, server: FakeServer) -> None:
    for hardware, status in [
        (Hardware.iphone(is_supervised=False), "Error"),
        (Hardware.iphone(), "Acknowledged"),
        (Hardware.mac(is_supervised=False), "Acknowledged"),
    ]:
        device = make_device(hardware)
        device.enroll(server.profile_url)
        assert run(device, server, "RestartDevice")["Status"] == status


def run(device: SimulatedDevice, server: FakeServer, request_type: str, **fields: Any) -> dict[str, Any]:
    """Let the device carry out one command; return its report."""
    server.queue = [command(f"{request_type} {len(server.seen)}", request_type, **fields)]
    device.connect()
    return last_report(server)


@pytest.mark.parametrize("make_hardware", [Hardware.iphone, Hardware.ipad, Hardware.mac])
def test_device_information_answers_what_it_knows_and_leaves_out_the_rest(
    make_device: Make, server: FakeServer, make_hardware: Callable[[], Hardware]
) -> None:
    device = make_device(make_hardware())
    device.enroll(server.profile_url)
    queries = ["UDID", "DeviceName", "OSVersion", "IMEI", "IsAppleSilicon", "NoSuchQuery"]
    report = run(device, server, "DeviceInformation", Queries=queries)

    answers = report["QueryResponses"]
    expected = {"UDID", "DeviceName", "OSVersion"}
    expected |= {"IMEI"} if device.hardware.imei else set()
    expected |= {"IsAppleSilicon"} if device.hardware.model_name == "MacBook Pro" else set()
    assert answers.keys() == expected
    assert answers["UDID"] == device.udid == report["UDID"]


def test_a_right_that_was_not_given_hides_what_it_protects(device: SimulatedDevice, server: FakeServer) -> None:
    server.mdm["AccessRights"] = 8191 - 16 - 1024
    device.enroll(server.profile_url)

    answers = run(device, server, "DeviceInformation", Queries=["UDID", "OSVersion", "WiFiMAC"])["QueryResponses"]
    assert answers.keys() == {"UDID", "WiFiMAC"}
    assert run(device, server, "SecurityInfo")["Status"] == "Error"


def test_an_unknown_request_type_is_an_error_and_a_malformed_command_a_format_error(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    unknown = run(enrolled, server, "MakeCoffee")
    assert unknown["Status"] == "Error"
    assert unknown["ErrorChain"][0]["ErrorCode"] == 12021
    assert run(enrolled, server, "InstallProfile")["Status"] == "CommandFormatError"
    assert run(enrolled, server, "InstallProfile", Payload="text")["Status"] == "CommandFormatError"


def wifi(identifier: str = "com.example.wifi", **different: Any) -> bytes:
    payload = {
        "PayloadType": "com.apple.wifi.managed",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.payload",
        "PayloadUUID": "0F6E4C6A-3C3A-4E7E-9E0B-8F1D3B0B7C11",
        "SSID_STR": "Example",
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": identifier,
        "PayloadUUID": "5B8F5C0F-60B5-4A62-8E26-7C6B8B8E2F10",
        "PayloadDisplayName": "Wi-Fi",
        "PayloadContent": [payload],
    }
    return plistlib.dumps(profile | different)


def test_an_installed_profile_is_listed_until_it_is_removed(enrolled: SimulatedDevice, server: FakeServer) -> None:
    def listed() -> list[str]:
        return [one["PayloadIdentifier"] for one in run(enrolled, server, "ProfileList")["ProfileList"]]

    assert listed() == ["com.example.enroll"]
    assert run(enrolled, server, "InstallProfile", Payload=wifi())["Status"] == "Acknowledged"
    assert listed() == ["com.example.enroll", "com.example.wifi"]
    assert run(enrolled, server, "RemoveProfile", Identifier="com.example.wifi")["Status"] == "Acknowledged"
    assert listed() == ["com.example.enroll"]
    assert run(enrolled, server, "RemoveProfile", Identifier="com.example.wifi")["Status"] == "Error"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"no profile", 1000),
        (plistlib.dumps([]), 1000),
        (wifi(PayloadVersion=2), 1001),
        (wifi(PayloadIdentifier=""), 1003),
        (wifi(PayloadContent={}), 1003),
        (wifi(PayloadContent=[]), 1005),
        (wifi(PayloadUUID="0F6E4C6A-3C3A-4E7E-9E0B-8F1D3B0B7C11"), 1007),
        (wifi(PayloadType="Payload"), 1010),
    ],
)
def test_a_profile_that_breaks_a_rule_is_not_installed(
    enrolled: SimulatedDevice, server: FakeServer, payload: bytes, code: int
) -> None:
    report = run(enrolled, server, "InstallProfile", Payload=payload)
    assert report["Status"] == "Error"
    assert report["ErrorChain"][0]["ErrorDomain"] == "MCProfileErrorDomain"
    assert report["ErrorChain"][0]["ErrorCode"] == code


def test_the_enrollment_profile_installed_anew_may_enroll_again_inside_the_connection(
    make_device: Make, server: FakeServer
) -> None:
    enrolled = make_device(habits=Habits(renewal=Renewal.ENROLL_ANEW))
    enrolled.enroll(server.profile_url)
    old = enrolled.identity.certificate
    begun = len(server.seen)
    run(enrolled, server, "InstallProfile", Payload=plistlib.dumps(server.profile))

    sent = [one for one in server.seen[begun:] if one.method == "PUT"]
    assert [one.message.get("MessageType") or one.message["Status"] for one in sent] == [
        "Idle",
        "Authenticate",
        "Acknowledged",
        "TokenUpdate",
    ]
    signers = [x509.load_der_x509_certificate(detached(one)["certificates"][0].chosen.dump()) for one in sent]
    new = enrolled.identity.certificate
    assert signers == [old, new, old, new]
    assert new != old


def test_an_enrollment_profile_of_another_server_is_not_installed(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    other = enrollment_profile("https://mdm.example.com")
    report = run(enrolled, server, "InstallProfile", Payload=plistlib.dumps(other))
    assert report["ErrorChain"][0]["ErrorCode"] == 12012
    assert len(server.messages("Authenticate")) == 1


def test_removing_the_enrollment_profile_reports_and_then_checks_out(
    enrolled: SimulatedDevice, server: FakeServer
) -> None:
    server.queue = [command("C1", "RemoveProfile", Identifier="com.example.enroll"), command("C2")]
    enrolled.connect()

    assert not enrolled.is_enrolled
    assert [one.get("MessageType") or one["Status"] for one in server.messages()[-2:]] == ["Acknowledged", "CheckOut"]


def test_an_erased_device_says_nothing_more(enrolled: SimulatedDevice, server: FakeServer) -> None:
    assert run(enrolled, server, "EraseDevice")["Status"] == "Acknowledged"
    assert not enrolled.is_enrolled
    assert not server.messages("CheckOut")


def test_clear_passcode_needs_the_devices_own_token(enrolled: SimulatedDevice, server: FakeServer) -> None:
    assert run(enrolled, server, "ClearPasscode", UnlockToken=b"another")["Status"] == "Error"
    assert run(enrolled, server, "SecurityInfo")["SecurityInfo"]["PasscodePresent"] is True
    assert run(enrolled, server, "ClearPasscode", UnlockToken=enrolled.unlock_token)["Status"] == "Acknowledged"
    assert run(enrolled, server, "SecurityInfo")["SecurityInfo"]["PasscodePresent"] is False


def test_settings_change_what_the_device_tells(enrolled: SimulatedDevice, server: FakeServer) -> None:
    settings = [{"Item": "DeviceName", "DeviceName": "Reception"}, {"Item": "DataRoaming", "Enabled": False}]
    report = run(enrolled, server, "Settings", Settings=settings)
    assert [one["Status"] for one in report["Settings"]] == ["Acknowledged", "Acknowledged"]
    information = run(enrolled, server, "DeviceInformation", Queries=["DeviceName"])
    assert information["QueryResponses"] == {"DeviceName": "Reception"}


def test_an_app_is_managed_until_it_is_removed(enrolled: SimulatedDevice, server: FakeServer) -> None:
    run(enrolled, server, "InstallApplication", Identifier="com.example.app")
    assert run(enrolled, server, "ManagedApplicationList")["ManagedApplicationList"].keys() == {"com.example.app"}
    run(enrolled, server, "RemoveApplication", Identifier="com.example.app")
    assert run(enrolled, server, "ManagedApplicationList")["ManagedApplicationList"] == {}


def test_a_user_of_a_mac_has_a_channel_of_their_own(make_device: Make, server: FakeServer) -> None:
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    channel = mac.log_in("ada", long_name="Ada Lovelace")

    token_update = server.messages("TokenUpdate")[-1]
    assert token_update["UserShortName"] == "ada"
    assert token_update["UserID"] == channel.ids["UserID"]
    assert token_update["Token"] != mac.push_token
    assert "UnlockToken" not in token_update
    server.queue = [command("C1", "ProfileList")]
    channel.connect()
    assert last_report(server)["UserID"] == channel.ids["UserID"]


def test_a_bootstrap_token_is_escrowed_and_asked_for(make_device: Make, server: FakeServer) -> None:
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    assert mac.get_bootstrap_token() is None
    token = mac.escrow_bootstrap_token()
    assert server.messages("SetBootstrapToken")[0]["BootstrapToken"] == token
    server.bodies["GetBootstrapToken"] = plistlib.dumps({"BootstrapToken": token})
    assert mac.get_bootstrap_token() == token
    server.bodies["GetBootstrapToken"] = plistlib.dumps({"BootstrapToken": "text"})
    with pytest.raises(ProtocolViolation):
        mac.get_bootstrap_token()


class OnePush:
    """An APNs that wakes whoever waits, once for each time that it is told to."""

    def __init__(self) -> None:
        self.registered: list[tuple[bytes, str, str]] = []
        self.unregistered: list[bytes] = []
        self.pushes = threading.Semaphore(0)

    def register(self, *, token: bytes, topic: str, magic: str) -> None:
        self.registered.append((token, topic, magic))

    def unregister(self, token: bytes) -> None:
        self.unregistered.append(token)

    def wait(self, token: bytes, *, seconds: float) -> bool:
        return self.pushes.acquire(timeout=min(seconds, 0.02))


def eventually(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.01)


def test_a_listening_device_connects_when_it_is_woken_and_again_after_not_now(
    make_device: Make, server: FakeServer
) -> None:
    push = OnePush()
    device = make_device(push=push, habits=Habits(deferred_delay=0.05))
    device.enroll(server.profile_url)
    token_update = server.messages("TokenUpdate")[0]
    assert push.registered == [(token_update["Token"], token_update["Topic"], token_update["PushMagic"])]
    server.queue = [command("C1")]
    device.defer()

    with device.listening():
        assert not server.messages("Idle")
        push.pushes.release()
        eventually(lambda: ("Acknowledged", "C1") in statuses(server))
    assert statuses(server)[:2] == [("Idle", None), ("NotNow", "C1")]
    device.check_out()
    assert push.unregistered == [token_update["Token"]]


def test_a_listening_device_survives_a_failing_server_and_ends_with_401(make_device: Make, server: FakeServer) -> None:
    push = OnePush()
    device = make_device(push=push, habits=Habits(retry_delays=()))
    device.enroll(server.profile_url)
    server.statuses["Idle"] = [503, 401]

    with device.listening():
        push.pushes.release()
        eventually(lambda: bool(device.failures))
        assert device.is_enrolled
        push.pushes.release()
        eventually(lambda: not device.is_enrolled)
    assert [str(failure) for failure in device.failures] == ["Idle was answered 503"]


def test_a_new_push_token_replaces_the_old_one(make_device: Make, server: FakeServer) -> None:
    push = OnePush()
    device = make_device(push=push)
    device.enroll(server.profile_url)
    old = device.push_token
    device.update_token()
    assert server.messages("TokenUpdate")[-1]["Token"] == device.push_token != old
    assert push.unregistered == [old]


def test_every_exchange_is_reported(make_device: Make, server: FakeServer) -> None:
    exchanges: list[Exchange] = []
    device = make_device(observer=exchanges.append)
    device.enroll(server.profile_url)
    device.lose_answers(what="CheckOut")
    with pytest.raises(NoAnswer):
        device.check_out()

    assert [(one.method, one.what, one.status) for one in exchanges] == [
        ("GET", "profile", 200),
        ("GET", "GetCACaps", 200),
        ("GET", "GetCACert", 200),
        ("POST", "PKIOperation", 200),
        ("PUT", "Authenticate", 200),
        ("PUT", "TokenUpdate", 200),
        ("PUT", "CheckOut", 200),
    ]
    assert exchanges[-1].failure == "the answer was lost"
    assert exchanges[-1].path == "/mdm/checkin"
    assert exchanges[-1].request_body == server.seen[-1].body
    assert exchanges[0].response_body == plistlib.dumps(server.profile)
    assert all(one.device == device.hardware.serial_number and one.milliseconds > 0 for one in exchanges)


def test_a_server_that_is_gone_is_no_answer(make_device: Make, tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="ConnectError"):
        make_device(trust=None).download_profile("https://127.0.0.1:1/mdm/enroll/token")


def test_several_devices_live_in_threads_at_once(make_device: Make, server: FakeServer) -> None:
    def live(device: SimulatedDevice) -> int:
        device.enroll(server.profile_url)
        device.connect()
        device.check_out()
        return len(device.violations)

    devices = [make_device() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(live, devices)) == [0, 0, 0, 0]
    assert {one["UDID"] for one in server.messages("CheckOut")} == {device.udid for device in devices}

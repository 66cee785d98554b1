"""The check-in and connect functions, from the gateway's event to its answer."""

import plistlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import md5
from typing import Any

import pytest

from functions.checkin import app as checkin
from functions.connect import app as connect
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.certificates import CaIdentity, new_certificate_authority
from mdmlib.http.gateway import MAX_BODY_BYTES
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.fleet import command
from tests.gateway import Answer, Gateway, http_event
from tests.signed_device import CHECKIN_TYPE, TOPIC, SignedDevice, trusted_authority

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
SECRETS = ("the-push-magic", "the-unlock-token", "the-bootstrap-token")


class Edge:
    """Both functions, and whatever they log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self, event: dict[str, Any]) -> Answer:
        answer = self.whole(event)
        assert answer.status not in {401, 403}, "both make a device un-enroll"
        return Answer(answer.status, {}, answer.body)

    def whole(self, event: dict[str, Any]) -> Answer:
        """Return the answer with its headers, whatever it makes the device do."""
        app = connect if event["rawPath"] == "/mdm/connect" else checkin
        return Gateway(app.lambda_handler).answer(event)

    def last_logged(self) -> dict[str, Any]:
        """Return the fields of the last line that was logged."""
        return self._caplog.records[-1].__dict__

    def everything_logged(self) -> str:
        return "\n".join(str(record.__dict__) for record in self._caplog.records)


@pytest.fixture
def ca(aws: Emulator, environment: Settings) -> CaIdentity:
    runtime.bind_tables()
    return trusted_authority()


@pytest.fixture
def device(ca: CaIdentity) -> SignedDevice:
    return SignedDevice(ca, UDID)


@pytest.fixture
def edge(caplog: pytest.LogCaptureFixture) -> Iterator[Edge]:
    edge = Edge(caplog)
    yield edge
    for secret in SECRETS:
        assert secret not in edge.everything_logged()


@pytest.fixture
def enrolled(edge: Edge, device: SignedDevice) -> SignedDevice:
    assert edge(device.checkin("Authenticate", SerialNumber="C02XXXX")) == Answer(200, {}, b"")
    token_update = device.checkin(
        "TokenUpdate", Token=b"t" * 32, PushMagic="the-push-magic", UnlockToken=b"the-unlock-token"
    )
    assert edge(token_update) == Answer(200, {}, b"")
    return device


def enqueue(uuid: str) -> None:
    runtime.enqueue_service().enqueue(command(uuid), [UDID])


def items(settings: Settings, emulator: Emulator) -> int:
    return int(emulator.dynamodb.scan(TableName=settings.enrollment_table, Select="COUNT")["Count"])


def test_a_device_enrolls_is_told_to_do_something_and_does_it(edge: Edge, enrolled: SignedDevice) -> None:
    enqueue("C1")

    answer = edge(enrolled.report("Idle"))
    assert plistlib.loads(answer.body)["CommandUUID"] == "C1"
    assert edge(enrolled.report("Acknowledged", "C1")) == Answer(200, {}, b"")


def test_the_single_path_takes_both_kinds_of_message(edge: Edge, enrolled: SignedDevice) -> None:
    enqueue("C1")
    idle = plistlib.dumps({"Status": "Idle", "UDID": UDID})

    assert b"C1" in edge(enrolled.put("/mdm", idle)).body
    without_type = http_event("PUT", "/mdm", idle, headers={"Mdm-Signature": enrolled.sign(idle)})
    assert b"C1" in edge(without_type).body
    check_out = plistlib.dumps({"MessageType": "CheckOut", "UDID": UDID, "Topic": TOPIC})
    assert edge(enrolled.put("/mdm", check_out, content_type=CHECKIN_TYPE)).status == 200
    record = tables.Enrollment.get(UDID, "!")
    assert record.state == "checked_out"


def test_the_query_of_the_url_reaches_the_event(edge: Edge, enrolled: SignedDevice, aws: Emulator) -> None:
    from tests.fleet import Bus

    bus = Bus(aws, runtime.settings().event_bus)
    event = enrolled.report("Idle")
    event["queryStringParameters"] = {"site": "berlin"}
    edge(event)

    (document,) = bus.take()
    assert document["acknowledge_event"]["url_params"] == {"site": "berlin"}


@pytest.mark.parametrize(
    "header",
    [None, "", "not base64!", "AAAA", "MIIB"],
    ids=["missing", "empty", "no base64", "no CMS", "cut off"],
)
def test_a_request_without_a_signature_is_refused_and_costs_no_write(
    edge: Edge, device: SignedDevice, environment: Settings, aws: Emulator, header: str | None
) -> None:
    event = device.checkin("Authenticate")
    event["headers"].pop("mdm-signature")
    if header is not None:
        event["headers"]["mdm-signature"] = header

    assert edge(event) == Answer(400, {}, b"")
    assert items(environment, aws) == 0


def test_a_signature_over_another_body_is_refused(edge: Edge, device: SignedDevice) -> None:
    event = device.checkin("Authenticate")
    event["headers"]["mdm-signature"] = device.sign(b"another body")

    assert edge(event) == Answer(400, {}, b"")
    assert edge.last_logged()["status"] == 400


def test_a_certificate_of_another_ca_is_refused(
    edge: Edge, ca: CaIdentity, environment: Settings, aws: Emulator
) -> None:
    foreign = SignedDevice(new_certificate_authority("Tests", now=datetime.now(UTC)), UDID)

    assert edge(foreign.checkin("Authenticate")) == Answer(400, {}, b"")
    assert edge.last_logged()["code"] == "certificate_not_ours"
    assert items(environment, aws) == 0


def test_a_certificate_of_another_enrollment_is_refused(edge: Edge, ca: CaIdentity, enrolled: SignedDevice) -> None:
    other = SignedDevice(ca, "ANOTHER-DEVICE")
    edge(other.checkin("Authenticate"))
    other.udid = UDID

    for event in (other.checkin("Authenticate"), other.checkin("CheckOut"), other.report("Idle")):
        assert edge(event) == Answer(400, {}, b"")
    assert tables.Enrollment.get(UDID, "!").state == "enrolled"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no plist", "malformed_body"),
        (b"", "malformed_body"),
        (plistlib.dumps(["a list"]), "malformed_body"),
        (plistlib.dumps({"MessageType": "NewInYearX", "UDID": UDID}), "unknown_enrollment"),
        (plistlib.dumps({"MessageType": "New in year X", "UDID": UDID}), "unknown_message_type"),
        (plistlib.dumps({"MessageType": "Authenticate", "Topic": TOPIC}), "bad_request"),
        (plistlib.dumps({"MessageType": "Authenticate", "Topic": TOPIC, "UDID": "command#1"}), "bad_request"),
        (plistlib.dumps({"MessageType": "Authenticate", "Topic": TOPIC, "UDID": "x" * 2048}), "bad_request"),
        (plistlib.dumps({"MessageType": "TokenUpdate", "UDID": UDID, "Topic": TOPIC}), "malformed_body"),
    ],
)
def test_a_message_that_is_none_is_refused_with_nothing_revealed(
    edge: Edge, device: SignedDevice, environment: Settings, aws: Emulator, body: bytes, code: str
) -> None:
    assert edge(device.put("/mdm/checkin", body, content_type=CHECKIN_TYPE)) == Answer(400, {}, b"")
    assert edge.last_logged()["code"] == code
    assert items(environment, aws) == 0


def test_a_body_that_is_too_large_is_refused_before_it_is_read(edge: Edge, device: SignedDevice) -> None:
    event = device.report("Idle")
    event["body"] = "A" * (MAX_BODY_BYTES * 4 // 3 + 8)

    assert edge(event) == Answer(413, {}, b"")


def test_a_report_on_an_unknown_command_is_taken(edge: Edge, enrolled: SignedDevice) -> None:
    assert edge(enrolled.report("Acknowledged", "NEVER")) == Answer(200, {}, b"")


def test_user_authenticate_is_declined(edge: Edge, enrolled: SignedDevice) -> None:
    assert edge(enrolled.checkin("UserAuthenticate", UserID="U1")) == Answer(410, {}, b"")


def enroll(edge: Edge, device: SignedDevice, **fields: str) -> None:
    assert edge(device.checkin("Authenticate", **fields)).status == 200
    assert edge(device.checkin("TokenUpdate", Token=b"t", PushMagic="the-push-magic")).status == 200


def ddm(device: SignedDevice, endpoint: str, **fields: bytes) -> dict[str, Any]:
    return device.checkin("DeclarativeManagement", Endpoint=endpoint, **fields)


def test_plists_and_json_say_what_they_are_and_nothing_is_zero_bytes(edge: Edge, enrolled: SignedDevice) -> None:
    edge(enrolled.checkin("SetBootstrapToken", BootstrapToken=b"the-bootstrap-token"))

    plist = edge.whole(enrolled.checkin("GetBootstrapToken"))
    assert plist.headers["content-type"] == "application/xml"
    assert plistlib.loads(plist.body) == {"BootstrapToken": b"the-bootstrap-token"}
    tokens = edge.whole(ddm(enrolled, "tokens"))
    assert tokens.headers["content-type"] == "application/json"
    assert set(tokens.document) == {"SyncTokens"}
    assert edge(ddm(enrolled, "status", Data=b"{}")) == Answer(200, {}, b"")


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ({"MessageType": "DeclarativeManagement", "Endpoint": "declaration/asset/a"}, 404),
        ({"MessageType": "DeclarativeManagement", "Endpoint": "status", "Data": b"{"}, 400),
        ({"MessageType": "DeclarativeManagement", "Endpoint": "status"}, 400),
        ({"MessageType": "DeclarativeManagement"}, 400),
        ({"MessageType": "GetToken", "TokenServiceType": "com.apple.maid"}, 400),
        ({"MessageType": "GetToken", "TokenServiceType": "com.apple.watch.pairing"}, 400),
        ({"MessageType": "GetToken"}, 400),
        ({"MessageType": "UserAuthenticate"}, 400),
        ({"MessageType": "NewInIOS30", "Novelty": b"the-unlock-token"}, 200),
    ],
)
def test_each_message_gets_the_status_that_apple_asks_for(
    edge: Edge, enrolled: SignedDevice, message: dict[str, Any], status: int
) -> None:
    body = plistlib.dumps({"UDID": UDID, **message})

    assert edge(enrolled.put("/mdm/checkin", body, content_type=CHECKIN_TYPE)) == Answer(status, {}, b"")
    assert edge(enrolled.put("/mdm", body, content_type=CHECKIN_TYPE)) == Answer(status, {}, b"")


def test_a_device_comes_back_when_the_other_ddm_server_is_down(
    edge: Edge, enrolled: SignedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDM_URL", "http://127.0.0.1:1/")
    runtime.forget()

    assert edge(ddm(enrolled, "tokens")) == Answer(503, {}, b"")


def test_a_network_users_whole_login(edge: Edge, enrolled: SignedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER_AUTHENTICATE", "digest")
    runtime.forget()
    runtime.managed_users().put("anna", password="the-password")
    user = {"UserID": "U1", "UserShortName": "anna"}

    challenge = edge(enrolled.checkin("UserAuthenticate", **user)).body
    nonce = re.findall(r'nonce="([^"]+)"', plistlib.loads(challenge)["DigestChallenge"])[0]
    ha1, ha2 = (md5(text.encode()).hexdigest() for text in ("anna:PicoMDM:the-password", "PUT:/"))
    response = md5(f"{ha1}:{nonce}:{ha2}".encode()).hexdigest()
    response = f'Digest username="anna",realm="PicoMDM",nonce="{nonce}", uri="/",response="{response}"'
    answer = edge(enrolled.checkin("UserAuthenticate", DigestResponse=response, **user)).body
    token = plistlib.loads(answer)["AuthToken"]

    update = {"Token": b"t", "PushMagic": "the-push-magic", **user}
    assert edge(enrolled.checkin("TokenUpdate", **update)) == Answer(400, {}, b"")
    assert edge(enrolled.checkin("TokenUpdate", AuthToken=token, **update)) == Answer(200, {}, b"")
    assert edge(enrolled.report("Idle", **user)) == Answer(400, {}, b"")
    assert edge(enrolled.report("Idle", AuthToken=token, **user)) == Answer(200, {}, b"")
    assert token not in edge.everything_logged()


def test_a_blocked_device_whose_os_knows_it_is_told_that_it_is_not_recognized(edge: Edge, device: SignedDevice) -> None:
    enroll(edge, device, ProductName="iPhone15,2", OSVersion="17.0")
    runtime.blocking().block(UDID)

    for event in (device.report("Idle"), ddm(device, "tokens"), device.checkin("Authenticate")):
        answer = edge.whole(event)
        assert (answer.status, answer.headers["content-type"]) == (403, "application/json")
        assert answer.document["code"] == "com.apple.unrecognized.device"


def test_a_blocked_device_of_an_older_os_gets_401(edge: Edge, device: SignedDevice) -> None:
    enroll(edge, device, ProductName="iPhone9,1", OSVersion="15.8")
    runtime.blocking().block(UDID)

    for event in (device.report("Idle"), device.put("/mdm", b""), ddm(device, "tokens")):
        answer = edge.whole(event)
        assert (answer.status, answer.body) == ((401, b"") if event["rawPath"] != "/mdm" else (400, b""))


def test_only_blocked_devices_are_told_to_unenroll(edge: Edge, ca: CaIdentity, enrolled: SignedDevice) -> None:
    runtime.blocking().block(UDID)
    stranger = SignedDevice(ca, UDID)
    other = SignedDevice(ca, "ANOTHER-DEVICE")
    enroll(edge, other)

    assert edge(stranger.report("Idle")) == Answer(400, {}, b"")
    assert edge(ddm(stranger, "tokens")) == Answer(400, {}, b"")
    assert edge(other.report("Idle")) == Answer(200, {}, b"")
    runtime.blocking().unblock(UDID)
    assert edge(enrolled.report("Idle")) == Answer(200, {}, b"")


def test_a_device_comes_back_later_when_aws_fails(
    edge: Edge, enrolled: SignedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue("C1")
    for service in ("EVENTBRIDGE", "SQS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", "http://127.0.0.1:1")
    runtime.forget()

    assert edge(enrolled.report("Acknowledged", "C1")) == Answer(503, {}, b"")
    assert tables.CommandResult.get(UDID, "r#C1").status == "Acknowledged"


def test_an_unforeseen_error_is_500_and_its_message_is_not_logged(
    edge: Edge, enrolled: SignedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("the-push-magic")

    monkeypatch.setattr(runtime.connect_service(), "report", explode)

    assert edge(enrolled.report("Idle")) == Answer(500, {}, b"")
    line = edge.last_logged()
    assert (line["msg"], line["error"]) == ("Device request failed", "RuntimeError")

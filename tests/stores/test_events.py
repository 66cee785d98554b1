"""Events on their way out, against an emulated bus; a server of ours stands for a bus that fails."""

import base64
import json
import plistlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from local.emulator import Emulator
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.event import mdm_event
from mdmlib.errors import UnavailableError
from mdmlib.services.events import MAX_DETAIL_BYTES, SOURCE, EventPublisher, MDMEvent, outbox_item
from mdmlib.settings import Settings
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import OutboxEvent

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
EVENT_ID = "0193a1b2-c3d4-7000-8000-000000000001"
AT = datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=UTC)
TOKEN_UPDATE = {
    "MessageType": "TokenUpdate",
    "UDID": UDID,
    "Topic": "com.apple.mgmt.External.1",
    "PushMagic": "5B1E9E1C-7C2B-4F40-8A0F-111111111111",
    "Token": b"push-token-of-a-device-32-bytes!",
    "UnlockToken": b"unlock-token-of-a-device",
}
TAKEN = {"FailedEntryCount": 0, "Entries": [{"EventId": "1"}]}
REFUSED = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"}]}

Publisher = Callable[..., EventPublisher]


@pytest.fixture
def publisher(aws: Emulator, settings: Settings, sealer: Sealer) -> Publisher:
    def build(events: "EventBridgeClient | None" = None, sqs: "SQSClient | None" = None) -> EventPublisher:
        payloads = PayloadStore(lambda: aws.s3, bucket=settings.payload_bucket, sealer=sealer)
        return EventPublisher(
            lambda: events or aws.events, lambda: sqs or aws.sqs, payloads=payloads, sealer=sealer, settings=settings
        )

    return build


@pytest.fixture
def observed(aws: Emulator, settings: Settings) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that takes what arrived on the bus, as a customer's rule sees it."""
    url = aws.sqs.create_queue(QueueName=f"observer-{settings.event_bus}")["QueueUrl"]
    arn = aws.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.events.put_rule(Name="observer", EventBusName=settings.event_bus, EventPattern=json.dumps({"source": [SOURCE]}))
    aws.events.put_targets(Rule="observer", EventBusName=settings.event_bus, Targets=[{"Id": "1", "Arn": arn}])
    return lambda: [json.loads(message) for message in take(aws.sqs, url)]


def take(sqs: "SQSClient", url: str) -> list[str]:
    bodies = []
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def checkin(fields: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    raw = plistlib.dumps(fields)
    return mdm_event(decode_checkin(raw), event_id=EVENT_ID, created_at=AT), raw


def report(**fields: Any) -> tuple[dict[str, Any], bytes]:
    raw = plistlib.dumps({"UDID": UDID, "Status": "Acknowledged", "CommandUUID": "C1", **fields})
    return mdm_event(CommandReport.decode(raw), event_id=EVENT_ID, created_at=AT), raw


@contextmanager
def bus_that_answers(*answers: dict[str, Any] | int) -> Iterator[tuple["EventBridgeClient", list[dict[str, Any]]]]:
    """Give a client of a bus that answers its first calls so (a number is a status), and what it was called with."""
    calls: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = answers[len(calls) - 1]
            body = json.dumps({"__type": "InternalException"} if isinstance(answer, int) else answer).encode()
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    client = impatient("events", f"http://127.0.0.1:{server.server_port}")
    try:
        yield client, calls
    finally:
        client.close()
        server.shutdown()
        server.server_close()
        thread.join()


def impatient(service: str, url: str = "http://127.0.0.1:1") -> Any:
    """Make a client of a service, configured as the publisher's; by default, nobody is at its address."""
    config = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}, parameter_validation=False)
    make: Any = boto3.client
    return make(service, endpoint_url=url, config=config)


def test_an_event_arrives_as_the_document_that_it_is(publisher: Publisher, observed: Callable[[], Any]) -> None:
    document, raw = report(QueryResponses={"DeviceName": "Ada's iPad"})

    publisher().publish(publisher().prepare(document, raw))

    (event,) = observed()
    assert event["source"] == SOURCE
    assert event["detail-type"] == "mdm.Connect"
    assert event["detail"] == document
    assert list(event["detail"]) == ["topic", "event_id", "created_at", "acknowledge_event"]
    assert list(event["detail"]["acknowledge_event"])[:4] == ["udid", "status", "command_uuid", "raw_payload"]


@pytest.mark.parametrize(
    "fields",
    [
        TOKEN_UPDATE,
        {"MessageType": "SetBootstrapToken", "UDID": UDID, "BootstrapToken": b"bootstrap-token-of-a-device"},
    ],
    ids=lambda fields: fields["MessageType"],
)
@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY], ids=["xml", "binary"])
def test_a_secret_never_travels_in_clear(
    fields: dict[str, Any],
    form: plistlib.PlistFormat,
    publisher: Publisher,
    observed: Callable[[], Any],
    sealer: Sealer,
) -> None:
    raw = plistlib.dumps(fields, fmt=form)
    document = mdm_event(decode_checkin(raw), event_id=EVENT_ID, created_at=AT)

    publisher().publish(publisher().prepare(document, raw))

    (event,) = observed()
    part = event["detail"]["checkin_event"]
    assert "raw_payload" not in part
    assert list(part)[:3] == ["udid", "url_params", "raw_payload_sealed"]
    assert not leaks(json.dumps(event), fields)
    assert sealer.open(base64.b64decode(part["raw_payload_sealed"]), place=f"event#{EVENT_ID}") == raw


def leaks(text: str, fields: dict[str, Any]) -> bool:
    """Say whether a text shows a secret of these fields, in clear or within base64 at any offset."""
    secrets = [fields.get(name) for name in ("PushMagic", "Token", "UnlockToken", "BootstrapToken")]
    for secret in (value.encode() if isinstance(value, str) else value for value in secrets if value):
        inner = {base64.b64encode(b"\0" * shift + secret)[4:-4].decode() for shift in range(3)}
        twice = {base64.b64encode(b"\0" * shift + base64.b64encode(secret))[4:-4].decode() for shift in range(3)}
        if any(form in text for form in {secret.decode(), secret.hex(), *inner, *twice}):
            return True
    return False


@pytest.mark.parametrize(
    "raw",
    [
        plistlib.dumps(
            {"UDID": UDID, "Status": "Acknowledged", "CommandUUID": "1", "FDE_PersonalRecoveryKeyCMS": b"x"}
        ),
        plistlib.dumps({"UDID": UDID, "Status": "Acknowledged", "CommandUUID": "1", "ActivationLockBypassCode": "x"}),
        plistlib.dumps({"UDID": UDID, "Status": "Acknowledged", "CommandUUID": "1"}).decode().encode("utf-16"),
        plistlib.dumps({"UDID": UDID, "Status": "Acknowledged", "CommandUUID": "1"}).decode().encode("utf-16-be"),
    ],
    ids=["recovery key", "bypass code", "UTF-16", "UTF-16 without BOM"],
)
def test_a_report_with_an_escrowed_key_or_in_another_encoding_is_sealed(raw: bytes, publisher: Publisher) -> None:
    document, _ = report()

    event = publisher().prepare(document, raw)

    part = json.loads(event.detail)["acknowledge_event"]
    assert "raw_payload_sealed" in part
    assert "raw_payload" not in part


def test_a_body_too_large_for_the_bus_lies_sealed_in_the_bucket(
    publisher: Publisher, observed: Callable[[], Any], aws: Emulator, settings: Settings
) -> None:
    document, raw = report(InstalledApplicationList=[{"Name": "App" * 1_000}] * 60)

    publisher().publish(publisher().prepare(document, raw))

    (event,) = observed()
    assert event["detail"]["acknowledge_event"]["payload_ref"] == f"events/{EVENT_ID}"
    assert "raw_payload" not in event["detail"]["acknowledge_event"]
    stored = aws.s3.get_object(Bucket=settings.payload_bucket, Key=f"events/{EVENT_ID}")["Body"].read()
    assert b"InstalledApplicationList" not in stored


def test_an_event_fits_the_bus_however_long_its_error_chain_is(
    publisher: Publisher, observed: Callable[[], Any]
) -> None:
    chain = [{"ErrorCode": 1, "ErrorDomain": "D", "LocalizedDescription": "text " * 1_000}] * 100
    document, raw = report(Status="Error", ErrorChain=chain)
    document["acknowledge_event"]["error_chain"] = chain

    event = publisher().prepare(document, raw)
    publisher().publish(event)

    assert len(event.detail) <= MAX_DETAIL_BYTES
    assert observed()[0]["detail"]["acknowledge_event"]["ids"] == {"id": UDID, "type": "Device"}


def test_one_put_is_one_call_and_a_second_is_made_when_the_first_is_refused(publisher: Publisher) -> None:
    event = MDMEvent.from_document(report()[0])
    with bus_that_answers(REFUSED, TAKEN) as (bus, calls):
        publisher(bus).publish(event)

    assert len(calls) == 2
    assert calls[0] == calls[1]
    assert calls[0]["Entries"][0]["Time"] == pytest.approx(AT.timestamp())


@pytest.mark.parametrize("answers", [(REFUSED, REFUSED), (500, 400)], ids=["entry refused", "call failed"])
def test_what_the_bus_does_not_take_goes_to_the_fallback_queue(
    answers: tuple[dict[str, Any] | int, ...], publisher: Publisher, aws: Emulator, settings: Settings
) -> None:
    document, raw = checkin(TOKEN_UPDATE)
    event = publisher().prepare(document, raw)
    with bus_that_answers(*answers) as (bus, calls):
        publisher(bus).publish(event)

    assert len(calls) == 2
    (message,) = take(aws.sqs, settings.event_fallback_queue_url)
    assert message == event.detail
    assert MDMEvent.from_detail(message) == event
    assert not leaks(message, TOKEN_UPDATE)


def test_the_device_is_told_to_come_back_when_neither_takes_an_event(publisher: Publisher) -> None:
    with pytest.raises(UnavailableError):
        publisher(impatient("events"), impatient("sqs")).publish(MDMEvent.from_document(report()[0]))


def test_an_event_of_the_outbox_is_published_and_taken_out(
    publisher: Publisher, observed: Callable[[], Any], settings: Settings
) -> None:
    event = MDMEvent.from_document(report()[0])
    item = outbox_item(event)
    item.save()

    assert publisher().publish_outbox(item)

    assert observed()[0]["detail"]["event_id"] == EVENT_ID
    assert list(OutboxEvent.query(item.enrollment_id)) == []


def test_an_event_of_the_outbox_stays_there_when_the_bus_takes_nothing(publisher: Publisher) -> None:
    item = outbox_item(MDMEvent.from_document(report()[0]))
    item.save()

    assert not publisher(impatient("events")).publish_outbox(item)

    assert [left.item for left in OutboxEvent.query(item.enrollment_id)] == [EVENT_ID]

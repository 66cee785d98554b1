"""Nothing secret in logs, on the bus, in queues, or readable in the tables, after lives that are full of secrets.

A device's tokens, PINs, passwords in profiles, keys of administrators and customers: each is looked for in every form
in which it could have been written down: as it is, in hex, in base64, compressed, and each of these inside of another.
"""

import base64
import binascii
import contextlib
import gzip
import json
import plistlib
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from local.administrator import Administrator
from local.customer import Customer
from local.device import Hardware, ServerRefused, SimulatedApns, SimulatedDevice
from local.life import World
from local.stack import Stack
from tests.ade_portal import Portal
from tests.e2e.stored import Stored, scan

BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){24,}")
COMPRESSED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
"""How gzip and zlib begin."""
LARGEST = 1024 * 1024
MATCHED_CHARACTERS = 16
"""So much of a secret's base64 is looked for: what stands around it decides about the characters at its ends."""


# What is secret


@dataclass
class Secrets:
    """What nobody may read."""

    values: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, value: bytes | str) -> None:
        self.values[name] = value.encode() if isinstance(value, str) else value

    def found_in(self, text: bytes, *, depth: int = 4) -> set[str]:
        """Return the names of the secrets that can be read in ``text``: as they are, in hex, in base64, compressed."""
        found: set[str] = set()
        level = {text}
        for _ in range(depth + 1):
            # All at once: most of them are short.
            together = b"\0".join(level)
            found |= {name for name, value in self.values.items() if any(form in together for form in forms_of(value))}
            level = {decoded(encoded) for encoded in set(BASE64.findall(together))}
            level |= {bytes.fromhex(encoded.decode()) for encoded in set(HEX.findall(together))}
            level |= set(inflated(together))
            level |= {raw for encoded in tuple(level) for raw in inflated(encoded, header=False)}
        return found


def forms_of(value: bytes) -> Iterator[bytes]:
    yield value
    yield value.hex().encode()
    yield value.hex().upper().encode()
    for offset in range(3):
        # The three ways in which the bytes can be grouped, without the characters that depend on their neighbours.
        encoded = base64.b64encode(bytes(offset) + value)[4:-4]
        if len(encoded) >= MATCHED_CHARACTERS:
            yield encoded[:MATCHED_CHARACTERS]
            yield encoded[:MATCHED_CHARACTERS].replace(b"+", b"-").replace(b"/", b"_")


def decoded(encoded: bytes) -> bytes:
    standard = encoded.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(standard[: len(standard) // 4 * 4])
    except binascii.Error:
        return b""


def inflated(text: bytes, *, header: bool = True) -> Iterator[bytes]:
    """Yield what is compressed in a text, as far as it can be read, wherever it begins; without a header, the whole."""
    places = [(match.start(), zlib.MAX_WBITS | 32) for match in COMPRESSED.finditer(text)] if header else []
    for start, form in places or [(0, -zlib.MAX_WBITS)]:
        with contextlib.suppress(zlib.error):
            if content := zlib.decompressobj(form).decompress(text[start : start + LARGEST], LARGEST):
                yield content


def test_the_search_finds_what_is_hidden() -> None:
    hidden = Secrets()
    hidden.add("token", bytes(range(100, 132)))
    plist = plistlib.dumps({"Token": bytes(range(100, 132))})
    event = json.dumps({"raw_payload": base64.b64encode(plist).decode()})

    assert hidden.found_in(event.encode()) == {"token"}
    assert hidden.found_in(json.dumps({"event": event}).encode()) == {"token"}
    assert hidden.found_in(base64.b64encode(event.encode())) == {"token"}
    assert hidden.found_in(b"token=" + bytes(range(100, 132)).hex().encode()) == {"token"}
    for squeezed in (zlib.compress(plist), gzip.compress(event.encode()), zlib.compress(plist, wbits=-15)):
        assert hidden.found_in(squeezed) == {"token"}
        assert hidden.found_in(b'{"payload": "' + base64.b64encode(squeezed) + b'"}') == {"token"}
        assert hidden.found_in(b"payload=" + squeezed.hex().encode()) == {"token"}
    assert hidden.found_in(b"before" + zlib.compress(plist) + b"after") == {"token"}
    assert hidden.found_in(b"something else" * 10) == set()
    assert hidden.found_in(zlib.compress(b"something else" * 10)) == set()


# Lives that are full of them


@pytest.fixture(scope="module")
def tap(stack: Stack) -> Iterator[str]:
    """A queue that gets a copy of every event on the bus, whoever sent it; its URL."""
    emulator = stack.emulator
    queue_url = emulator.sqs.create_queue(QueueName="everything-on-the-bus")["QueueUrl"]
    arn = emulator.sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus, rule = stack.outputs["EventBusName"], "everything"
    emulator.events.put_rule(Name=rule, EventBusName=bus, EventPattern=json.dumps({"source": [{"prefix": ""}]}))
    emulator.events.put_targets(Rule=rule, EventBusName=bus, Targets=[{"Id": "tap", "Arn": arn}])
    yield queue_url
    emulator.events.remove_targets(Rule=rule, EventBusName=bus, Ids=["tap"])
    emulator.events.delete_rule(Name=rule, EventBusName=bus)
    emulator.sqs.delete_queue(QueueUrl=queue_url)


@pytest.fixture(scope="module")
def hidden(stack: Stack, world: World) -> Secrets:
    """What is secret before any device comes."""
    hidden = Secrets()
    hidden.add("the administrator's secret key", world.keys.secret_key)
    hidden.add("the customer's HMAC key", world.hmac_key)
    stored = stack.emulator.secretsmanager.get_secret_value(SecretId=stack.outputs["SecretArn"])["SecretString"]
    hidden.add("the stack's data key", json.loads(stored)["k1"])
    return hidden


@pytest.fixture(scope="module")
def apple_asked(stack: Stack, world: World, hidden: Secrets) -> Iterator[None]:
    """A server of Apple Business Manager with its token, and a device that is locked."""
    portal, path = Portal(stack.ade.control), "/v2/ade-servers/secrets"
    with Administrator(world.admin_url, world.keys) as administrator:
        certificate = administrator.request("PUT", path).json()["staged_certificate"]
        assert administrator.request("PUT", f"{path}/token", body=portal.token(certificate)).status_code == 200
        token = administrator.request("GET", "/v1/tokens/secrets")
        for name in ("consumer_key", "consumer_secret", "access_token", "access_secret"):
            hidden.add(f"Apple's token: {name}", token.json()[name])
        assert administrator.request("PUT", "/v1/tokens/secrets", body=token.content[:-3]).status_code == 400
        locked = {"serial_number": portal.buy()[0]}
        answer = administrator.request("POST", f"{path}/activation-locks", document=locked)
        hidden.add("bypass code", answer.json()["bypass_code"])
        yield
        administrator.request("DELETE", path)


@pytest.fixture(scope="module")
def in_queues(
    stack: Stack, world: World, tap: str, hidden: Secrets, ready_for_enrollment: None, apple_asked: None
) -> Mapping[str, list[bytes]]:
    """Devices with secrets live, while the workers of all queues stand still; what was in each queue then."""
    with Administrator(world.admin_url, world.keys) as administrator:
        # As in the upload before, but with a key that is known here.
        pem = stack.apns.control.issue(world.topic)
        assert administrator.request("PUT", "/v1/pushcert", body=pem).status_code == 200
        hidden.add("the push certificate's key", pem.partition(b"-----BEGIN PRIVATE KEY-----\n")[2][:64])
        webhook = administrator.request(
            "POST", "/v2/webhooks", document={"url": f"{world.webhook_url}-of-secrets", "hmac_key": world.hmac_key}
        )
        assert webhook.status_code == 201
        with workers_standing_still(stack):
            live_with_secrets(administrator, world, hidden)
            queues = {
                name: list(receive(stack, url))
                for name, url in stack.outputs.items()
                if name.endswith("QueueUrl") and "DeadLetter" not in name
            }
        with closing(Customer(world.webhook_control, path="/webhook-of-secrets")) as customer:
            customer.hear(lambda heard: heard.topic == "mdm.CheckOut", what="the last message")
        administrator.request("DELETE", f"/v2/webhooks/{webhook.json()['id']}")
    return queues


def live_with_secrets(administrator: Administrator, world: World, hidden: Secrets) -> None:
    for hardware in (Hardware.iphone(), Hardware.mac()):
        name = hardware.platform.value
        link = administrator.request("POST", "/v2/enrollment-links", document={}).json()
        hidden.add(f"{name}: link", link["url"].rpartition("/")[2])
        with (
            closing(SimulatedApns(world.apns_control)) as pushes,
            SimulatedDevice(hardware, push=pushes, trust=world.trust) as device,
        ):
            profile = device.download_profile(link["url"])
            hidden.add(f"{name}: challenge", profile.scep.challenge or "")
            device.install(profile)
            hidden.add(f"{name}: push token", device.push_token)
            hidden.add(f"{name}: push magic", device.channel.push_magic)
            hidden.add(f"{name}: unlock token", device.unlock_token)
            hidden.add(f"{name}: bootstrap token", device.escrow_bootstrap_token())
            for document in commands_with_secrets(name, hidden):
                answer = administrator.request("POST", "/v1/commands", document={"udid": device.udid, **document})
                assert answer.status_code == 201, answer.text
            device.connect()
            refuse_with_secrets(administrator, device, hidden)
            device.check_out()


def commands_with_secrets(name: str, hidden: Secrets) -> Iterator[dict[str, Any]]:
    password, pin = secrets.token_hex(20), secrets.token_hex(10)
    hidden.add(f"{name}: password in a profile", password)
    hidden.add(f"{name}: PIN", pin)
    profile = {
        "PayloadType": "Configuration",
        "PayloadIdentifier": "com.example.wifi",
        "PayloadUUID": "6A0B9C3E-0000-4000-8000-000000000001",
        "PayloadVersion": 1,
        "PayloadContent": [
            {
                "PayloadType": "com.apple.wifi.managed",
                "PayloadIdentifier": "com.example.wifi.1",
                "PayloadUUID": "6A0B9C3E-0000-4000-8000-000000000002",
                "PayloadVersion": 1,
                "SSID_STR": "example",
                "Password": password,
            }
        ],
    }
    yield {"request_type": "InstallProfile", "payload": base64.b64encode(plistlib.dumps(profile)).decode()}
    yield {"request_type": "DeviceLock", "pin": pin}
    yield {"request_type": "DeviceInformation", "queries": ["PushToken", "UDID"]}
    yield {"request_type": "SecurityInfo"}


def refuse_with_secrets(administrator: Administrator, device: SimulatedDevice, hidden: Secrets) -> None:
    """What is refused has to be logged, but not with what it held."""
    message = {"MessageType": "no type", "UDID": device.udid, "UnlockToken": device.unlock_token}
    with pytest.raises(ServerRefused):
        device.enrollment.check_in(message)
    password = secrets.token_hex(20)
    hidden.add(f"{device.hardware.platform}: password in what was refused", password)
    for document in (
        {"udid": device.udid, "request_type": "InstallProfile", "payload": password + "!"},
        {"udid": device.udid, "request_type": "DeviceLock", "pin": [password]},
    ):
        assert administrator.request("POST", "/v1/commands", document=document).status_code == 400
    broken = json.dumps({"udid": device.udid, "pin": password}).encode()[:-1]
    assert administrator.request("POST", "/v1/commands", body=broken).status_code == 400
    key = f"-----BEGIN PRIVATE KEY-----\n{password}\n-----END PRIVATE KEY-----\n".encode()
    assert administrator.request("PUT", "/v1/pushcert", body=key).status_code == 400


@contextmanager
def workers_standing_still(stack: Stack) -> Iterator[None]:
    """Let nobody take messages from queues meanwhile."""
    lambda_ = stack.emulator.lambda_
    sources = [source["UUID"] for source in lambda_.list_event_source_mappings()["EventSourceMappings"]]
    for uuid in sources:
        lambda_.update_event_source_mapping(UUID=uuid, Enabled=False)
    try:
        yield
    finally:
        for uuid in sources:
            lambda_.update_event_source_mapping(UUID=uuid, Enabled=True)


def receive(stack: Stack, queue_url: str) -> Iterator[bytes]:
    """Yield all messages of a queue and leave them there."""
    handles = []
    while messages := stack.emulator.sqs.receive_message(
        QueueUrl=queue_url, MaxNumberOfMessages=10, VisibilityTimeout=30, MessageAttributeNames=["All"]
    ).get("Messages"):
        for message in messages:
            handles.append(message["ReceiptHandle"])
            yield json.dumps([message["Body"], message.get("MessageAttributes")], default=str).encode()
    for handle in handles:
        stack.emulator.sqs.change_message_visibility(QueueUrl=queue_url, ReceiptHandle=handle, VisibilityTimeout=0)


# Where it must not be


def assert_nothing_found(hidden: Secrets, places: Mapping[str, Iterable[bytes]]) -> None:
    found = {(name, secret) for name, texts in places.items() for text in texts for secret in hidden.found_in(text)}
    assert not found


def test_queues_hold_nothing_secret(hidden: Secrets, in_queues: Mapping[str, list[bytes]]) -> None:
    for name in ("PushQueueUrl", "SweepQueueUrl", "WebhookQueueUrl"):
        assert in_queues[name], f"{name} was empty"
    assert_nothing_found(hidden, in_queues)


def test_the_bus_carries_nothing_secret(
    stack: Stack, tap: str, hidden: Secrets, in_queues: Mapping[str, list[bytes]]
) -> None:
    events = list(receive(stack, tap))

    topics = {json.loads(json.loads(event)[0])["detail-type"] for event in events}
    assert topics >= {
        "mdm.Authenticate",
        "mdm.TokenUpdate",
        "mdm.SetBootstrapToken",
        "mdm.CommandQueued",
        "mdm.Connect",
        "mdm.CheckOut",
    }
    assert_nothing_found(hidden, {"bus": events})


def test_functions_log_nothing_secret(stack: Stack, hidden: Secrets, in_queues: Mapping[str, list[bytes]]) -> None:
    logs = {name: [text.encode()] for name, text in stack.logs().items()}

    assert logs["checkin"][0]
    assert logs["commands"][0]
    assert_nothing_found(hidden, logs)
    assert_nothing_found(hidden, {"output": [(stack.directory / "aws" / "emulator.log").read_bytes()]})


def test_refusals_are_logged_with_their_codes(stack: Stack, in_queues: Mapping[str, list[bytes]]) -> None:
    logs = stack.logs()

    assert '"code":"unknown_message_type"' in logs["checkin"]
    assert '"code":"invalid_field"' in logs["commands"]
    assert '"code":"malformed_body"' in logs["commands"]


def test_tables_and_bucket_hold_nothing_that_can_be_read(
    stack: Stack, hidden: Secrets, in_queues: Mapping[str, list[bytes]]
) -> None:
    tables = {
        name: [attribute for item in scan(stack, stack.outputs[name]) for attribute in attributes_of(item)]
        for name in ("EnrollmentTableName", "ResourceTableName")
    }
    bucket = stack.outputs["PayloadBucketName"]
    objects = [
        stack.emulator.s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in sorted(Stored.of(stack).objects)
    ]

    assert_nothing_found(hidden, {**tables, "objects": objects})


def test_functions_are_configured_with_nothing_secret(
    stack: Stack, hidden: Secrets, in_queues: Mapping[str, list[bytes]]
) -> None:
    functions = stack.emulator.lambda_.list_functions()["Functions"]

    assert_nothing_found(
        hidden, {function["FunctionName"]: [json.dumps(function, default=str).encode()] for function in functions}
    )


def attributes_of(item: Mapping[str, Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield each attribute by itself, bytes as bytes."""
    for name, value in item.items():
        kind, content = next(iter(value.items()))
        yield name.encode() + b"=" + (bytes(content) if kind == "B" else json.dumps(content, default=str).encode())

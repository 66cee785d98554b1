"""The push queue keeps what it is given, and keeps it to itself."""

import json
import random

import boto3
import pytest
from botocore.config import Config

from local.emulator import Emulator
from mdmlib.errors import MalformedBodyError, PicoMDMError
from mdmlib.services.push_queue import MAX_TARGETS, PushMessage, PushQueue, PushTarget
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer

TOPIC = "com.apple.mgmt.External.one"
TOKEN = "5ec7e7" * 10
MAGIC = "magic-word"


@pytest.fixture
def queue(aws: Emulator, settings: Settings, sealer: Sealer) -> PushQueue:
    return PushQueue(lambda: aws.sqs, queue_url=settings.push_queue_url, sealer=sealer)


def target(id_: str, *, topic: str = TOPIC, token: str = TOKEN, magic: str = MAGIC) -> PushTarget:
    return PushTarget(id_, topic, token, magic, f"apns-id of {id_}")


def bodies(aws: Emulator, settings: Settings) -> list[str]:
    """Take all messages off the queue."""
    found: list[str] = []
    while messages := aws.sqs.receive_message(QueueUrl=settings.push_queue_url, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in messages]
        for message in messages:
            aws.sqs.delete_message(QueueUrl=settings.push_queue_url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_message_wakes_up_to_a_hundred_enrollments_of_one_topic(
    queue: PushQueue, aws: Emulator, settings: Settings, sealer: Sealer
) -> None:
    targets = [target(f"a{number}") for number in range(250)]
    others = [target(f"b{number}", topic="com.apple.mgmt.External.two") for number in range(3)]

    assert queue.send(targets[:100] + others + targets[100:]) == {each.enrollment_id: None for each in targets + others}

    messages = [PushMessage.decode(body, sealer) for body in bodies(aws, settings)]
    assert sorted((message.topic, len(message.targets)) for message in messages) == [
        (TOPIC, 50),
        (TOPIC, 100),
        (TOPIC, 100),
        ("com.apple.mgmt.External.two", 3),
    ]
    assert {each for message in messages for each in message.targets} == {*targets, *others}


def test_tokens_and_magics_are_not_in_clear(queue: PushQueue, aws: Emulator, settings: Settings) -> None:
    queue.send([target("a")])

    (body,) = bodies(aws, settings)

    assert TOKEN not in body
    assert MAGIC not in body
    assert json.loads(body)["topic"] == TOPIC
    assert TOKEN not in repr(target("a"))
    assert MAGIC not in repr(target("a"))


@pytest.mark.parametrize(
    ("token", "magic", "error"),
    [
        ("no hex", MAGIC, "the push token is not hexadecimal"),
        ("", MAGIC, "the push token has an impossible length"),
        ("00" * 257, MAGIC, "the push token has an impossible length"),
        (TOKEN, "", "the push magic has an impossible length"),
        (TOKEN, "ß" * 513, "the push magic has an impossible length"),
    ],
)
def test_push_data_that_cannot_be_pushed_to_fails_alone(
    queue: PushQueue, aws: Emulator, settings: Settings, sealer: Sealer, token: str, magic: str, error: str
) -> None:
    assert queue.send([target("bad", token=token, magic=magic), target("good")]) == {"bad": error, "good": None}

    (message,) = [PushMessage.decode(body, sealer) for body in bodies(aws, settings)]
    assert message.targets == (target("good"),)


def test_long_push_data_makes_messages_short_enough_for_sqs(
    queue: PushQueue, aws: Emulator, settings: Settings
) -> None:
    # As long and as incompressible as devices can make it.
    chance = random.Random(17)
    targets = [
        target(
            f"{number:0512}",
            token=chance.randbytes(256).hex(),
            magic="".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(170)),
        )
        for number in range(2 * MAX_TARGETS)
    ]

    assert set(queue.send(targets).values()) == {None}

    found = bodies(aws, settings)
    assert len(found) > 2
    assert max(len(body) for body in found) < 256 * 1024


def test_a_magic_that_is_no_proper_text_harms_nobody(
    queue: PushQueue, aws: Emulator, settings: Settings, sealer: Sealer
) -> None:
    odd = target("odd", magic="\ud83e")

    assert queue.send([odd, target("good")]) == {"odd": None, "good": None}

    (message,) = [PushMessage.decode(body, sealer) for body in bodies(aws, settings)]
    assert message.targets == (odd, target("good"))


def test_when_sqs_is_away_each_target_says_so_and_nothing_is_raised(settings: Settings, sealer: Sealer) -> None:
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=1)
    queue = PushQueue(
        lambda: boto3.client("sqs", endpoint_url="http://127.0.0.1:9", config=config),
        queue_url=settings.push_queue_url,
        sealer=sealer,
    )

    assert queue.send([target("a")]) == {"a": "the push could not be queued"}
    assert not queue.send_again(TOPIC, [target("a")], attempt=1, delay_seconds=1)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"v": 2, "topic": "t", "attempt": 0, "sealed": ""}',
        '{"v": 1, "topic": "t", "attempt": 0, "sealed": "?"}',
        '{"v": 1, "topic": "t", "attempt": "many", "sealed": ""}',
    ],
)
def test_what_never_was_a_message_is_refused(sealer: Sealer, body: str) -> None:
    with pytest.raises(MalformedBodyError):
        PushMessage.decode(body, sealer)


def test_a_message_under_another_topic_does_not_open(sealer: Sealer) -> None:
    body = PushMessage(topic=TOPIC, targets=[target("a")]).encode(sealer)

    with pytest.raises(PicoMDMError):
        PushMessage.decode(body.replace(TOPIC, "com.apple.mgmt.External.two"), sealer)

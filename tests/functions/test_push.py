"""The push function: an SQS event wakes devices."""

from collections.abc import Iterator
from typing import Any

import pytest

from functions.push import app as function
from local.apns.process import ApnsSimulator
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet
from tests.gateway import FunctionContext


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApnsSimulator]:
    simulator = ApnsSimulator.start(tmp_path_factory.mktemp("apns"))
    yield simulator
    simulator.stop()


@pytest.fixture
def deployed(environment: Settings, simulator: ApnsSimulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("APNS_URL", simulator.url)
    monkeypatch.setenv("APNS_TRUST_ANCHOR", simulator.trust_anchor)
    runtime.forget()
    runtime.push_certificates().upload(simulator.control.issue(TOPIC))
    yield environment
    runtime.push_service().close()


@pytest.fixture
def fleet(aws: Emulator, deployed: Settings, sealer: Sealer, clock: Clock) -> Fleet:
    return Fleet(aws, deployed, sealer, clock)


def sqs_event(fleet: Fleet) -> dict[str, Any]:
    """Return the event that Lambda makes of the messages on the push queue."""
    messages = fleet.emulator.sqs.receive_message(
        QueueUrl=fleet.settings.push_queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=5
    )["Messages"]
    return {"Records": [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]}


def invoke(event: dict[str, Any]) -> Any:
    context: Any = FunctionContext()
    return function.lambda_handler(event, context)


def test_queueing_a_command_wakes_the_device(fleet: Fleet, simulator: ApnsSimulator) -> None:
    device = fleet.device(enrolled=False)
    device.authenticate()
    device.token_update(b"\xd0\x0d" * 16)
    simulator.control.register("d00d" * 16, topic=TOPIC, magic="magic")
    outcome = fleet.enqueue([device], "CMD1")

    answer = invoke(sqs_event(fleet))

    assert answer == {"batchItemFailures": []}
    woken = simulator.control.wait("d00d" * 16)
    result = outcome.targets[str(device)].push_result
    assert woken
    assert result
    assert woken["apns_id"] == result.lower()
    assert simulator.control.violations() == []
    assert device.idle() == "CMD1"


def test_only_messages_that_must_come_again_are_reported(fleet: Fleet, simulator: ApnsSimulator) -> None:
    device = fleet.device()
    fleet.enqueue([device], "CMD1")
    event = sqs_event(fleet)
    event["Records"].append({"messageId": "broken", "body": "?"})

    answer = invoke(event)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "broken"}]}

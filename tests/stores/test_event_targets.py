"""Targets of a customer's own rule, as docs/webhooks.md shows them, tried on the emulated event bus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import yaml

from local.emulator import Emulator
from local.webhook_listener import WebhookListener
from mdmlib.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
ROLE = "arn:aws:iam::000000000000:role/of-the-customer"
DETAIL = {
    "topic": "mdm.CheckOut",
    "event_id": "1",
    "created_at": "2026-11-20T12:00:00Z",
    "checkin_event": {"udid": "U"},
}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    """The resources that the document shows."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    resources: dict[str, Any] = yaml.safe_load(re.sub(r"!(?:Ref|GetAtt) ([\w.]+)", r'"\1"', block))
    return {name: resource["Properties"] for name, resource in resources.items()}


@pytest.fixture
def listener() -> Iterator[WebhookListener]:
    with WebhookListener() as listener:
        yield listener


def lead(aws: Emulator, settings: Settings, shown: dict[str, Any], **target: Any) -> None:
    """Make the rule that is shown, with a target, and publish an event that passes and one that does not."""
    rule: dict[str, Any] = {"Name": f"of-a-customer-{uuid4().hex[:8]}", "EventBusName": settings.event_bus}
    aws.events.put_rule(**rule, EventPattern=json.dumps(shown["Rule"]["EventPattern"]))
    targets: list[Any] = [{"RoleArn": ROLE, **target}]
    answer = aws.events.put_targets(Rule=rule["Name"], EventBusName=settings.event_bus, Targets=targets)
    assert answer["FailedEntryCount"] == 0
    for topic in ("mdm.Connect", "mdm.CheckOut"):
        entry: Any = {
            "EventBusName": settings.event_bus,
            "Source": "picomdm.mdm",
            "DetailType": topic,
            "Detail": json.dumps(DETAIL | {"topic": topic}),
        }
        aws.events.put_events(Entries=[entry])


def test_an_api_destination_posts_the_documents_with_its_key(
    aws: Emulator, settings: Settings, shown: dict[str, Any], listener: WebhookListener
) -> None:
    unique = uuid4().hex[:8]
    parameters = shown["Connection"]["AuthParameters"]
    parameters["ApiKeyAuthParameters"]["ApiKeyValue"] = "of-the-receiver"
    connection = aws.events.create_connection(
        Name=f"connection-{unique}",
        AuthorizationType=shown["Connection"]["AuthorizationType"],
        AuthParameters=parameters,
    )
    destination = aws.events.create_api_destination(
        Name=f"destination-{unique}",
        ConnectionArn=connection["ConnectionArn"],
        InvocationEndpoint=listener.url,
        HttpMethod=shown["Destination"]["HttpMethod"],
    )
    (target,) = shown["Rule"]["Targets"]
    lead(aws, settings, shown, **target | {"Arn": destination["ApiDestinationArn"], "RoleArn": ROLE})

    delivery = listener.wait_for()
    assert json.loads(delivery.body) == DETAIL
    assert delivery.headers["x-api-key"] == "of-the-receiver"
    assert len(listener.deliveries()) == 1


def test_a_state_machine_is_begun_with_the_event(aws: Emulator, settings: Settings, shown: dict[str, Any]) -> None:
    states = boto3.client("stepfunctions", endpoint_url=aws.url)
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = aws.iam.create_role(
        RoleName=f"machine-{uuid4().hex[:8]}",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )["Role"]["Arn"]
    definition = {"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}
    machine = states.create_state_machine(
        name=f"machine-{uuid4().hex[:8]}", definition=json.dumps(definition), roleArn=role
    )["stateMachineArn"]
    lead(aws, settings, shown, Id="machine", Arn=machine)

    (execution,) = states.list_executions(stateMachineArn=machine)["executions"]
    begun_with = json.loads(states.describe_execution(executionArn=execution["executionArn"])["input"])
    assert (begun_with["source"], begun_with["detail"]) == ("picomdm.mdm", DETAIL)


def test_a_stream_is_taken_for_a_target(aws: Emulator, settings: Settings, shown: dict[str, Any]) -> None:
    # The emulator brings nothing to streams: that the target is well formed is all that is tried.
    (path,) = re.findall(r"KinesisParameters: \{ PartitionKeyPath: (\S+) \}", DOCUMENT.read_text())
    stream = "arn:aws:kinesis:us-east-1:000000000000:stream/of-a-customer"

    lead(aws, settings, shown, Id="stream", Arn=stream, KinesisParameters={"PartitionKeyPath": path})

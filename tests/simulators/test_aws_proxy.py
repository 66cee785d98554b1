"""The proxy that budgets and faults rest on: it must change nothing but what it was asked to."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from local.aws_proxy import AwsProxy, CutAfter, CutBefore, Delay, Error, Overtaken, Twice
from local.emulator import Emulator
from mdmlib.settings import Settings


@pytest.fixture(scope="module")
def proxy(emulator: Emulator) -> Iterator[AwsProxy]:
    with AwsProxy(emulator.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _nothing_left(proxy: AwsProxy) -> None:
    proxy.reset()


def client(proxy: AwsProxy, service: Any) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=2)
    return boto3.client(service, endpoint_url=proxy.url, config=config)


def test_calls_are_counted_by_their_names(proxy: AwsProxy, aws: Emulator, settings: Settings) -> None:
    s3 = client(proxy, "s3")
    s3.put_object(Bucket=settings.payload_bucket, Key="events/a b+c", Body=b"\0" * 2_000_000)
    answer = s3.get_object(Bucket=settings.payload_bucket, Key="events/a b+c")["Body"].read()
    client(proxy, "sqs").send_message(QueueUrl=settings.push_queue_url.replace(aws.url, proxy.url), MessageBody="x")
    entry = {"EventBusName": settings.event_bus, "Source": "s", "DetailType": "t", "Detail": "{}"}
    client(proxy, "events").put_events(Entries=[entry])
    client(proxy, "secretsmanager").get_secret_value(SecretId=settings.secret_id)
    client(proxy, "dynamodb").describe_table(TableName=settings.enrollment_table)
    client(proxy, "sts").get_caller_identity()

    assert answer == b"\0" * 2_000_000
    assert proxy.counts == {
        "s3.PutObject": 1,
        "s3.GetObject": 1,
        "sqs.SendMessage": 1,
        "events.PutEvents": 1,
        "secretsmanager.GetSecretValue": 1,
        "dynamodb.DescribeTable": 1,
        "sts.GetCallerIdentity": 1,
    }
    assert {call.status for call in proxy.calls} == {200}


def test_trouble_befalls_so_many_calls_of_a_name(proxy: AwsProxy, settings: Settings) -> None:
    dynamodb = client(proxy, "dynamodb")
    proxy.disturb("dynamodb.Put*", Error(400, "ProvisionedThroughputExceededException"), times=2, skip=1)
    item = {"collection": {"S": "c"}, "name": {"S": "n"}}
    said = []
    for _ in range(4):
        try:
            dynamodb.put_item(TableName=settings.resource_table, Item=item)
            said.append("done")
        except ClientError as error:
            said.append(error.response["Error"]["Code"])

    refused = "ProvisionedThroughputExceededException"
    assert said == ["done", refused, refused, "done"]


@pytest.mark.parametrize(("trouble", "messages"), [(CutBefore(), 0), (CutAfter(), 1)])
def test_a_cut_comes_before_or_after_the_deed(
    proxy: AwsProxy, aws: Emulator, settings: Settings, trouble: CutBefore | CutAfter, messages: int
) -> None:
    proxy.disturb("sqs.SendMessage", trouble)

    with pytest.raises(BotoCoreError):
        client(proxy, "sqs").send_message(QueueUrl=settings.push_queue_url, MessageBody="x")

    assert [call.status for call in proxy.calls] == [0]
    attributes = aws.sqs.get_queue_attributes(QueueUrl=settings.push_queue_url, AttributeNames=["All"])["Attributes"]
    assert int(attributes["ApproximateNumberOfMessages"]) == messages


def test_an_answer_can_be_late(proxy: AwsProxy, settings: Settings) -> None:
    proxy.disturb("dynamodb.*", Delay(4))

    with pytest.raises(ReadTimeoutError):
        client(proxy, "dynamodb").describe_table(TableName=settings.enrollment_table)


def test_a_message_can_come_twice_and_late(proxy: AwsProxy, aws: Emulator, settings: Settings) -> None:
    sqs, queue = client(proxy, "sqs"), settings.push_queue_url
    proxy.disturb("sqs.SendMessage", Twice())
    proxy.disturb("sqs.SendMessageBatch", Overtaken(600))

    sqs.send_message(QueueUrl=queue, MessageBody="twice")
    sqs.send_message_batch(QueueUrl=queue, Entries=[{"Id": "1", "MessageBody": "late"}])

    received = aws.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in received] == ["twice", "twice"]
    delayed = aws.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert delayed["ApproximateNumberOfMessagesDelayed"] == "1"

"""The client of AWS, beside the SDK: the same answers, the same errors, and what becomes of a call that fails."""

from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from urllib3 import HTTPResponse

from local.aws_proxy import AwsProxy, CutAfter, CutBefore, Delay, Error
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.clients import aws_json
from mdmlib.settings import Settings
from tests.aws_calls import watch

ITEM = {
    "enrollment_id": {"S": "A5EF1BA1"},
    "item": {"S": "!"},
    "B": {"M": {"B": {"S": "an attribute with the name of a type"}, "BS": {"L": [{"B": b"\x00\xff"}]}}},
    "bytes": {"B": bytes(range(256))},
    "none": {"B": b""},
    "several": {"BS": [b"one", b"two"]},
    "number": {"N": "34028236692093846346337460743176821145"},
    "text": {"S": 'Zoë "👩‍💻"   \x7f'},
    "nothing": {"NULL": True},
    "list": {"L": [{"BOOL": False}, {"SS": ["a"]}]},
}


def _client(
    url: str,
    service: aws_json.JsonService = aws_json.DYNAMODB,
    *,
    attempts: int = 3,
    read_timeout: float = 3,
    **options: Any,
) -> Any:
    return aws_json.AwsJsonClient(
        service,
        endpoint_url=url,
        region="us-east-1",
        credentials=runtime.dynamodb_client()._credentials,  # type: ignore[attr-defined]
        attempts=attempts,
        connect_timeout=1,
        read_timeout=read_timeout,
        user_agent="test",
        **options,
    )


def _refused(client: Any, method: str, parameters: dict[str, Any]) -> Any:
    with pytest.raises((ClientError, BotoCoreError)) as raised:
        getattr(client, method)(**parameters)
    return raised.value


def test_what_one_writes_the_other_reads(environment: Settings, aws: Emulator) -> None:
    ours, key = runtime.dynamodb_client(), {name: ITEM[name] for name in ("enrollment_id", "item")}
    for writer, reader in ((ours, aws.dynamodb), (aws.dynamodb, ours)):
        writer.put_item(TableName=environment.enrollment_table, Item=ITEM)  # type: ignore[arg-type]
        read = reader.get_item(TableName=environment.enrollment_table, Key=key)["Item"]  # type: ignore[arg-type]
        assert read == ITEM
        writer.delete_item(TableName=environment.enrollment_table, Key=key)  # type: ignore[arg-type]
        assert "Item" not in reader.get_item(TableName=environment.enrollment_table, Key=key)  # type: ignore[arg-type]


def test_refusals_are_those_of_the_sdk(environment: Settings, aws: Emulator) -> None:
    table = environment.enrollment_table
    put = {"TableName": table, "Item": ITEM}
    aws.dynamodb.put_item(**put)  # type: ignore[arg-type]
    once = put | {
        "ConditionExpression": "attribute_not_exists(enrollment_id)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("dynamodb", "put_item", once),
        ("dynamodb", "transact_write_items", {"TransactItems": [{"Put": once}]}),
        ("dynamodb", "get_item", {"TableName": "none-such", "Key": {}}),
        ("sqs", "send_message", {"QueueUrl": f"{aws.url}/000000000000/none-such", "MessageBody": "text"}),
        ("events", "describe_rule", {"Name": "none-such"}),
        ("secretsmanager", "get_secret_value", {"SecretId": "none-such"}),
    ]
    ours = {
        "dynamodb": runtime.dynamodb_client(),
        "sqs": runtime.sqs_client(),
        "events": runtime.events_client(),
        "secretsmanager": runtime.secretsmanager_client(),
    }
    for service, method, parameters in calls:
        expected = _refused(boto3.client(service), method, parameters)  # type: ignore[call-overload]
        found = _refused(ours[service], method, parameters)
        assert str(found) == str(expected)
        assert found.response["Error"]["Code"] == expected.response["Error"]["Code"]
        for name in ("Item", "CancellationReasons"):
            assert found.response.get(name) == expected.response.get(name)


def test_times_are_told_in_seconds(environment: Settings) -> None:
    entry = {"Source": "s", "DetailType": "t", "Detail": "{}", "Time": datetime.now(UTC)}
    entry["EventBusName"] = environment.event_bus

    assert runtime.events_client().put_events(Entries=[entry])["FailedEntryCount"] == 0  # type: ignore[list-item]


@pytest.mark.parametrize("trouble", [Error(500), Error(400, "ThrottlingException"), CutBefore(), CutAfter()], ids=repr)
def test_what_passes_is_tried_again_with_a_pause(
    trouble: Any, environment: Settings, proxy: AwsProxy, aws: Emulator
) -> None:
    pauses: list[float] = []
    client = _client(proxy.url, sleep=pauses.append)
    proxy.disturb("dynamodb.PutItem", trouble, times=2)

    client.put_item(TableName=environment.enrollment_table, Item=ITEM)

    assert proxy.counts["dynamodb.PutItem"] == 3
    assert len(pauses) == 2
    assert 0 <= pauses[0] <= 0.1
    assert 0 <= pauses[1] <= 0.2


def test_what_does_not_pass_is_given_up(environment: Settings, proxy: AwsProxy) -> None:
    client = _client(proxy.url, sleep=lambda _: None)
    put = {"TableName": environment.enrollment_table, "Item": ITEM}
    proxy.disturb("dynamodb.PutItem", Error(500), times=None)
    assert _refused(client, "put_item", put).response["Error"]["Code"] == "InternalServerError"
    assert proxy.counts["dynamodb.PutItem"] == 3
    proxy.reset()

    proxy.disturb("dynamodb.PutItem", Error(400, "ValidationException"), times=None)
    assert _refused(client, "put_item", put).response["Error"]["Code"] == "ValidationException"
    assert proxy.counts["dynamodb.PutItem"] == 1


def test_no_answer_is_the_sdks_error_for_it(environment: Settings, proxy: AwsProxy) -> None:
    put = {"TableName": environment.enrollment_table, "Item": ITEM}

    def error_of(client: Any) -> BotoCoreError:
        error: BotoCoreError = _refused(client, "put_item", put)
        return error

    proxy.disturb("dynamodb.PutItem", CutAfter(), times=None)
    assert isinstance(error_of(_client(proxy.url, attempts=1)), ConnectionClosedError)
    proxy.reset()
    proxy.disturb("dynamodb.PutItem", Delay(5), times=None)
    assert isinstance(error_of(_client(proxy.url, attempts=1, read_timeout=0.2)), ReadTimeoutError)
    assert isinstance(error_of(_client("http://127.0.0.1:1", attempts=1)), EndpointConnectionError)


def test_a_transaction_whose_answer_was_lost_is_done_once(environment: Settings, proxy: AwsProxy) -> None:
    put = {"TableName": environment.enrollment_table, "Item": ITEM, "ConditionExpression": "attribute_not_exists(cls)"}
    client = _client(proxy.url)
    proxy.disturb("dynamodb.TransactWriteItems", CutAfter(), times=1)

    client.transact_write_items(TransactItems=[{"Put": put}])

    assert proxy.counts["dynamodb.TransactWriteItems"] == 2
    bodies = {call.body for call in proxy.calls if call.name == "dynamodb.TransactWriteItems"}
    assert len(bodies) == 1
    assert b"ClientRequestToken" in bodies.pop()


def test_a_broken_answer_is_asked_for_again(environment: Settings, proxy: AwsProxy) -> None:
    client = _client(proxy.url, sleep=lambda _: None)
    answers: list[object] = []
    urlopen = client._pool.urlopen

    def broken_once(*arguments: Any, **options: Any) -> Any:
        response = urlopen(*arguments, **options)
        if not answers:
            response.headers["x-amz-crc32"] = "1"
        answers.append(response)
        return response

    client._pool.urlopen = broken_once
    client.put_item(TableName=environment.enrollment_table, Item=ITEM)
    assert len(answers) == 2


def test_an_answer_that_is_none_of_awss_is_asked_for_again_and_then_given_up(environment: Settings) -> None:
    client = _client(environment.device_url, sleep=lambda _: None)
    answers = [b"<html>", b'{"TableNames": []', b"\xff", b'{"TableNames": []}']

    def urlopen(*_: object, **__: object) -> Any:
        return HTTPResponse(body=answers.pop(0), status=200)

    client._pool.urlopen = urlopen
    with pytest.raises(HTTPClientError, match="no JSON"):
        client.list_tables()
    assert client.list_tables() == {"TableNames": []}


def test_xray_can_follow_a_request(environment: Settings) -> None:
    client = _client("http://127.0.0.1:1", attempts=1, trace_id=lambda: "Root=1-5759e988-bd862e3fe1be46a994272793")
    sent: list[dict[str, str]] = []

    def urlopen(*_: object, headers: dict[str, str], **__: object) -> Any:
        sent.append(headers)
        raise InterruptedError

    client._pool.urlopen = urlopen
    with pytest.raises(InterruptedError):
        client.put_events(Entries=[])
    assert sent[0]["X-Amzn-Trace-Id"].startswith("Root=")


def test_calls_can_be_watched(environment: Settings) -> None:
    seen: list[str] = []
    end = watch(runtime.dynamodb_client(), after=lambda operation, answer: seen.append(operation))
    runtime.dynamodb_client().list_tables(Limit=1)
    end()
    runtime.dynamodb_client().list_tables(Limit=1)
    assert seen == ["ListTables"]

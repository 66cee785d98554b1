"""What operators do to a stack itself: looking into its queues, redriving, examining, destroying."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.fleet import TOPIC
from tests.workflows import rules

QUEUES = ("Push", "Webhook", "Sweep", "Workflow", "EventFallback")


@pytest.fixture
def stack(aws: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A stack with what the command line looks for, deployed without the functions."""
    name = f"picomdm-{uuid4().hex[:8]}"
    resources: dict[str, Any] = {
        "Bus": {"Type": "AWS::Events::EventBus", "Properties": {"Name": name}},
        "Bucket": {"Type": "AWS::S3::Bucket"},
        "Secret": {
            "Type": "AWS::SecretsManager::Secret",
            "DeletionPolicy": "Retain",
            "Properties": {"GenerateSecretString": {}},
        },
        "EnrollmentTable": _table("enrollment_id"),
        "ResourceTable": _table("collection"),
        "TargetDeadLetterQueue": {"Type": "AWS::SQS::Queue"},
    }
    outputs = {
        "EventBusName": {"Ref": "Bus"},
        "PayloadBucketName": {"Ref": "Bucket"},
        "SecretArn": {"Ref": "Secret"},
        "EnrollmentTableName": {"Ref": "EnrollmentTable"},
        "ResourceTableName": {"Ref": "ResourceTable"},
        "TargetDeadLetterQueueUrl": {"Ref": "TargetDeadLetterQueue"},
        "DashboardName": name,
    }
    for queue in QUEUES:
        for kind in ("Queue", "DeadLetterQueue"):
            resources[f"{queue}{kind}"] = {"Type": "AWS::SQS::Queue"}
            outputs[f"{queue}{kind}Url"] = {"Ref": f"{queue}{kind}"}
    aws.cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(
            {"Resources": resources, "Outputs": {key: {"Value": value} for key, value in outputs.items()}}
        ),
    )
    aws.cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    monkeypatch.setenv("PICOMDM_STACK", name)
    yield name
    if _exists(aws, name):
        aws.cloudformation.delete_stack(StackName=name)


# API keys


def test_api_keys_are_added_shown_and_retired(stack: str, aws: Emulator, picomdm: CommandLine, tmp_path: Path) -> None:
    secret = _output(aws, stack, "SecretArn")
    master = {"current_key": "k1", "k1": "x" * 64}
    aws.secretsmanager.put_secret_value(SecretId=secret, SecretString=json.dumps(master))
    mine = tmp_path / "key"
    mine.write_text("the key of my former server\n")

    assert picomdm("api-key", "show").out.startswith("None yet")
    made = picomdm("api-key", "add", "--json").document["api_key"]
    assert picomdm("api-key", "add", str(mine)).out == "the key of my former server\n"
    assert picomdm("api-key", "show", "--json").document == {"api_keys": ["the key of my former server", made]}
    assert picomdm("api-key", "add", str(mine)).code == 0
    assert picomdm("api-key", "show").out == f"the key of my former server\n{made}\n"
    assert picomdm("api-key", "retire", "--json").document == {"retired": 1}
    assert picomdm("api-key", "retire", "--json").document == {"retired": 0}
    stored = json.loads(aws.secretsmanager.get_secret_value(SecretId=secret)["SecretString"])
    assert stored == master | {"api_keys": ["the key of my former server"]}
    assert len(made) == 43


def test_a_key_that_can_be_guessed_is_none(stack: str, aws: Emulator, picomdm: CommandLine, tmp_path: Path) -> None:
    short = tmp_path / "key"
    short.write_text("hunter2")
    secret = _output(aws, stack, "SecretArn")
    aws.secretsmanager.put_secret_value(SecretId=secret, SecretString='{"current_key": "k1", "k1": "master"}')

    assert picomdm("api-key", "add", str(short)).code == 2
    assert picomdm("api-key", "show", "--json").document == {"api_keys": []}
    aws.secretsmanager.put_secret_value(SecretId=secret, SecretString="master")
    refused = picomdm("api-key", "add")
    assert refused.code == 1
    assert "master keys" in refused.err
    assert aws.secretsmanager.get_secret_value(SecretId=secret)["SecretString"] == "master"


# Queues


def test_messages_that_were_given_up_are_counted(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    _send(aws, stack, "WebhookDeadLetterQueueUrl", "one")
    _send(aws, stack, "WebhookQueueUrl", "two")
    counts = {entry["name"]: entry for entry in picomdm("queues", "--json").document["queues"]}

    assert (counts["webhook"]["waiting"], counts["webhook"]["given_up"]) == (1, 1)
    assert (counts["push"]["waiting"], counts["push"]["given_up"]) == (0, 0)
    assert picomdm("queues").code == 0


def test_a_redrive_puts_all_messages_back_as_they_were(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    bodies = {json.dumps({"number": number}) for number in range(25)} | {"x" * 100_000, "y" * 100_000, "z" * 100_000}
    for body in bodies:
        _send(aws, stack, "PushDeadLetterQueueUrl", body)
    said = picomdm("redrive", "push", "--json")

    assert (said.code, said.document) == (0, {"queue": "push", "moved": 28, "dropped": 0, "left": 0})
    assert _receive_all(aws, stack, "PushQueueUrl") == bodies
    assert _receive_all(aws, stack, "PushDeadLetterQueueUrl") == set()
    assert picomdm("redrive", "push", "--json").document["moved"] == 0


def test_events_that_the_bus_could_not_deliver_become_deliveries_again(
    stack: str, aws: Emulator, picomdm: CommandLine
) -> None:
    event = {"detail-type": "mdm.Connect", "source": "picomdm.mdm", "detail": {"event_id": "1"}}
    rule = f"arn:aws:events:us-east-1:000000000000:rule/{stack}/{stack}-webhook-0123456789ab"
    schedule = {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}
    _send(aws, stack, "TargetDeadLetterQueueUrl", json.dumps(event), RULE_ARN=rule)
    _send(aws, stack, "TargetDeadLetterQueueUrl", json.dumps(schedule), RULE_ARN="arn:schedule")
    _send(aws, stack, "TargetDeadLetterQueueUrl", json.dumps({"task": "renew_identities"}), RULE_ARN="arn:schedule")
    _send(aws, stack, "TargetDeadLetterQueueUrl", "not ours")
    said = picomdm("redrive", "targets", "--json")

    assert (said.code, said.document) == (1, {"queue": "targets", "moved": 1, "dropped": 2, "left": 1})
    assert [json.loads(body) for body in _receive_all(aws, stack, "WebhookQueueUrl")] == [
        {"subscription": "0123456789ab", "event": {"event_id": "1"}}
    ]


def test_events_that_did_not_reach_the_plans_reach_them_as_their_rules_say(
    stack: str, aws: Emulator, picomdm: CommandLine
) -> None:
    connect = {"command_uuid": "plan.blueprints.1", "status": "Acknowledged", "ids": {"id": "MAC-1"}}
    checkin = {"token_update_tally": 1, "enrollment_type": "Device", "ids": {"id": "MAC-1"}}
    not_sent = {"command_uuid": "plan.lock.1", "enrollment_ids": ["MAC-1"]}
    idle = {"status": "Idle", "enrollment_type": "Device", "ids": {"id": "MAC-1"}}
    details: dict[str, dict[str, Any]] = {
        "enrolled": {"topic": "mdm.TokenUpdate", "event_id": "e-1", "checkin_event": checkin},
        "checkins": {"topic": "mdm.TokenUpdate", "event_id": "e-1", "checkin_event": checkin},
        "idle": {"topic": "mdm.Connect", "event_id": "e-4", "acknowledge_event": idle},
        "report": {"topic": "mdm.Connect", "event_id": "e-2", "acknowledge_event": connect},
        "not-sent": {"topic": "mdm.CommandNotSent", "event_id": "e-3", "command_event": not_sent},
    }
    expected = []
    for rule in rules():
        (name,) = [name for name in details if rule.name.endswith(f"-workflow-{name}")]
        assert rule.matches(details[name])
        expected.append(rule.message(details[name]))
        event = {"detail-type": details[name]["topic"], "source": "picomdm.mdm", "detail": details[name]}
        arn = f"arn:aws:events:us-east-1:000000000000:rule/{stack}/{stack}-workflow-{name}"
        _send(aws, stack, "TargetDeadLetterQueueUrl", json.dumps(event), RULE_ARN=arn)
    said = picomdm("redrive", "targets", "--json")

    moved = {"queue": "targets", "moved": len(details), "dropped": 0, "left": 0}
    assert (said.code, said.document) == (0, moved)
    queued = _receive_all(aws, stack, "WorkflowQueueUrl")
    assert sorted(map(json.loads, queued), key=str) == sorted(map(json.loads, expected), key=str)
    assert _receive_all(aws, stack, "WebhookQueueUrl") == set()


def test_deliveries_of_one_webhook_are_redriven_and_others_stay(
    stack: str, aws: Emulator, picomdm: CommandLine
) -> None:
    mine = {json.dumps({"subscription": "0123456789ab", "event": {"event_id": str(number)}}) for number in range(12)}
    others = {json.dumps({"subscription": "ba9876543210", "event": {"event_id": "1"}}), "not ours"}
    for body in mine | others:
        _send(aws, stack, "WebhookDeadLetterQueueUrl", body)
    event = {"detail-type": "mdm.Connect", "source": "picomdm.mdm", "detail": {"event_id": "lost"}}
    for name in ("0123456789ab", "ba9876543210"):
        rule = f"arn:aws:events:us-east-1:000000000000:rule/{stack}/{stack}-webhook-{name}"
        _send(aws, stack, "TargetDeadLetterQueueUrl", json.dumps(event), RULE_ARN=rule)
    said = picomdm("webhooks", "redrive", "0123456789ab", "--json")

    assert (said.code, said.document) == (0, {"webhook": "0123456789ab", "moved": 13, "left": 0})
    back = _receive_all(aws, stack, "WebhookQueueUrl")
    assert back == mine | {json.dumps({"subscription": "0123456789ab", "event": {"event_id": "lost"}})}
    # They are visible again at once.
    assert _receive_all(aws, stack, "WebhookDeadLetterQueueUrl") == others
    assert _receive_all(aws, stack, "TargetDeadLetterQueueUrl") == {json.dumps(event)}


def test_a_queue_that_is_none_is_wrong_usage(stack: str, picomdm: CommandLine) -> None:
    said = picomdm("redrive", "everything")

    assert said.code == 2
    assert "webhook" in said.err


# Events


def test_a_tail_shows_events_as_they_come_and_leaves_nothing(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    def publish() -> None:
        for topic in ("mdm.Connect", "mdm.CheckOut"):
            detail: dict[str, Any] = {
                "topic": topic,
                "event_id": "1",
                "created_at": "2026-11-20T12:00:00Z",
                "checkin_event": {},
            }
            entry: Any = {
                "EventBusName": stack,
                "Source": "picomdm.mdm",
                "DetailType": topic,
                "Detail": json.dumps(detail),
            }
            aws.events.put_events(Entries=[entry])

    with _when_a_tail_watches(aws, stack, publish):
        said = picomdm("events", "tail", "--topic", "mdm.Check*", "--count", "1", "--json")

    assert (said.code, said.document["topic"]) == (0, "mdm.CheckOut")
    assert _left_of_tails(aws, stack) == ([], [])


# A call that is interrupted while it connects leaves its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed <socket:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_tail_that_is_ended_leaves_nothing(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    with _when_a_tail_watches(aws, stack, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        said = picomdm("events", "tail")

    assert said.code == 0
    assert _left_of_tails(aws, stack) == ([], [])


# Doctor


def test_the_doctor_says_what_helps(
    stack: str,
    aws: Emulator,
    server: AdminServer,
    picomdm: CommandLine,
    push_certificate: bytes,
    tmp_path: Any,
) -> None:
    _send(aws, stack, "SweepDeadLetterQueueUrl", "lost")
    ill = picomdm("doctor")

    assert ill.code == 1
    assert "push-cert upload" in ill.out
    assert "picomdm redrive sweep" in ill.out

    (tmp_path / "push.pem").write_bytes(push_certificate)
    picomdm("push-cert", "upload", str(tmp_path / "push.pem"))
    picomdm("redrive", "sweep")
    well = picomdm("doctor", "--json")

    assert (well.code, well.document["well"]) == (0, True)
    assert TOPIC in well.out


def test_the_doctor_goes_on_when_one_examination_fails(
    environment: Settings, stack: str, picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOMDM_ADMIN_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("picomdm.admin_api._ATTEMPTS", 1)  # the waits between attempts are tested elsewhere
    said = picomdm("doctor", "--json")

    assert said.code == 1
    assert {finding["what"] for finding in said.document["findings"]} >= {"admin API", "queue push"}


def test_keys_of_a_deployment_on_this_machine_are_not_shown_to_aws(
    picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("PICOMDM_ADMIN_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("picomdm.admin_api._ATTEMPTS", 1)

    found = {each["what"]: each for each in picomdm("doctor", "--json").document["findings"]}
    not_asked = {what for what, each in found.items() if each["found"].startswith("not asked: ")}

    assert not_asked == {"device address", "queues", "alarms", "quotas", "permissions"}
    assert {found[what]["well"] for what in not_asked} == {None}
    assert json.loads(picomdm("queues", "--json").err)["code"] == "needs_aws"


@pytest.mark.usefixtures("server")
def test_the_doctor_tells_of_quotas_alarms_and_what_is_not_allowed(
    stack: str, aws: Emulator, picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{stack}-device-errors"
    aws.cloudwatch.put_metric_alarm(
        AlarmName=name,
        ComparisonOperator="GreaterThanThreshold",
        EvaluationPeriods=1,
        MetricName="Errors",
        Namespace="picomdm",
        Period=60,
        Statistic="Sum",
        Threshold=1,
    )
    aws.cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
    monkeypatch.setattr("picomdm.doctor._CONCURRENCY", 100_000)
    told = picomdm("doctor").out

    assert re.search(rf"FIX alarms: {name}\n +See the dashboard", told)
    assert re.search(r"FIX Lambda concurrency: .+\n +Ask AWS for 1,000: aws service-quotas", told)
    assert re.search(r"ok +event rules: 0 of 300", told)
    assert re.search(r"ok +clock: (as|\d second)", told)
    assert "ok  permissions: for every command" in told


def test_the_doctor_says_that_a_topic_without_a_certificate_wakes_nobody(
    stack: str, server: AdminServer, picomdm: CommandLine, push_certificate: bytes, tmp_path: Path
) -> None:
    (tmp_path / "push.pem").write_bytes(push_certificate)
    picomdm("push-cert", "upload", str(tmp_path / "push.pem"))
    assert f"devices enroll for {TOPIC}" in picomdm("doctor").out
    other = "com.apple.mgmt.External.other"
    options = {"topic": other}
    tables.EnrollmentProfileDesign("enrollment_profile", "default", options=options).save()

    assert re.search(rf"FIX topic: devices enroll for {other}, which has no push certificate", picomdm("doctor").out)


# Open


def test_the_dashboard_is_told_by_its_url(stack: str, picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    url = f"https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1#dashboards/dashboard/{stack}"

    assert picomdm("open", "--print").out == f"{url}\n"
    assert picomdm("open", "--json").document == {"url": url}
    assert opened == []
    assert picomdm("open").code == 0
    assert opened == [url]


# The stack


def test_a_stack_that_is_not_there_is_2(aws: Emulator, picomdm: CommandLine) -> None:
    said = picomdm("--stack", "nothing", "devices")

    assert said.code == 2
    assert "(no_stack)" in said.err


def test_the_admin_api_is_found_through_the_stack(stack: str, picomdm: CommandLine) -> None:
    assert "has no output AdminUrl" in picomdm("devices").err


# Destroy


def test_a_deployment_is_destroyed_with_what_it_made_itself(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    bucket = _output(aws, stack, "PayloadBucketName")
    for number in range(3):
        aws.s3.put_object(Bucket=bucket, Key=f"results/{number}", Body=b"sealed")
    for name in ("0123456789ab", "ba9876543210"):
        rule = f"{stack}-webhook-{name}"
        aws.events.put_rule(Name=rule, EventBusName=stack, EventPattern='{"source": ["picomdm.mdm"]}')
        aws.events.put_targets(
            Rule=rule, EventBusName=stack, Targets=[{"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:000000000000:q"}]
        )
    secret = _output(aws, stack, "SecretArn")
    said = picomdm("destroy", "--yes", "--json")

    assert said.code == 0, said.err
    assert said.document == {"stack": stack, "rules": 2, "objects": 3, "secret_kept": True}
    assert not _exists(aws, stack)
    assert bucket not in [entry["Name"] for entry in aws.s3.list_buckets()["Buckets"]]
    assert aws.secretsmanager.describe_secret(SecretId=secret)["Name"]


def test_what_a_killed_tail_left_is_destroyed_too(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    aws.sqs.create_queue(QueueName=f"{stack}-tail-01234567")
    aws.events.put_rule(Name=f"{stack}-tail-01234567", EventBusName=stack, EventPattern='{"source": ["picomdm.mdm"]}')
    said = picomdm("destroy", "--yes", "--json")

    assert (said.code, said.document["rules"]) == (0, 1), said.err
    assert not _exists(aws, stack)
    assert _left_of_tails(aws, stack) == ([], [])


def test_nothing_is_destroyed_while_rules_of_others_are_on_the_bus(
    stack: str, aws: Emulator, picomdm: CommandLine
) -> None:
    bucket = _output(aws, stack, "PayloadBucketName")
    aws.s3.put_object(Bucket=bucket, Key="results/1", Body=b"sealed")
    aws.events.put_rule(Name="of-a-customer", EventBusName=stack, EventPattern='{"source": ["picomdm.mdm"]}')
    said = picomdm("destroy", "--yes")

    assert said.code == 1
    assert "of-a-customer" in said.err
    assert aws.s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    aws.events.delete_rule(Name="of-a-customer", EventBusName=stack)
    assert picomdm("destroy", "--yes").code == 0


def test_what_an_earlier_attempt_deleted_does_not_stop_the_next(
    stack: str, aws: Emulator, picomdm: CommandLine
) -> None:
    aws.s3.delete_bucket(Bucket=_output(aws, stack, "PayloadBucketName"))
    aws.events.delete_event_bus(Name=stack)
    aws.dynamodb.delete_table(TableName=_output(aws, stack, "EnrollmentTableName"))
    said = picomdm("destroy", "--yes", "--json")

    assert (said.code, said.document["rules"], said.document["objects"]) == (0, 0, 0), said.err
    assert not _exists(aws, stack)


def test_the_master_keys_go_only_when_that_is_said(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    secret = _output(aws, stack, "SecretArn")
    assert picomdm("destroy", "--yes", "--with-secret").code == 0

    with pytest.raises(aws.secretsmanager.exceptions.ResourceNotFoundException):
        aws.secretsmanager.get_secret_value(SecretId=secret)


def test_destroying_asks_for_the_stacks_name(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    mistyped = picomdm("destroy", stdin="yes\n")
    unanswered = picomdm("destroy")

    assert (mistyped.code, unanswered.code) == (2, 2)
    assert stack in mistyped.err
    assert _exists(aws, stack)
    assert picomdm("destroy", stdin=f"{stack}\n").code == 0
    assert not _exists(aws, stack)


def test_a_protected_deployment_is_not_touched(stack: str, aws: Emulator, picomdm: CommandLine) -> None:
    bucket = _output(aws, stack, "PayloadBucketName")
    aws.s3.put_object(Bucket=bucket, Key="results/1", Body=b"sealed")
    table = _output(aws, stack, "EnrollmentTableName")
    aws.dynamodb.update_table(TableName=table, DeletionProtectionEnabled=True)
    said = picomdm("destroy", "--yes")

    assert said.code == 1
    assert f"aws dynamodb update-table --no-deletion-protection-enabled --table-name {table}" in said.err
    assert aws.s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    aws.dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False)


@contextmanager
def _when_a_tail_watches(aws: Emulator, stack: str, act: Callable[[], None]) -> Iterator[None]:
    """Do something in a thread as soon as there is a tail whose rule has its target."""

    def wait() -> None:
        while not (rules := aws.events.list_rules(EventBusName=stack, NamePrefix=f"{stack}-tail-")["Rules"]):
            pass
        while not aws.events.list_targets_by_rule(EventBusName=stack, Rule=rules[0]["Name"])["Targets"]:
            pass
        act()

    thread = Thread(target=wait)
    thread.start()
    yield
    thread.join()


def _left_of_tails(aws: Emulator, stack: str) -> tuple[list[str], list[str]]:
    """Return the rules and queues of tails that there are."""
    try:
        rules = aws.events.list_rules(EventBusName=stack, NamePrefix=f"{stack}-tail-")["Rules"]
    except aws.events.exceptions.ResourceNotFoundException:
        rules = []
    queues = aws.sqs.list_queues(QueueNamePrefix=f"{stack}-tail-").get("QueueUrls", [])
    return [rule["Name"] for rule in rules], queues


def _table(key: str) -> dict[str, Any]:
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
        },
    }


def _output(aws: Emulator, stack: str, name: str) -> str:
    outputs = aws.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["Outputs"]
    return next(output["OutputValue"] for output in outputs if output["OutputKey"] == name)


def _exists(aws: Emulator, stack: str) -> bool:
    stacks = aws.cloudformation.list_stacks()["StackSummaries"]
    return any(entry["StackName"] == stack and entry["StackStatus"] != "DELETE_COMPLETE" for entry in stacks)


def _send(aws: Emulator, stack: str, queue: str, body: str, **attributes: str) -> None:
    aws.sqs.send_message(
        QueueUrl=_output(aws, stack, queue),
        MessageBody=body,
        MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    )


def _receive_all(aws: Emulator, stack: str, queue: str) -> set[str]:
    url = _output(aws, stack, queue)
    bodies: set[str] = set()
    while messages := aws.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies |= {message["Body"] for message in messages}
    return bodies

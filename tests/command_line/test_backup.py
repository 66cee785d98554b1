"""Back-ups: a deployment goes into a file, and out of it into another deployment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.emulator import Emulator
from picomdm import archive
from picomdm.archive import ArchiveReader
from picomdm.backup_target import Progress
from tests.command_lines import CommandLine

UDIDS = [f"A5EF1BA1-0000-4000-8000-{number:012}" for number in range(5)]
COUNTS = {"enrollments": 5, "items": 16, "resources": 2, "webhook rules": 1, "objects": 25}
KEYS = {"EnrollmentTable": ("enrollment_id", "item"), "ResourceTable": ("collection", "name")}


@dataclass(frozen=True)
class Deployment:
    """A deployment without functions: what a back-up is of."""

    aws: Emulator
    name: str
    outputs: Mapping[str, str]

    @classmethod
    def create(cls, aws: Emulator) -> "Deployment":
        name = f"picomdm-{uuid4().hex[:8]}"
        resources: dict[str, Any] = {
            "Bus": {"Type": "AWS::Events::EventBus", "Properties": {"Name": name}},
            "Bucket": {"Type": "AWS::S3::Bucket"},
            "Secret": {"Type": "AWS::SecretsManager::Secret", "Properties": {"SecretString": uuid4().hex * 2}},
            "WebhookQueue": {"Type": "AWS::SQS::Queue"},
            "TargetDeadLetterQueue": {"Type": "AWS::SQS::Queue"},
            **{table: _table(*keys) for table, keys in KEYS.items()},
        }
        outputs = {
            "EventBusName": "Bus",
            "PayloadBucketName": "Bucket",
            "SecretArn": "Secret",
            "WebhookQueueUrl": "WebhookQueue",
            "TargetDeadLetterQueueUrl": "TargetDeadLetterQueue",
            **{f"{table}Name": table for table in KEYS},
        }
        aws.cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(
                {
                    "Resources": resources,
                    "Outputs": {key: {"Value": {"Ref": resource}} for key, resource in outputs.items()},
                }
            ),
        )
        aws.cloudformation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        (stack,) = aws.cloudformation.describe_stacks(StackName=name)["Stacks"]
        return cls(aws, name, {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]})

    @property
    def secret(self) -> str:
        return str(self.aws.secretsmanager.get_secret_value(SecretId=self.outputs["SecretArn"])["SecretString"])

    def put(self, table: str, hash_key: str, range_key: str, **attributes: Any) -> None:
        keys = dict(zip(KEYS[table], ({"S": hash_key}, {"S": range_key}), strict=True))
        self.aws.dynamodb.put_item(TableName=self.outputs[f"{table}Name"], Item={**keys, **attributes})

    def items(self, table: str) -> dict[tuple[str, str], dict[str, Any]]:
        pages = self.aws.dynamodb.get_paginator("scan").paginate(TableName=self.outputs[f"{table}Name"])
        return {
            (item[KEYS[table][0]]["S"], item[KEYS[table][1]]["S"]): item for page in pages for item in page["Items"]
        }

    def objects(self) -> dict[str, bytes]:
        bucket, s3 = self.outputs["PayloadBucketName"], self.aws.s3
        listed = s3.list_objects_v2(Bucket=bucket).get("Contents", ())
        return {entry["Key"]: s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed}

    def everything(self) -> Any:
        return self.items("EnrollmentTable"), self.items("ResourceTable"), self.objects()

    def live(self) -> None:
        """Become a deployment that was in use for a while."""
        for udid in UDIDS:
            self.put("EnrollmentTable", udid, "!", generation={"S": "ffffffff"}, push={"B": b"\x00sealed\xff"})
            self.put("EnrollmentTable", udid, "c#ffffffff#1", payload={"B": b"sealed"}, expires_at={"N": "4102444800"})
            self.put("EnrollmentTable", udid, "s#UnlockToken", value={"B": b"sealed"})
            self.put("EnrollmentTable", f"cert#{udid}", "!", associated_id={"S": udid})
        self.put("EnrollmentTable", "command#1", "!", chain={"L": [{"M": {"a": {"NULL": True}, "b": {"B": b"\xfe"}}}]})
        self.put("ResourceTable", "ca", "scep", private_key={"B": b"sealed"})
        self.put("ResourceTable", "webhook", "0123456789ab", url={"S": "https://example.org"})
        self.put("ResourceTable", "schedule", "measure", ran_at={"N": "1"})
        for number in range(25):
            self.aws.s3.put_object(
                Bucket=self.outputs["PayloadBucketName"], Key=f"events/{number:02}", Body=b"\x00" * number
            )
        rule = f"{self.name}-webhook-0123456789ab"
        self.aws.events.put_rule(Name=rule, EventBusName=self.name, EventPattern='{"source": ["picomdm.mdm"]}')
        transformer = {"InputPathsMap": {"event": "$.detail"}, "InputTemplate": '{"event": <event>}'}
        arn = "arn:aws:sqs:us-east-1:000000000000:somewhere"
        targets: Any = [{"Id": "webhook-queue", "Arn": arn, "InputTransformer": transformer}]
        self.aws.events.put_targets(Rule=rule, EventBusName=self.name, Targets=targets)


def _table(hash_key: str, range_key: str) -> dict[str, Any]:
    keys = {hash_key: "HASH", range_key: "RANGE"}
    properties = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key in keys],
        "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
    }
    return {"Type": "AWS::DynamoDB::Table", "Properties": properties}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_SCRYPT", {"n": 2**4, "r": 8, "p": 1})
    monkeypatch.setenv("PICOMDM_PASSPHRASE", "correct horse battery staple")


@pytest.fixture(scope="module")
def source(emulator: Emulator) -> Deployment:
    deployment = Deployment.create(emulator)
    deployment.live()
    return deployment


@pytest.fixture
def target(aws: Emulator) -> Deployment:
    return Deployment.create(aws)


@pytest.fixture
def file(source: Deployment, picomdm: CommandLine, tmp_path: Path) -> Path:
    file = tmp_path / "backup"
    said = picomdm("--stack", source.name, "export", str(file), "--json")
    assert said.code == 0, said.err
    return file


def without_schedules(everything: Any) -> Any:
    enrollments, resources, objects = everything
    return enrollments, {key: item for key, item in resources.items() if key[0] != "schedule"}, objects


def test_everything_comes_into_a_new_deployment(
    source: Deployment, target: Deployment, file: Path, picomdm: CommandLine
) -> None:
    target.put("ResourceTable", "schedule", "measure", ran_at={"N": "2"})
    said = picomdm("--stack", target.name, "import", str(file), "--json")

    assert said.code == 0, said.err
    assert said.document["counts"] == COUNTS
    assert without_schedules(target.everything()) == without_schedules(source.everything())
    assert target.secret == source.secret
    assert target.items("ResourceTable")["schedule", "measure"]["ran_at"] == {"N": "2"}


def test_webhooks_lead_to_the_queue_of_the_deployment_that_they_are_brought_into(
    target: Deployment, file: Path, picomdm: CommandLine
) -> None:
    picomdm("--stack", target.name, "import", str(file))

    rule = f"{target.name}-webhook-0123456789ab"
    events = target.aws.events
    assert events.describe_rule(Name=rule, EventBusName=target.name)["EventPattern"] == '{"source": ["picomdm.mdm"]}'
    (found,) = events.list_targets_by_rule(Rule=rule, EventBusName=target.name)["Targets"]
    assert found["Arn"].rpartition(":")[2] == target.outputs["WebhookQueueUrl"].rpartition("/")[2]
    dead_letters = found["DeadLetterConfig"]["Arn"].rpartition(":")[2]
    assert dead_letters == target.outputs["TargetDeadLetterQueueUrl"].rpartition("/")[2]
    assert found["InputTransformer"]["InputTemplate"] == '{"event": <event>}'


def test_nothing_of_it_is_in_clear(source: Deployment, file: Path) -> None:
    content = file.read_bytes()

    assert source.secret.encode() not in content
    assert UDIDS[0].encode() not in content


def test_a_deployment_that_is_not_empty_is_left_alone(source: Deployment, file: Path, picomdm: CommandLine) -> None:
    before = source.everything()
    said = picomdm("--stack", source.name, "import", str(file))

    assert said.code == 1
    assert "(not_empty)" in said.err
    assert source.everything() == before


def test_what_was_sealed_under_other_keys_is_never_mixed(target: Deployment, file: Path, picomdm: CommandLine) -> None:
    target.put("ResourceTable", "ca", "scep", private_key={"B": b"of this one"})
    before = target.everything(), target.secret
    said = picomdm("--stack", target.name, "import", str(file), "--force")

    assert said.code == 1
    assert "(other_keys)" in said.err
    assert (target.everything(), target.secret) == before


def test_an_import_is_harmless_a_second_time(target: Deployment, file: Path, picomdm: CommandLine) -> None:
    picomdm("--stack", target.name, "import", str(file))
    # Since then, a device has answered its command, another enrolled anew, and a third is gone.
    dynamodb, table = target.aws.dynamodb, target.outputs["EnrollmentTableName"]
    dynamodb.delete_item(TableName=table, Key={"enrollment_id": {"S": UDIDS[0]}, "item": {"S": "c#ffffffff#1"}})
    target.put("EnrollmentTable", UDIDS[1], "!", generation={"S": "fffffffe"})
    dynamodb.delete_item(TableName=table, Key={"enrollment_id": {"S": UDIDS[1]}, "item": {"S": "s#UnlockToken"}})
    dynamodb.delete_item(TableName=table, Key={"enrollment_id": {"S": f"cert#{UDIDS[1]}"}, "item": {"S": "!"}})
    target.put("ResourceTable", "ca", "scep", private_key={"B": b"renewed"})
    for item in ("!", "c#ffffffff#1", "s#UnlockToken"):
        dynamodb.delete_item(TableName=table, Key={"enrollment_id": {"S": UDIDS[2]}, "item": {"S": item}})
    before = target.everything()

    said = picomdm("--stack", target.name, "import", str(file), "--force", "--json")

    assert said.code == 1
    assert said.document["kept"] == ["ca scep", *(f"enrollment {udid}" for udid in UDIDS if udid != UDIDS[2])]
    enrollments, resources, objects = target.everything()
    brought_back = {key for key in enrollments if key not in before[0]}
    assert brought_back == {(UDIDS[2], item) for item in ("!", "c#ffffffff#1", "s#UnlockToken")}
    assert {key: item for key, item in enrollments.items() if key in before[0]} == before[0]
    assert (resources, objects) == before[1:]


def test_an_export_that_broke_off_is_gone_on_with(
    source: Deployment, target: Deployment, file: Path, picomdm: CommandLine
) -> None:
    content = file.read_bytes()
    for cut in (60, len(content) // 3, len(content) - 5):
        file.write_bytes(content[:cut])
        assert picomdm("--stack", source.name, "export", str(file)).code == 0

        with file.open("rb") as stream:
            records = [
                record
                for chunk in ArchiveReader(stream, "correct horse battery staple").chunks()
                for record in chunk
                if record["kind"] != "position"
            ]
        kinds = [record["kind"] for record in records]
        assert (kinds.count("secret"), kinds.count("item"), kinds.count("object")) == (1, 23, 25)
        assert records[-1] == {
            "kind": "end",
            "counts": {"enrollments": 5, "items": 16, "resources": 2, "webhook rules": 1, "objects": 25},
        }


class BreaksOffError(Exception):
    """What ends an import in the middle."""


@pytest.mark.parametrize("after", [1, 2, 5])
def test_an_import_that_broke_off_is_gone_on_with(
    source: Deployment,
    target: Deployment,
    file: Path,
    picomdm: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    chunks = 0
    note = Progress.note

    def break_off(progress: Progress, number: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks > after:
            # The chunk is written; that it is, is not noted any more.
            raise BreaksOffError
        note(progress, number)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "note", break_off)
        with pytest.raises(BreaksOffError):
            picomdm("--stack", target.name, "import", str(file))

    said = picomdm("--stack", target.name, "import", str(file), "--json")

    assert (said.code, said.document["kept"]) == (0, [])
    assert without_schedules(target.everything()) == without_schedules(source.everything())
    assert not file.with_name("backup.importing").exists()


def test_a_finished_backup_is_not_written_over(source: Deployment, file: Path, picomdm: CommandLine) -> None:
    before = file.read_bytes()
    said = picomdm("--stack", source.name, "export", str(file))

    assert said.code == 2
    assert "(backup_finished)" in said.err
    assert file.read_bytes() == before


def test_tables_that_were_restored_are_exported_in_place_of_the_stacks(
    source: Deployment, target: Deployment, picomdm: CommandLine, tmp_path: Path
) -> None:
    target.put("EnrollmentTable", "RESTORED", "!", generation={"S": "ffffffff"})
    said = picomdm(
        *("--stack", source.name, "export", str(tmp_path / "restored"), "--json"),
        *("--enrollment-table", target.outputs["EnrollmentTableName"]),
    )

    assert said.document["counts"]["enrollments"] == 1
    assert said.document["counts"]["resources"] == 2


def test_a_short_passphrase_is_refused(
    source: Deployment, picomdm: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOMDM_PASSPHRASE", "short")
    said = picomdm("--stack", source.name, "export", str(tmp_path / "backup"))

    assert said.code == 2
    assert "(passphrase_short)" in said.err
    assert not (tmp_path / "backup").exists()

"""Where a back-up is brought to: a deployment gets what it does not have, and keeps what it has."""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from botocore.exceptions import ClientError

from picomdm.archive import Record
from picomdm.backup_records import COUNTED, KEYS, OWN_BUSINESS, RECORD, counted, decoded
from picomdm.deployment import Deployment

_WORKERS: Final = 16
_EXISTS: Final = "ConditionalCheckFailedException"


@dataclass
class Progress:
    """How far an import has come, kept beside the file: one that broke off is gone on with."""

    path: Path
    backup: str
    stack: str
    chunks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    kept: set[str] = field(default_factory=set)
    """Names of what was there already, and is not as in the back-up; enrollments, whatever they are like."""

    @classmethod
    def of(cls, file: Path, backup: str, stack: str) -> Self:
        """Return how far an import of this back-up into this stack has come."""
        path = file.with_name(f"{file.name}.importing")
        progress = cls(path, backup, stack)
        if path.exists():
            known = json.loads(path.read_text())
            if (known["backup"], known["stack"]) == (backup, stack):
                progress.chunks, progress.counts = known["chunks"], Counter(known["counts"])
                progress.kept = set(known["kept"])
        return progress

    def note(self, chunks: int) -> None:
        """Note that so many chunks are written."""
        self.chunks = chunks
        document = {"backup": self.backup, "stack": self.stack, "chunks": chunks}
        document |= {"counts": dict(self.counts), "kept": sorted(self.kept)}
        beside = self.path.with_name(f"{self.path.name}.new")
        beside.write_text(json.dumps(document))
        beside.replace(self.path)

    def forget(self) -> None:
        """Note nothing any more: the import is finished."""
        self.path.unlink(missing_ok=True)


class Target:
    """Writes into a deployment what it does not have."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.tables = {
            "enrollment": deployment.output("EnrollmentTableName"),
            "resource": deployment.output("ResourceTableName"),
        }
        self._dynamodb = deployment.client("dynamodb")
        self._s3 = deployment.client("s3")

    def is_empty(self) -> bool:
        """Whether nobody has enrolled here and nothing was set up."""
        if self._dynamodb.scan(TableName=self.tables["enrollment"], Limit=1)["Items"]:
            return False
        items = self._dynamodb.scan(TableName=self.tables["resource"])["Items"]
        return all(item["collection"]["S"] in OWN_BUSINESS for item in items)

    def secret(self) -> str:
        """Return the master keys."""
        secrets = self._deployment.client("secretsmanager")
        return str(secrets.get_secret_value(SecretId=self._deployment.output("SecretArn"))["SecretString"])

    def replace_secret(self, value: str) -> None:
        """Take over other master keys: nothing is sealed under those that are there."""
        secrets = self._deployment.client("secretsmanager")
        secrets.put_secret_value(SecretId=self._deployment.output("SecretArn"), SecretString=value)

    def write(self, records: Sequence[Record], progress: Progress, *, again: bool) -> None:
        """Write what a chunk has, as far as it is not there, and count it.

        ``again`` says that an attempt before broke off in this chunk: what is there exactly as it should be was written
        by that.
        """

        def write(record: Record) -> tuple[Record, str | None]:
            return record, self._write(record, progress.kept, again=again)

        with ThreadPoolExecutor(_WORKERS) as workers:
            for record, kept in workers.map(write, records):
                if record["kind"] in COUNTED:
                    progress.counts[counted(record)] += 1
                if kept:
                    progress.kept.add(kept)

    def _write(self, record: Record, kept: AbstractSet[str], *, again: bool) -> str | None:
        """Write a record; return the name of what was left as it is."""
        match record["kind"]:
            case "item":
                return self._write_item(record["table"], decoded(record["item"]), kept, again=again)
            case "rule":
                self._write_rule(record)
            case "object":
                self._write_object(record["key"], base64.b64decode(record["body"]))
        return None

    def _write_item(self, table: str, item: dict[str, Any], kept: AbstractSet[str], *, again: bool) -> str | None:
        partition, name = (item[key]["S"] for key in KEYS[table])
        # A certificate is of the enrollment that it is associated with.
        owner = item.get("associated_id", {}).get("S", partition)
        is_record = table == "enrollment" and name == RECORD and "#" not in partition
        if table == "enrollment" and not is_record and _enrollment(owner) in kept:
            return None
        try:
            self._dynamodb.put_item(
                TableName=self.tables[table],
                Item=item,
                ConditionExpression="attribute_not_exists(#hash)",
                ExpressionAttributeNames={"#hash": KEYS[table][0]},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != _EXISTS:
                raise
        else:
            return None
        if is_record:
            return None if again and self._there(table, item) == item else _enrollment(partition)
        return None if self._there(table, item) == item else f"{partition} {name}"

    def _there(self, table: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
        key = {name: item[name] for name in KEYS[table]}
        answer = self._dynamodb.get_item(TableName=self.tables[table], Key=key, ConsistentRead=True)
        found: dict[str, Any] | None = answer.get("Item")
        return found

    def _write_rule(self, record: Record) -> None:
        """Make a webhook's rule; one of its name is the same subscription's."""
        events, bus = self._deployment.client("events"), self._deployment.output("EventBusName")
        name = f"{self._deployment.stack}-webhook-{record['name']}"
        events.put_rule(Name=name, EventBusName=bus, **record["rule"])
        target = {
            **record["target"],
            "Arn": self._queue_arn("WebhookQueueUrl"),
            "DeadLetterConfig": {"Arn": self._queue_arn("TargetDeadLetterQueueUrl")},
        }
        events.put_targets(Rule=name, EventBusName=bus, Targets=[target])

    def _queue_arn(self, output: str) -> str:
        attributes = self._deployment.client("sqs").get_queue_attributes(
            QueueUrl=self._deployment.output(output), AttributeNames=["QueueArn"]
        )
        return str(attributes["Attributes"]["QueueArn"])

    def _write_object(self, key: str, body: bytes) -> None:
        bucket = self._deployment.output("PayloadBucketName")
        try:
            self._s3.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # noqa: PLR2004 - HTTP's
                raise
            self._s3.put_object(Bucket=bucket, Key=key, Body=body)


def _enrollment(enrollment_id: str) -> str:
    return f"enrollment {enrollment_id}"

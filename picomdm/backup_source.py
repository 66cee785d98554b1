"""What a back-up is made of: a deployment, read page by page."""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from picomdm.archive import Record
from picomdm.backup_records import OWN_BUSINESS, RECORD, encoded
from picomdm.deployment import Deployment

_PAGE_OBJECTS: Final = 20
_KEPT_OF_TARGETS: Final = frozenset({"Id", "InputTransformer", "RetryPolicy"})
_SECTIONS: Final = ("enrollments", "enrollment", "resource", "rules", "objects")


class Source:
    """Reads a deployment, page by page."""

    def __init__(self, deployment: Deployment, enrollment_table: str | None, resource_table: str | None) -> None:
        self._deployment = deployment
        self._tables = {
            "enrollment": enrollment_table or deployment.output("EnrollmentTableName"),
            "resource": resource_table or deployment.output("ResourceTableName"),
        }
        self._dynamodb = deployment.client("dynamodb")
        self._s3 = deployment.client("s3")

    def pages(self, position: Mapping[str, Any] | None) -> Iterator[tuple[list[Record], dict[str, Any]]]:
        """Yield records, and the position behind them; from ``position`` on, or from the beginning."""
        if position is None:
            secret = self._deployment.client("secretsmanager").get_secret_value(
                SecretId=self._deployment.output("SecretArn")
            )
            begin = {"kind": "begin", "stack": self._deployment.stack, "region": self._deployment.region}
            position = {"section": _SECTIONS[0], "after": None}
            yield [begin, {"kind": "secret", "value": secret["SecretString"]}], dict(position)
        if position["section"] is None:
            return
        first = _SECTIONS.index(position["section"])
        for section, following in zip(_SECTIONS[first:], [*_SECTIONS[first + 1 :], None], strict=True):
            after = position["after"] if section == position["section"] else None
            while True:
                records, after = self._page(section, after)
                yield records, {"section": following if after is None else section, "after": after}
                if after is None:
                    break

    def _page(self, section: str, after: Any) -> tuple[list[Record], Any]:  # noqa: ANN401 - of any section
        if section == "rules":
            return list(self._rules()), None
        if section == "objects":
            return self._objects(after)
        table = "resource" if section == "resource" else "enrollment"
        is_record = "#item = :record AND NOT contains(enrollment_id, :sign)"
        only: dict[str, Any] = {
            "FilterExpression": is_record if section == "enrollments" else f"NOT ({is_record})",
            "ExpressionAttributeNames": {"#item": "item"},
            "ExpressionAttributeValues": {":record": {"S": RECORD}, ":sign": {"S": "#"}},
        }
        page = self._dynamodb.scan(
            TableName=self._tables[table],
            ConsistentRead=True,
            **(only if table == "enrollment" else {}),
            **({"ExclusiveStartKey": after} if after else {}),
        )
        records: list[Record] = [
            {"kind": "item", "table": table, "item": encoded(item)}
            for item in page["Items"]
            if table == "enrollment" or item["collection"]["S"] not in OWN_BUSINESS
        ]
        return records, page.get("LastEvaluatedKey")

    def _rules(self) -> Iterator[Record]:
        events, bus = self._deployment.client("events"), self._deployment.output("EventBusName")
        prefix = f"{self._deployment.stack}-webhook-"
        for page in _pages(events.list_rules, EventBusName=bus, NamePrefix=prefix):
            for rule in page["Rules"]:
                name = rule["Name"].removeprefix(prefix)
                targets = events.list_targets_by_rule(Rule=rule["Name"], EventBusName=bus)["Targets"]
                # The template's own is made by the template.
                if name != "default" and targets:
                    told = {key: rule[key] for key in ("Description", "EventPattern", "State") if key in rule}
                    kept = {
                        key: targets[0][key] for key in ("Id", "InputTransformer", "RetryPolicy") if key in targets[0]
                    }
                    yield {"kind": "rule", "name": name, "rule": told, "target": kept}

    def _objects(self, after: str | None) -> tuple[list[Record], str | None]:
        bucket = self._deployment.output("PayloadBucketName")
        listed = self._s3.list_objects_v2(
            Bucket=bucket, MaxKeys=_PAGE_OBJECTS, **({"StartAfter": after} if after else {})
        )
        keys = [entry["Key"] for entry in listed.get("Contents", ())]
        records = [record for key in keys if (record := self._object(bucket, key))]
        return records, keys[-1] if listed.get("IsTruncated") else None

    def _object(self, bucket: str, key: str) -> Record | None:
        try:
            body = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchKey":
                return None  # It has expired since it was listed.
            raise
        return {"kind": "object", "key": key, "body": base64.b64encode(body).decode()}


def _pages(call: Callable[..., dict[str, Any]], **arguments: str) -> Iterator[dict[str, Any]]:
    while True:
        page = call(**arguments)
        yield page
        if not page.get("NextToken"):
            return
        arguments["NextToken"] = page["NextToken"]

"""What a deployment has stored, looked at from behind; and time, helped along."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from local.stack import Stack
from mdmlib.services.scep_challenges import ScepChallenges
from mdmlib.store.sealing import Sealer
from mdmlib.store.stack_secret import StackSecret

# A request that is served writes when a device was last seen, at most once an hour; which request it was is no matter.
_VOLATILE = {"last_seen_at"}


@dataclass(frozen=True)
class Stored:
    """All items of both tables and the names of all objects, at one time."""

    items: Mapping[tuple[str, str, str], Mapping[str, Any]] = field(repr=False)
    objects: frozenset[str]

    @classmethod
    def of(cls, stack: Stack) -> Self:
        """Read everything."""
        items = {}
        for table in (stack.outputs["EnrollmentTableName"], stack.outputs["ResourceTableName"]):
            for item in scan(stack, table):
                key = item.get("enrollment_id") or item["collection"], item.get("item") or item["name"]
                attributes = {name: value for name, value in item.items() if name not in _VOLATILE}
                items[table, key[0]["S"], key[1]["S"]] = attributes
        listing = stack.emulator.s3.list_objects_v2(Bucket=stack.outputs["PayloadBucketName"])
        return cls(items, frozenset(entry["Key"] for entry in listing.get("Contents", ())))

    @staticmethod
    def expire(stack: Stack, collection: str, name: str) -> None:
        """Let a resource have expired a second ago."""
        stack.emulator.dynamodb.update_item(
            TableName=stack.outputs["ResourceTableName"],
            Key={"collection": {"S": collection}, "name": {"S": name}},
            UpdateExpression="SET expires_at = :past",
            ExpressionAttributeValues={":past": {"N": str(int(datetime.now(UTC).timestamp()) - 1)}},
            ConditionExpression="attribute_exists(#name)",
            ExpressionAttributeNames={"#name": "name"},
        )

    @staticmethod
    def challenge_of(stack: Stack, link_id: str, expires_at: datetime) -> str:
        """Return a challenge as the deployment itself makes them."""
        return ScepChallenges(sealer=sealer_of(stack), now=lambda: datetime.now(UTC)).new(link_id, expires_at)


def sealer_of(stack: Stack) -> Sealer:
    """Return what seals and opens as the deployment itself does."""
    secret = StackSecret(
        lambda: stack.emulator.secretsmanager,
        secret_id=stack.outputs["SecretArn"],
        now=lambda: datetime.now(UTC),
    )
    return Sealer(secret)


def scan(stack: Stack, table: str) -> Iterator[dict[str, Any]]:
    """Yield all items of a table, as DynamoDB gives them."""
    for page in stack.emulator.dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield from page["Items"]

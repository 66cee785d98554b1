"""The composition root: builds each service once, on first use.

Nothing is imported before it is needed, so that a function pays for its own services alone (connect never imports
httpx), and importing this module has no effect.
"""

import os
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

    from mdmlib.store.sealing import Sealer


def now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


@cache
def settings() -> Settings:
    """Return the deployment's settings."""
    return Settings.from_environment(os.environ)


@cache
def secretsmanager_client() -> "SecretsManagerClient":
    """Return the client of Secrets Manager."""
    import boto3

    return boto3.client("secretsmanager")


@cache
def sqs_client() -> "SQSClient":
    """Return the client of SQS."""
    import boto3

    return boto3.client("sqs")


@cache
def s3_client() -> "S3Client":
    """Return the client of S3."""
    import boto3

    return boto3.client("s3")


@cache
def events_client() -> "EventBridgeClient":
    """Return the client of EventBridge: quick to give up, for the publisher retries and has a fallback queue."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "events",
        config=Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}, parameter_validation=False),
    )


@cache
def sealer() -> "Sealer":
    """Return the sealer under the stack's keys."""
    from mdmlib.store.sealing import Sealer
    from mdmlib.store.stack_secret import StackSecret

    return Sealer(StackSecret(secretsmanager_client, secret_id=settings().secret_id, now=now))


@cache
def bind_tables() -> None:
    """Tell the item classes which tables they are of."""
    from mdmlib.store import tables

    tables.bind(
        enrollment_table=settings().enrollment_table,
        resource_table=settings().resource_table,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        host=os.environ.get("AWS_ENDPOINT_URL_DYNAMODB") or os.environ.get("AWS_ENDPOINT_URL"),
    )


def forget() -> None:
    """Forget everything that was built: for tests that change the environment."""
    for built in list(globals().values()):
        if hasattr(built, "cache_clear"):
            built.cache_clear()

"""The clients of AWS' services and of administrators' servers."""

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from mdmlib import runtime

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

    from mdmlib.clients.reverse_proxy import ReverseProxyClient
    from mdmlib.clients.signed_http import SignedHttpClient


_USER_AGENT: Final = "PicoMDM"


def _client(service: str, **options: Any) -> Any:  # noqa: ANN401 - each caller names its client's type
    import boto3
    from botocore.config import Config

    make: Any = boto3.client  # its overloads know names of services only as literals
    return make(service, config=Config(user_agent=_USER_AGENT, **options))


def _json_client(service: str, *, attempts: int, read_timeout: float) -> Any:  # noqa: ANN401 - as for _client
    """Return a client for what most requests call: a third of the SDK's in CPU, and nothing of it to import."""
    from mdmlib.clients import aws_json

    known: aws_json.JsonService = getattr(aws_json, service)
    region = os.environ.get("AWS_REGION") or os.environ["AWS_DEFAULT_REGION"]
    return aws_json.AwsJsonClient(
        known,
        endpoint_url=(
            os.environ.get(f"AWS_ENDPOINT_URL_{service}")
            or os.environ.get("AWS_ENDPOINT_URL")
            or f"https://{known.name}.{region}.{runtime.settings().url_suffix}"
        ),
        region=region,
        credentials=aws_json.credentials(os.environ),
        attempts=attempts,
        connect_timeout=1,
        read_timeout=read_timeout,
        user_agent=_USER_AGENT,
        trace_id=lambda: os.environ.get("_X_AMZN_TRACE_ID"),
        ca_file=os.environ.get("AWS_CA_BUNDLE"),
    )


@cache
def secretsmanager_client() -> "SecretsManagerClient":
    """Return the client of Secrets Manager."""
    # The SDK would wait for a minute, five times, and API Gateway for half of one.
    client: SecretsManagerClient = _json_client("SECRETS_MANAGER", attempts=2, read_timeout=3)
    return client


@cache
def sqs_client() -> "SQSClient":
    """Return the client of SQS: while a device or an administrator waits."""
    client: SQSClient = _json_client("SQS", attempts=2, read_timeout=3)
    return client


@cache
def dynamodb_client() -> "DynamoDBClient":
    """Return the client of DynamoDB that all items are read and written with."""
    client: DynamoDBClient = _json_client("DYNAMODB", attempts=3, read_timeout=3)
    return client


@cache
def dynamodb_batch_client() -> "DynamoDBClient":
    """Return a client of DynamoDB that tries once: for batches, which must not be repeated blindly."""
    client: DynamoDBClient = _json_client("DYNAMODB", attempts=1, read_timeout=5)
    return client


@cache
def s3_client() -> "S3Client":
    """Return the client of S3."""
    # Nothing here is larger than 4.4 MB.
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: S3Client = _client("s3", connect_timeout=1, read_timeout=5, retries=retries)
    return client


@cache
def s3_presigner() -> "S3Client":
    """Return the client of S3 that makes URLs: in all regions they are good, and of the bucket's own address."""
    client: S3Client = _client("s3", signature_version="s3v4", s3={"addressing_style": "virtual"})
    return client


@cache
def events_client() -> "EventBridgeClient":
    """Return the client for events: quick to give up, for the publisher retries and has a fallback queue."""
    client: EventBridgeClient = _json_client("EVENTBRIDGE", attempts=1, read_timeout=2)
    return client


@cache
def event_rules_client() -> "EventBridgeClient":
    """Return the client for rules of the event bus and replays of its archive."""
    client: EventBridgeClient = _client("events", connect_timeout=1, read_timeout=5)
    return client


@cache
def lambda_client() -> "LambdaClient":
    """Return the client of Lambda: for functions that others go on with."""
    retries = {"total_max_attempts": 3, "mode": "standard"}
    client: LambdaClient = _client("lambda", connect_timeout=1, read_timeout=5, retries=retries)
    return client


@cache
def signed_http_client() -> "SignedHttpClient":
    """Return the client of an administrator's own servers."""
    from mdmlib import __version__
    from mdmlib.clients.signed_http import SignedHttpClient

    return SignedHttpClient(user_agent=f"PicoMDM/{__version__}")


@cache
def reverse_proxy_client() -> "ReverseProxyClient":
    """Return the client of the server behind the authenticating proxy."""
    from mdmlib.clients.reverse_proxy import ReverseProxyClient

    return ReverseProxyClient()

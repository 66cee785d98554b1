"""The clients of AWS' services and of administrators' servers."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

    from mdmlib.clients.reverse_proxy import ReverseProxyClient
    from mdmlib.clients.signed_http import SignedHttpClient


def _client_config(**options: Any) -> "Config":  # noqa: ANN401 - options of botocore's Config
    from botocore.config import Config

    # The SDK puts its long User-Agent together twice a call and checks each parameter against the service's model:
    # together a fifth of a call's CPU, and our calls are made in one place each, where tests see them.
    return Config(user_agent="PicoMDM", parameter_validation=False, **options)


def _client(service: str, **options: Any) -> Any:  # noqa: ANN401 - each caller names its client's type
    import boto3

    make: Any = boto3.client  # its overloads know names of services only as literals
    return make(service, config=_client_config(**options))


@cache
def secretsmanager_client() -> "SecretsManagerClient":
    """Return the client of Secrets Manager."""
    # The SDK would wait for a minute, five times, and API Gateway for half of one.
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: SecretsManagerClient = _client("secretsmanager", connect_timeout=1, read_timeout=3, retries=retries)
    return client


@cache
def sqs_client() -> "SQSClient":
    """Return the client of SQS: while a device or an administrator waits."""
    retries = {"total_max_attempts": 2, "mode": "standard"}
    client: SQSClient = _client("sqs", connect_timeout=1, read_timeout=3, retries=retries)
    return client


@cache
def dynamodb_client() -> "DynamoDBClient":
    """Return the client of DynamoDB that all items are read and written with."""
    retries = {"total_max_attempts": 3, "mode": "standard"}
    return _of_one_account(_client("dynamodb", connect_timeout=1, read_timeout=3, retries=retries))


@cache
def dynamodb_batch_client() -> "DynamoDBClient":
    """Return a client of DynamoDB that tries once: for batches, which must not be repeated blindly."""
    return _of_one_account(_client("dynamodb", connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}))


def _of_one_account(client: "DynamoDBClient") -> "DynamoDBClient":
    # A table can be named by an ARN, which may be of another account with another address: for that the SDK searches
    # each batch and transaction, at a twentieth of its CPU. Ours are named by their names.
    for operation in ("BatchGetItem", "BatchWriteItem", "TransactWriteItems"):
        client.meta.service_model.operation_model(operation).operation_context_parameters = []
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
    """Return the client of EventBridge: quick to give up, for the publisher retries and has a fallback queue."""
    retries = {"total_max_attempts": 1}
    client: EventBridgeClient = _client("events", connect_timeout=1, read_timeout=2, retries=retries)
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

"""A client of the AWS services that speak JSON: each call is one signed POST over urllib3.

botocore does the same for 400 services, by descriptions that it reads at its start and goes through at each call: that
is three quarters of a call's CPU and most of a cold start. Credentials and exceptions remain botocore's, so whoever
catches its errors notices no difference; ``docs/decisions/signed-requests.md`` has the numbers.
"""

import hmac
import json
import random
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4
from zlib import crc32

import botocore.session
import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import (
    BotoCoreError,
    ChecksumError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import get_cert_path

_PASSING_STATUS: Final = frozenset({500, 502, 503, 504})
_PASSING_CODES: Final = frozenset(
    {
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestTimeout",
        "RequestTimeoutException",
        "ThrottlingException",
        "TransactionInProgressException",
    }
)
_FIRST_PAUSE: Final = 0.1
"""Seconds, at most, before the second attempt; before each further one twice as long. A device waits meanwhile."""

_CONNECTIONS: Final = 10
"""As many as stay open; botocore's default."""


@dataclass(frozen=True)
class JsonService:
    """How a service is spoken to: its name in signatures and host names, and what its calls begin with."""

    name: str
    target: str
    json_version: str
    id: str
    """Its name in ``AWS_ENDPOINT_URL_<id>``."""
    once_by_token: frozenset[str] = frozenset()
    """Operations that AWS does once, however often it is asked under the same ``ClientRequestToken``."""
    query_compatible: bool = False
    """It spoke another protocol once, whose error codes it still gives to whoever asks for them."""


DYNAMODB: Final = JsonService(
    "dynamodb", "DynamoDB_20120810", "1.0", "DYNAMODB", once_by_token=frozenset({"TransactWriteItems"})
)
EVENTBRIDGE: Final = JsonService("events", "AWSEvents", "1.1", "EVENTBRIDGE")
SECRETS_MANAGER: Final = JsonService("secretsmanager", "secretsmanager", "1.1", "SECRETS_MANAGER")
SQS: Final = JsonService("sqs", "AmazonSQS", "1.0", "SQS", query_compatible=True)


class AwsJsonClient:
    """Calls one service: ``client.put_events(Entries=…)``, with the parameters and answers that boto3 has.

    Bytes of DynamoDB are bytes. Times of answers stay numbers. A call raises botocore's ``ClientError`` for what AWS
    refuses, and a ``BotoCoreError`` when there is no answer. What passes by itself (no answer, 5xx, throttling) is
    tried again, ``attempts`` times in all.
    """

    def __init__(
        self,
        service: JsonService,
        *,
        endpoint_url: str,
        region: str,
        credentials: Callable[[], ReadOnlyCredentials],
        attempts: int,
        connect_timeout: float,
        read_timeout: float,
        user_agent: str,
        trace_id: Callable[[], str | None] = lambda: None,
        ca_file: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``credentials`` is asked for each request. ``trace_id`` is Lambda's, which X-Ray follows a request by.

        ``ca_file`` has the authorities to trust (PEM) instead of botocore's. Timeouts are in seconds, for each attempt.
        """
        self.service = service
        self.meta = SimpleNamespace(endpoint_url=endpoint_url)
        self._request_signer = None  # pynamodb looks whether the client that it is given has credentials
        self._credentials = credentials
        self._attempts = attempts
        self._trace_id = trace_id
        self._sleep = sleep
        url = urlsplit(endpoint_url)
        self._path = url.path or "/"
        self._pool = urllib3.connection_from_url(
            endpoint_url,
            maxsize=_CONNECTIONS,
            timeout=urllib3.Timeout(connect=connect_timeout, read=read_timeout),
            retries=False,
            **({"ca_certs": ca_file or get_cert_path(verify=True)} if url.scheme == "https" else {}),
        )
        self._headers = {"Content-Type": f"application/x-amz-json-{service.json_version}", "User-Agent": user_agent}
        if service.query_compatible:
            self._headers["X-Amzn-Query-Mode"] = "true"
        self._signer = _Signer(service.name, region, host=url.netloc, path=self._path)

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        """Return the method of an operation, named as boto3 names it."""
        if name.startswith("_"):
            raise AttributeError(name)
        operation = "".join(word.capitalize() for word in name.split("_"))

        def method(**parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as the operation has them
            return self._make_api_call(operation, parameters)

        return method

    def _make_api_call(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # pynamodb, too, calls it, by the name that it has in botocore.
        if operation in self.service.once_by_token:
            parameters = {"ClientRequestToken": str(uuid4()), **parameters}
        body = _ENCODER.encode(parameters).encode()
        attempt = 1
        while True:
            try:
                return self._attempt(operation, body)
            except (BotoCoreError, ClientError) as error:
                if attempt == self._attempts or not _passes(error):
                    raise
            self._sleep(random.uniform(0, _FIRST_PAUSE * 2 ** (attempt - 1)))  # noqa: S311 - spreads, protects nothing
            attempt += 1

    def _attempt(self, operation: str, body: bytes) -> dict[str, Any]:
        target = f"{self.service.target}.{operation}"
        headers = self._headers | self._signer.sign(self._headers["Content-Type"], target, body, self._credentials())
        if trace_id := self._trace_id():
            headers["X-Amzn-Trace-Id"] = trace_id
        try:
            response = self._pool.urlopen("POST", self._path, body=body, headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise _no_answer(error, self.meta.endpoint_url) from error
        data = response.data
        checksum = response.headers.get("x-amz-crc32")
        if checksum is not None and checksum != (found := str(crc32(data))):
            raise ChecksumError(checksum_type="crc32", expected_checksum=checksum, actual_checksum=found)
        if response.status != 200:  # noqa: PLR2004 - OK
            raise _refusal(operation, response.status, response.headers, data)
        # Most answers have no bytes in them, and looking at each object for some takes longer than all else.
        decoder = _DECODER_OF_BYTES if b'"B' in data else _DECODER
        try:
            answer: dict[str, Any] = decoder.decode(data.decode() or "{}")
        except ValueError as error:
            # Of what stands between. It may have been done: whoever may ask again does.
            raise HTTPClientError(error="The answer is no JSON.") from error
        return answer


def credentials(environment: Mapping[str, str]) -> Callable[[], ReadOnlyCredentials]:
    """Return what gives this process' credentials: the environment's, as Lambda sets them, else what botocore finds.

    The environment comes first with botocore, too; looking no further saves a cold start its search.
    """
    access_key, secret_key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if access_key and secret_key:
        fixed = ReadOnlyCredentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN"))
        return lambda: fixed
    found = botocore.session.get_session().get_credentials()
    if found is None:
        raise NoCredentialsError
    # They end and are renewed, as those of a function that was restored from a snapshot.
    return found.get_frozen_credentials


class _Signer:
    """Signs requests: AWS Signature Version 4, of a POST without a query.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
    """

    def __init__(self, service: str, region: str, *, host: str, path: str) -> None:
        self._service = service
        self._region = region
        self._host = host
        self._path = path
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def sign(self, content_type: str, target: str, body: bytes, credentials: ReadOnlyCredentials) -> dict[str, str]:
        """Return the headers that a request has to have besides its content type."""
        time_ = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        token = credentials.token
        token_line, token_name = (f"x-amz-security-token:{token}\n", "x-amz-security-token;") if token else ("", "")
        names = f"content-type;host;x-amz-date;{token_name}x-amz-target"
        canonical = (
            f"POST\n{self._path}\n\ncontent-type:{content_type}\nhost:{self._host}\nx-amz-date:{time_}\n"
            f"{token_line}x-amz-target:{target}\n\n{names}\n{sha256(body).hexdigest()}"
        )
        scope = f"{time_[:8]}/{self._region}/{self._service}/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{time_}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = _hmac(self._signing_key(credentials.secret_key or "", time_[:8]), to_sign).hex()
        headers = {
            "Host": self._host,
            "X-Amz-Date": time_,
            "X-Amz-Target": target,
            "Authorization": (
                f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
                f"SignedHeaders={names}, Signature={signature}"
            ),
        }
        if token:
            headers["X-Amz-Security-Token"] = token
        return headers

    def _signing_key(self, secret_key: str, day: str) -> bytes:
        made_of, key = self._key
        if made_of != (secret_key, day):
            key = _hmac(f"AWS4{secret_key}".encode(), day)
            for part in (self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            self._key = (secret_key, day), key
        return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _passes(error: BotoCoreError | ClientError) -> bool:
    """Say whether the same request may be answered if it is made again."""
    if not isinstance(error, ClientError):
        return True
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status in _PASSING_STATUS or error.response["Error"]["Code"] in _PASSING_CODES


def _refusal(operation: str, status: int, headers: Mapping[str, str], data: bytes) -> ClientError:
    """Return AWS' error in the form that botocore gives it."""
    try:
        document = json.loads(data, object_hook=_with_bytes)
    except ValueError:
        document = {}  # of what stands between: a proxy, a load balancer
    if not isinstance(document, dict):
        document = {}
    # DynamoDB puts its namespace in front of the code; a header may have an address behind it.
    kind = document.pop("__type", None) or headers.get("x-amzn-errortype", status)
    code = str(kind).partition(":")[0].rpartition("#")[2]
    message = document.pop("message", None) or document.pop("Message", "")
    if query_error := headers.get("x-amzn-query-error"):
        code = query_error.partition(";")[0]
    response: Any = {
        **document,
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {
            "RequestId": headers.get("x-amzn-requestid", ""),
            "HTTPStatusCode": status,
            "HTTPHeaders": {name.lower(): value for name, value in headers.items()},
        },
    }
    return ClientError(response, operation)


def _no_answer(error: urllib3.exceptions.HTTPError, url: str) -> BotoCoreError:
    # The order matters: some of urllib3's errors are of two kinds.
    kinds: tuple[tuple[type[Exception], type[BotoCoreError]], ...] = (
        (urllib3.exceptions.NewConnectionError, EndpointConnectionError),
        (urllib3.exceptions.ConnectTimeoutError, ConnectTimeoutError),
        (urllib3.exceptions.ReadTimeoutError, ReadTimeoutError),
        (urllib3.exceptions.ProtocolError, ConnectionClosedError),
        (urllib3.exceptions.SSLError, SSLError),
    )
    for kind, botocores in kinds:
        if isinstance(error, kind):
            return botocores(endpoint_url=url, error=error)
    return HTTPClientError(error=error)


def _plain(value: object) -> str | float:
    """Return what JSON has no form for, in that of AWS: bytes in Base64, times in seconds since 1970."""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} has no form in JSON.")


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    # DynamoDB's values are objects with one member, which names their type. An attribute may have such a name, too,
    # but its value is an object again.
    if len(value) == 1:
        if type(encoded := value.get("B")) is str:
            return {"B": b64decode(encoded)}
        if type(several := value.get("BS")) is list:
            return {"BS": [b64decode(each) for each in several]}
    return value


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=_plain)
_DECODER: Final = json.JSONDecoder()
_DECODER_OF_BYTES: Final = json.JSONDecoder(object_hook=_with_bytes)

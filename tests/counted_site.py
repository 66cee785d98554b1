"""Warm functions behind the counting proxy: what a request costs in calls of AWS."""

from typing import Any

from functions.checkin import app as checkin
from functions.connect import app as connect
from local.aws_proxy import AwsProxy
from mdmlib import runtime
from tests.fleet import command
from tests.gateway import FunctionContext
from tests.signed_device import SignedDevice, trusted_authority

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
USER_ID = "B0B0B0B0-0000-0000-0000-000000000001"

QUERY, GET, UPDATE, DELETE = "dynamodb.Query", "dynamodb.GetItem", "dynamodb.UpdateItem", "dynamodb.DeleteItem"
PUT, BATCH_GET, BATCH_WRITE = "dynamodb.PutItem", "dynamodb.BatchGetItem", "dynamodb.BatchWriteItem"
TRANSACT, PUT_EVENTS, PUT_OBJECT = "dynamodb.TransactWriteItems", "events.PutEvents", "s3.PutObject"
SEND, SEND_BATCH = "sqs.SendMessage", "sqs.SendMessageBatch"


class Site:
    """Warm functions behind the counting proxy, and one enrolled device."""

    def __init__(self, proxy: AwsProxy) -> None:
        self.proxy = proxy
        self.device = SignedDevice(trusted_authority(), UDID)
        self._numbers = iter(range(1_000_000))
        self(self.authenticate())
        self(self.token_update())
        self(self.device.report("Idle"))
        self.enqueue("warm up")
        self(self.device.report("Acknowledged", "warm up"))

    def __call__(self, event: dict[str, Any], app: Any = None) -> dict[str, int]:
        """Let a function handle the event; return the calls that it made."""
        app = app or (connect if event["rawPath"] == "/mdm/connect" else checkin)
        self.proxy.reset()
        answer = app.lambda_handler(event, FunctionContext())
        assert answer["statusCode"] in {200, 201, 204}
        return dict(self.proxy.counts)

    def authenticate(self) -> dict[str, Any]:
        return self.device.checkin("Authenticate", SerialNumber="C02XXXX", BuildVersion=str(next(self._numbers)))

    def token_update(self, **fields: Any) -> dict[str, Any]:
        token = next(self._numbers).to_bytes(32, "big")
        return self.device.checkin("TokenUpdate", Token=token, PushMagic="magic", **fields)

    def enqueue(
        self, uuid: str, ids: tuple[str, ...] = (UDID,), *, size: int = 0, request_type: str = "InstallProfile"
    ) -> None:
        fields = {"Payload": b"p" * size} if size else {}
        runtime.enqueue_service().enqueue(command(uuid, request_type, **fields), ids, push=False)

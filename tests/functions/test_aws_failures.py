"""What a device is answered when AWS refuses a write, or nobody knows whether it was done: it comes back."""

import json

import pytest

from functions.checkin import app as checkin
from functions.commands import app as commands
from functions.connect import app
from local.aws_proxy import AwsProxy, CutAfter, CutBefore, Error, Partly, Trouble
from mdmlib import runtime
from mdmlib.store.tables import OutboxEvent
from tests.counted_site import UDID, Site
from tests.gateway import Gateway, http_event
from tests.long_queues import fill_queue


@pytest.mark.parametrize(
    "trouble",
    [
        CutBefore(),
        CutAfter(),
        Error(400, "ProvisionedThroughputExceededException"),
        Error(500, "InternalServerError"),
    ],
    ids=["cut before", "cut after", "throttled", "failed"],
)
def test_a_report_that_could_not_be_settled_is_answered_503(site: Site, proxy: AwsProxy, trouble: Trouble) -> None:
    gateway = Gateway(app.lambda_handler)
    uuid = fill_queue(UDID, 2, client=runtime.dynamodb_client())[0]
    for status, call in (("NotNow", "dynamodb.UpdateItem"), ("Acknowledged", "dynamodb.TransactWriteItems")):
        report = site.device.report(status, uuid)
        proxy.disturb(call, trouble, times=9)
        assert gateway.answer(report).status == 503
        proxy.reset()
        assert gateway.answer(report).status == 200


def test_a_read_that_dynamodb_never_processes_is_given_up(site: Site, proxy: AwsProxy) -> None:
    gateway = Gateway(checkin.lambda_handler)
    message = site.authenticate()
    proxy.disturb("dynamodb.BatchGetItem", Partly(), times=None)

    assert gateway.answer(message).status == 503

    assert proxy.counts["dynamodb.BatchGetItem"] <= 5
    proxy.reset()
    assert gateway.answer(message).status == 200


@pytest.mark.parametrize("named", [True, False], ids=["named by the caller", "named by us"])
def test_a_command_that_nobody_could_be_told_of_is_told_of_later(site: Site, proxy: AwsProxy, *, named: bool) -> None:
    gateway = Gateway(commands.lambda_handler)
    document = {"udid": UDID, "request_type": "SecurityInfo"} | ({"command_uuid": "1"} if named else {})
    request = http_event("POST", "/v1/commands", json.dumps(document).encode())
    for call in ("events.PutEvents", "sqs.SendMessage"):
        proxy.disturb(call, Error(500), times=None)

    assert gateway.answer(request).status == 201
    kept = [item for shard in range(16) for item in OutboxEvent.query(f"outbox#{shard:x}")]
    assert [item.topic for item in kept] == ["mdm.CommandQueued"]

    # Not even that: who named the command may send it again, and nobody else.
    proxy.disturb("dynamodb.PutItem", Error(500), times=None, skip=1)
    assert gateway.answer(request).status == (503 if named else 201)
    proxy.reset()
    assert gateway.answer(request).status == 201

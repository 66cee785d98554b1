"""What a device is answered when AWS refuses a write, or nobody knows whether it was done: it comes back."""

import pytest

from functions.checkin import app as checkin
from functions.connect import app
from local.aws_proxy import AwsProxy, CutAfter, CutBefore, Error, Partly, Trouble
from mdmlib import runtime
from tests.counted_site import UDID, Site
from tests.gateway import Gateway
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

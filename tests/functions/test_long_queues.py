"""A queue of 10,000 commands costs what a short one does.

The emulator's Query takes time in proportion to its partition, AWS' does not: what counts here are calls and items.
"""

import pytest

from functions.commands import app as commands
from functions.housekeeping.app import lambda_handler
from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.tables import PendingCommand
from tests.counted_site import (
    BATCH_GET,
    BATCH_WRITE,
    GET,
    PUT_EVENTS,
    QUERY,
    SEND,
    TRANSACT,
    UDID,
    UPDATE,
    Site,
)
from tests.gateway import http_event
from tests.long_queues import fill_queue
from tests.queues import QueueSource

LENGTH = 10_000
SLICE = 2_000
"""What one message of the sweep queue deletes."""


@pytest.fixture
def sweeps(aws: Emulator, environment: Settings, site: Site) -> QueueSource:
    source = QueueSource(aws, environment.sweep_queue_url, lambda_handler)
    source.invoke()  # the messages of the site's own beginning
    return source


def test_nothing_costs_more_because_a_queue_is_long(aws: Emulator, site: Site) -> None:
    uuids = fill_queue(UDID, LENGTH, client=aws.dynamodb)
    report = site.device.report

    assert site(report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}
    assert site(report("NotNow", uuids[0])) == {QUERY: 1, UPDATE: 1, PUT_EVENTS: 1}
    assert site(report("Acknowledged", uuids[0])) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}
    # Found by the key that the command itself tells, and the next one in the first page.
    assert site(report("Acknowledged", uuids[-1])) == {QUERY: 1, BATCH_GET: 1, TRANSACT: 1, PUT_EVENTS: 1}
    assert site(report("Acknowledged", uuids[-1])) == {QUERY: 1, BATCH_GET: 1, PUT_EVENTS: 1}
    assert site(site.token_update()) == {GET: 1, TRANSACT: 1, PUT_EVENTS: 1}
    with_many = site(site.authenticate())
    assert site(report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}
    assert site(site.authenticate()) == with_many
    assert with_many[TRANSACT] == 1


def test_a_long_queue_is_cleared_by_one_write_and_swept_slice_by_slice(
    aws: Emulator, site: Site, sweeps: QueueSource
) -> None:
    fill_queue(UDID, 2 * SLICE, client=aws.dynamodb)
    clear = http_event("DELETE", f"/v2/enrollments/{UDID}/commands")

    assert site(clear, commands) == {BATCH_GET: 1, UPDATE: 1, SEND: 1}
    site.enqueue("NEW")
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}
    slices = []
    while done := sweeps.invoke().done:
        assert len(done) == 1
        slices.append(site.proxy.counts[BATCH_WRITE])
        site.proxy.reset()
    # 25 items a call; what was there before is swept as well.
    assert slices[:2] == [SLICE // 25] * 2
    assert sum(slices[2:]) <= 1

    items = PendingCommand.query(UDID, PendingCommand.item.startswith(tables.PENDING))
    assert [item.command_uuid for item in items] == ["NEW"]

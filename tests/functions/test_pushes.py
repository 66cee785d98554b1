"""Waking many at once: from the request to the messages of the push queue."""

from typing import Any

import pytest

from functions.commands import app as commands
from local.aws_proxy import AwsProxy, Error
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.errors import UnavailableError
from mdmlib.services import push_jobs
from mdmlib.services.push_queue import PushMessage
from mdmlib.settings import Settings
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import Enrollment, PushJob
from tests.api_description import DescribedGateway
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet
from tests.gateway import Gateway

IDS = [f"D{number}" for number in range(5)]


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(tables, "SHARDS", 2)
    monkeypatch.setattr(push_jobs, "_PAGE", 2)
    runtime.bind_tables()
    tables.PushCertificate(
        "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
    ).save()
    fleet = Fleet(aws, environment, sealer, clock)
    for id_ in IDS:
        fleet.device(id_)
    return fleet


@pytest.fixture
def gateway(fleet: Fleet) -> Gateway:
    return DescribedGateway(commands.lambda_handler)


def woken(fleet: Fleet) -> list[str]:
    """Return who is in the push queue; empty it."""
    url, found = fleet.settings.push_queue_url, []
    while messages := fleet.emulator.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            found += [target.enrollment_id for target in PushMessage.decode(message["Body"], fleet.sealer).targets]
            fleet.emulator.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(found)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"all": True}, IDS),
        ({"types": ["Device"]}, IDS),
        ({"types": ["User"]}, []),
        ({"topic": TOPIC}, IDS),
        ({"topic": "com.apple.mgmt.External.another"}, []),
    ],
)
def test_who_is_selected_is_woken(
    fleet: Fleet, gateway: Gateway, selection: dict[str, Any], expected: list[str]
) -> None:
    answer = gateway.post("/v2/pushes", selection)
    assert (answer.status, answer.document["state"]) == (202, "running")
    fleet.sweep()

    assert woken(fleet) == expected
    told = gateway.get(f"/v2/pushes/{answer.document['id']}").document
    assert (told["state"], told["progress"], told["woken"], told["not_woken"]) == ("done", 1, len(expected), 0)


def test_ids_are_woken_once_each_and_those_that_cannot_be_are_counted(fleet: Fleet, gateway: Gateway) -> None:
    answer = gateway.post("/v2/pushes", {"ids": ["D1", "nobody", "D2", "D1", "D3"]})
    fleet.sweep()

    assert woken(fleet) == ["D1", "D2", "D3"]
    told = gateway.get(f"/v2/pushes/{answer.document['id']}").document
    assert (told["state"], told["ids"], told["woken"], told["not_woken"]) == ("done", 5, 3, 1)


def test_a_hundred_thousand_ids_are_a_hundred_messages(
    fleet: Fleet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_jobs, "_PAGE", 1_000)
    requested: list[dict[str, Any]] = []
    monkeypatch.setattr(runtime.push_jobs(), "_request", requested.append)

    answer = gateway.post("/v2/pushes", {"ids": [f"{number:036}" for number in range(100_000)]})

    assert (answer.status, len(requested)) == (202, 100)
    assert sum(len(message["ids"]) for message in requested) == 100_000


def test_the_blocked_and_those_that_left_are_nobody(fleet: Fleet, gateway: Gateway) -> None:
    Enrollment("D1", "!").update([Enrollment.blocked.set(True)])
    Enrollment("D2", "!").update([Enrollment.state.set("checked_out")])
    gateway.post("/v2/pushes", {"all": True})
    fleet.sweep()

    assert woken(fleet) == ["D0", "D3", "D4"]


def test_a_page_that_comes_twice_is_counted_once(fleet: Fleet, gateway: Gateway) -> None:
    answer = gateway.post("/v2/pushes", {"ids": ["D1", "D2"]})
    message = {"task": "push_job", "job": answer.document["id"], "part": 0, "page": 0, "ids": ["D1", "D2"]}
    fleet.push_jobs.receive(message)
    fleet.push_jobs.receive(message)

    told = gateway.get(f"/v2/pushes/{answer.document['id']}").document
    assert (told["woken"], told["progress"]) == (2, 1)


def test_a_job_of_which_a_part_could_not_be_queued_is_none(proxy: AwsProxy, fleet: Fleet, gateway: Gateway) -> None:
    proxy.disturb("sqs.SendMessage", Error(500), times=None, skip=1)

    assert gateway.post("/v2/pushes", {"all": True}).status == 503

    proxy.reset()
    assert list(PushJob.query("push_job")) == []
    fleet.sweep()
    assert woken(fleet) == []


def test_a_page_whose_successor_could_not_be_asked_for_comes_again(
    fleet: Fleet, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = gateway.post("/v2/pushes", {"all": True})
    jobs = fleet.push_jobs

    def fail(_: object) -> None:
        raise UnavailableError("The sweep queue takes no messages.", code="queue_unavailable")

    with monkeypatch.context() as broken:
        broken.setattr(jobs, "_request", fail)
        first = {"task": "push_job", "job": answer.document["id"], "part": 0, "page": 0, "shard": "0"}
        with pytest.raises(UnavailableError):
            jobs.receive(first)
    fleet.sweep()

    told = gateway.get(f"/v2/pushes/{answer.document['id']}").document
    assert (told["state"], told["woken"]) == ("done", 5)


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"all": False},
        {"ids": []},
        {"types": []},
        {"types": ["Phone"]},
        {"all": True, "ids": ["D1"]},
        {"all": True, "topic": TOPIC},
        {"ids": ["D1"], "topic": TOPIC},
        {"ids": ["D1"], "expiration": -1},
        {"everybody": True},
    ],
)
def test_an_unclear_selection_wakes_nobody(fleet: Fleet, gateway: Gateway, selection: dict[str, Any]) -> None:
    assert gateway.post("/v2/pushes", selection).status == 400
    assert fleet.sweep() == 0


def test_a_job_that_never_was_is_not_found(gateway: Gateway) -> None:
    assert gateway.get("/v2/pushes/none").status == 404


def test_a_message_of_a_job_that_is_gone_is_done(fleet: Fleet) -> None:
    fleet.push_jobs.receive({"task": "push_job", "job": "gone", "part": 0, "page": 0, "ids": ["D1"]})

    assert woken(fleet) == []

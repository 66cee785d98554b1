"""What monitors get: health, and Prometheus' text."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.admin.app import lambda_handler
from functions.enroll import app as enroll
from local.aws_proxy import AwsProxy
from local.emulator import Emulator
from mdmlib import __version__, runtime
from mdmlib.http import monitoring
from mdmlib.services.vitals import INTERVALS, Expiry, Report, Schedule
from mdmlib.settings import Settings
from mdmlib.store.tables import AdeServer, AdeSync, PushCertificate
from tests.api_description import DescribedGateway
from tests.gateway import Gateway, http_event

TOPIC = "com.apple.mgmt.External.1"
SAMPLE = re.compile(r'picomdm_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [0-9.]+')


@pytest.fixture
def gateway(environment: Settings) -> DescribedGateway:
    runtime.bind_tables()
    return DescribedGateway(lambda_handler)


def push_certificate(*, days: float) -> None:
    end = int((datetime.now(UTC) + timedelta(days=days)).timestamp())
    PushCertificate("push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=end, uploaded_at=0).save()


def checks(gateway: Gateway) -> tuple[bool, dict[str, Any]]:
    document = gateway.request("GET", "/health").document
    return document["well"], {check["name"]: check for check in document["checks"]}


def test_all_is_well_with_a_new_deployment(gateway: DescribedGateway) -> None:
    push_certificate(days=365)

    well, found = checks(gateway)

    assert well
    assert set(found) == {TOPIC, *INTERVALS, "push", "webhook", "sweep", "workflow", "events", "targets"}


def test_it_says_what_is_not_well(gateway: DescribedGateway, aws: Emulator, environment: Settings) -> None:
    push_certificate(days=29)
    aws.sqs.send_message(QueueUrl=environment.target_dead_letter_queue_url, MessageBody="{}")

    well, found = checks(gateway)

    assert not well
    assert {name for name, check in found.items() if not check["well"]} == {TOPIC, "targets"}
    assert found["targets"]["found"] == "1 given up, 0 waiting, 0 in work"


def test_it_tells_of_lists_of_apple_s_that_are_not_read_any_more(gateway: DescribedGateway) -> None:
    now = int(datetime.now(UTC).timestamp())
    for name, synced_at, error in (
        ("fine", now, None),
        ("stale", 1_700_000_000, None),
        ("terms", now, "T_C_NOT_SIGNED"),
    ):
        AdeServer("ade_server", name, token=b"sealed", token_imported_at=1).save()
        AdeSync("ade_sync", name, synced_at=synced_at, error_code=error).save()
    AdeServer("ade_server", "new", token=b"sealed", token_imported_at=now).save()

    well, found = checks(gateway)

    assert not well
    assert {name for name, check in found.items() if check["what"] == "ade_list"} == {"fine", "stale", "terms", "new"}
    assert {name for name, check in found.items() if not check["well"]} == {"stale", "terms"}
    assert found["stale"]["found"] == "last read 2023-11-14T22:13:20Z, stale"
    assert found["terms"]["found"].endswith(", T_C_NOT_SIGNED")
    assert found["new"]["found"] == "not read yet"
    lines = gateway.request("GET", "/metrics").body.decode().splitlines()
    assert 'picomdm_ade_list_read_seconds{server="stale"} 1700000000' in lines
    assert 'picomdm_ade_list_read_seconds{server="new"} 0' in lines


def test_prometheus_can_read_it(gateway: DescribedGateway) -> None:
    push_certificate(days=365)

    answer = gateway.request("GET", "/metrics")

    assert answer.headers["content-type"] == monitoring.PROMETHEUS
    lines = answer.body.decode().splitlines()
    assert all(SAMPLE.fullmatch(line) or line.startswith(("# HELP picomdm_", "# TYPE picomdm_")) for line in lines)
    assert f'picomdm_info{{version="{__version__}"}} 1' in lines
    assert 'picomdm_queue_messages{queue="push",state="given_up"} 0' in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(named)) == len(named)


def test_a_label_says_what_it_is_told_and_no_more() -> None:
    now = datetime.now(UTC)
    report = Report(now, [Expiry("certificate_authority", 'a"} 1\nb\\', now)], [Schedule("measure", now)], [], [], 7)

    body = str(monitoring.metrics(report).body)

    assert r'name="a\"} 1\nb\\"' in body
    assert "picomdm_devices_enrolled 7" in body


def test_asking_often_costs_nothing(gateway: DescribedGateway, proxy: AwsProxy) -> None:
    gateway.request("GET", "/metrics")
    proxy.reset()

    gateway.request("GET", "/metrics")
    gateway.request("GET", "/health")

    assert not proxy.counts


def test_who_asks_on_the_device_edge_hears_that_somebody_answers(proxy: AwsProxy) -> None:
    answer = Gateway(enroll.lambda_handler).answer(http_event("GET", "/health", b""))

    assert (answer.status, answer.body) == (200, b"ok\n")
    assert not proxy.counts

"""Vital signs: certificates, schedules, queues, devices."""

import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.certificates import new_certificate_authority
from mdmlib.errors import UnavailableError
from mdmlib.services.vitals import (
    FIND_STALE,
    INTERVALS,
    LOOK_AFTER_PLANS,
    MEASURE,
    PUBLISH_LEFTOVERS,
    PUSH_AGAIN,
    RELEASE_DEVICES,
    RENEW_IDENTITIES,
    Vitals,
)
from mdmlib.store.tables import AdeServer, AdeSync, CertificateAuthority, PushCertificate, ScheduleRun
from tests.fleet import Fleet, FleetDevice

TEN_YEARS = 3653
"""The life of such a CA, in days."""


@pytest.fixture
def vitals(fleet: Fleet) -> Vitals:
    return fleet.vitals


def push_certificate(fleet: Fleet, topic: str, *, days: float) -> None:
    end = int((fleet.clock() + timedelta(days=days)).timestamp())
    PushCertificate("push_certificate", topic, certificate=b"", private_key=b"", not_after=end, uploaded_at=0).save()


def authority(fleet: Fleet, name: str, *, days: int) -> None:
    ca = new_certificate_authority("A CA", now=fleet.clock() - timedelta(days=TEN_YEARS - days))
    der = ca.certificate.public_bytes(Encoding.DER)
    CertificateAuthority("ca", name, certificate=der, created_at=0).save()


def measured(vitals: Vitals, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    vitals.measure()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith('{"_aws"')]


def test_each_certificate_is_measured_and_named(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    push_certificate(fleet, "com.apple.mgmt.External.1", days=300)
    push_certificate(fleet, "com.apple.mgmt.External.2", days=-2)
    authority(fleet, "scep", days=TEN_YEARS)
    authority(fleet, "former", days=10)

    lines = measured(vitals, capsys)

    days = {line["name"]: line.get("PushCertificateDaysLeft", line.get("CertificateDaysLeft")) for line in lines[:4]}
    assert days["com.apple.mgmt.External.1"] == 300
    assert days["com.apple.mgmt.External.2"] == -2
    assert days["scep"] == TEN_YEARS
    assert days["former"] == 10
    assert [line["name"] for line in lines if "PushCertificateDaysLeft" in line] == sorted(days)[:2]


def test_a_token_of_apples_portal_is_measured_and_a_server_without_one_is_not(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    end = int((fleet.clock() + timedelta(days=20)).timestamp())
    AdeServer("ade_server", "school", token_expires_at=end).save()
    AdeServer("ade_server", "trial").save()

    [line] = [line for line in measured(vitals, capsys) if "CertificateDaysLeft" in line]

    assert (line["kind"], line["name"], line["CertificateDaysLeft"]) == ("ade_token", "school", 20)


def test_devices_are_counted_without_their_users_and_without_those_that_left(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    for udid in ("D1", "D2", "D3", "D4"):
        device = FleetDevice(fleet, udid)
        device.authenticate()
        if udid != "D4":
            device.token_update()
    FleetDevice(fleet, "D3").check_out()

    assert vitals.report().devices_enrolled is None
    lines = measured(vitals, capsys)

    assert [line["DevicesEnrolled"] for line in lines if "DevicesEnrolled" in line] == [2]
    fleet.clock.advance(minutes=2)
    assert vitals.report().devices_enrolled == 2


def test_a_schedule_that_was_left_out_is_late_and_named(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    for task in INTERVALS:
        vitals.note_run(task)
    fleet.clock.advance(days=2, hours=12)
    vitals.note_run(PUBLISH_LEFTOVERS)
    for task in (MEASURE, PUSH_AGAIN, FIND_STALE, RELEASE_DEVICES, LOOK_AFTER_PLANS):
        vitals.note_run(task)

    (line,) = [line for line in measured(vitals, capsys) if "ScheduleDelay" in line]

    assert (line["task"], line["ScheduleDelay"]) == (RENEW_IDENTITIES, 2.5)


def test_a_schedule_that_never_ran_counts_from_the_first_look(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    (first,) = [line for line in measured(vitals, capsys) if "ScheduleDelay" in line]
    fleet.clock.advance(hours=1)
    (second,) = [line for line in measured(vitals, capsys) if "ScheduleDelay" in line]

    assert first["ScheduleDelay"] == 0
    assert (second["task"], second["ScheduleDelay"]) == (PUBLISH_LEFTOVERS, 12)


def test_housekeeping_notes_what_it_did_and_not_what_failed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.housekeeping.run(None)

    def fail(_: object) -> None:
        raise UnavailableError("The sweep queue takes no messages.")

    monkeypatch.setattr(type(fleet.renewals), "start", fail)
    with pytest.raises(UnavailableError):
        fleet.housekeeping.run(RENEW_IDENTITIES)

    assert [run.name for run in ScheduleRun.query("schedule")] == [PUBLISH_LEFTOVERS]


def test_a_report_is_kept_for_a_minute(fleet: Fleet, vitals: Vitals) -> None:
    def waiting() -> tuple[int, int]:
        (queue,) = vitals.report().queues
        return queue.waiting, queue.given_up

    assert waiting() == (0, 0)
    sqs, settings = fleet.emulator.sqs, fleet.settings
    sqs.send_message(QueueUrl=settings.push_queue_url, MessageBody="{}")
    sqs.send_message(QueueUrl=settings.push_dead_letter_queue_url, MessageBody="{}")
    fleet.clock.advance(seconds=59)
    assert waiting() == (0, 0)
    fleet.clock.advance(seconds=1)
    assert waiting() == (1, 1)


def test_a_ca_that_another_one_has_followed_is_measured_no_more(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    authority(fleet, "scep", days=10)
    authority(fleet, "scep-2", days=TEN_YEARS)
    activates_at = int(fleet.clock().timestamp()) + 60
    CertificateAuthority("ca", "scep-2").update([CertificateAuthority.activates_at.set(activates_at)])

    def names() -> list[str]:
        return [line["name"] for line in measured(vitals, capsys) if "CertificateDaysLeft" in line]

    assert names() == ["scep", "scep-2"]
    fleet.clock.advance(minutes=1)
    assert names() == ["scep-2"]


def test_an_ade_server_whose_list_is_not_read_any_more_is_counted(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    now = int(fleet.clock().timestamp())
    assert not [line for line in measured(vitals, capsys) if "AdeServersFailing" in line]
    for name, synced_at, error in (
        ("fine", now - 3600, None),
        ("unreachable", now - 3600, "apple_unreachable"),
        ("stale", now - 7 * 3600, None),
        ("terms", now - 60, "T_C_NOT_SIGNED"),
    ):
        AdeServer("ade_server", name, token=b"sealed", token_imported_at=1).save()
        AdeSync("ade_sync", name, synced_at=synced_at, error_code=error).save()
    AdeServer("ade_server", "new", token=b"sealed", token_imported_at=now).save()
    AdeServer("ade_server", "without a token").save()

    (line,) = [line for line in measured(vitals, capsys) if "AdeServersFailing" in line]

    assert line["AdeServersFailing"] == 2
    assert line["failing"] == {"stale": "stale", "terms": "T_C_NOT_SIGNED"}


def test_what_needs_attention_is_said_once_and_again_when_it_comes_back_or_gets_urgent(
    fleet: Fleet, vitals: Vitals, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> list[str]:
        (line,) = [line for line in measured(vitals, capsys) if "NeedsAttention" in line]
        new: list[str] = line.get("new", [])
        assert line["NeedsAttention"] == len(new)
        return new

    sqs, url = fleet.emulator.sqs, fleet.settings.push_dead_letter_queue_url
    push_certificate(fleet, "com.apple.mgmt.1", days=61)
    authority(fleet, "corp", days=100)
    assert said() == []

    fleet.clock.advance(days=2)
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    AdeServer("ade_server", "school", token=b"sealed", token_imported_at=1).save()
    AdeSync("ade_sync", "school", synced_at=int(fleet.clock().timestamp()), error_code="T_C_NOT_SIGNED").save()
    assert said() == ["ade_list school", "push_certificate com.apple.mgmt.1: 60 days", "queue push"]
    assert said() == []

    sqs.purge_queue(QueueUrl=url)
    fleet.clock.advance(days=30)
    AdeSync("ade_sync", "school", synced_at=int(fleet.clock().timestamp())).save()
    assert said() == ["push_certificate com.apple.mgmt.1: 30 days"]
    sqs.send_message(QueueUrl=url, MessageBody="{}")
    assert said() == ["queue push"]

    fleet.clock.advance(days=45)
    AdeSync("ade_sync", "school", synced_at=int(fleet.clock().timestamp())).save()
    assert said() == ["certificate_authority corp: 30 days", "push_certificate com.apple.mgmt.1: 7 days"]

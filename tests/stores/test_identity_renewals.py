"""Renewal of identities: who is asked, how often, what is told, and what becomes of it."""

import json
import plistlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config

from mdmlib.errors import ConflictError, MalformedBodyError, UnavailableError
from mdmlib.services import identity_renewals
from mdmlib.services.enrollments import Enrollments
from mdmlib.services.events import EventPublisher
from mdmlib.services.scep_challenges import Purpose, ScepChallenges
from mdmlib.store import tables
from mdmlib.store.command_queue import FIRST_PAGE
from mdmlib.store.tables import Command, DedupKey, Enrollment, PendingCommand
from tests.event_schemas import assert_conforms
from tests.fleet import TOPIC, Fleet, FleetDevice, certificate

DAY = timedelta(days=1)


class Site:
    """A fleet, and housekeeping's daily look at its identities."""

    def __init__(self, fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet, self._capsys = fleet, capsys
        tables.PushCertificate(
            "push_certificate", TOPIC, certificate=b"", private_key=b"", not_after=4_102_444_800, uploaded_at=0
        ).save()

    def look(self) -> None:
        """Do a day's work."""
        self.fleet.housekeeping.run("renew_identities")
        while messages := self._receive(self.fleet.settings.sweep_queue_url):
            for body in messages:
                self.fleet.housekeeping.take_up(body)

    def device(self, udid: str = "D1", *, days_left: float, identity: str | None = None) -> FleetDevice:
        """Return an enrolled device whose identity ends in so many days."""
        device = FleetDevice(self.fleet, udid, identity=identity)
        device.authenticate()
        device.token_update()
        end = self.fleet.clock() + timedelta(days=days_left)
        device.record.update([Enrollment.identity_not_after.set(int(end.timestamp()))])
        return device

    def events(self) -> list[dict[str, Any]]:
        """Return the ``mdm.IdentityExpiring`` events since the last call."""
        events = [event for event in self.fleet.bus.take() if event["topic"] == "mdm.IdentityExpiring"]
        for event in events:
            assert_conforms(event)
        return events

    def woken(self) -> list[str]:
        """Return how many enrollments each push message since the last call is for."""
        return self._receive(self.fleet.settings.push_queue_url)

    def unrenewed(self) -> int:
        """Return what the metric of unrenewed identities counted since the last call."""
        lines = self._capsys.readouterr().out.splitlines()
        metrics = [json.loads(line) for line in lines if line.startswith('{"_aws"')]
        return sum(int(metric.get("UnrenewedIdentities", 0)) for metric in metrics)

    def _receive(self, queue: str) -> list[str]:
        bodies = []
        sqs = self.fleet.emulator.sqs
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                bodies.append(message["Body"])
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return bodies


@pytest.fixture
def site(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(fleet, capsys)


def waiting(device: FleetDevice) -> list[PendingCommand]:
    """Return what waits for a device."""
    page = device.fleet.queue.first_page(str(device))
    assert len(page.pending) < FIRST_PAGE
    return list(page.pending)


def handed_out(device: FleetDevice) -> dict[str, Any] | None:
    """Return the command that an idle device is given."""
    return device.command("Idle")


# Who is asked, and when


@pytest.mark.parametrize(("days_left", "asked"), [(61, 0), (60, 1), (1, 1), (-29, 1), (-40, 0)])
def test_an_identity_is_renewed_from_60_days_before_its_end_until_nobody_accepts_it(
    site: Site, days_left: float, asked: int
) -> None:
    device = site.device(days_left=days_left)

    site.look()

    assert len(waiting(device)) == asked
    assert len(site.woken()) == asked


@pytest.mark.parametrize(("renewal_days", "identity_days", "expected"), [(10, 365, 10), (60, 30, 15), (0, 365, 0)])
def test_no_identity_is_renewed_before_half_of_its_life_is_over(
    site: Site, renewal_days: int, identity_days: int, expected: int
) -> None:
    site.fleet.settings = replace(site.fleet.settings, renewal_days=renewal_days, identity_days=identity_days)
    soon, later = site.device("D1", days_left=expected - 0.5), site.device("D2", days_left=expected + 0.5)

    site.look()

    assert len(waiting(soon)) == (1 if expected else 0)
    assert waiting(later) == []


@pytest.mark.parametrize("why", ["checked out", "blocked"])
def test_who_is_not_managed_any_more_is_not_asked(site: Site, why: str) -> None:
    device = site.device(days_left=10)
    if why == "checked out":
        device.check_out()
    else:
        device.record.update([Enrollment.blocked.set(True)])

    site.look()

    assert waiting(device) == []
    assert site.events() == []


def test_every_identity_of_every_shard_is_found_however_many_there_are(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_renewals, "_PAGE", 1)
    devices = [site.device(f"D{number}", days_left=number) for number in range(20)]

    site.look()

    assert [len(waiting(device)) for device in devices] == [1] * 20


def test_a_user_channel_has_nothing_to_renew(site: Site) -> None:
    device = site.device(days_left=10)
    user = device.user()
    user.token_update()

    site.look()

    assert waiting(user) == []
    assert user.idle() is None


# One at a time


def test_one_renewal_waits_however_often_it_is_looked(site: Site) -> None:
    device = site.device(days_left=50)
    for _ in range(3):
        site.look()
        assert len(site.woken()) == 1, "the device is woken every day"
        site.fleet.clock.advance(days=1)

    assert len(waiting(device)) == 1
    assert device.record.renewal_attempts == 1


def test_a_renewal_goes_out_after_everything_else(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    site.fleet.enqueue([device], "C1")
    site.fleet.enqueue([device], "C2", priority=1)

    assert device.idle() == "C1"
    assert device.acknowledge("C1") == "C2"
    renewal = device.command("Acknowledged", "C2")
    assert renewal is not None
    assert renewal["Command"]["RequestType"] == "InstallProfile"


def test_a_renewal_that_a_device_defers_goes_on_waiting(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    uuid = device.idle()
    assert uuid
    assert device.not_now(uuid) is None
    site.fleet.clock.advance(days=1)
    site.look()

    assert device.idle() == uuid
    assert device.record.renewal_attempts == 1


def test_after_an_error_it_is_tried_again_the_next_day_and_then_less_often(site: Site) -> None:
    device = site.device(days_left=50)
    tried = []
    began = site.fleet.clock()
    for day in (0, 1, 2, 3, 6, 7, 13, 14, 20, 21):
        site.fleet.clock.at = began + timedelta(days=day)
        site.look()
        if uuid := device.idle():
            device.report("Error", uuid)
            tried.append(day)

    assert tried == [0, 1, 3, 7, 14, 21]


def test_a_device_that_did_it_and_still_uses_the_old_identity_is_asked_again(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    device.acknowledge(str(device.idle()))
    site.look()
    assert waiting(device) == [], "not on the same day"
    site.fleet.clock.advance(days=1)
    site.look()

    assert len(waiting(device)) == 1


def test_a_queue_that_is_cleared_gets_its_renewal_back_the_next_day(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    site.fleet.queues.clear([str(device)])
    assert waiting(device) == []
    site.fleet.clock.advance(days=1)
    site.look()

    assert len(waiting(device)) == 1


def test_a_renewal_that_is_taken_back_leaves_its_place_to_the_next_one(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    (pending,) = waiting(device)
    site.fleet.queues.cancel(str(device), pending.command_uuid)
    site.fleet.clock.advance(days=1)
    site.look()

    (another,) = waiting(device)
    assert another.command_uuid != pending.command_uuid


def test_a_place_that_nobody_freed_is_free_when_its_command_is_over(site: Site) -> None:
    device = site.device(days_left=-29.5)
    site.look()
    (pending,) = waiting(device)
    site.fleet.clock.at = datetime.fromtimestamp(int(pending.expires_at), UTC) + timedelta(hours=20)
    assert device.idle() is None

    site.look()

    assert device.idle() is not None


def test_a_report_that_comes_late_in_a_long_queue_frees_the_place_too(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    (pending,) = waiting(device)
    for number in range(5):
        site.fleet.enqueue([device], f"C{number}")
    device.report("Error", pending.command_uuid)

    assert DedupKey.count("D1", DedupKey.item.startswith(tables.DEDUP)) == 0


# What is handed out


def test_the_payload_is_made_when_it_is_handed_out(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    site.fleet.clock.advance(days=3)
    command = handed_out(device)
    assert command is not None

    profile = plistlib.loads(command["Command"]["Payload"])
    payloads = {payload["PayloadType"]: payload for payload in profile["PayloadContent"]}
    challenges = ScepChallenges(sealer=site.fleet.sealer, now=site.fleet.clock)
    challenge = challenges.recognize(payloads["com.apple.security.scep"]["PayloadContent"]["Challenge"])
    assert (challenge.purpose, challenge.renews) == (Purpose.RENEWAL, device.certificate.hash)
    assert challenge.expires_at == (site.fleet.clock() + timedelta(hours=1)).timestamp()
    again = handed_out(device)
    assert again is not None
    assert again["CommandUUID"] == command["CommandUUID"]
    assert again["Command"]["Payload"] != command["Command"]["Payload"], "each hand-out has its own challenge"


def test_the_profile_takes_the_place_of_the_one_that_the_device_enrolled_with(site: Site) -> None:
    first = plistlib.loads(site.fleet.profiles.make(topic=TOPIC))
    device = site.device(days_left=50)
    site.look()
    command = handed_out(device)
    assert command is not None
    second = plistlib.loads(command["Command"]["Payload"])

    assert first["PayloadIdentifier"] == second["PayloadIdentifier"]
    (mdm, renewed), (scep, scep_renewed) = (
        [
            payload
            for profile in (first, second)
            for payload in profile["PayloadContent"]
            if payload["PayloadType"] == of
        ]
        for of in ("com.apple.mdm", "com.apple.security.scep")
    )
    del mdm["IdentityCertificateUUID"], renewed["IdentityCertificateUUID"]
    assert mdm == renewed
    assert scep["PayloadIdentifier"] == scep_renewed["PayloadIdentifier"]
    assert scep["PayloadUUID"] != scep_renewed["PayloadUUID"]


def test_the_topic_is_the_enrollments_whatever_others_enroll_with(site: Site) -> None:
    device = site.device(days_left=50)
    device.record.update([Enrollment.topic.set("com.apple.mgmt.External.former")])
    site.look()
    command = handed_out(device)

    assert command is not None
    assert b"com.apple.mgmt.External.former" in command["Command"]["Payload"]


def test_a_renewal_that_is_no_longer_needed_is_not_handed_out_and_vanishes(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    new = FleetDevice(site.fleet, "D1", identity="renewed by itself")
    device.record.update([Enrollment.renewed_identities.set([new.certificate.hash])])

    assert new.idle() is None
    assert waiting(new) == []
    assert DedupKey.count("D1", DedupKey.item.startswith(tables.DEDUP)) == 0


def test_administrators_see_a_renewal_and_no_payload(site: Site) -> None:
    site.device(days_left=50)
    site.look()
    enrollments = Enrollments(enrollments=site.fleet.enrollments, queue=site.fleet.queue, now=site.fleet.clock)

    (queued,) = enrollments.commands("D1", payloads=True).entries
    assert (queued.item.request_type, queued.payload) == ("InstallProfile", None)


def test_nobody_elses_command_takes_the_place_of_a_renewal(site: Site) -> None:
    device = site.device(days_left=50)
    site.look()
    (pending,) = waiting(device)

    with pytest.raises(ConflictError):
        site.fleet.enqueue([device], pending.command_uuid)
    assert Command.get(f"command#{pending.command_uuid}", "!").body_hash == ""


# What is told


def test_each_stage_is_told_of_once(site: Site) -> None:
    site.device(days_left=61.5)
    stages = []
    for pause in (0, 1, 1, 1, 28, 1, 1, 21, 1, 6, 1, 1):
        site.fleet.clock.advance(days=pause)
        site.look()
        stages += [(event["identity_event"]["stage"], event["identity_event"]["days_left"]) for event in site.events()]

    assert stages == [(60, 59), (30, 29), (7, 6), (0, -1)]


def test_whoever_comes_late_is_told_of_the_stage_that_it_is_in(site: Site) -> None:
    device = site.device(days_left=5.5)
    site.look()

    (event,) = site.events()
    assert event["identity_event"] == {
        "not_after": (site.fleet.clock() + timedelta(days=5.5)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "stage": 7,
        "days_left": 5,
        "renewal_attempts": 0,
        "ids": {"id": "D1", "type": "Device"},
        "enrollment_type": "Device",
        "serial_number": "C02XXXX",
    }
    assert device.record.renewal_stage == 7


def test_an_event_that_is_published_again_has_the_same_id(site: Site) -> None:
    device = site.device(days_left=5)
    site.look()
    device.record.update([Enrollment.renewal_stage.remove()])
    site.fleet.clock.advance(hours=1)
    site.look()

    first, second = site.events()
    assert first["event_id"] == second["event_id"]


def test_an_event_that_could_not_be_published_is_published_by_the_next_attempt(site: Site) -> None:
    site.device(days_left=5)
    fleet, real = site.fleet, site.fleet.events
    down: dict[str, Any] = {
        "endpoint_url": "http://127.0.0.1:1",
        "config": Config(connect_timeout=1, retries={"total_max_attempts": 1}),
    }
    fleet.events = EventPublisher(
        lambda: boto3.client("events", **down),
        lambda: boto3.client("sqs", **down),
        payloads=fleet.payloads,
        sealer=fleet.sealer,
        settings=fleet.settings,
    )
    with pytest.raises(UnavailableError):
        site.look()
    fleet.events = real
    site.look()

    assert len(site.events()) == 1


def test_what_stays_unrenewed_is_counted(site: Site) -> None:
    for number, days_left in enumerate((50, 8, 6, 1, -3, -29, -40)):
        site.device(f"D{number}", days_left=days_left)

    site.look()

    assert site.unrenewed() == 4
    site.fleet.clock.advance(days=200)
    site.look()
    assert site.unrenewed() == 0


def test_a_renewed_identity_is_neither_asked_nor_told_of(site: Site) -> None:
    device = site.device(days_left=5)
    site.look()
    site.events(), site.unrenewed(), site.woken()
    new = certificate(site.fleet, "renewed")
    device.record.update([Enrollment.renewed_identities.set([new.hash])])
    FleetDevice(site.fleet, "D1", identity="renewed").idle()
    site.fleet.clock.advance(days=1)
    site.look()

    assert (site.events(), site.unrenewed(), site.woken()) == ([], 0, [])
    record = device.record
    assert record.renewal_stage is None
    assert record.renewal_attempts is None


def test_a_certificate_that_was_issued_and_never_used_renews_nothing(site: Site) -> None:
    """The device lost the answer: it is asked again, and told of, as if nothing had happened."""
    device = site.device(days_left=31)
    site.look()
    device.acknowledge(str(device.idle()))
    device.record.update([Enrollment.renewed_identities.set(["0" * 64])])
    site.events()
    site.fleet.clock.advance(days=2)
    site.look()

    assert [event["identity_event"]["stage"] for event in site.events()] == [30]
    assert len(waiting(device)) == 1


# Messages


@pytest.mark.parametrize(
    "message",
    [
        {"task": "renew_identities"},
        {"task": "renew_identities", "shard": "g"},
        {"task": "renew_identities", "shard": 0},
    ],
)
def test_a_message_that_names_no_shard_stays_in_its_queue(site: Site, message: dict[str, Any]) -> None:
    with pytest.raises(MalformedBodyError):
        site.fleet.housekeeping.take_up(json.dumps(message))


def test_a_task_that_nobody_knows_is_an_error(site: Site) -> None:
    with pytest.raises(UnavailableError):
        site.fleet.housekeeping.run("make coffee")


def test_two_looks_at_once_queue_one_renewal(site: Site) -> None:
    devices = [site.device(f"D{number}", days_left=50) for number in range(4)]
    shards = [{"task": "renew_identities", "shard": f"{number:x}"} for number in range(16)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(site.fleet.renewals.receive, shards * 3))

    assert [len(waiting(device)) for device in devices] == [1] * 4
    assert [device.record.renewal_attempts for device in devices] == [1] * 4

"""What each request may cost in calls of AWS, counted by the proxy in front of the emulator, with warm functions."""

import json
import plistlib
from datetime import timedelta
from typing import Any

import pytest

from functions.admin import app as admin
from functions.commands import app as commands
from functions.connect import app as connect
from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.services.blueprint_content import Content
from mdmlib.services.push_jobs import PushSelection
from mdmlib.settings import Settings
from mdmlib.store import tables
from tests.counted_site import (
    BATCH_GET,
    BATCH_WRITE,
    DELETE,
    GET,
    PUT,
    PUT_EVENTS,
    PUT_OBJECT,
    QUERY,
    SEND,
    SEND_BATCH,
    TRANSACT,
    UDID,
    UPDATE,
    USER_ID,
    Site,
)
from tests.gateway import FunctionContext, Gateway, http_event
from tests.scep_client import ScepClient


def test_an_idle_connect_with_nothing_to_send_is_one_query_and_one_event(site: Site) -> None:
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}


def test_handing_out_a_command_costs_nothing_more(site: Site) -> None:
    site.enqueue("C1")

    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}


def test_a_shared_payload_is_read_once_while_the_function_is_warm(site: Site) -> None:
    site.enqueue("C1", size=8_000)

    assert site(site.device.report("Idle")) == {QUERY: 1, GET: 1, PUT_EVENTS: 1}
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}


def test_a_final_report_is_one_query_one_transaction_and_one_event_with_the_next_command(site: Site) -> None:
    site.enqueue("C1")
    site.enqueue("C2")

    assert site(site.device.report("Acknowledged", "C1")) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_large_report_costs_one_put_to_the_bucket(site: Site) -> None:
    site.enqueue("C1")
    report = site.device.report("Acknowledged", "C1", ProfileList=["x" * 20_000])

    assert site(report) == {QUERY: 1, PUT_OBJECT: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_repeated_report_costs_one_read_more_and_writes_nothing(site: Site) -> None:
    site.enqueue("C1")
    site(site.device.report("Acknowledged", "C1"))

    assert site(site.device.report("Acknowledged", "C1")) == {QUERY: 1, BATCH_GET: 1, PUT_EVENTS: 1}


def test_not_now_is_one_query_one_update_and_one_event(site: Site) -> None:
    site.enqueue("C1")

    assert site(site.device.report("NotNow", "C1")) == {QUERY: 1, UPDATE: 1, PUT_EVENTS: 1}


def test_being_seen_after_a_while_costs_one_update(site: Site) -> None:
    record = tables.Enrollment.get(UDID, "!")
    record.update([tables.Enrollment.last_seen_at.set(1)])

    assert site(site.device.report("Idle")) == {QUERY: 1, UPDATE: 1, PUT_EVENTS: 1}


def test_a_user_channel_costs_its_devices_record(site: Site) -> None:
    assert site(site.token_update(UserID=USER_ID)) == {BATCH_GET: 1, TRANSACT: 1, PUT_EVENTS: 1}
    assert site(site.device.report("Idle", UserID=USER_ID)) == {QUERY: 1, GET: 1, PUT_EVENTS: 1}


@pytest.mark.parametrize("queued", [0, 30])
def test_authenticate_costs_the_same_whatever_the_queue_holds(site: Site, queued: int) -> None:
    for number in range(queued):
        site.enqueue(f"C{number}")

    assert site(site.authenticate()) == {BATCH_GET: 1, TRANSACT: 1, PUT_EVENTS: 1, DELETE: 1, SEND: 1}


def test_the_first_use_of_a_renewed_identity_costs_one_update_once(site: Site) -> None:
    former = tables.Enrollment.get(UDID, "!").identity
    renewed = tables.Enrollment.renewed_identities.set([former])
    tables.Enrollment(UDID, "!").update([renewed, tables.Enrollment.identity.set("0" * 64)])

    assert site(site.device.report("Idle")) == {QUERY: 1, UPDATE: 1, PUT_EVENTS: 1}
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}


def test_a_renewal_costs_one_read_of_the_profiles_design_a_minute(site: Site) -> None:
    end = tables.Enrollment.identity_not_after.set(int(runtime.now().timestamp()) + 86_400)
    record = tables.Enrollment.get(UDID, "!")
    record.update([end])
    runtime.identity_renewals().receive({"shard": record.expiring_shard})
    (renewal,) = runtime.command_queue().first_page(UDID).pending

    assert site(site.device.report("Idle")) == {QUERY: 1, GET: 1, PUT_EVENTS: 1}
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}
    done = site.device.report("Acknowledged", renewal.command_uuid)
    assert site(done) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_look_at_identities_costs_the_same_calls_for_a_page_of_them_but_for_what_it_queues_and_tells(
    site: Site,
) -> None:
    record = tables.Enrollment.get(UDID, "!")
    record.update([tables.Enrollment.identity_not_after.set(int(runtime.now().timestamp()) + 86_400)])
    renewals = runtime.identity_renewals()
    message = {"shard": record.expiring_shard}

    site.proxy.reset()
    renewals.receive(message)
    # Told of once, and noted; queued; and the device is woken.
    queued = {QUERY: 1, BATCH_GET: 3, PUT_EVENTS: 1, UPDATE: 1, TRANSACT: 1, GET: 1, SEND_BATCH: 1}
    assert dict(site.proxy.counts) == queued
    site.proxy.reset()
    renewals.receive(message)
    assert dict(site.proxy.counts) == {QUERY: 1, BATCH_GET: 3, SEND_BATCH: 1}


def test_pushing_again_costs_the_same_calls_for_a_page_of_commands(site: Site) -> None:
    site.enqueue("C1")
    shard = tables.shard_of(UDID)
    message = {"shard": shard, "since": 0, "until": int(runtime.now().timestamp())}
    again = runtime.push_again()
    again.receive(message)

    site.proxy.reset()
    again.receive(message)

    assert dict(site.proxy.counts) == {QUERY: 1, BATCH_GET: 3, SEND_BATCH: 1}


def test_waking_many_costs_two_writes_and_as_many_messages_as_there_are_thousands(site: Site) -> None:
    jobs = runtime.push_jobs()
    ids = [UDID, *(f"D{number}" for number in range(999))]
    jobs.receive({"job": jobs.start(PushSelection(ids=[UDID]), expiration=None).name, "part": 0, "page": 0, "ids": ids})

    site.proxy.reset()
    job = jobs.start(PushSelection(ids=ids), expiration=None)
    assert dict(site.proxy.counts) == {PUT: 1, SEND: 1}
    site.proxy.reset()
    jobs.receive({"job": job.name, "part": 0, "page": 0, "ids": ids})
    assert dict(site.proxy.counts) == {GET: 1, BATCH_GET: 10, SEND_BATCH: 1, UPDATE: 1}


def test_a_silent_device_costs_one_event_and_one_update_once(site: Site) -> None:
    tables.Enrollment(UDID, "!").update([tables.Enrollment.last_seen_at.set(1)])
    stale = runtime.stale_enrollments()

    def look() -> dict[str, int]:
        site.proxy.reset()
        stale.receive({"shard": tables.shard_of(UDID)})
        return dict(site.proxy.counts)

    assert look() == {QUERY: 1, BATCH_GET: 1, PUT_EVENTS: 1, UPDATE: 1}
    assert look() == {QUERY: 1, BATCH_GET: 1}


def test_check_out_costs_what_authenticate_costs(site: Site) -> None:
    site.enqueue("C1")
    check_out = site.device.checkin("CheckOut")

    assert site(check_out) == {GET: 1, TRANSACT: 1, PUT_EVENTS: 1, DELETE: 1, SEND: 1}


@pytest.mark.parametrize("fields", [{}, {"UnlockToken": b"unlock"}, {"AwaitingConfiguration": True}])
def test_token_update_is_one_read_one_write_and_one_event(site: Site, fields: dict[str, Any]) -> None:
    assert site(site.token_update(**fields)) == {GET: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_being_configured_costs_what_any_final_report_costs(site: Site) -> None:
    site(site.token_update(AwaitingConfiguration=True))
    site.enqueue("C1", request_type="DeviceConfigured")

    assert site(site.device.report("Acknowledged", "C1")) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_look_at_setup_assistants_is_one_query_while_nobody_waits(site: Site) -> None:
    release = runtime.setup_release()
    release.run()
    site.proxy.reset()

    release.run()

    assert dict(site.proxy.counts) == {QUERY: 1}


def test_bootstrap_tokens_are_one_read_and_at_most_one_write(site: Site) -> None:
    set_token = site.device.checkin("SetBootstrapToken", BootstrapToken=b"token")

    assert site(set_token) == {GET: 1, TRANSACT: 1, PUT_EVENTS: 1}
    assert site(site.device.checkin("GetBootstrapToken")) == {BATCH_GET: 1, PUT_EVENTS: 1}


def test_declarative_management_is_one_read_and_one_event_and_a_report_one_more(site: Site) -> None:
    def ddm(endpoint: str, **fields: bytes) -> dict[str, Any]:
        return site.device.checkin("DeclarativeManagement", Endpoint=endpoint, **fields)

    assert site(ddm("tokens")) == {GET: 1, PUT_EVENTS: 1}
    assert site(ddm("declaration-items")) == {GET: 1, PUT_EVENTS: 1}
    assert site(ddm("status", Data=b"{}")) == {GET: 1, PUT_EVENTS: 2}


def test_returning_to_service_is_one_read_while_it_is_off(site: Site) -> None:
    assert site(site.device.checkin("ReturnToService")) == {BATCH_GET: 1, PUT_EVENTS: 1}


def test_a_newer_message_is_one_read_one_transaction_and_one_event(site: Site) -> None:
    assert site(site.device.checkin("NewInIOS30")) == {GET: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_user_channels_declarations_cost_its_devices_record_in_the_same_call(site: Site) -> None:
    site(site.token_update(UserID=USER_ID))
    tokens = site.device.checkin("DeclarativeManagement", Endpoint="tokens", UserID=USER_ID)

    assert site(tokens) == {BATCH_GET: 1, PUT_EVENTS: 1}


def test_enqueueing_reads_before_and_after_and_writes_the_command_once(site: Site) -> None:
    document = {"udid": UDID, "request_type": "DeviceInformation", "queries": ["OSVersion"]}

    def post() -> dict[str, Any]:
        return http_event("POST", "/v1/commands", json.dumps(document), headers={"Content-Type": "application/json"})

    site(post(), commands)
    assert site(post(), commands) == {
        BATCH_GET: 2,
        PUT: 1,
        BATCH_WRITE: 1,
        SEND_BATCH: 1,
        PUT_EVENTS: 1,
    }


def test_enqueueing_for_many_stores_the_command_once_and_takes_25_a_write_and_100_a_read(site: Site) -> None:
    ids = [f"MANY-{number}" for number in range(250)]
    with tables.EnrollmentItem.batch_write() as batch:
        for id_ in ids:
            batch.save(tables.Enrollment(id_, "!", type="Device", state="enrolled", generation="ffffffff", epoch=1))
    document = {"ids": ids, "command": {"request_type": "ProfileList"}}

    assert site(http_event("POST", "/v2/commands", json.dumps(document).encode()), commands) == {
        BATCH_GET: 6,
        PUT: 1,
        BATCH_WRITE: 10,
        PUT_EVENTS: 1,
    }


def test_an_answer_that_tells_of_an_update_costs_nothing_more(site: Site) -> None:
    site.enqueue("C1", request_type="DeviceInformation")
    report = site.device.report("Acknowledged", "C1", QueryResponses={"OSVersion": "27.9"})

    assert site(report) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}


def test_a_command_that_its_device_cannot_do_any_more_costs_a_transaction_and_an_event(site: Site) -> None:
    record = tables.Enrollment.get(UDID, "!")
    record.update([tables.Enrollment.product_name.set("Mac14,2"), tables.Enrollment.os_version.set("26.1")])
    site.enqueue("C1", request_type="ScheduleOSUpdate")
    site.enqueue("C2")
    record.update([tables.Enrollment.os_version.set("27.0")])

    assert site(site.device.report("Idle")) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 2, DELETE: 1}
    assert site(site.device.report("Idle")) == {QUERY: 1, PUT_EVENTS: 1}


@pytest.mark.parametrize("broken", ["signature", "body"])
def test_a_request_that_is_refused_costs_no_call(site: Site, aws: Emulator, environment: Settings, broken: str) -> None:
    event = site.device.report("Idle")
    if broken == "signature":
        event["headers"]["mdm-signature"] = "AAAA"
    else:
        event = site.device.put("/mdm/connect", plistlib.dumps(["no dictionary"]))
    site.proxy.reset()
    context: Any = FunctionContext()
    answer = connect.lambda_handler(event, context)

    assert answer["statusCode"] == 400
    assert site.proxy.calls == []


@pytest.mark.parametrize("queued", [0, 30])
def test_clearing_a_queue_is_one_read_one_write_and_one_sweep(site: Site, queued: int) -> None:
    for number in range(queued):
        site.enqueue(f"C{number}")

    assert site(http_event("DELETE", f"/v2/enrollments/{UDID}/commands"), commands) == {
        BATCH_GET: 1,
        UPDATE: 1,
        SEND: 1,
    }


def test_taking_a_command_back_is_two_reads_and_one_transaction(site: Site) -> None:
    site.enqueue("C1")

    assert site(http_event("DELETE", f"/v2/enrollments/{UDID}/commands/C1"), commands) == {
        GET: 1,
        BATCH_GET: 1,
        TRANSACT: 1,
    }


# Identities


def test_an_identity_costs_one_transaction_and_the_cas_one_query_in_five_minutes(site: Site) -> None:
    # As deployed: the CA that the site's device is of has no key here.
    tables.CertificateAuthority("ca", "scep").delete()
    ca = runtime.certificate_authority().load().certificate

    def scep() -> dict[str, Any]:
        challenge = runtime.scep_challenges().new(None, runtime.now() + timedelta(hours=1))
        event = http_event("POST", "/scep", ScepClient(ca).request(challenge))
        return event | {"rawQueryString": "operation=PKIOperation"}

    assert site(scep(), enroll) == {TRANSACT: 1}
    assert site(scep(), enroll) == {TRANSACT: 1}


def test_a_revocation_is_one_transaction_and_its_check_costs_no_call(site: Site) -> None:
    body = json.dumps({"enrollment_id": UDID}).encode()
    assert site(http_event("POST", "/v2/certificate-revocations", body), admin) == {
        GET: 1,
        BATCH_GET: 1,
        TRANSACT: 1,
    }

    site.proxy.reset()
    answer = Gateway(connect.lambda_handler).answer(site.device.report("Idle"))

    assert (answer.status, answer.body) == (400, b"")
    assert dict(site.proxy.counts) == {QUERY: 1}


def test_a_crl_costs_a_query_once_in_five_minutes(site: Site) -> None:
    tables.CertificateAuthority("ca", "scep").delete()
    runtime.certificate_authority().load()

    assert site(http_event("GET", "/crl/scep.crl"), enroll) == {QUERY: 1}
    assert site(http_event("GET", "/crl/scep.crl"), enroll) == {}


def test_what_enrolls_where_there_are_no_blueprints_costs_three_reads(site: Site) -> None:
    site.proxy.reset()
    runtime.workflow().receive(json.dumps({"task": "enrolled", "enrollment_id": UDID, "event_id": "e-1"}))

    assert dict(site.proxy.counts) == {QUERY: 2, BATCH_GET: 1}


def test_a_plan_costs_one_read_for_a_command_that_is_done_and_a_transaction_for_the_last_of_a_phase(site: Site) -> None:
    for name in ("one", "two"):
        profile = {"PayloadType": "Configuration", "PayloadIdentifier": name, "PayloadUUID": name, "PayloadVersion": 1}
        runtime.stored_profiles().put(name, plistlib.dumps(profile | {"PayloadContent": []}))
    runtime.blueprints().put("b", Content(profiles=["one", "two"]))
    works = runtime.workflow()

    def receive(**message: str) -> dict[str, int]:
        site.proxy.reset()
        works.receive(json.dumps({"enrollment_id": UDID, **message}))
        return dict(site.proxy.counts)

    def report(**fields: Any) -> str:
        """Report on the first command that waits: what plans cost devices is nothing."""
        pending = runtime.command_queue().first_page(UDID).pending[0]
        done = site.device.report("Acknowledged", pending.command_uuid, **fields)
        assert site(done) == {QUERY: 1, TRANSACT: 1, PUT_EVENTS: 1}
        return pending.command_uuid

    queued = {TRANSACT: 1, PUT_EVENTS: 1, SEND_BATCH: 1}
    assert receive(task="enrolled", event_id="e-1") == {QUERY: 2, BATCH_GET: 1, GET: 1, PUT: 1, **queued}
    # The profiles together; then both commands are queued at once.
    assert receive(task="result", command_uuid=report(ProfileList=[])) == {BATCH_GET: 2, PUT: 2, **queued}
    first = report()
    assert receive(task="result", command_uuid=first) == {BATCH_GET: 1}
    # That was the last one: the results of both are read, an event tells of the plan, and leaves the outbox.
    last = {BATCH_GET: 2, TRANSACT: 1, PUT_EVENTS: 1, DELETE: 1}
    assert receive(task="result", command_uuid=report()) == last
    assert receive(task="result", command_uuid=first) == {BATCH_GET: 1}
    assert receive(task="look", kind="blueprints") == {BATCH_GET: 1}

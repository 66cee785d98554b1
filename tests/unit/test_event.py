"""Event documents: MicroMDM's to the byte, with more behind."""

import json
import plistlib
import re
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mdmlib.apple import event
from mdmlib.apple.checkin import CheckinMessage, decode_checkin
from mdmlib.apple.command_report import CommandReport
from mdmlib.apple.enrollment_id import EnrollmentType
from tests.event_schemas import assert_conforms, schemas
from tests.unit.plists import message

RECORDED = Path(__file__).parent.parent / "testdata" / "events"
EVENT_ID = "019a9f3a-1d5c-7000-8000-0123456789ab"
NOW = datetime(2026, 11, 20, 12, 0, 0, 500_000, tzinfo=UTC)

ADDED = {"ids", "token_update_tally", "enrollment_type", "serial_number", "request_type", "error_chain"}
"""What is not MicroMDM's."""


def decode(body: bytes) -> CheckinMessage | CommandReport:
    return decode_checkin(body) if b"MessageType" in body else CommandReport.decode(body)


def document(body: bytes, **details: Any) -> dict[str, Any]:
    return event.mdm_event(decode(body), event_id=EVENT_ID, created_at=NOW, **details)


def part(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document.get("checkin_event") or document["acknowledge_event"]
    return found


def report(**fields: Any) -> bytes:
    return plistlib.dumps({"UDID": "U", "Status": "Acknowledged", "CommandUUID": "C1", **fields})


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_a_document_is_micromdms_to_the_byte_with_more_behind(path: Path) -> None:
    recorded = json.loads(path.read_text())
    if "acknowledge_event" in recorded:
        # Its documentation shows null here, its code leaves it out.
        del recorded["acknowledge_event"]["url_params"]
    ours = document(b64decode(part(recorded)["raw_payload"]))

    names = list(part(ours))
    micromdms = [name for name in names if name not in ADDED]
    assert names[: len(micromdms)] == micromdms
    for name in names[len(micromdms) :]:
        del part(ours)[name]
    ours |= {"event_id": recorded["event_id"], "created_at": recorded["created_at"]}
    assert event.webhook_body(ours) == json.dumps(recorded, indent=2).encode()


def test_a_document_conforms_to_its_schema(any_message: bytes) -> None:
    assert_conforms(document(any_message))
    assert_conforms(document(any_message, url_params={"tenant": "a"}, serial_number="C04W00D3HTD0"))


def test_a_token_update_tells_how_many_there_were() -> None:
    described = document(message("TokenUpdate"), token_update_tally=1, serial_number="C04W00D3HTD0")

    assert part(described)["token_update_tally"] == 1
    assert part(described)["ids"] == {"id": "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD", "type": "Device"}
    assert part(described)["enrollment_type"] == "Device"
    assert part(described)["serial_number"] == "C04W00D3HTD0"
    assert_conforms(described)


def test_a_report_tells_what_was_asked_and_what_went_wrong() -> None:
    chain = [{"ErrorCode": 12021, "ErrorDomain": "MCMDMErrorDomain"}]

    described = document(report(Status="Error", ErrorChain=chain), request_type="InstallProfile")

    assert described["topic"] == "mdm.Connect"
    assert part(described)["status"] == "Error"
    assert part(described)["command_uuid"] == "C1"
    assert part(described)["request_type"] == "InstallProfile"
    assert part(described)["error_chain"] == chain
    assert_conforms(described)


def test_the_query_of_the_url_is_passed_on() -> None:
    params = {"tenant": "a", "empty": ""}

    assert part(document(message("CheckOut"), url_params=params))["url_params"] == params
    assert part(document(message("Idle"), url_params=params))["url_params"] == params


@pytest.mark.parametrize("nothing", [None, {}])
def test_without_a_query_a_check_in_says_null_and_a_report_nothing(nothing: dict[str, str] | None) -> None:
    assert part(document(message("CheckOut"), url_params=nothing))["url_params"] is None
    assert "url_params" not in part(document(message("Idle"), url_params=nothing))


def test_an_idle_report_names_no_command() -> None:
    assert "command_uuid" not in part(document(message("Idle")))
    assert "command_uuid" not in part(document(report(Status="Idle", CommandUUID="")))


@pytest.mark.parametrize(
    ("who", "named", "ids"),
    [
        ({"UDID": "D"}, {"udid": "D"}, {"id": "D", "type": "Device"}),
        ({"UDID": "D", "UserID": "U"}, {"udid": "D"}, {"id": "D:U", "parent_id": "D", "type": "User"}),
        (
            {"UDID": "D", "EnrollmentID": "E"},
            {"udid": "D", "enrollment_id": "E"},
            {"id": "D", "type": "Device"},
        ),
        (
            {"UDID": "D", "EnrollmentID": b"no text"},
            {"udid": "D"},
            {"id": "D", "type": "Device"},
        ),
        ({"EnrollmentID": "E"}, {"enrollment_id": "E"}, {"id": "E", "type": "User Enrollment (Device)"}),
        (
            {"EnrollmentID": "E", "EnrollmentUserID": "U"},
            {"enrollment_id": "E"},
            {"id": "E:U", "parent_id": "E", "type": "User Enrollment"},
        ),
        (
            {"UDID": "D", "UserID": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "UserShortName": "anna"},
            {"udid": "D"},
            {"id": "D:anna", "parent_id": "D", "type": "Shared iPad"},
        ),
    ],
)
def test_who_sent_a_message_is_said_micromdms_and_nanomdms_way(
    who: dict[str, Any], named: dict[str, str], ids: dict[str, str]
) -> None:
    described = document(plistlib.dumps({"Status": "Idle", **who}))

    assert {name: part(described)[name] for name in ("udid", "enrollment_id") if name in part(described)} == named
    assert part(described)["ids"] == ids
    assert_conforms(described)


def test_the_body_arrives_byte_for_byte() -> None:
    body = plistlib.dumps(plistlib.loads(message("TokenUpdate")), fmt=plistlib.FMT_BINARY)

    assert (
        b64decode(part(event.mdm_event(decode_checkin(body), event_id=EVENT_ID, created_at=NOW))["raw_payload"]) == body
    )


def test_a_webhooks_body_is_indented_utf_8() -> None:
    body = event.webhook_body({"topic": "mdm.Connect", "acknowledge_event": {"status": "Größe"}})

    assert body.decode() == '{\n  "topic": "mdm.Connect",\n  "acknowledge_event": {\n    "status": "Größe"\n  }\n}'


@pytest.mark.parametrize("form", ["raw_payload", "raw_payload_sealed", "payload_ref"])
def test_the_schemas_know_every_form_of_a_payload_and_want_one(form: str) -> None:
    described = document(message("TokenUpdate"))
    del part(described)["raw_payload"]
    with pytest.raises(AssertionError):
        assert_conforms(described)

    part(described)[form] = "events/1"

    assert_conforms(described)


def test_events_of_the_server_conform_to_their_schemas() -> None:
    head = {"event_id": EVENT_ID, "created_at": event.rfc3339nano(NOW)}
    queued = {"command_uuid": "C1", "request_type": "ProfileList", "enrollment_ids": ["D", "D:U"]}
    refused = {
        "apns_id": EVENT_ID.upper(),
        "reason": "Unregistered",
        "status": 410,
        "unregistered_at": event.rfc3339nano(NOW),
        "ids": {"id": "D:U", "parent_id": "D", "type": "User"},
        "enrollment_type": "User",
        "serial_number": "C04W00D3HTD0",
    }

    assert_conforms({"topic": "mdm.CommandQueued", **head, "command_event": queued})
    assert_conforms({"topic": "mdm.PushFailed", **head, "push_event": refused})


def test_a_key_that_no_schema_describes_is_found() -> None:
    with pytest.raises(AssertionError, match="surprise"):
        assert_conforms(document(message("CheckOut")) | {"surprise": 1})


@pytest.mark.parametrize("name", schemas())
def test_the_schemas_are_schemas(name: str) -> None:
    schema = schemas()[name]

    Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(f"/{name}")


def test_the_schemas_know_every_type_of_enrollment() -> None:
    assert schemas()["common.schema.json"]["$defs"]["enrollment_type"]["enum"] == [
        type_.value for type_ in EnrollmentType
    ]


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=10, max_size=10))
def test_a_uuid7_is_one_of_its_time(now_ms: int, random: bytes) -> None:
    uuid = UUID(event.uuid7(now_ms, random))

    assert str(uuid) == event.uuid7(now_ms, random)
    assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")
    assert uuid.int >> 80 == now_ms


@given(st.lists(st.integers(0, (1 << 48) - 1), unique=True, min_size=2), st.binary(min_size=10, max_size=10))
def test_uuid7s_sort_by_time(moments: list[int], random: bytes) -> None:
    assert sorted(event.uuid7(moment, random) for moment in moments) == [
        event.uuid7(moment, random) for moment in sorted(moments)
    ]


def test_the_uuid7_of_the_rfc_is_made() -> None:
    # RFC 9562, appendix A.6.
    random = bytes.fromhex("0cc318c4dc0c0c07398f")

    assert event.uuid7(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@pytest.mark.parametrize("size", [0, 9, 11, 16])
def test_a_uuid7_takes_ten_random_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="10 random bytes"):
        event.uuid7(0, bytes(size))


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2018, 8, 13, 14, 30, 16, 789541, tzinfo=UTC), "2018-08-13T14:30:16.789541Z"),
        (datetime(2018, 8, 13, 14, 30, 16, 132700, tzinfo=UTC), "2018-08-13T14:30:16.1327Z"),
        (datetime(2018, 8, 13, 14, 30, 16, tzinfo=UTC), "2018-08-13T14:30:16Z"),
        (datetime(2018, 8, 13, 16, 30, 16, tzinfo=timezone(timedelta(hours=2))), "2018-08-13T14:30:16Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_times_are_written_as_go_writes_them(moment: datetime, text: str) -> None:
    assert event.rfc3339nano(moment) == text


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_read_back(moment: datetime) -> None:
    written = event.rfc3339nano(moment)

    assert datetime.fromisoformat(written) == moment
    assert re.fullmatch(schemas()["common.schema.json"]["$defs"]["created_at"]["pattern"], written)

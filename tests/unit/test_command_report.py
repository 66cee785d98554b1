"""Command reports, decoded."""

import plistlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.command_report import MAX_ERROR_TEXT, MAX_ERRORS, MAX_STATUS_LENGTH, CommandReport
from mdmlib.errors import BadRequestError, MalformedBodyError
from tests.unit.plists import VALUES, message

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"


def report(**fields: Any) -> CommandReport:
    return CommandReport.decode(plistlib.dumps({"UDID": UDID, **fields}))


def failed(chain: Any) -> CommandReport:
    return report(Status="Error", CommandUUID="C1", ErrorChain=chain)


def test_a_report_names_its_command_and_keeps_its_bytes() -> None:
    body = message("Acknowledged")

    decoded = CommandReport.decode(body)

    assert decoded.enrollment_id.value == UDID
    assert decoded.status == "Acknowledged"
    assert decoded.command_uuid == "41d35de3-a343-4146-ba4b-0069bae2a54f"
    assert decoded.error_chain is None
    assert decoded.body == body


def test_an_idle_report_needs_no_command() -> None:
    decoded = CommandReport.decode(message("Idle"))

    assert decoded.is_idle
    assert decoded.command_uuid is None


def test_idle_may_have_any_command_uuid() -> None:
    assert report(Status="Idle", CommandUUID="C1").command_uuid == "C1"
    assert report(Status="Idle", CommandUUID=b"C1").command_uuid is None
    assert report(Status="Idle", CommandUUID="").command_uuid is None


@pytest.mark.parametrize("status", ["NotNow", "Acknowledged", "Error", "CommandFormatError", "SomethingNew"])
@pytest.mark.parametrize("uuid", [{}, {"CommandUUID": ""}, {"CommandUUID": b"C1"}, {"CommandUUID": "ä" * 256}])
def test_every_other_status_needs_one(status: str, uuid: dict[str, Any]) -> None:
    with pytest.raises(MalformedBodyError) as error:
        report(Status=status, **uuid)

    assert error.value.field == "CommandUUID"


@pytest.mark.parametrize(
    ("status", "idle", "not_now", "final"),
    [
        ("Idle", True, False, False),
        ("NotNow", False, True, False),
        ("Acknowledged", False, False, True),
        ("Error", False, False, True),
        ("CommandFormatError", False, False, True),
        ("SomethingNew", False, False, True),
        ("idle", False, False, True),
    ],
)
def test_every_status_but_two_is_final(status: str, *, idle: bool, not_now: bool, final: bool) -> None:
    decoded = report(Status=status, CommandUUID="C1")

    assert (decoded.is_idle, decoded.is_not_now, decoded.is_final) == (idle, not_now, final)


@pytest.mark.parametrize("status", ["", b"Idle", 1, True, [], "a\nb", "s" * 65])
def test_a_report_without_a_status_is_refused(status: Any) -> None:
    with pytest.raises(MalformedBodyError) as error:
        report(CommandUUID="C1", Status=status)
    with pytest.raises(MalformedBodyError):
        report(CommandUUID="C1")

    assert error.value.field == "Status"


def test_a_status_may_be_long() -> None:
    assert report(Status="s" * MAX_STATUS_LENGTH, CommandUUID="C1").is_final


def test_a_report_from_nobody_is_refused() -> None:
    with pytest.raises(BadRequestError) as error:
        CommandReport.decode(plistlib.dumps({"Status": "Idle"}))

    assert error.value.field == "UDID"


def test_an_error_chain_is_read() -> None:
    first = {
        "ErrorCode": 12021,
        "ErrorDomain": "MCMDMErrorDomain",
        "LocalizedDescription": "Unbekannter Befehl",
        "USEnglishDescription": "Unknown command",
    }

    assert failed([first, {"ErrorCode": -1}]).error_chain == [first, {"ErrorCode": -1}]


@pytest.mark.parametrize(
    "chain", ["text", b"data", 1, {}, [], ["text"], [{}], [{"ErrorCode": "12"}], [{"ErrorCode": True}]]
)
def test_a_report_is_taken_whatever_its_error_chain_is(chain: Any) -> None:
    decoded = failed(chain)

    assert decoded.error_chain is None
    assert decoded.fields["ErrorChain"] == chain


def test_a_long_error_chain_is_cut() -> None:
    chain = failed([{"ErrorDomain": "d" * 5_000}] * 50).error_chain

    assert chain == [{"ErrorDomain": "d" * MAX_ERROR_TEXT}] * MAX_ERRORS


def test_the_text_of_a_report_shows_no_payload() -> None:
    decoded = report(Status="Acknowledged", CommandUUID="C1", SecurityInfo={"FDE_PersonalRecoveryKeyCMS": b"s3cret"})

    assert "s3cret" not in repr(decoded)


@given(st.dictionaries(st.sampled_from(["UDID", "UserID", "Status", "CommandUUID", "ErrorChain"]), VALUES))
def test_any_values_make_a_report_or_are_refused(fields: dict[str, Any]) -> None:
    body = plistlib.dumps({"UDID": UDID, "Status": "Error", "CommandUUID": "C1", **fields})
    try:
        decoded = CommandReport.decode(body)
    except BadRequestError:
        return
    assert decoded.status
    assert decoded.is_idle or decoded.command_uuid


def test_decoding_a_report_takes_a_fraction_of_a_millisecond() -> None:
    body = message("Acknowledged")
    best = min(_cpu_seconds(body) for _ in range(5))

    # About 0.016 ms on a quiet machine; every connect pays it.
    assert best < 0.0001


def _cpu_seconds(body: bytes, repetitions: int = 200) -> float:
    started = time.process_time()
    for _ in range(repetitions):
        CommandReport.decode(body)
    return (time.process_time() - started) / repetitions

"""Whose message it is."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdmlib.apple.enrollment_id import MAX_ID_LENGTH, SHARED_IPAD_USER_ID, EnrollmentID, EnrollmentType
from mdmlib.errors import BadRequestError
from tests.unit.plists import VALUES


@pytest.mark.parametrize(
    ("message", "value", "type_", "parent"),
    [
        ({"UDID": "D"}, "D", EnrollmentType.DEVICE, None),
        ({"UDID": "D", "EnrollmentID": "E", "EnrollmentUserID": "U"}, "D", EnrollmentType.DEVICE, None),
        ({"UDID": "D", "UserID": ""}, "D", EnrollmentType.DEVICE, None),
        ({"UDID": "D", "UserID": "U"}, "D:U", EnrollmentType.USER, "D"),
        (
            {"UDID": "D", "UserID": SHARED_IPAD_USER_ID, "UserShortName": "anna"},
            "D:anna",
            EnrollmentType.SHARED_IPAD,
            "D",
        ),
        ({"EnrollmentID": "E"}, "E", EnrollmentType.USER_ENROLLMENT_DEVICE, None),
        ({"UDID": "", "EnrollmentID": "E"}, "E", EnrollmentType.USER_ENROLLMENT_DEVICE, None),
        ({"EnrollmentID": "E", "UserID": "U"}, "E", EnrollmentType.USER_ENROLLMENT_DEVICE, None),
        ({"EnrollmentID": "E", "EnrollmentUserID": "U"}, "E:U", EnrollmentType.USER_ENROLLMENT, "E"),
    ],
)
def test_an_identity_is_resolved_as_nanomdm_does(
    message: dict[str, Any], value: str, type_: EnrollmentType, parent: str | None
) -> None:
    resolved = EnrollmentID.from_message(message)

    assert resolved == EnrollmentID(value, type_, parent)
    assert str(resolved) == value
    assert resolved.device == (parent or value)
    assert resolved.type.is_user_channel is (parent is not None)


@pytest.mark.parametrize("message", [{}, {"UDID": ""}, {"UserID": "U"}, {"EnrollmentUserID": "U"}])
def test_a_message_of_nobody_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as error:
        EnrollmentID.from_message(message)

    assert error.value.field == "UDID"


def test_a_user_of_a_shared_ipad_needs_a_short_name() -> None:
    with pytest.raises(BadRequestError) as error:
        EnrollmentID.from_message({"UDID": "D", "UserID": SHARED_IPAD_USER_ID})

    assert error.value.field == "UserShortName"


@pytest.mark.parametrize(
    "value", [b"D", 1, True, ["D"], "D#1", "cert#1", "a\nb", "a\0b", "d" * (MAX_ID_LENGTH + 1), "ä" * MAX_ID_LENGTH]
)
@pytest.mark.parametrize("field", ["UDID", "UserID"])
def test_what_could_be_no_key_is_refused(field: str, value: object) -> None:
    with pytest.raises(BadRequestError) as error:
        EnrollmentID.from_message({"UDID": "D", field: value})

    assert error.value.field == field


@pytest.mark.parametrize("field", ["UDID", "EnrollmentID"])
def test_no_device_can_call_itself_the_user_channel_of_another(field: str) -> None:
    with pytest.raises(BadRequestError) as error:
        EnrollmentID.from_message({field: "D:U"})

    assert error.value.field == field


def test_the_longest_identity_fits_a_sort_key_of_dynamodb() -> None:
    longest = EnrollmentID.from_message({"UDID": "d" * MAX_ID_LENGTH, "UserID": "u" * MAX_ID_LENGTH})

    assert len(longest.value.encode()) <= 1024


@given(
    st.dictionaries(st.sampled_from(["UDID", "UserID", "UserShortName", "EnrollmentID", "EnrollmentUserID"]), VALUES)
)
def test_every_identity_is_fit_to_be_a_key(message: dict[str, Any]) -> None:
    try:
        resolved = EnrollmentID.from_message(message)
    except BadRequestError:
        return
    assert resolved.value.isprintable()
    assert "#" not in resolved.value
    assert 0 < len(resolved.value.encode()) <= 1024
    assert ":" not in resolved.device

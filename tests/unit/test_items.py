"""Items from and to DynamoDB's form: as pynamodb's own way has them, without going through all that could be there."""

from typing import Any

import pytest
from pynamodb import attributes
from pynamodb.exceptions import AttributeDeserializationError
from pynamodb.expressions.update import Update
from pynamodb.models import Model

from mdmlib.store.tables import CommandResult, Enrollment, EnrollmentItem, PushJob

RAW: dict[str, dict[str, Any]] = {
    "enrollment_id": {"S": "D1"},
    "item": {"S": "!"},
    "cls": {"S": "enrollment"},
    "type": {"S": "Device"},
    "state": {"S": "enrolled"},
    "blocked": {"BOOL": False},
    "generation": {"S": "ffffffff"},
    "epoch": {"N": "3"},
    "push": {"B": b"sealed"},
    "renewed_identities": {"L": [{"S": "a"}, {"S": "b"}]},
    "link": {"NULL": True},
    "of_a_later_release": {"M": {}},
}


def test_an_item_is_read_and_written_as_pynamodb_does_it() -> None:
    record = EnrollmentItem.from_raw_data(RAW)
    theirs = Enrollment("", "")
    Model.deserialize(theirs, RAW)

    assert isinstance(record, Enrollment)
    assert record.attribute_values == theirs.attribute_values
    assert record.epoch == 3
    assert record.token_update_tally == 0
    assert record.link is None
    assert record.raw_data() == Model.serialize(record)
    assert record.raw_key() == {"enrollment_id": {"S": "D1"}, "item": {"S": "!"}}


def test_a_new_item_has_what_it_is_given_and_what_is_there_where_nothing_was_said() -> None:
    record = Enrollment("D1", "!", state="enrolled")

    assert record.attribute_values == {
        "enrollment_id": "D1",
        "item": "!",
        "cls": Enrollment,
        "state": "enrolled",
        "epoch": 0,
        "token_update_tally": 0,
    }
    with pytest.raises(ValueError, match="no attribute stat"):
        Enrollment("D1", "!", stat="enrolled")


@pytest.mark.parametrize(("number", "read"), [("-7", -7), ("1.5", 1.5), ("1E+3", 1000.0), ("1" * 38, int("1" * 38))])
def test_numbers_are_read_in_each_of_dynamodbs_forms(number: str, read: float) -> None:
    assert Enrollment.from_raw_data(RAW | {"epoch": {"N": number}}).epoch == read


def test_what_has_a_form_of_its_own_is_read_by_its_attribute() -> None:
    result = EnrollmentItem.from_raw_data(
        {"enrollment_id": {"S": "D1"}, "item": {"S": "r#1"}, "cls": {"S": "result"}, "error_chain": {"S": '[{"a":1}]'}}
    )
    job = PushJob.from_raw_data({"cls": {"S": "push_job"}, "pages": {"SS": ["0.1", "0.2"]}})

    assert isinstance(result, CommandResult)
    assert result.error_chain == [{"a": 1}]
    assert (job.pages, job.ended) == ({"0.1", "0.2"}, 0)


def test_an_attribute_of_another_type_and_an_item_of_another_class_are_refused() -> None:
    with pytest.raises(AttributeDeserializationError):
        EnrollmentItem.from_raw_data(RAW | {"state": {"N": "1"}})
    with pytest.raises(ValueError, match="Enrollment"):
        CommandResult.from_raw_data(RAW)
    with pytest.raises(ValueError, match="Unknown"):
        EnrollmentItem.from_raw_data(RAW | {"cls": {"S": "of_a_later_release"}})


def test_conditions_and_changes_are_those_of_pynamodb() -> None:
    class Theirs:
        """The same attributes, without what is ours."""

        state = attributes.UnicodeAttribute(attr_name="state")
        epoch = attributes.NumberAttribute(attr_name="epoch")
        blocked = attributes.BooleanAttribute(attr_name="blocked")
        push = attributes.BinaryAttribute(attr_name="push", legacy_encoding=False)

    def expressed(of: Any) -> tuple[str, str | None, dict[str, str], dict[str, Any]]:
        names: dict[str, str] = {}
        values: dict[str, Any] = {}
        condition = (of.state == "enrolled") & (of.epoch == 3) | of.push.does_not_exist() & ~of.state.exists()
        actions = [
            of.state.set("authenticated"),
            of.epoch.set(of.epoch + 1),
            of.epoch.set(2.5),
            of.blocked.set(True),
            of.push.set(b"sealed"),
            of.push.remove(),
            of.epoch.set(of.epoch | 7),
            of.epoch.add(1),
        ]
        return condition.serialize(names, values), Update(*actions).serialize(names, values), names, values

    assert expressed(Enrollment) == expressed(Theirs)

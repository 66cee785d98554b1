"""The tables of the template are those that the code reads and writes."""

from typing import Any

import pytest
from pynamodb.models import Model

from mdmlib.store import tables
from tests.template.document import Template

TABLES: dict[str, type[Model]] = {"EnrollmentTable": tables.EnrollmentItem, "ResourceTable": tables.ResourceItem}


def described(model: type[Model]) -> dict[str, Any]:
    """Return a model's table as pynamodb would create it, in the words of CloudFormation."""
    schema = model._get_schema()
    return {
        "keys": {key["AttributeName"]: key["KeyType"] for key in schema["key_schema"]},
        "types": {each["AttributeName"]: each["AttributeType"] for each in schema["attribute_definitions"]},
        "indexes": {
            index["index_name"]: (
                {key["AttributeName"]: key["KeyType"] for key in index["key_schema"]},
                index["projection"]["ProjectionType"],
                set(index["projection"].get("NonKeyAttributes", [])),
            )
            for index in schema["global_secondary_indexes"]
        },
    }


@pytest.mark.parametrize("name", TABLES)
def test_keys_and_indexes_are_those_of_the_item_classes(template: Template, name: str) -> None:
    table = template.resources[name]["Properties"]
    indexes = {
        index["IndexName"]: (
            {key["AttributeName"]: key["KeyType"] for key in index["KeySchema"]},
            index["Projection"]["ProjectionType"],
            set(index["Projection"].get("NonKeyAttributes", [])),
        )
        for index in table.get("GlobalSecondaryIndexes", [])
    }

    assert described(TABLES[name]) == {
        "keys": {key["AttributeName"]: key["KeyType"] for key in table["KeySchema"]},
        "types": {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]},
        "indexes": indexes,
    }


def test_the_template_has_no_other_table(template: Template) -> None:
    assert set(template.of("DynamoDB::Table")) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_paid_by_request_and_can_be_restored(template: Template, name: str) -> None:
    table = template.resources[name]["Properties"]

    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"]["SSEEnabled"] is True
    assert table["DeletionProtectionEnabled"] == {"Fn::If": ["IsProd", True, False]}
    assert template.resources[name]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("name", TABLES)
def test_items_expire_by_the_attribute_that_their_classes_set(template: Template, name: str) -> None:
    table = template.resources[name]["Properties"]

    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert "ttl" in TABLES[name].get_attributes()

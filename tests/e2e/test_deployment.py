"""What the emulator holds a deployment to, so that the other end-to-end tests prove something: roles and users."""

import json
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from local.administrator import Administrator, Keys
from local.emulator import REGION
from local.life import World
from local.stack import Stack

FUNCTIONS = ("admin", "checkin", "commands", "connect", "enroll", "housekeeping", "push", "webhook")


def as_function(stack: Stack, function: str, service: Any) -> Any:
    """Return a client with the credentials that a function of the stack has."""
    role = stack.emulator.lambda_.get_function(FunctionName=f"{stack.name}-{function}")["Configuration"]["Role"]
    keys = stack.emulator.sts.assume_role(RoleArn=role, RoleSessionName=function)["Credentials"]
    return boto3.client(
        service,
        endpoint_url=stack.emulator.url,
        region_name=REGION,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_no_more_than_its_role_says(stack: Stack, function: str) -> None:
    with pytest.raises(ClientError) as refused:
        as_function(stack, function, "dynamodb").delete_table(TableName=stack.outputs["EnrollmentTableName"])

    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"


def test_a_role_reaches_its_own_table_and_not_the_other(stack: Stack) -> None:
    webhook = as_function(stack, "webhook", "dynamodb")

    webhook.get_item(
        TableName=stack.outputs["ResourceTableName"], Key={"collection": {"S": "ca"}, "name": {"S": "scep"}}
    )
    with pytest.raises(ClientError) as refused:
        webhook.get_item(
            TableName=stack.outputs["EnrollmentTableName"], Key={"enrollment_id": {"S": "1"}, "item": {"S": "!"}}
        )
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"


def test_an_iam_user_without_the_administrators_policy_is_refused(stack: Stack, world: World) -> None:
    iam = stack.emulator.iam
    iam.create_user(UserName="somebody")
    key = iam.create_access_key(UserName="somebody")["AccessKey"]
    somebody = Administrator(world.admin_url, Keys(access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"]))
    try:
        assert somebody.request("GET", "/v2/enrollments").status_code == 403
        iam.attach_user_policy(UserName="somebody", PolicyArn=stack.outputs["AdministratorPolicyArn"])
        assert somebody.request("GET", "/v2/enrollments").status_code == 200
    finally:
        somebody.close()


def test_items_expire(stack: Stack) -> None:
    for table in ("EnrollmentTableName", "ResourceTableName"):
        described = stack.emulator.dynamodb.describe_time_to_live(TableName=stack.outputs[table])
        assert described["TimeToLiveDescription"] == {"AttributeName": "ttl", "TimeToLiveStatus": "ENABLED"}


def test_functions_are_told_where_devices_reach_them(stack: Stack) -> None:
    for function in FUNCTIONS:
        configuration = stack.emulator.lambda_.get_function_configuration(FunctionName=f"{stack.name}-{function}")
        assert configuration["Environment"]["Variables"]["DEVICE_URL"] == stack.device_url == stack.outputs["DeviceUrl"]


def test_the_secret_is_a_document_of_master_keys(stack: Stack) -> None:
    secret = stack.emulator.secretsmanager.get_secret_value(SecretId=stack.outputs["SecretArn"])
    document = json.loads(secret["SecretString"])

    assert document["current_key"] == "k1"
    assert len(document["k1"]) == 64

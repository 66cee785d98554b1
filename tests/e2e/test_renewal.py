"""An identity is renewed in time against the deployed stack, with the roles that its functions have there."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from local.device import Habits, Handled, Renewal, SimulatedApns, SimulatedDevice
from local.stack import Stack

PUSH_SECONDS = 30.0
DAY = 86_400

MakeDevice = Callable[..., SimulatedDevice]


def record(stack: Stack, device: SimulatedDevice) -> dict[str, Any]:
    """Return what the enrollment's record says."""
    item = stack.emulator.dynamodb.get_item(
        TableName=stack.outputs["EnrollmentTableName"],
        Key={"enrollment_id": {"S": device.udid}, "item": {"S": "!"}},
        ConsistentRead=True,
    )["Item"]
    return {name: next(iter(value.values())) for name, value in item.items()}


def let_identity_end(stack: Stack, enrollment_id: str, *, days: int) -> None:
    """Let the server believe that an enrollment's identity ends in so many days."""
    stack.emulator.dynamodb.update_item(
        TableName=stack.outputs["EnrollmentTableName"],
        Key={"enrollment_id": {"S": enrollment_id}, "item": {"S": "!"}},
        UpdateExpression="SET identity_not_after = :end",
        ExpressionAttributeValues={":end": {"N": str(int(time.time()) + days * DAY)}},
    )


def look(stack: Stack) -> None:
    """Do what the daily schedule does."""
    answer = stack.emulator.lambda_.invoke(
        FunctionName=f"{stack.name}-housekeeping", Payload=json.dumps({"task": "renew_identities"}).encode()
    )
    assert "FunctionError" not in answer, answer["Payload"].read()


def done(handled: list[Handled]) -> list[tuple[str, str]]:
    return [(one.request_type, one.status) for one in handled]


@pytest.mark.parametrize("renewal", Renewal)
def test_a_device_is_woken_renews_its_identity_and_goes_on(
    stack: Stack, enroll: MakeDevice, pushes: SimulatedApns, renewal: Renewal
) -> None:
    device = enroll(habits=Habits(renewal=renewal))
    old, hash_ = device.identity, record(stack, device)["identity"]
    let_identity_end(stack, device.udid, days=20)
    look(stack)

    assert pushes.wait(device.push_token, seconds=PUSH_SECONDS)
    assert done(device.connect()) == [("InstallProfile", "Acknowledged")]
    assert device.identity.certificate != old.certificate
    assert device.connect() == []

    renewed = record(stack, device)
    assert renewed["identity"] != hash_ == renewed["previous_identity"]
    assert int(renewed["identity_not_after"]) > time.time() + 300 * DAY
    assert "renewal_attempts" not in renewed


def test_a_device_that_refuses_stays_as_it_was(stack: Stack, enroll: MakeDevice, pushes: SimulatedApns) -> None:
    device = enroll()
    device.fail(request_type="InstallProfile")
    let_identity_end(stack, device.udid, days=20)
    look(stack)

    assert pushes.wait(device.push_token, seconds=PUSH_SECONDS)
    assert done(device.connect()) == [("InstallProfile", "Error")]
    assert device.connect() == []
    assert record(stack, device)["renewal_attempts"] == "1"
    look(stack)
    assert device.connect() == [], "not twice on a day"

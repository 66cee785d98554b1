"""A device that nobody touches, as `make run` shows it, and what becomes of one that nobody tells anything."""

import time
from collections.abc import Callable, Iterator

import pytest

from local import zero_touch
from local.administrator import Administrator
from local.device import Hardware, Identity, SimulatedDevice
from local.device_authority import DeviceAuthority
from local.life import Life, Step, World, subscribe_webhook, upload_push_certificate
from local.stack import Stack

STEPS = (upload_push_certificate, subscribe_webhook, *zero_touch.STEPS)


@pytest.fixture(scope="module")
def life(world: World) -> Iterator[Life]:
    life = Life(world)
    yield life
    life.close()


@pytest.fixture(scope="module")
def enroll_function_begins_anew(start_anew: Callable[..., None]) -> None:
    """It keeps for a minute by whom genuine devices are known."""
    start_anew("enroll")


@pytest.mark.usefixtures("enroll_function_begins_anew")
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_device_enrolls_with_nobody_touching_it(life: Life, step: Step) -> None:
    if life.failed:
        pytest.skip(f"{life.failed.__name__} failed before")
    life.play(step)


@pytest.mark.usefixtures("enroll_function_begins_anew")
def test_a_device_that_nobody_tells_anything_does_not_hang_in_setup_assistant(
    stack: Stack, world: World, administrator: Administrator, make_device: Callable[..., SimulatedDevice]
) -> None:
    hardware = Hardware.iphone()
    identity = DeviceAuthority.open(world.directory / "factory").identity(hardware.udid)
    device = make_device(hardware, built_in=Identity.from_pem(identity.read_bytes()))
    device.enroll_by_ade(f"{world.device_url}/mdm/enroll", awaiting_configuration=True)
    table = stack.emulator.dynamodb
    # As if SetupMinutes were over.
    table.update_item(
        TableName=stack.outputs["EnrollmentTableName"],
        Key={"enrollment_id": {"S": "awaiting#"}, "item": {"S": waiting(stack, device.udid)}},
        UpdateExpression="SET due_at = :now",
        ExpressionAttributeValues={":now": {"N": str(int(time.time()))}},
    )
    stack.emulator.lambda_.invoke(FunctionName=f"{stack.name}-housekeeping", Payload=b'{"task": "release_devices"}')

    device.connect()

    assert not device.commands.awaiting_configuration
    shown = administrator.request("GET", f"/v2/enrollments/{device.udid}")
    assert shown.json()["awaiting_configuration"] is False


def waiting(stack: Stack, udid: str) -> str:
    found = stack.emulator.dynamodb.query(
        TableName=stack.outputs["EnrollmentTableName"],
        KeyConditionExpression="enrollment_id = :awaiting",
        ExpressionAttributeValues={":awaiting": {"S": "awaiting#"}},
    )["Items"]
    (item,) = [each["item"]["S"] for each in found if each["item"]["S"].startswith(udid)]
    return item

"""One life of a device, step by step, as `make run` shows it: in the forms that devices of several years speak."""

from collections.abc import Iterator

import pytest

from local.device import Habits, Hardware, MessageForm, ScepDialect, SignatureForm
from local.life import STEPS, Life, Step, World

OLD_FORM = MessageForm(
    signature=SignatureForm.BER_NO_ATTRIBUTES,
    digest="sha1",
    null_parameters=False,
    connect_content_type=False,
    byte_order_mark=True,
)
OLD_SCEP = ScepDialect(cipher="des", digest="sha1", use_get=True)

KINDS = {
    "an iPhone of today": (Hardware.iphone, Habits()),
    "a device that signs without attributes and speaks DES": (
        Hardware.ipad,
        Habits(message=OLD_FORM, scep=OLD_SCEP),
    ),
    "a Mac with binary plists": (
        Hardware.mac,
        Habits(message=MessageForm(binary=True), scep=ScepDialect(message_in_query=True)),
    ),
}


@pytest.fixture(scope="module", params=list(KINDS.values()), ids=list(KINDS))
def life(world: World, request: pytest.FixtureRequest) -> Iterator[Life]:
    new_hardware, habits = request.param
    life = Life(world, hardware=new_hardware(), habits=habits)
    yield life
    life.close()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_device_lives_its_life(life: Life, step: Step) -> None:
    if life.failed:
        pytest.skip(f"{life.failed.__name__} failed before")
    life.play(step)

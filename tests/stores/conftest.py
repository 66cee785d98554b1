import pytest

from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock
from tests.fleet import Fleet


@pytest.fixture
def fleet(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Fleet:
    return Fleet(aws, settings, sealer, clock)

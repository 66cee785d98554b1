import pytest

from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests.deployment import Clock
from tests.fleet import Fleet
from tests.scep_authority import UDID, Authority, IdentifiedDevice


@pytest.fixture
def fleet(aws: Emulator, settings: Settings, sealer: Sealer, clock: Clock) -> Fleet:
    return Fleet(aws, settings, sealer, clock)


@pytest.fixture
def authority(settings: Settings, sealer: Sealer, clock: Clock) -> Authority:
    return Authority(settings, sealer, clock)


@pytest.fixture
def device(fleet: Fleet, authority: Authority) -> IdentifiedDevice:
    authority.link()
    device = IdentifiedDevice(fleet, UDID, authority, authority.client())
    device.authenticate()
    device.token_update()
    return device

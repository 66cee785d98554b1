"""What every kind of request is to those who play faults with it."""

import uuid
from abc import ABC, abstractmethod
from typing import ClassVar

from local.aws_proxy import Disturbance
from local.device import Hardware, SimulatedDevice
from mdmlib.services.push_info import push_token_hash
from tests.chaos.site import Patience, Site


class Kind(ABC):
    """One kind of request. :meth:`start` is called first, and again after something went wrong."""

    name: ClassVar[str]
    function: ClassVar[str]
    """Whose calls are disturbed."""
    only_first_calls: ClassVar[bool] = False
    """Whether it is left to chance how many calls of a name there are."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.patience = Patience(site)

    @abstractmethod
    def start(self) -> None:
        """Make those who ask."""

    @property
    @abstractmethod
    def mark(self) -> str | None:
        """What the calls of the next request name; None: all calls of the function are its calls."""

    def prepare(self) -> None:  # noqa: B027 - not every request needs something
        """See to what the next request needs; nothing is disturbed."""

    def lives_with(self, disturbance: Disturbance) -> None:
        """Hear of the trouble that the next request is in."""
        self.patience.lasts(disturbance)

    @abstractmethod
    def ask(self) -> None:
        """Make the request, until it is answered."""

    @abstractmethod
    def check(self) -> None:
        """Look at what became of it; nothing is disturbed."""

    def finish(self) -> None:  # noqa: B027 - nor has every one something to look at
        """Look at what became of all of them."""


class OfDevice(Kind):
    """A request of one enrolled device, or about it."""

    device: SimulatedDevice
    is_mac: ClassVar[bool] = False

    def start(self) -> None:
        self.link = self.site.new_link()
        self.device = self.enrolled()

    def enrolled(self) -> SimulatedDevice:
        """Make a device and enroll it."""
        return self.patience.enrolled(self.link, Hardware.mac() if self.is_mac else Hardware.iphone())

    @property
    def mark(self) -> str | None:
        return self.device.udid

    def queue(self, request_type: str = "SecurityInfo", **fields: object) -> str:
        """Queue a command for the device."""
        return self.patience.queue(self.device.udid, request_type, command_uuid=str(uuid.uuid4()), **fields)

    def check(self) -> None:
        self.check_enrolled()

    def check_enrolled(self) -> None:
        """The device is enrolled, both sides say so, it is idle and has nothing to complain about."""
        assert self.device.connect() == [], "a command is left"
        record = self.site.item(self.device.enrollment_id)
        assert record["state"] == "enrolled", record["state"]
        assert record["push_token_hash"] == push_token_hash(self.device.push_token.hex()), "it cannot be woken"
        assert not self.device.violations, self.device.violations
        assert not self.device.failures, self.device.failures

    def check_done(self, command_uuid: str, status: str = "Acknowledged") -> None:
        """A command was carried out exactly once, and the server knows its result."""
        done = [one for one in self.device.channel.handled if one.uuid == command_uuid and one.status != "NotNow"]
        assert [one.status for one in done] == [status], f"the device did it {len(done)} times"
        result = self.site.item(self.device.enrollment_id, f"r#{command_uuid}")
        assert result.get("status") == status, f"the result is {result.get('status')}"

    def finish(self) -> None:
        self.link.check()

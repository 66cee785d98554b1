"""What tests of the simulated device have in common: how they talk through a fake server."""

import plistlib
from typing import Any

from local.device import Channel, EnrollmentMode, EnrollmentProfile, SimulatedDevice
from tests.simulators.fake_server import FakeServer, command


def of_account(server: FakeServer, mode: EnrollmentMode) -> EnrollmentProfile:
    """Return the server's profile as an account-driven enrollment would get it."""
    server.mdm["EnrollmentMode"] = str(mode)
    server.mdm["AssignedManagedAppleID"] = "ada@example.org"
    if mode is EnrollmentMode.BYOD:
        server.mdm.pop("AccessRights", None)
    return EnrollmentProfile.decode(plistlib.dumps(server.profile), mode=mode)


def user_enrolled(device: SimulatedDevice, server: FakeServer) -> SimulatedDevice:
    """Enroll a device as an account-driven User Enrollment ends."""
    device.install(of_account(server, EnrollmentMode.BYOD), access_token="a-token")
    return device


def rules(device: SimulatedDevice) -> list[str]:
    """Return what the server broke."""
    return [violation.rule for violation in device.violations]


def run(channel: Channel, server: FakeServer, request_type: str, **fields: Any) -> dict[str, Any]:
    """Let a channel carry out one command; return its report."""
    server.queue = [command(f"{request_type} {len(server.seen)}", request_type, **fields)]
    channel.connect()
    return [one for one in server.messages() if "CommandUUID" in one][-1]

# ruff: noqa: D401  # the docstring of a step is its title, and tells what others do
"""The second chapter of a life: a device that nobody touches, from the shop to its home screen.

Its steps are of the same kind as those of :mod:`local.life`, and go on with whoever took part there: the simulated
portal of Apple's sells the device, the simulated factory has made it, and :mod:`local.ade` tells it whose it is.
"""

from typing import Any, Final

from local.device import Hardware, Identity
from local.device_authority import DeviceAuthority
from local.life import Life, LifeError, Step, agree
from local.progress import Message

SERVER: Final = "school"
"""The server's name here and at Apple."""
PROFILE: Final = "pupils"
_SYNC_TIME: Final = "60s"
_ACKNOWLEDGED: Final = "Acknowledged"


def trust_factory(life: Life) -> str:
    """The administrator says by which authority genuine devices are known."""
    factory = DeviceAuthority.open(life.world.directory / "factory")
    uploaded = life.administrator.picomdm("device-ca", "upload", str(factory.certificate()), "--name", "simulated")
    (stored,) = uploaded["device_certificate_authorities"]
    return f"“{stored['subject'].partition('CN=')[2].partition(',')[0]}”"


def connect_to_apple(life: Life) -> str:
    """Apple's portal is given a certificate, and gives a token for it, which is imported."""
    certificate = life.world.directory / "school.pem"
    life.administrator.picomdm("ade", "token", "certificate", SERVER, "--file", str(certificate))
    file = life.world.directory / "school.p7m"
    file.touch(mode=0o600)
    file.write_bytes(life.portal.make_server(SERVER, certificate.read_text()))
    # A stage that is set again has a portal that begins anew.
    server = life.administrator.picomdm("ade", "token", "import", SERVER, str(file), "--force")
    _must(not server["problem"], f"Apple does not take the token: {server['problem']}.")
    return f"{server['account']['org_name']}, token good until {server['token_expires_at'][:10]}"


def say_what_devices_get(life: Life) -> str:
    """The administrator says what devices shall do, and that all of them shall do it."""
    life.administrator.picomdm(
        *("ade", "profiles", "set", PROFILE, "await_device_configured:=true", "skip_setup_items+=Siri")
    )
    rule = life.administrator.picomdm("ade", "rules", "set", "all", "--server", SERVER, "--profile", PROFILE)
    return f"the rule “{rule['name']}”: {rule['profile']}"


def buy_device(life: Life) -> str:
    """An iPhone is bought: Apple knows that it is the organization's."""
    hardware = Hardware.iphone()
    factory = DeviceAuthority.open(life.world.directory / "factory")
    life.take_up(hardware, built_in=Identity.from_pem(factory.identity(hardware.udid).read_bytes()))
    life.portal.buy(SERVER, [hardware.serial_number])
    life.observer(Message(sender="Apple", receiver="admin", what="an invoice", note=hardware.serial_number))
    return f"serial number {hardware.serial_number}"


def sync(life: Life) -> str:
    """Apple's list is read, and the device given its profile."""
    read = life.administrator.picomdm("ade", "sync", SERVER, "--wait", _SYNC_TIME)["ade_syncs"][0]
    _must(read["state"] == "synced", f"The list was not read: {read}.")
    serial_number = life.device.hardware.serial_number
    device = life.administrator.picomdm("ade", "devices", serial_number)
    _must(device["assignment"] == "assigned", f"The profile is {device['assignment']}.")
    at_apple = life.portal.device(serial_number)
    _must(at_apple["profile_uuid"] == device["profile_uuid"], "Apple knows of another profile.")
    life.customer.hear(
        lambda heard: heard.topic.startswith("dep.") and serial_number in str(heard.document), what="the device"
    )
    # A run of the schedule may have been quicker: what the device got says more than what the last run did.
    wanted = device["wanted"]
    return f"{device['model']} {serial_number} has the profile “{wanted['profile']}”, by the rule “{wanted['rule']}”"


def unbox(life: Life) -> str:
    """It is unboxed: Apple tells it whose it is, and it enrolls before anybody can use it."""
    told = life.portal.activate(life.device.hardware.serial_number)
    if told is None:
        raise LifeError("Apple has no profile for the device.")
    life.observer(Message(sender="Apple", receiver=life.device.hardware.device_name, what=f"enroll at {told['url']}"))
    life.device.enroll_by_ade(told["url"], awaiting_configuration=told["await_device_configured"])
    device = _enrollment(life)
    _must(device["state"] == "enrolled", f"Its state is {device['state']}.")
    _must(device["awaiting_configuration"] is True, "Nobody knows that it waits.")
    return f"{life.udid} is enrolled, and waits in Setup Assistant"


def configure(life: Life) -> str:
    """The administrator tells it that it is configured: DeviceConfigured; APNs wakes it."""
    life.command({"request_type": "DeviceConfigured"})
    life.be_woken()
    handled = life.device.connect()
    _must(
        [(one.uuid, one.status) for one in handled] == [(life.commands["DeviceConfigured"], _ACKNOWLEDGED)],
        f"It reported {handled}.",
    )
    _must(not life.device.commands.awaiting_configuration, "It still waits.")
    _must(_enrollment(life)["awaiting_configuration"] is False, "It is taken for one that waits.")
    return "it shows its home screen; had nobody told it, it would have been told by itself"


def look_at_list(life: Life) -> str:
    """The administrator sees it among the devices that were bought."""
    device = life.administrator.picomdm("ade", "devices", life.device.hardware.serial_number)
    _must([one["id"] for one in device["enrollments"]] == [life.udid], f"Its enrollments are {device['enrollments']}.")
    violations = life.portal.violations()
    _must(not violations, f"Apple complains: {violations}.")
    return f"{device['model']}, of {device['server']}, enrolled as {life.udid}"


STEPS: Final[tuple[Step, ...]] = (
    trust_factory,
    connect_to_apple,
    say_what_devices_get,
    buy_device,
    sync,
    unbox,
    configure,
    look_at_list,
    agree,
)


def _enrollment(life: Life) -> dict[str, Any]:
    return life.administrator.picomdm("enrollments", "show", life.udid)


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001  # read aloud, it is clear
    if not condition:
        raise LifeError(otherwise)

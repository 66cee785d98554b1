# ruff: noqa: D401  # the docstring of a step is its title, and tells what others do
"""One life of a device, from the push certificate to CheckOut, as those live it who take part.

Everything goes over HTTP against the deployed APIs: the administrator signs requests and types ``picomdm``, the
simulated device enrolls and reports, the simulated APNs wakes it, the customer's listener is called. A step is a
function whose first docstring line is its title; it raises when anybody sees something that should not be.

``python -m local.run`` shows the steps to a person; ``tests/e2e/test_life.py`` makes a test of each.
"""

import base64
import json
import plistlib
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from local.ade.client import AdeControl
from local.administrator import Administrator, CommandLine, Keys, type_picomdm
from local.apns.process import ApnsControl
from local.customer import Customer, check_message_event
from local.device import (
    EnrollmentProfile,
    Exchange,
    Habits,
    Hardware,
    Identity,
    SimulatedApns,
    SimulatedDevice,
)
from local.progress import Message
from local.sight import seen_exchange, seen_push

PUSH_SECONDS: Final = 30.0
"""For how long a push may be on its way, from the request that causes it to the device."""

_NOT_NOW: Final = "NotNow"
_ACKNOWLEDGED: Final = "Acknowledged"

QUERIES: Final = ("UDID", "DeviceName", "OSVersion", "BuildVersion", "ModelName", "ProductName", "SerialNumber")

_CREATED_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class LifeError(Exception):
    """Something is not as it should be."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Where everything is, and what those who take part have been given."""

    admin_url: str
    device_url: str
    keys: Keys
    """Of an IAM user who may use the admin API."""
    trust: Path
    """PEM of the root that devices trust."""
    apns_control: str
    ade_control: str
    """Of the portal where devices are bought for the organization."""
    webhook_url: str
    webhook_control: str
    hmac_key: str = field(repr=False)
    """What the customer wants deliveries to be signed with."""
    topic: str
    """Of the push certificate: one deployment keeps it for ever."""
    directory: Path
    """For files that one of them hands to another."""
    command_line: CommandLine = type_picomdm

    @property
    def webhook_path(self) -> str:
        """Where deliveries to :attr:`webhook_url` arrive."""
        return urlsplit(self.webhook_url).path


class Life:
    """A life as far as it has come: who takes part, and what they know."""

    def __init__(
        self,
        world: World,
        *,
        hardware: Hardware | None = None,
        habits: Habits | None = None,
        observer: Callable[[Message], None] = lambda _message: None,
    ) -> None:
        self.world = world
        self._devices: list[SimulatedDevice] = []
        world.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.administrator = Administrator(
            world.admin_url, world.keys, observer=observer, command_line=world.command_line
        )
        self.customer = Customer(world.webhook_control, path=world.webhook_path, observer=observer)
        self.apns = ApnsControl(world.apns_control)
        self.portal = AdeControl(world.ade_control)
        self.pushes = SimulatedApns(world.apns_control)
        self.observer = observer
        self.take_up(hardware or Hardware.iphone(), habits=habits)
        self.untold: list[Exchange] = []
        """Messages of the device that the customer has not heard of yet."""
        self.told = 0
        self.failed: Step | None = None
        """The step that did not end well; none after it makes sense."""
        self.link = ""
        self.profile: EnrollmentProfile | None = None
        self.commands: dict[str, str] = {}
        """CommandUUIDs by request type, and request types by CommandUUID."""
        self.pushes_before = max((push["number"] for push in self.apns.pushes()), default=0)

    @property
    def udid(self) -> str:
        """What the device is called."""
        return self.device.udid

    def take_up(self, hardware: Hardware, *, habits: Habits | None = None, built_in: Identity | None = None) -> None:
        """Go on with this device, whatever became of the one before."""
        self.device = SimulatedDevice(
            hardware,
            built_in=built_in,
            push=self.pushes,
            trust=self.world.trust,
            habits=habits,
            observer=self._see,
        )
        self._devices = [*self._devices, self.device]

    def close(self) -> None:
        """Close all connections; nothing else ends."""
        for connection in (self.administrator, self.customer, self.portal, self.pushes):
            connection.close()
        for device in self._devices:
            device.close()

    def play(self, step: "Step") -> str:
        """Let one step happen, wait until the customer has heard of it, and return what came of it."""
        self.failed = step
        outcome = step(self)
        for exchange in self.untold:
            self._hear_of(exchange)
        self.untold.clear()
        self.failed = None
        return outcome

    def _see(self, exchange: Exchange) -> None:
        """Note what the device did on the wire."""
        self.observer(seen_exchange(exchange, self.device.hardware.device_name))
        if exchange.method == "PUT" and exchange.status == HTTPStatus.OK:
            self.untold.append(exchange)

    def _hear_of(self, exchange: Exchange) -> None:
        body = exchange.request_body
        message = plistlib.loads(body)
        more: dict[str, Any] = {
            "enrollment_type": "Device",
            "serial_number": self.device.hardware.serial_number,
        }
        if message.get("MessageType") == "TokenUpdate":
            more["token_update_tally"] = 1
        if "CommandUUID" in message:
            more["request_type"] = self.commands[message["CommandUUID"]]
        heard = self.customer.hear(lambda heard: heard.raw == body, what=exchange.what)
        check_message_event(heard, body=body, more=more)
        self.told += 1

    def command(self, document: dict[str, Any]) -> dict[str, Any]:
        """Queue a command as MicroMDM's clients do, and return the command as it was answered."""
        response = self.administrator.request(
            "POST", "/v1/commands", document=document | {"udid": self.udid}, note=document["request_type"]
        )
        _must(response.status_code == HTTPStatus.CREATED, f"The command was answered {response.status_code}.")
        _must(
            response.headers["content-type"] == "application/json; charset=utf-8",
            "The answer's content type is not MicroMDM's.",
        )
        payload: dict[str, Any] = response.json()["payload"]
        _must(list(payload) == ["command_uuid", "command"], f"The answer's payload has {list(payload)}.")
        command_uuid: str = payload["command_uuid"]
        _must(bool(_CREATED_UUID.fullmatch(command_uuid)), "The new CommandUUID is no lower-case UUID.")
        self.commands[document["request_type"]] = command_uuid
        self.commands[command_uuid] = document["request_type"]
        announced = self.customer.hear(lambda heard: heard.topic == "mdm.CommandQueued", what="mdm.CommandQueued")
        expected = {
            "command_uuid": command_uuid,
            "request_type": document["request_type"],
            "enrollment_ids": [self.udid],
        }
        _must(announced.document["command_event"] == expected, "mdm.CommandQueued tells of something else.")
        command: dict[str, Any] = payload["command"]
        return command

    def be_woken(self) -> None:
        """Wait for a push, as the device does, and look at what APNs was asked."""
        woken = self.pushes.wait(self.device.push_token, seconds=PUSH_SECONDS)
        for push in self.apns.pushes(after=self.pushes_before):
            self.pushes_before = push["number"]
            self.observer(seen_push(push))
        _must(woken, f"No push came in {PUSH_SECONDS:.0f} seconds.")
        self.observer(Message(sender="Apple", receiver=self.device.hardware.device_name, what='{"mdm": <PushMagic>}'))


Step = Callable[[Life], str]


def upload_push_certificate(life: Life) -> str:
    """Apple's portal issues a push certificate, and the administrator uploads it."""
    issued = life.apns.issue(life.world.topic)
    life.observer(Message(sender="Apple", receiver="admin", what="push certificate", received=len(issued)))
    pem = life.world.directory / "push.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(issued)
    uploaded = life.administrator.picomdm("push-cert", "upload", str(pem))
    _must(uploaded["topic"] == life.world.topic, f"The topic is {uploaded['topic']}.")
    return f"topic {uploaded['topic']}, good until {uploaded['not_after'][:10]}"


def subscribe_webhook(life: Life) -> str:
    """The customer's webhook is subscribed to every event, with an HMAC key."""
    life.customer.skip()
    key = life.world.directory / "webhook-key"
    key.touch(mode=0o600)
    key.write_text(life.world.hmac_key)
    webhook = life.administrator.picomdm("webhooks", "create", life.world.webhook_url, "--hmac-key-file", str(key))
    _must(webhook["signed"] is True, "The subscription is not signed.")
    return f"subscription {webhook['id']}, a rule of the event bus"


def make_enrollment_link(life: Life) -> str:
    """The administrator makes an enrollment link."""
    link = life.administrator.picomdm("enroll", "link", "--max-uses", "1", "--note", "one life")
    life.link = link["url"]
    _must(link["topic"] == life.world.topic, f"The link is for {link['topic']}.")
    return f"good for one device until {link['expires_at']}"


def download_profile(life: Life) -> str:
    """A new iPhone opens the link and is given its enrollment profile."""
    life.profile = life.device.download_profile(life.link)
    _must(life.profile.topic == life.world.topic, f"The profile is for {life.profile.topic}.")
    return f"“{life.profile.profile.fields['PayloadDisplayName']}”: SCEP and MDM, signed messages, all rights"


def install_profile(life: Life) -> str:
    """Its user installs it: a certificate over SCEP, then Authenticate and TokenUpdate."""
    if life.profile is None:
        raise LifeError("There is no profile to install.")
    life.device.install(life.profile)
    certificate = life.device.identity.certificate
    return f"{life.udid} is enrolled, its certificate is good until {certificate.not_valid_after_utc:%Y-%m-%d}"


def look_at_device(life: Life) -> str:
    """The administrator sees it among the devices."""
    device = life.administrator.picomdm("enrollments", "show", life.udid)
    _must(device["state"] == "enrolled", f"Its state is {device['state']}.")
    _must(device["serial_number"] == life.device.hardware.serial_number, "Its serial number is another.")
    return f"{device['product_name']}, iOS {device['os_version']}, serial number {device['serial_number']}"


def ask_for_information(life: Life) -> str:
    """The administrator asks it for DeviceInformation; APNs wakes it."""
    command = life.command({"request_type": "DeviceInformation", "queries": list(QUERIES)})
    _must(command == {"request_type": "DeviceInformation", "queries": list(QUERIES)}, f"The answer echoes {command}.")
    life.be_woken()
    return f"queued as {life.commands['DeviceInformation']}"


def say_not_now(life: Life) -> str:
    """It connects, but its user is busy: NotNow."""
    life.device.defer(1)
    handled = life.device.connect()
    _must([one.status for one in handled] == [_NOT_NOW], f"It reported {handled}.")
    return "the command keeps its place in the queue"


def wait_for_it(life: Life) -> str:
    """The administrator sees that it waits, and wakes the device again."""
    queue = life.administrator.picomdm("commands", "list", life.udid)["commands"]
    _must(
        [one["command_uuid"] for one in queue] == [life.commands["DeviceInformation"]],
        f"{len(queue)} commands wait, not the one.",
    )
    life.administrator.picomdm("push", life.udid)
    life.be_woken()
    return f"deferred {queue[0]['not_now_tally']} time"


def acknowledge_information(life: Life) -> str:
    """It connects again, gets the same command, and answers: Acknowledged."""
    handled = life.device.connect()
    _must(
        [(one.uuid, one.status) for one in handled] == [(life.commands["DeviceInformation"], _ACKNOWLEDGED)],
        f"It reported {handled}.",
    )
    return "then an empty 200: nothing more to do"


def read_result(life: Life) -> str:
    """The administrator reads the answer."""
    result = life.administrator.picomdm("commands", "results", life.udid, life.commands["DeviceInformation"])
    _must(result["status"] == _ACKNOWLEDGED, f"Its status is {result['status']}.")
    answers = plistlib.loads(base64.b64decode(result["payload"]))["QueryResponses"]
    _must(answers["SerialNumber"] == life.device.hardware.serial_number, "It is another device's answer.")
    _must(set(answers) == set(QUERIES), f"It answered {sorted(answers)}.")
    return f"{answers['ModelName']} “{answers['DeviceName']}”, {answers['OSVersion']} ({answers['BuildVersion']})"


def send_profile(life: Life) -> str:
    """The administrator sends it a configuration profile: InstallProfile; APNs wakes it."""
    profile = web_clip()
    payload = base64.b64encode(profile).decode()
    command = life.command({"request_type": "InstallProfile", "payload": payload})
    _must(command == {"request_type": "InstallProfile", "payload": payload}, "The answer echoes another command.")
    life.be_woken()
    return f"a web clip in {len(profile)} bytes, sealed until the device comes for it"


def install_web_clip(life: Life) -> str:
    """It connects, installs the profile and says so: Acknowledged."""
    handled = life.device.connect()
    _must(
        [(one.uuid, one.status) for one in handled] == [(life.commands["InstallProfile"], _ACKNOWLEDGED)],
        f"It reported {handled}.",
    )
    _must(WEB_CLIP in life.device.commands.profiles, "The profile is not installed.")
    return f"{WEB_CLIP} is installed"


def connect_for_nothing(life: Life) -> str:
    """It connects once more, and there is nothing to do: an empty 200."""
    handled = life.device.connect()
    _must(not handled, f"It was given {handled}.")
    return "one read of one table, one event"


def check_out(life: Life) -> str:
    """Its user removes the management: CheckOut."""
    life.device.check_out()
    device = life.administrator.picomdm("enrollments", "show", life.udid)
    _must(device["state"] == "checked_out", f"Its state is {device['state']}.")
    return "the enrollment is over"


def refuse_command(life: Life) -> str:
    """Nobody can command it any more."""
    document = {"udid": life.udid, "request_type": "DeviceLock"}
    response = life.administrator.request("POST", "/v1/commands", document=document, note="DeviceLock")
    code = response.json().get("code")
    _must(response.status_code == HTTPStatus.CONFLICT, f"The command was answered {response.status_code}.")
    _must(code == "enrollment_ended", f"The reason given is {code}.")
    return f"409 {code}"


def agree(life: Life) -> str:
    """Everybody has kept to the rules, and the customer has heard of every message, once."""
    violations = life.apns.violations()
    _must(not violations, f"APNs complains: {violations}.")
    _must(not life.device.violations, f"The device complains: {life.device.violations}.")
    left_over = [heard.topic for heard in life.customer.left_over() if life.udid in json.dumps(heard.document)]
    _must(not left_over, f"The customer also heard of {left_over}.")
    return f"{life.told} messages of the device, {len(life.customer.events)} events"


STEPS: Final[tuple[Step, ...]] = (
    upload_push_certificate,
    subscribe_webhook,
    make_enrollment_link,
    download_profile,
    install_profile,
    look_at_device,
    ask_for_information,
    say_not_now,
    wait_for_it,
    acknowledge_information,
    read_result,
    send_profile,
    install_web_clip,
    connect_for_nothing,
    check_out,
    refuse_command,
    agree,
)

WEB_CLIP: Final = "com.example.picomdm.webclip"
"""Identifier of the profile that is sent to the device."""


def title_of(step: Step) -> str:
    """Return a step's title: its docstring's first line, without the full stop."""
    return (step.__doc__ or "").partition("\n")[0].removesuffix(".")


def web_clip() -> bytes:
    """Return a real configuration profile: an icon on the home screen."""
    return plistlib.dumps(
        {
            "PayloadContent": [
                {
                    "FullScreen": True,
                    "IsRemovable": True,
                    "Label": "PicoMDM",
                    "PayloadDisplayName": "Web Clip",
                    "PayloadIdentifier": f"{WEB_CLIP}.clip",
                    "PayloadType": "com.apple.webClip.managed",
                    "PayloadUUID": str(uuid.uuid4()).upper(),
                    "PayloadVersion": 1,
                    "URL": "https://example.com/",
                }
            ],
            "PayloadDisplayName": "A web clip",
            "PayloadIdentifier": WEB_CLIP,
            "PayloadType": "Configuration",
            "PayloadUUID": str(uuid.uuid4()).upper(),
            "PayloadVersion": 1,
        }
    )


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001  # read aloud, it is clear
    if not condition:
        raise LifeError(otherwise)

# ruff: noqa: D401  # the docstring of a step is its title, and tells what others do
"""A chapter of a life: a Mac that is unpacked, and has its account, its profile and its app before anybody uses it.

Its steps are of the same kind as those of :mod:`local.life`, and go on with whoever took part there.
"""

import hashlib
import json
import plistlib
import secrets
import ssl
import time
from typing import Any, Final

import httpx

from local.device import Hardware
from local.life import Life, LifeError, Step, agree, web_clip
from local.packages import package
from local.progress import Message
from local.sight import seen_push

BLUEPRINT: Final = "classroom"
PROFILE: Final = "com.example.picomdm.classroom"
APP: Final = "munki.pkg"
_FILLING: Final = 5 << 20
"""Octets that make the package larger than the 4 MB that go through an API."""
_DONE: Final = "done"


def keep_profile(life: Life) -> str:
    """The administrator keeps a profile here, with the device's serial number in it as a variable."""
    profile = plistlib.loads(web_clip())
    profile |= {"PayloadIdentifier": PROFILE, "PayloadDisplayName": "Classroom, {{serial_number}}"}
    profile["PayloadContent"][0]["PayloadIdentifier"] = f"{PROFILE}.clip"
    file = life.world.directory / "classroom.mobileconfig"
    file.write_bytes(plistlib.dumps(profile))
    life.administrator.picomdm("profiles", "upload", str(file))
    return f"{PROFILE}: it has another name on each device"


def upload_app(life: Life) -> str:
    """The administrator uploads a package, straight to S3: nothing that large passes through an API."""
    content = package(filling=_FILLING)
    file = life.world.directory / APP
    file.write_bytes(content)
    life.administrator.picomdm("apps", "upload", str(file))
    app = life.administrator.picomdm("apps", "show", APP)
    _must(app["size"] == len(content), f"The app is {app}.")
    return f"{app['title']} {app['version']}, {len(content) / (1 << 20):.1f} MiB, whose manifest was made here"


def write_blueprint(life: Life) -> str:
    """The administrator says what a Mac of the classroom shall have: an account, the profile, the app."""
    password = life.world.directory / "teacher"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe())
    teacher = ("teacher", "--full-name", "Teacher", "--password-file", str(password))
    account = life.administrator.picomdm("users", "set", *teacher)
    content = {
        "profiles": [PROFILE],
        "apps": [{"app": APP}],
        "users": [account["uuid"]],
        "conditions": {"tags": [BLUEPRINT]},
    }
    file = life.world.directory / "classroom.json"
    file.write_text(json.dumps(content))
    life.administrator.picomdm("blueprints", "set", BLUEPRINT, str(file))
    return "checked before it is kept: that all of it is here, and that no two profiles are one"


def expect_mac(life: Life) -> str:
    """A Mac is expected: its serial number gets a tag, and an enrollment link is made."""
    life.take_up(Hardware.mac())
    serial_number = life.device.hardware.serial_number
    life.administrator.picomdm("device-attributes", "set", serial_number, "--tag", BLUEPRINT)
    link = life.administrator.picomdm("enroll", "link", "--max-uses", "1", "--note", BLUEPRINT)
    life.link = link["url"]
    return f"serial number {serial_number}: {BLUEPRINT}"


def let_it_configure_itself(life: Life) -> str:
    """It enrolls in Setup Assistant and waits; events lead it through its plan, while nobody does anything."""
    life.device.install(life.device.download_profile(life.link), awaiting_configuration=True)
    plan = _followed(life)
    sent = _sent(life)
    _must(plan["state"] == _DONE, f"The plan is {plan}.")
    _must(sent[0] == "AccountConfiguration" and sent[-1] == "DeviceConfigured", f"It was sent {sent}.")
    _must(PROFILE in life.device.commands.profiles, "It has not the profile.")
    _must(not life.device.commands.awaiting_configuration, "It still waits.")
    return " → ".join(sent)


def download_app(life: Life) -> str:
    """It downloads the app: the manifest, and what that names, at an address that S3 takes for a few minutes."""
    manifest_url = life.administrator.picomdm("apps", "show", APP)["manifest_url"]
    trust = ssl.create_default_context(cafile=str(life.world.trust))
    with httpx.Client(verify=trust, trust_env=False, follow_redirects=True) as client:
        (item,) = plistlib.loads(_fetched(life, client, manifest_url))["items"]
        (asset,) = item["assets"]
        content = _fetched(life, client, asset["url"])
    size = asset["sha256-size"]
    hashes = [hashlib.sha256(content[begin : begin + size]).hexdigest() for begin in range(0, len(content), size)]
    _must(hashes == asset["sha256s"], "What it downloaded is not what the manifest promised.")
    return f"{item['metadata']['title']} {item['metadata']['bundle-version']}, {len(content)} octets, as promised"


def take_inventory(life: Life) -> str:
    """The administrator asks what it has: four commands of one plan, whose answers are kept."""
    life.administrator.picomdm("inventory", "refresh", life.udid)
    plan = _followed(life)
    sent = _sent(life)
    _must(plan["state"] == _DONE, f"The plan is {plan}.")
    known = life.administrator.picomdm("inventory", "show", life.udid)
    keys = known["keys"]
    _must(keys["serial_number"] == life.device.hardware.serial_number, f"The inventory is {known}.")
    return f"{len(sent)} answers: {keys['model_name']}, {keys['os_version']}, apps: {len(known['apps'])}"


STEPS: Final[tuple[Step, ...]] = (
    keep_profile,
    upload_app,
    write_blueprint,
    expect_mac,
    let_it_configure_itself,
    download_app,
    take_inventory,
    agree,
)


def _followed(life: Life) -> dict[str, Any]:
    """Let the Mac do what pushes call it for until the customer hears that its plan is over; return the plan."""
    with life.device.listening():
        over = life.customer.hear(
            lambda heard: heard.topic == "mdm.PlanFinished" and life.udid in json.dumps(heard.document),
            what="mdm.PlanFinished",
        )
    for push in life.apns.pushes(after=life.pushes_before):
        life.pushes_before = push["number"]
        life.observer(seen_push(push))
    plans = life.administrator.picomdm("plans", "show", life.udid)["plans"]
    return next(plan for plan in plans if plan["run"] in json.dumps(over.document))


def _sent(life: Life) -> list[str]:
    """Return what the Mac has been told to do in this step; the customer hears that each was queued."""
    sent = []
    for exchange in life.untold:
        message = plistlib.loads(exchange.request_body)
        if "CommandUUID" in message:
            life.commands[message["CommandUUID"]] = exchange.what.partition(" ")[0]
            sent.append(life.commands[message["CommandUUID"]])
            life.customer.hear(
                lambda heard, of=message["CommandUUID"]: (  # type: ignore[misc]  # mypy infers no lambda's default
                    heard.topic == "mdm.CommandQueued" and heard.document["command_event"]["command_uuid"] == of
                ),
                what="mdm.CommandQueued",
            )
    return sent


def _fetched(life: Life, client: httpx.Client, url: str) -> bytes:
    begun = time.perf_counter()
    answer = client.get(url)
    for one in (*answer.history, answer):
        life.observer(
            Message(
                sender=life.device.hardware.device_name,
                receiver="PicoMDM" if str(one.url).startswith(life.world.device_url) else "S3",
                what=f"GET {one.url.path}",
                status=one.status_code,
                received=len(one.content),
                milliseconds=(time.perf_counter() - begun) * 1000,
            )
        )
    answer.raise_for_status()
    return answer.content


def _must(condition: bool, otherwise: str) -> None:  # noqa: FBT001  # read aloud, it is clear
    if not condition:
        raise LifeError(otherwise)

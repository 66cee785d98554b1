"""What enrolls gets configured, against the deployed stack: also what defers, fails, goes away and comes back."""

import base64
import plistlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local import configured
from local.administrator import Administrator
from local.device import Hardware, SimulatedDevice
from local.life import Life, Step, World, subscribe_webhook, upload_push_certificate
from local.stack import Stack

MakeDevice = Callable[..., SimulatedDevice]
SECONDS = 60.0
MANIFEST = "https://apps.example.org/munki.plist"


STEPS = (upload_push_certificate, subscribe_webhook, *configured.STEPS)


@pytest.fixture(scope="module")
def life(world: World) -> Iterator[Life]:
    life = Life(world)
    yield life
    life.close()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_a_mac_has_what_it_needs_before_anybody_uses_it(life: Life, step: Step) -> None:
    if life.failed:
        pytest.skip(f"{life.failed.__name__} failed before")
    life.play(step)


@pytest.fixture
def tag() -> str:
    """Marks the devices of one test: every other test's enroll at the same stack."""
    return f"tag-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def blueprint(administrator: Administrator, tag: str) -> Iterator[str]:
    """A blueprint with two profiles, an app and an account, for devices with the tag."""
    for identifier in (f"{tag}.one", f"{tag}.two"):
        store_profile(administrator, identifier)
    hashed = plistlib.dumps({"SALTED-SHA512-PBKDF2": {"entropy": b"e", "salt": b"s", "iterations": 30_000}})
    user = {"user_shortname": "admin", "user_longname": "Admin", "password_hash": base64.b64encode(hashed).decode()}
    stored = must(administrator, "PUT", "/v1/users", {"user": user})["user"]
    content = {
        "profiles": [f"{tag}.one", f"{tag}.two"],
        "apps": [{"manifest_url": MANIFEST}],
        "users": [stored["uuid"]],
        "conditions": {"tags": [tag]},
    }
    must(administrator, "PUT", f"/v2/blueprints/{tag}", content)
    yield tag
    administrator.request("DELETE", f"/v2/blueprints/{tag}")


def store_profile(administrator: Administrator, identifier: str) -> None:
    profile = plistlib.dumps(
        {
            "PayloadType": "Configuration",
            "PayloadIdentifier": identifier,
            "PayloadUUID": str(uuid.uuid4()).upper(),
            "PayloadVersion": 1,
            "PayloadDisplayName": "{{serial_number}}",
            "PayloadContent": [
                {
                    "PayloadType": "com.apple.webClip.managed",
                    "PayloadIdentifier": f"{identifier}.clip",
                    "PayloadUUID": str(uuid.uuid4()).upper(),
                    "PayloadVersion": 1,
                    "Label": "PicoMDM",
                    "URL": "https://example.com/",
                }
            ],
        }
    )
    body = {"profile": {"Identifier": identifier, "Mobileconfig": base64.b64encode(profile).decode()}}
    must(administrator, "PUT", "/v1/profiles", body)


def must(administrator: Administrator, method: str, path: str, document: Any = None) -> Any:
    answer = administrator.request(method, path, document=document)
    assert answer.status_code < 300, answer.text
    return answer.json() if answer.content else None


def plan_of(administrator: Administrator, device: SimulatedDevice, kind: str = "blueprints") -> dict[str, Any]:
    plans = must(administrator, "GET", f"/v2/plans?enrollment_id={device.enrollment_id}")["plans"]
    return next((dict(plan) for plan in plans if plan["kind"] == kind), {"state": "none", "steps": []})


def live(
    administrator: Administrator,
    device: SimulatedDevice,
    until: Callable[[dict[str, Any]], bool],
    kind: str = "blueprints",
) -> list[str]:
    """Let the device connect until its plan is as it should be; return what it was told to do."""
    done: list[str] = []
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done += [f"{one.request_type} {one.status}" for one in device.connect()]
        if until(plan_of(administrator, device, kind)):
            return done
        time.sleep(0.2)
    pytest.fail(f"The plan is {plan_of(administrator, device, kind)}; done: {done}.")


def is_over(plan: dict[str, Any]) -> bool:
    return plan["state"] in {"done", "failed"}


def enroll_in_setup_assistant(administrator: Administrator, make_device: MakeDevice, link: str, tag: str) -> Any:
    device = make_device(Hardware.mac())
    serial_number = device.hardware.serial_number
    must(administrator, "PUT", f"/v2/device-attributes/{serial_number}", {"tags": [tag]})
    device.install(device.download_profile(link), awaiting_configuration=True)
    return device


def test_a_mac_in_setup_assistant_gets_account_profiles_and_app_and_is_let_go_although_a_step_fails(
    administrator: Administrator, make_device: MakeDevice, link: str, blueprint: str
) -> None:
    device = enroll_in_setup_assistant(administrator, make_device, link, blueprint)
    device.defer(request_type="ProfileList")
    device.fail(times=3, request_type="InstallApplication")

    done = live(administrator, device, is_over)

    assert done[0] == "AccountConfiguration Acknowledged"
    assert done[-1] == "DeviceConfigured Acknowledged"
    assert done.count("InstallProfile Acknowledged") == 2
    assert done.count("InstallApplication Error") == 3
    assert not device.commands.awaiting_configuration
    assert {f"{blueprint}.one", f"{blueprint}.two"} <= set(device.commands.profiles)
    plan = plan_of(administrator, device)
    assert (plan["state"], plan["cause"]) == ("failed", "enrollment")


def test_the_recovery_key_of_a_mac_is_escrowed_rotated_and_revealed_to_whoever_says_why(
    administrator: Administrator, make_device: MakeDevice, link: str
) -> None:
    device = make_device(Hardware.mac())
    device.install(device.download_profile(link))

    def lived(kind: str) -> None:
        administrator.picomdm("plans", "start", kind, device.enrollment_id)
        live(administrator, device, is_over, kind)
        plan = plan_of(administrator, device, kind)
        assert plan["state"] == "done", plan

    def revealed() -> object:
        return administrator.picomdm(
            "escrow", "reveal", device.hardware.serial_number, "filevault_key", "--reason", "its user forgot"
        )["value"]

    lived("filevault_enable")
    first = device.commands.filevault.recovery_key
    assert first
    assert revealed() == first
    lived("filevault_rotate")
    second = device.commands.filevault.recovery_key
    assert second != first
    assert revealed() == second
    lived("inventory")
    known = administrator.picomdm("inventory", "show", device.enrollment_id)["keys"]
    assert (known["fde_enabled"], known["prk_escrowed"]) == (True, True)


def test_a_device_that_goes_away_and_enrolls_anew_is_configured_anew(
    administrator: Administrator, make_device: MakeDevice, link: str, blueprint: str
) -> None:
    device = enroll_in_setup_assistant(administrator, make_device, link, blueprint)
    live(administrator, device, lambda plan: any(step["state"] == "done" for step in plan["steps"]))
    device.erase()

    device.install(device.download_profile(link))
    done = live(administrator, device, lambda plan: plan["state"] == "done")

    # Setup Assistant is over: there is no account to be made, and nobody to be let go.
    assert done == [
        "ProfileList Acknowledged",
        "InstalledApplicationList Acknowledged",
        "InstallProfile Acknowledged",
        "InstallProfile Acknowledged",
        "InstallApplication Acknowledged",
    ]
    store_profile(administrator, f"{blueprint}.two")
    must(
        administrator, "POST", "/v2/blueprint-applications", {"blueprints": [blueprint], "ids": [device.enrollment_id]}
    )
    changed = live(administrator, device, lambda plan: plan["cause"] == "request" and is_over(plan))
    assert [one for one in changed if one.startswith("Install")].count("InstallProfile Acknowledged") == 1


def test_a_device_that_asks_for_commands_tells_its_inventory_while_somebody_subscribes_to_that(
    stack: Stack, administrator: Administrator, make_device: MakeDevice, link: str, tag: str
) -> None:
    device = make_device(Hardware.mac())
    device.install(device.download_profile(link))
    subscription = {"event": "IdleNotStartedSince", "event_context": "86400", "workflow": "io.micromdm.wf.inventory.v1"}
    must(administrator, "PUT", f"/v1/event/{tag}", subscription)
    try:
        live(administrator, device, is_over, "inventory")
        looked = stack.emulator.lambda_.invoke(
            FunctionName=f"{stack.name}-housekeeping", Payload=b'{"task": "look_after_plans"}'
        )
        assert "FunctionError" not in looked, looked["Payload"].read()
    finally:
        must(administrator, "DELETE", f"/v1/event/{tag}")

    assert plan_of(administrator, device, "inventory")["cause"] == "event"

"""What devices are seen to do, against the deployed stack: their dialects, lost answers, new identities, users."""

import base64
import plistlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.administrator import Administrator
from local.device import (
    Habits,
    Handled,
    Hardware,
    MessageForm,
    Renewal,
    ScepDialect,
    SignatureForm,
    SimulatedApns,
    SimulatedDevice,
)

PUSH_SECONDS = 30.0

MakeDevice = Callable[..., SimulatedDevice]
Queue = Callable[..., str]


def done(handled: list[Handled]) -> list[tuple[str, str]]:
    return [(one.uuid, one.status) for one in handled]


@pytest.mark.parametrize(
    "dialect",
    [
        ScepDialect(cipher="des", digest="sha1"),
        ScepDialect(cipher="3des", digest="sha1", null_parameters=False),
        ScepDialect(cipher="aes128", digest="sha512"),
        ScepDialect(cipher="aes256", digest="sha256", oaep=True),
        ScepDialect(curve="P-256"),
        ScepDialect(use_get=True),
        ScepDialect(message_in_query=True),
    ],
    ids=str,
)
def test_every_dialect_of_scep_gets_an_identity(enroll: MakeDevice, dialect: ScepDialect) -> None:
    assert enroll(habits=Habits(scep=dialect)).connect() == []


@pytest.mark.parametrize("form", SignatureForm)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("sparse", [True, False])
def test_messages_of_every_form_are_understood(
    enroll: MakeDevice, queue: Queue, form: SignatureForm, digest: Any, *, sparse: bool
) -> None:
    message = MessageForm(
        signature=form,
        digest=digest,
        null_parameters=not sparse,
        binary=not sparse,
        byte_order_mark=sparse,
        connect_content_type=not sparse,
        optional_keys=not sparse,
    )
    device = enroll(habits=Habits(message=message))
    uuid = queue(device.udid, "SecurityInfo")
    assert done(device.connect()) == [(uuid, "Acknowledged")]


def test_a_job_reaches_the_device_of_a_serial_number(
    enroll: MakeDevice, administrator: Administrator, pushes: SimulatedApns
) -> None:
    device = enroll()
    serial_numbers = [device.hardware.serial_number, "NOBODYHASTHIS"]
    document = {"serial_numbers": serial_numbers, "command": {"request_type": "ProfileList"}}

    begun = administrator.request("POST", "/v2/commands", document=document)

    assert begun.status_code == 202
    assert pushes.wait(device.push_token, seconds=PUSH_SECONDS)
    assert done(device.connect()) == [(begun.json()["command_uuid"], "Acknowledged")]
    told = administrator.request("GET", f"/v2/command-jobs/{begun.json()['id']}").json()
    assert told["state"] in {"running", "done"}


def test_a_deferred_command_keeps_its_place(enroll: MakeDevice, queue: Queue) -> None:
    device = enroll()
    first, second = queue(device.udid, "RestartDevice"), queue(device.udid, "SecurityInfo")
    device.defer(request_type="RestartDevice")

    assert done(device.connect()) == [(first, "NotNow"), (second, "Acknowledged"), (first, "Acknowledged")]


@pytest.mark.parametrize("lost", ["Idle", "SecurityInfo Acknowledged", "TokenUpdate"])
def test_an_answer_that_is_lost_changes_nothing(enroll: MakeDevice, queue: Queue, lost: str) -> None:
    device = enroll()
    first, second = queue(device.udid, "SecurityInfo"), queue(device.udid, "ProfileList")
    device.lose_answers(what=lost)
    if lost == "TokenUpdate":
        device.update_token()

    assert done(device.connect()) == [(first, "Acknowledged"), (second, "Acknowledged")]
    assert device.connect() == []


def test_a_failed_command_is_not_given_again(enroll: MakeDevice, queue: Queue) -> None:
    device = enroll()
    device.fail()
    uuid = queue(device.udid, "SecurityInfo")

    assert done(device.connect()) == [(uuid, "Error")]
    assert device.connect() == []


def test_a_renewed_identity_is_known_at_once(enroll: MakeDevice, queue: Queue) -> None:
    device = enroll()
    old = device.identity
    device.renew_identity()

    assert device.identity.certificate != old.certificate
    uuid = queue(device.udid, "CertificateList")
    assert done(device.connect()) == [(uuid, "Acknowledged")]


@pytest.mark.parametrize("renewal", Renewal)
def test_the_profile_may_be_installed_anew_by_a_command(
    enroll: MakeDevice, queue: Queue, link: str, renewal: Renewal
) -> None:
    device = enroll(habits=Habits(renewal=renewal))
    old = device.identity
    fresh = device.download_profile(link)
    uuid = queue(device.udid, "InstallProfile", payload=base64.b64encode(fresh.body).decode())

    # Its report comes from the identity that was replaced, after a new Authenticate on a command that it cleared.
    assert done(device.connect()) == [(uuid, "Acknowledged")]
    assert device.identity.certificate != old.certificate
    later = queue(device.udid, "SecurityInfo")
    assert done(device.connect()) == [(later, "Acknowledged")]


def test_a_user_of_a_mac_is_woken_and_commanded_alone(enroll: MakeDevice, queue: Queue, pushes: SimulatedApns) -> None:
    mac = enroll(Hardware.mac())
    channel = mac.log_in("ada", long_name="Ada Lovelace")
    uuid = queue(f"{mac.udid}:{channel.ids['UserID']}", "ProfileList")

    assert pushes.wait(channel.push_token, seconds=PUSH_SECONDS)
    assert mac.connect() == []
    assert done(channel.connect()) == [(uuid, "Acknowledged")]


def test_a_bootstrap_token_comes_back_as_it_was_escrowed(enroll: MakeDevice) -> None:
    mac = enroll(Hardware.mac())
    assert mac.get_bootstrap_token() is None
    assert mac.escrow_bootstrap_token() == mac.get_bootstrap_token()


def test_what_is_too_large_for_an_item_and_an_event_is_kept_whole(
    enroll: MakeDevice, queue: Queue, administrator: Administrator
) -> None:
    device = enroll()
    profile, listed = secrets.token_bytes(400 * 1024), secrets.token_bytes(300 * 1024)
    uuid = queue(device.udid, "InstallProfile", payload=base64.b64encode(profile).decode())
    command = device.idle()
    assert command is not None
    assert command.fields["Payload"] == profile

    assert device.acknowledge(command, Listed=listed) is None
    path = f"/v2/enrollments/{device.udid}/results?command_uuid={uuid}"
    (result,) = administrator.request("GET", path).json()["results"]
    assert plistlib.loads(base64.b64decode(result["payload"]))["Listed"] == listed


def test_a_command_may_end_the_enrollment(enroll: MakeDevice, queue: Queue) -> None:
    device = enroll()
    uuid = queue(device.udid, "RemoveProfile", identifier=device.profile.profile.identifier)

    assert done(device.connect()) == [(uuid, "Acknowledged")]
    assert not device.is_enrolled


def test_several_devices_are_woken_at_once(enroll: MakeDevice, queue: Queue) -> None:
    devices = [enroll() for _ in range(3)]

    def live(device: SimulatedDevice) -> list[str]:
        with device.listening():
            uuids = [queue(device.udid, "SecurityInfo"), queue(device.udid, "ProfileList")]
            deadline = time.monotonic() + PUSH_SECONDS
            while len(device.channel.handled) < len(uuids) and time.monotonic() < deadline:
                time.sleep(0.05)
        return uuids

    with ThreadPoolExecutor(len(devices)) as threads:
        for device, uuids in zip(devices, threads.map(live, devices), strict=True):
            assert done(device.channel.handled) == [(uuid, "Acknowledged") for uuid in uuids]

"""``picomdm command send``: a sub-command a request type, for one and for many."""

import json
from base64 import b64encode
from pathlib import Path

import pytest

from picomdm.request_types import request_types
from picomdm.send import _COMMON
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.fleet import Fleet, FleetDevice


@pytest.fixture
def mac(fleet: Fleet, server: AdminServer) -> FleetDevice:
    return enrolled(fleet, "MAC-1", "C02AAAA1")


def enrolled(fleet: Fleet, udid: str, serial_number: str) -> FleetDevice:
    mac = FleetDevice(fleet, udid)
    mac.authenticate(ProductName="Mac14,2", OSVersion="26.1", SerialNumber=serial_number)
    mac.token_update()
    return mac


def test_a_command_is_sent_by_its_own_sub_command_to_a_serial_number(mac: FleetDevice, picomdm: CommandLine) -> None:
    said = picomdm("commands", "send", "device-lock", "--pin", "123456", "--to", "serial:C02AAAA1", "--json")

    assert said.code == 0, said.err
    assert [target["id"] for target in said.document["targets"]] == ["MAC-1"]
    command = mac.command("Idle")
    assert command
    assert command["Command"] == {"RequestType": "DeviceLock", "PIN": "123456"}


def test_a_device_is_named_by_its_serial_number_wherever_an_id_is_taken(
    mac: FleetDevice, picomdm: CommandLine, fleet: Fleet
) -> None:
    enrolled(fleet, "MAC-0", "C02AAAA1").check_out()

    assert picomdm("enrollments", "show", "serial:C02AAAA1", "--json").document["id"] == "MAC-1"
    assert picomdm("commands", "send", "serial:C02AAAA1", "ProfileList", "--json").document["id"] == "MAC-1"
    assert mac.idle() is not None
    assert "MAC-1" in picomdm("push", "serial:C02AAAA1").out
    assert json.loads(picomdm("plans", "show", "serial:C02B", "--json").err)["code"] == "unknown_serial_number"
    assert "serial:" in picomdm("plans", "show", "C02AAAA1").err
    enrolled(fleet, "MAC-2", "C02AAAA1")
    several = picomdm("commands", "list", "serial:C02AAAA1").err
    assert ("MAC-0" in several, "MAC-1" in several, "MAC-2" in several) == (False, True, True)


@pytest.mark.usefixtures("mac")
def test_who_mistypes_a_request_type_is_told_what_is_alike(picomdm: CommandLine) -> None:
    assert "restart-device" in picomdm("commands", "send", "restart", "--to", "MAC-1").err
    assert "Did you mean DeviceLock?" in picomdm("commands", "send", "MAC-1", "DeviceLok").err
    assert "Did you mean" not in picomdm("commands", "send", "MAC-1", "Teleport").err


def test_what_becomes_of_each_is_shown_and_any_failure_is_the_exit_code(mac: FleetDevice, picomdm: CommandLine) -> None:
    said = picomdm("command", "send", "profile-list", "--to", "MAC-1", "--to", "nobody")

    assert said.code == 1
    assert "MAC-1" in said.out
    assert "There is no enrollment nobody" in said.out
    assert mac.idle() is not None


def test_fields_of_every_kind_become_what_they_are(mac: FleetDevice, picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "wifi.mobileconfig"
    file.write_bytes(b"<plist/>")

    installed = picomdm("command", "send", "install-profile", "--payload", str(file), "--to", "MAC-1", "--json")
    asked = picomdm(
        "command", "send", "device-information", "--queries", "OSVersion", "--queries", "UDID", "--to", "MAC-1"
    )
    settings = json.dumps([{"item": "Bluetooth", "enabled": False}])
    set_ = picomdm("command", "send", "settings", "--settings", settings, "--to", "MAC-1")
    restarted = picomdm("command", "send", "restart-device", "--no-notify-user", "--to", "MAC-1")

    assert [said.code for said in (installed, asked, set_, restarted)] == [0, 0, 0, 0]
    received = []
    command = mac.command("Idle")
    while command:
        received.append(command["Command"])
        command = mac.command("Acknowledged", command["CommandUUID"])
    assert received == [
        {"RequestType": "InstallProfile", "Payload": b"<plist/>"},
        {"RequestType": "DeviceInformation", "Queries": ["OSVersion", "UDID"]},
        {"RequestType": "Settings", "Settings": [{"Item": "Bluetooth", "Enabled": False}]},
        {"RequestType": "RestartDevice", "NotifyUser": False},
    ]


def test_who_is_known_to_be_unable_is_refused_and_can_be_sent_it_anyway(mac: FleetDevice, picomdm: CommandLine) -> None:
    lost = ("command", "send", "enable-lost-mode", "--message", "m", "--to", "MAC-1")

    refused = picomdm(*lost)
    assert (refused.code, "macOS does not know EnableLostMode" in refused.out) == (1, True)
    assert picomdm(*lost, "--anyway").code == 0
    assert mac.idle() is not None


def test_the_server_says_which_field_is_wrong(mac: FleetDevice, picomdm: CommandLine) -> None:
    said = picomdm("command", "send", "device-information", "--to", "MAC-1", "--json")

    assert said.code == 1
    assert json.loads(said.err)["field"] == "queries"


def test_a_command_for_all_is_a_job_that_can_be_looked_at_and_stopped(
    fleet: Fleet, mac: FleetDevice, picomdm: CommandLine
) -> None:
    begun = picomdm("command", "send", "profile-list", "--to", "all", "--no-push", "--json")
    assert (begun.code, begun.document["state"]) == (0, "running")
    job = begun.document["id"]
    fleet.sweep()

    assert picomdm("command", "jobs", job, "--json").document["state"] == "done"
    assert "done, 100%" in picomdm("command", "jobs", job).out
    assert job in picomdm("command", "jobs").out
    assert picomdm("command", "jobs", job, "--stop", "--json").document["state"] == "done"
    assert picomdm("command", "jobs", "--stop").code == 2
    assert mac.idle() is not None


def test_many_serial_numbers_are_a_job(fleet: Fleet, mac: FleetDevice, picomdm: CommandLine) -> None:
    to = [argument for number in range(21) for argument in ("--to", f"serial:C02AAAA{number}")]

    begun = picomdm("command", "send", "profile-list", *to, "--no-push", "--json")
    fleet.sweep()

    shown = picomdm("command", "jobs", begun.document["id"])
    assert "unknown_serial_number" in shown.out
    assert mac.idle() is not None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--to", "serial:NONE"], 1, "No device with the serial number NONE"),
        (["--to", "all", "--to", "MAC-1"], 2, "for themselves"),
        (["--to", "type:Device", "--wait", "1s"], 2, "--wait waits for one enrollment."),
        ([], 2, "Missing option"),
    ],
)
def test_wrong_targets_are_told_of(
    mac: FleetDevice, picomdm: CommandLine, arguments: list[str], code: int, words: str
) -> None:
    said = picomdm("command", "send", "profile-list", *arguments)

    assert said.code == code
    assert words in said.err


@pytest.mark.parametrize("option", [("--settings", "{"), ("--settings", "[")])
def test_json_that_is_none_is_wrong_usage(mac: FleetDevice, picomdm: CommandLine, option: tuple[str, str]) -> None:
    assert picomdm("command", "send", "settings", *option, "--to", "MAC-1").code == 2


def test_a_file_that_is_not_there_is_wrong_usage(mac: FleetDevice, picomdm: CommandLine) -> None:
    said = picomdm("command", "send", "install-profile", "--payload", "nowhere", "--to", "MAC-1")

    assert (said.code, "nowhere cannot be read" in said.err) == (2, True)


def test_the_form_with_fields_goes_on_working(mac: FleetDevice, picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "command.json"
    file.write_text(json.dumps({"request_type": "InstallProfile", "payload": b64encode(b"x").decode()}))

    assert picomdm("command", "send", "MAC-1", "DeviceLock", "pin=123456").code == 0
    assert picomdm("command", "send", "--file", str(file), "MAC-1").code == 0
    assert picomdm("commands", "send", "MAC-1", "--uuid", "C3", "ProfileList", "--json").code == 0
    assert mac.idle() is not None


def test_every_request_type_has_a_sub_command_whose_options_are_its_own(picomdm: CommandLine) -> None:
    common = {f"--{name.replace('_', '-')}" for name in _COMMON}
    for name, (request_type, fields) in request_types().items():
        assert not {field.flag for field in fields} & common, request_type
        assert name == name.lower()
    assert len(request_types()) == 68
    assert picomdm("command", "send", "erase-device", "--help").code == 0

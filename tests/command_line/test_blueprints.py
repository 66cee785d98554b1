"""Blueprints, plans and device attributes on the command line."""

import hashlib
import json
import plistlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from functions.workflow.app import lambda_handler
from local.emulator import Emulator
from local.packages import package
from mdmlib import runtime
from mdmlib.services.blueprint_plans import Wanted
from mdmlib.services.micromdm_users import User
from mdmlib.settings import Settings
from picomdm.context import Operator
from picomdm.deployment import Deployment
from picomdm.plan_progress import await_plans, failed
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.fleet import Fleet
from tests.queues import QueueSource
from tests.workflows import Works


@pytest.fixture
def works(fleet: Fleet, server: AdminServer) -> Works:
    runtime.stored_profiles().put("p.one", plistlib.dumps({"PayloadIdentifier": "p.one", "PayloadUUID": "U"}))
    return Works(fleet)


def test_a_blueprint_is_made_of_options_or_a_file_shown_and_deleted(
    works: Works, picomdm: CommandLine, tmp_path: Path
) -> None:
    said = picomdm("blueprints", "set", "macs", "--profile", "p.one", "--platform", "macOS", "--on-change")
    assert (said.code, said.out) == (0, "Stored, revision 1.\n")
    shown = picomdm("blueprints", "show", "macs")
    assert json.loads(shown.out)["conditions"]["platforms"] == ["macOS"]
    file = tmp_path / "macs.json"
    file.write_text(shown.out)
    again = picomdm("blueprints", "set", "macs", str(file), "--tag", "lab", "--json")
    assert (again.document["revision"], again.document["conditions"]["tags"]) == (2, ["lab"])
    missing = picomdm("blueprints", "set", "macs", "--ade-profile", "pupils", "--ade-server", "school")
    assert (missing.code, "pupils" in missing.err) == (1, True)
    assert "macs" in picomdm("blueprints", "list").out
    assert picomdm("blueprints", "set", "macs", "-", stdin="[]").code == 2
    assert picomdm("blueprints", "delete", "macs").code == 0
    assert "No blueprints" in picomdm("blueprints", "list").out


def test_accounts_are_kept_by_their_names_and_given_to_macs(works: Works, picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("correct horse\n")
    assert "No accounts" in picomdm("users", "list").out
    first = picomdm(
        "users", "set", "teacher", "--full-name", "Teacher", "--password-file", str(file), "--json"
    ).document
    again = picomdm("users", "set", "teacher", "--password-file", "-", "--hidden", "--json", stdin="correct horse")

    assert again.document == {
        "uuid": first["uuid"],
        "name": "teacher",
        "full_name": "teacher",
        "password": True,
        "hidden": True,
    }
    kept = runtime.micromdm_users().find(first["uuid"])
    assert kept
    hashed = plistlib.loads(kept.password_hash)["SALTED-SHA512-PBKDF2"]
    made = hashlib.pbkdf2_hmac("sha512", b"correct horse", hashed["salt"], hashed["iterations"], dklen=128)
    assert made == hashed["entropy"]
    assert picomdm("users", "list", "--json").document == {"users": [again.document]}
    assert picomdm("users", "set", "pupil", "--password-file", "-", stdin="\n").code == 2

    assert picomdm("blueprints", "set", "macs", "--user", "teacher").code == 0
    assert json.loads(picomdm("blueprints", "show", "macs").out)["users"] == [first["uuid"]]
    runtime.micromdm_users().put(User(user_shortname="teacher"))
    assert "2 accounts" in picomdm("blueprints", "set", "macs", "--user", "teacher").err
    assert "2 accounts" in picomdm("users", "delete", "teacher").err
    assert picomdm("blueprints", "set", "macs", "--user", first["uuid"]).code == 0
    assert picomdm("users", "delete", first["uuid"]).code == 0
    assert [user["name"] for user in picomdm("users", "list", "--json").document["users"]] == ["teacher"]
    assert picomdm("users", "delete", first["uuid"]).code == 1
    assert "picomdm users set pupil" in picomdm("blueprints", "set", "macs", "--user", "pupil").err


def test_devices_are_brought_to_a_blueprint_and_their_plans_are_shown(
    works: Works, picomdm: CommandLine, aws: Emulator, environment: Settings
) -> None:
    source = QueueSource(aws, environment.workflow_queue_url, lambda_handler)
    device = works.fleet.device("D1")
    picomdm("blueprints", "set", "all", "--profile", "p.one")

    previewed = picomdm("blueprints", "apply", "all", "--to", "D1", "--dry-run")
    assert (previewed.code, "profile p.one" in previewed.out) == (0, True)
    works.blueprint_plans.apply(str(device), Wanted(("all",)), run="r", cause="request")

    assert "list profiles" in picomdm("plans", "list").out
    shown = picomdm("plans", "show", "D1")
    assert "profile p.one" in shown.out
    assert "pending" in shown.out
    assert "No plan has failed" in picomdm("plans", "list", "--failed").out
    assert picomdm("blueprints", "apply", "all").code == 2
    assert picomdm("blueprints", "apply", "all", "--all", "--wait", "1s").code == 2
    assert source.count() == 0


def test_who_waits_for_plans_is_told_how_they_ended_or_that_they_go_on(
    works: Works, server: AdminServer, picomdm: CommandLine
) -> None:
    device = works.fleet.device("D1")
    works.work()
    late = picomdm("plans", "start", "inventory", "D1", "--wait", "1s", "--json")
    assert (late.code, json.loads(late.err)["code"]) == (1, "not_over")
    assert picomdm("plans", "start", "inventory", "nobody", "--wait", "1s").code == 1

    picomdm("blueprints", "set", "all", "--profile", "p.one")
    works.blueprint_plans.apply("D1", Wanted(("all",)), run="r", cause="request")
    while uuid := device.idle():
        device.acknowledge(uuid, ProfileList=[])
        works.work()
    operator = Operator(lambda: Deployment(given_admin_url=server.url))

    (ended,) = await_plans(operator, ["D1"], run="r", most=1, seconds=1)
    assert (ended["kind"], ended["state"]) == ("blueprints", "done")
    assert not failed([ended])
    assert failed([{"steps": [{"state": "done"}, {"state": "failed"}]}])


def test_a_package_is_uploaded_listed_shown_and_deleted(
    works: Works, picomdm: CommandLine, aws: Emulator, environment: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "munki.pkg"
    file.write_bytes(package(filling=3_000_000))
    with working_off(QueueSource(aws, environment.workflow_queue_url, lambda_handler)):
        said = picomdm("apps", "upload", str(file))
    assert (said.code, said.out) == (0, "Stored: Munki tools 6.1.\n")
    assert "3.0" in picomdm("apps", "list").out
    assert "ManagedSoftwareCenter 5.2" in picomdm("apps", "show", "munki.pkg").out
    assert picomdm("apps", "delete", "munki.pkg").code == 0
    assert "No apps" in picomdm("apps", "list").out
    file.write_bytes(b"PK")
    assert "no installer package" in picomdm("apps", "upload", str(file)).err
    assert picomdm("apps", "upload", "nowhere.pkg").code == 2


@contextmanager
def working_off(source: QueueSource) -> Iterator[None]:
    """Have a queue's messages worked off meanwhile."""
    over = Event()

    def work() -> None:
        while not over.wait(0.05):
            source.invoke()

    thread = Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_devices_get_tags_and_values(works: Works, picomdm: CommandLine) -> None:
    said = picomdm("device-attributes", "set", "C02X", "--tag", "lab", "--value", "room=12=b")
    assert (said.code, "12=b" in said.out) == (0, True)
    assert picomdm("device-attributes", "set", "C02X", "--value", "room").code == 2
    assert "lab" in picomdm("device-attributes", "list").out
    assert picomdm("device-attributes", "show", "C02X", "--json").document["tags"] == ["lab"]
    assert picomdm("device-attributes", "delete", "C02X").code == 0
    assert picomdm("device-attributes", "show", "C02X").code == 1


def test_inventory_and_escrow_are_shown(works: Works, picomdm: CommandLine) -> None:
    device = works.fleet.device("D1")
    works.inventory.take(device.record, "DeviceInformation", {"QueryResponses": {"OSVersion": "26.1"}})
    works.inventory.take(device.record, "DeviceInformation", {"QueryResponses": {"OSVersion": "26.2"}})
    apps = [{"Identifier": "com.example.app", "ShortVersion": "2.0"}]
    works.inventory.take(device.record, "InstalledApplicationList", {"InstalledApplicationList": apps})
    works.escrow.put_once(device.record, "lock_pin", lambda: "123456", name="a")

    shown = picomdm("inventory", "show", "D1", "--apps", "--certificates")
    assert ("26.2" in shown.out, "com.example.app" in shown.out) == (True, True)
    assert "26.1" in picomdm("inventory", "changes", "D1").out
    found = picomdm("inventory", "search", "app=com.example.app@2.0", "os_version=26.2")
    assert ("D1" in found.out, found.err) == (True, "1 inventories were looked at.\n")
    other = works.fleet.device("D3").record
    works.inventory.take(other, "DeviceInformation", {"QueryResponses": {"OSVersion": "26.2"}})
    assert "There may be more" in picomdm("inventory", "search", "os_version=26.2", "--limit", "1").err
    every = picomdm("inventory", "search", "os_version=26.2", "--json").document
    assert (len(every["inventory"]), every["examined"], every["more"]) == (2, 2, False)
    assert "No device fits" in picomdm("inventory", "search", "os_version=15").out
    assert "lock_pin" in picomdm("escrow", "list", "C02XXXX").out
    assert picomdm("escrow", "reveal", "C02XXXX", "lock_pin", "--reason", "lost").out == "123456\n"
    assert picomdm("escrow", "reveal", "C02XXXX", "lock_pin").code == 2
    assert "picomdm inventory refresh D2" in picomdm("inventory", "show", "D2").err
    assert picomdm("inventory", "refresh", "D1").out == "Begun for 1 device.\n"
    refused = picomdm("plans", "start", "lock", "nobody", "--option", "message=m")
    assert (refused.code, "nobody" in refused.out) == (1, True)

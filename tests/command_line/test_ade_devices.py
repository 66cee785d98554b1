"""``picomdm ade sync``, ``devices`` and ``rules`` against the real functions, and a simulated Apple."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from functions.dep_sync.app import lambda_handler
from local.ade.client import AdeControl, AdeSimulator
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from tests.ade_function import invoked
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.queues import FunctionContext


@pytest.fixture
def portal(ade: AdeSimulator, aws: Emulator, environment: Settings, server: AdminServer) -> Iterator[AdeControl]:
    """Have a server ``school`` at Apple, whose token is here."""
    certificate = runtime.ade_servers().stage("school").public_bytes(Encoding.PEM).decode()
    runtime.ade_servers().import_file("school", ade.control.make_server(environment.stack_name, certificate))
    runtime.ade_profiles().put("staff", {"profile_name": "Staff"})
    with invoked(aws, environment):
        yield ade.control


def run() -> None:
    context: Any = FunctionContext(seconds=300)
    lambda_handler({"server": "school"}, context)


def test_lists_are_read_rules_are_made_and_devices_are_shown(
    portal: AdeControl, environment: Settings, picomdm: CommandLine
) -> None:
    there = environment.stack_name
    (phone,) = portal.buy(there)
    (mac,) = portal.buy(there, device_family="Mac")
    assert "There are no rules" in picomdm("ade", "rules", "list").out
    assert "family" not in picomdm("ade", "rules", "set", "macs", "--family", "Mac", "--profile", "staff").err

    assert "running" in picomdm("ade", "sync", "school").out
    run()
    status = picomdm("ade", "sync", "school", "--status", "--json")
    assert json.loads(status.out)["ade_syncs"][0]["assigned"] == 1

    assert "families Mac" in picomdm("ade", "rules", "list").out
    listed = json.loads(picomdm("ade", "devices", "--json").out)["ade_devices"]
    assert {each["serial_number"]: each["assignment"] for each in listed} == {phone: "none", mac: "assigned"}
    assert mac in picomdm("ade", "devices", "--family", "Mac", "--state", "present", "--limit", "1").out
    assert "staff" in picomdm("ade", "devices", mac).out
    assert picomdm("ade", "rules", "delete", "macs").code == 0

    portal.sign_terms(there, signed=False)
    run()
    failed = picomdm("ade", "sync", "school", "--status")
    assert failed.code == 1
    assert "terms" in failed.out

"""The command line against the deployed stack, where its signatures are verified and its requests routed."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from local.administrator import Administrator
from local.life import World
from local.stack import Stack


def picomdm(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command line with ``--json``; return its exit code and what it said, wherever it said it."""
    done = subprocess.run(
        [sys.executable, "-m", "picomdm", *arguments, "--json"],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    document: dict[str, Any] = json.loads(done.stdout or done.stderr)
    return done.returncode, document


@pytest.fixture(scope="module")
def operator(world: World) -> dict[str, str]:
    """The environment of somebody who may use the admin API, and nothing else."""
    administrator = Administrator(world.admin_url, world.keys)
    administrator.close()
    return administrator.environment


@pytest.fixture(scope="module")
def owner(stack: Stack, world: World) -> dict[str, str]:
    """The environment of somebody who may do everything in the account."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PICOMDM_"))}
    # Authorities that devices trust are those of this machine's edge.
    here = {"PICOMDM_ADMIN_URL": world.admin_url, "PICOMDM_STACK": stack.name, "SSL_CERT_FILE": str(world.trust)}
    return inherited | stack.emulator.environment | here


@pytest.mark.parametrize("enrollment_id", ["A5EF1BA1:FF00", "A5EF1BA1:ada lovelace@example.org", "Ä+%41=ö"])
def test_a_request_is_signed_over_any_id(operator: dict[str, str], enrollment_id: str) -> None:
    code, said = picomdm(operator, "enrollments", "show", enrollment_id)

    # Wrongly signed it would be API Gateway's 403, which has no code.
    assert (code, said["code"]) == (1, "unknown_enrollment"), said


def test_a_request_is_signed_over_any_filter(operator: dict[str, str]) -> None:
    code, said = picomdm(
        operator,
        "enrollments",
        "list",
        "--type",
        "User Enrollment (Device)",
        "--type",
        "Shared iPad",
        "--state",
        "checked_out",
    )

    assert (code, said) == (0, {"enrollments": [], "more": False})


def test_wrong_keys_are_refused_with_what_helps(operator: dict[str, str]) -> None:
    code, said = picomdm(operator | {"AWS_SECRET_ACCESS_KEY": "wrong"}, "enrollments", "list")

    assert code == 1
    assert "AdministratorPolicy" in said["error"]


def test_the_stack_is_found_with_all_its_queues(owner: dict[str, str]) -> None:
    code, said = picomdm(owner, "queues")

    assert code == 0
    assert {queue["name"]: queue["given_up"] for queue in said["queues"]} == dict.fromkeys(
        ("push", "webhook", "sweep", "workflow", "events", "targets"), 0
    )


def test_every_dead_letter_queue_can_be_redriven(owner: dict[str, str]) -> None:
    for name in ("push", "webhook", "sweep", "workflow", "events", "targets"):
        assert picomdm(owner, "redrive", name) == (0, {"queue": name, "moved": 0, "dropped": 0, "left": 0})


def test_the_doctor_finds_a_deployment_well(owner: dict[str, str], ready_for_enrollment: None) -> None:
    code, said = picomdm(owner, "doctor")

    assert (code, said["well"]) == (0, True), said
    assert {finding["what"] for finding in said["findings"]} >= {"clock", "device address", "alarms", "permissions"}
    assert [finding for finding in said["findings"] if finding["well"] is None] == []


def test_an_administrator_who_may_not_see_the_queues_is_told_so(
    operator: dict[str, str], stack: Stack, world: World, ready_for_enrollment: None
) -> None:
    of_stack = {"AWS_ENDPOINT_URL": stack.emulator.url, "PICOMDM_STACK": stack.name, "SSL_CERT_FILE": str(world.trust)}
    environment = operator | of_stack
    code, said = picomdm(environment, "doctor")

    assert (code, said["well"]) == (0, True), said
    not_seen = {finding["what"]: finding["found"] for finding in said["findings"] if finding["well"] is None}
    assert set(not_seen) == {"queues", "alarms", "quotas", "permissions"}
    assert not_seen["permissions"].startswith("not for queues, redrive, events tail, api-key, export, import, destroy;")

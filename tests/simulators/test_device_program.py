"""The simulated device as a program of its own."""

import ast
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.simulators.fake_server import FakeServer, command

LOCAL = Path(__file__).parents[2] / "local"


def test_no_simulator_shares_code_with_the_server_or_with_another() -> None:
    # What the server gets wrong, its counterpart must not get wrong in the same way.
    parts = {"local.ca", "local.webhook_listener", "local.device", "local.device_authority", "local.oidc"}
    for part in parts:
        path = LOCAL / part.removeprefix("local.")
        for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            imported = {
                name
                for node in ast.walk(ast.parse(file.read_text()))
                for name in (
                    [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else [one.name for one in node.names]
                    if isinstance(node, ast.Import)
                    else []
                )
                if name.startswith(("mdmlib", "functions", "picomdm", "local"))
            }
            assert all(name.startswith(part) for name in imported), (file, imported)


def start(server: FakeServer, *more: str) -> "subprocess.Popen[str]":
    arguments = ["--enroll", server.profile_url, "--trust", str(server.root), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "local.device", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_enrolls_connects_and_checks_out(server: FakeServer) -> None:
    server.queue = [command("C1")]
    habits = ["--signature", "ber-no-attributes", "--digest", "sha1", "--plist", "binary", "--model", "mac"]
    with start(server, "--once", "--check-out", *habits) as process:
        out, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    told = json.loads(out)
    assert told["topic"] == server.mdm["Topic"]
    assert server.messages("Authenticate")[0]["UDID"] == told["udid"]
    assert server.messages("Acknowledged")[0]["CommandUUID"] == "C1"
    assert len(server.messages("CheckOut")) == 1
    assert "SecurityInfo Acknowledged" in err


def test_it_listens_until_it_is_stopped_and_stays_enrolled(server: FakeServer) -> None:
    with start(server, "--quiet") as process:
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["udid"]
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - begun < 5
        finally:
            process.kill()
    assert not server.messages("CheckOut")


def test_switched_on_again_it_is_the_same_device_and_goes_on(server: FakeServer, tmp_path: Path) -> None:
    state = tmp_path / "device"
    server.queue = [command("C1")]
    with start(server, "--once", "--quiet", "--state", str(state)) as process:
        first, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert state.stat().st_mode & 0o077 == 0

    server.queue = [command("C2")]
    with start(server, "--once", "--quiet", "--check-out", "--state", str(state)) as process:
        second, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert second == first
    assert len(server.messages("Authenticate")) == len(server.messages("TokenUpdate")) == 1
    assert [report["CommandUUID"] for report in server.messages("Acknowledged")] == ["C1", "C2"]
    assert len(server.messages("CheckOut")) == 1
    assert not state.exists()


def test_a_command_that_was_settled_before_it_was_switched_off_may_not_come_again(
    server: FakeServer, tmp_path: Path
) -> None:
    for status in (0, 1):
        server.queue = [command("C1")]
        with start(server, "--once", "--quiet", "--state", str(tmp_path / "device")) as process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
    assert "repeated-command" in err


def test_a_server_that_breaks_a_rule_is_told_on_stderr_and_by_the_exit_status(server: FakeServer) -> None:
    server.mdm["AccessRights"] = 0
    with start(server) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "AccessRights: 0" in err


def test_a_server_that_refuses_is_told_too(server: FakeServer) -> None:
    server.statuses["Authenticate"] = [500]
    with start(server, "--quiet") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == "ServerRefused: Authenticate was answered 500\n"

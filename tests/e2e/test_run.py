"""`make run` and `make demo` as programs: what they show, and that they leave nothing behind."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from local.life import title_of
from local.processes import Program, ProgramError, end_left_over, note_children
from local.progress import Message, Progress
from local.run import CHAPTERS, STEPS, tally

REPOSITORY = Path(__file__).parents[2]


def programs_of(directory: Path) -> list[str]:
    """Return the command lines of whatever runs for a state directory."""
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if str(directory) in line]


@contextmanager
def running(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "local.run", "--state", str(directory), *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"It ended without saying {words!r}:\n{said}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_an_interruption_ends_everything_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, "--demo") as process:
        read_until(process, "* Building")
        assert len(programs_of(tmp_path)) > 1

        # All at once, as somebody does who is in a hurry: only the first one counts.
        os.killpg(process.pid, number)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert "interrupted" in said
    assert programs_of(tmp_path) == []


def test_a_state_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, "--demo") as first:
        read_until(first, "* Starting")
        with running(tmp_path, "--demo") as second:
            said, _ = second.communicate(timeout=60)
            assert second.returncode == 1
            assert "stop that one first" in said
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert programs_of(tmp_path) == []


def test_what_a_killed_run_left_over_is_ended_and_nothing_else(tmp_path: Path) -> None:
    listener = Program.start("listener", "local.webhook_listener", [], directory=tmp_path)
    other = Program.start("other", "local.webhook_listener", [], directory=tmp_path)
    noted = tmp_path / "processes.json"
    note_children(noted)
    children = json.loads(noted.read_text())
    # The second one's process id is somebody else's by now: that process began at another time.
    noted.write_text(
        json.dumps({str(listener.pid): children[str(listener.pid)], str(other.pid): "Thu Jan  1 00:00:00 1970"})
    )

    end_left_over(noted)

    assert not listener.is_running()
    assert other.is_running()
    assert not noted.exists()
    listener.stop()
    other.stop()
    assert not other.is_running()
    end_left_over(noted)


def test_a_program_ends_with_whoever_started_it_although_that_was_killed(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("key")
    begin = """
import os, signal, sys
from pathlib import Path
from local.processes import Program
key = Path(sys.argv[1])
Program.start("listener", "local.webhook_listener", ["--hmac-key-file", key], directory=key.parent)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", begin, key], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL

    deadline = time.monotonic() + 30
    while programs_of(key) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert programs_of(key) == []


def test_a_program_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="No such file"):
        Program.start(
            "listener", "local.webhook_listener", ["--hmac-key-file", tmp_path / "missing"], directory=tmp_path
        )


def shown(*, terminal: bool) -> tuple[Progress, io.StringIO]:
    screen = io.StringIO()
    return Progress(Console(file=screen, force_terminal=terminal, highlight=False, width=118)), screen


def test_without_a_terminal_each_line_is_printed_once_and_plainly() -> None:
    progress, screen = shown(terminal=False)
    message = Message(
        sender="iPhone", receiver="PicoMDM", what="PUT /mdm/connect", note="Idle", status=200, sent=1500, milliseconds=7
    )
    with progress.step("It connects", number=3) as step:
        progress.message(message)
        step.outcome = "nothing to do"
    with pytest.raises(ValueError, match="out of luck"), progress.step("It fails"):
        raise ValueError("out of luck")

    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert lines[:2] == ["* 3. It connects", "iPhone → PicoMDM PUT /mdm/connect Idle 1.5 kB 200 7 ms"]
    assert lines[2].startswith("passed: nothing to do (")
    assert lines[4].startswith("failed: out of luck (")
    assert "\x1b" not in screen.getvalue()


def test_on_a_terminal_the_last_picture_of_a_step_says_how_it_ended() -> None:
    progress, screen = shown(terminal=True)
    with progress.step("It connects"):
        progress.message(Message(sender="iPhone", receiver="PicoMDM", what="PUT /mdm/connect", status=200))
    assert "✓" in screen.getvalue()
    with pytest.raises(KeyboardInterrupt), progress.step("It is stopped"):
        raise KeyboardInterrupt
    assert "✗" in screen.getvalue()
    assert "interrupted" in screen.getvalue()


def test_the_last_line_counts() -> None:
    assert tally(len(STEPS)) == f"demo: {len(STEPS)} steps, {len(STEPS)} passed"
    assert tally(3) == f"demo: {len(STEPS)} steps, 3 passed, 1 failed, {len(STEPS) - 4} not tried"


def test_every_step_has_a_title() -> None:
    for _, steps in CHAPTERS:
        titles = [title_of(step) for step in steps]
        assert all(titles)
        assert len(set(titles)) == len(titles)

"""Programs of this repository that run beside us, each in a process group of its own, ended by whoever started them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

_STOP_SECONDS: Final = 10.0
_KEEPER: Final = """
    if ! read -r ended; then
        kill -TERM "$0"
        for tenth in $(seq 300); do kill -0 "$0" || break; sleep 0.1; done
        kill -KILL -- "-$0"
    fi
    [ -z "$1" ] || rm -rf -- "$1"
"""


class ProgramError(Exception):
    """A program did not come up."""


class Keeper:
    """Ends a process, the leader of its group, when we end, however that is: killed, too, we leave nothing behind.

    It is a shell that waits for our end at a pipe, and then removes the directory ``remove``.
    """

    def __init__(self, process: subprocess.Popen[bytes], *, remove: Path | None = None) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, str(process.pid), str(remove or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """Say that the process has ended, and wait until the directory is removed. Safe to repeat."""
        if self._shell.returncode is None:
            self._shell.communicate(b"ended\n")


class Program:
    """A running program. ``ready`` is the JSON object that it printed as its first line."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.ready: Mapping[str, Any] = {}
        self._process = process
        self._keeper = Keeper(process)

    @classmethod
    def start(
        cls, name: str, module: str, arguments: Sequence[str | Path], *, directory: Path, seconds: float = 30.0
    ) -> Self:
        """Run ``python -m module`` and return it when it has said where it can be reached.

        What it prints goes to ``<name>.out`` and ``<name>.log`` in ``directory``. Raises :class:`ProgramError`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        output, log = directory / f"{name}.out", directory / f"{name}.log"
        with output.open("wb") as to_output, log.open("wb") as to_log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=to_output,
                stderr=to_log,
                # Ctrl-C in a terminal goes to the whole group: only we act upon it, and stop things in their order.
                start_new_session=True,
            )
        program = cls(name, process)
        try:
            program.ready = program._await_first_line(output, log, seconds)
        except BaseException:
            program.stop()
            raise
        return program

    def _await_first_line(self, output: Path, log: Path, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            first, newline, _ = output.read_bytes().partition(b"\n")
            if newline:
                ready: dict[str, Any] = json.loads(first)
                return ready
            if not self.is_running():
                said = log.read_text(errors="replace")[-2000:]
                raise ProgramError(f"{self.name} ended at its start. It said:\n{said}")
            time.sleep(0.02)
        raise ProgramError(f"{self.name} does not say that it is ready after {seconds:.0f} seconds; see {log}.")

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def is_running(self) -> bool:
        """Say whether it is still there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end, wait, and end it if it does not. Safe to repeat."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                # It was started as the leader of its group: the group has its process id, and nobody else's.
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._keeper.dismiss()


def note_children(path: Path) -> None:
    """Write down which processes we have started, for the case that nobody gets to stop them."""
    ours = {pid: began for pid, (parent, began) in _processes().items() if parent == os.getpid()}
    path.write_text(json.dumps(ours))


def end_left_over(path: Path) -> None:
    """End what :func:`note_children` wrote down, as far as it runs: whoever started it was killed."""
    if not path.exists():
        return
    running = _processes()
    # A process id alone may be somebody else's by now; with the time at which it began it is not.
    left_over = [
        int(pid) for pid, began in json.loads(path.read_text()).items() if running.get(int(pid), (0, ""))[1] == began
    ]
    for pid in left_over:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and any(pid in _processes() for pid in left_over):
        time.sleep(0.1)
    path.unlink()


def _processes() -> dict[int, tuple[int, str]]:
    """Return all processes: their parents and when they began. Where there is no ``ps``, none."""
    command = ["ps", "-A", "-o", "pid=,ppid=,stat=,lstart="]
    try:
        listing = subprocess.run(command, env=os.environ | {"LC_ALL": "C"}, capture_output=True, check=True)
    except FileNotFoundError:
        return {}
    found = {}
    for line in listing.stdout.decode().splitlines():
        pid, parent, state, *began = line.split()
        # One that has ended and whose parent has not looked is no process any more.
        if not state.startswith("Z"):
            found[int(pid)] = (int(parent), " ".join(began))
    return found

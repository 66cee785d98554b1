"""``picomdm`` in a process that is forked from one which has imported everything, for that takes longer than it does.

Each command line has a process of its own: its environment, output and exit code are as if somebody had typed it.
``test_command_line.py`` starts the program itself.
"""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Self

import httpx

from picomdm.admin_api import trusted
from picomdm.main import run

REPOSITORY = Path(__file__).parents[2]


class WarmCommandLine:
    """Runs command lines, one after the other; a context manager."""

    def __init__(self) -> None:
        self._directory = TemporaryDirectory(prefix="picomdm-command-line-")
        self._one_at_a_time = Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.warm_command_line"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C in a terminal goes to the whole group; this one ends with its input.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._directory.cleanup()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        """Run ``picomdm`` with nothing but ``environment``."""
        output, errors = (Path(self._directory.name, name) for name in ("output", "errors"))
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "files": [os.devnull, str(output), str(errors)],
        }
        assert self._process.stdin
        assert self._process.stdout
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(asked).encode() + b"\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), code, output.read_bytes(), errors.read_bytes())


def main() -> None:
    """Fork for each line of the input, and print the exit code of each."""
    # The first one imports what is imported when it is needed, as the first request does.
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), httpx.Client(verify=trusted()):
        run(["contexts", "use", ""])
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _be_the_command_line(**asked)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _be_the_command_line(*, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[str]) -> None:
    for number, name in enumerate(files):
        opened = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(opened, number)
    # Whatever it waits for, somebody waits for it.
    signal.alarm(60)
    os.environ.clear()
    os.environ.update(environment)
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()

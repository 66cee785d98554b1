"""Builds what ``sam deploy`` takes: ``sam build``, then the layer is trimmed and compiled.

Usage: ``python tools/build.py [--runtime python3.X] [--architecture arm64|x86_64]``. The template is built for one
Python and one processor. By default these are the newest Python that the template allows and that is on the PATH, and
arm64. The result lies in ``.aws-sam/build``.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
TOOLS: Final = REPOSITORY / ".emulator-venv" / "bin"
"""aws-sam-cli and its Python live in the emulator's virtual environment: they pin a botocore of their own."""

BUILD: Final = REPOSITORY / ".aws-sam" / "build"
_STAMP: Final = BUILD / "picomdm.json"
_INPUTS: Final = ("template.yaml", "functions", "layers", "tools/build.py")

SERVICES: Final = frozenset({"events", "lambda", "s3"})
"""What functions make the SDK's clients of. It describes four hundred more, which are most of the layer's files."""


class BuildError(Exception):
    """What is deployed cannot be built."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the functions run on. Both are parameters of the template."""

    runtime: str
    architecture: str

    @property
    def parameters(self) -> dict[str, str]:
        """The template's parameters, for build and deploy alike."""
        return {"PythonRuntime": self.runtime, "Architecture": self.architecture}


def newest_runtime() -> str:
    """Return the newest runtime that the template allows and whose Python is on the PATH.

    Raises :class:`BuildError` when there is none.
    """
    template = (REPOSITORY / "template.yaml").read_text()
    allowed = re.search(r"^  PythonRuntime:\n(?:    .*\n)*?    AllowedValues: \[(.*)\]$", template, re.MULTILINE)
    if allowed is None:
        raise BuildError("template.yaml does not list the values of its parameter PythonRuntime.")
    runtimes = sorted(str(allowed[1]).split(", "), key=_version, reverse=True)
    for runtime in runtimes:
        if _interpreter(runtime):
            return runtime
    raise BuildError(f"None of {', '.join(runtimes)} is on the PATH.")


def build(target: Target) -> Path:
    """Build for ``target`` unless that is what was built last; return the built template.

    Raises :class:`BuildError` with what ``sam`` said. Hold :func:`exclusive` around this and what is done with the
    result.
    """
    stamp = json.dumps({"inputs": _digest(), **target.parameters})
    template = BUILD / "template.yaml"
    if _STAMP.exists() and _STAMP.read_text() == stamp and template.exists():
        return template
    _STAMP.unlink(missing_ok=True)
    overrides = [f"{name}={value}" for name, value in target.parameters.items()]
    arguments = [str(TOOLS / "sam"), "build", "--cached", "--parallel", "--parameter-overrides", *overrides]
    run = subprocess.run(
        arguments, cwd=REPOSITORY, env=sam_environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if run.returncode:
        raise BuildError(f"sam build failed:\n{(run.stdout + run.stderr).decode(errors='replace')}")
    _trim_layer()
    _compile_layer(target.runtime)
    _STAMP.write_text(stamp)
    return template


@contextmanager
def exclusive() -> Iterator[None]:
    """Keep other programs from building while the result of a build is read."""
    BUILD.parent.mkdir(exist_ok=True)
    with (BUILD.parent / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        yield


def sam_environment() -> dict[str, str]:
    """Return the environment for ``sam``: with the Python of its own first on the PATH, and no telemetry."""
    path = os.pathsep.join([str(TOOLS), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "SAM_CLI_TELEMETRY": "0", "SAM_CLI_CHECK_VERSION_UPDATE": "0"}


def _trim_layer() -> None:
    """Remove what no function reads: a small layer is uploaded, fetched and unpacked sooner."""
    for service in (BUILD / "MdmlibLayer" / "python" / "botocore" / "data").iterdir():
        # The files beside them are about all services: regions, partitions, defaults.
        if service.is_dir() and service.name not in SERVICES:
            shutil.rmtree(service)


def _compile_layer(runtime: str) -> None:
    """Write the layer's bytecode: /opt is read-only in Lambda, so each cold start would compile all that it imports."""
    interpreter = _interpreter(runtime)
    if interpreter is None:
        raise BuildError(f"{runtime} is not on the PATH any more.")
    # Not checked against the sources: their times change on their way through a zip file.
    compileall = [interpreter, "-m", "compileall", "-q", "-f", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    layer = BUILD / "MdmlibLayer" / "python"
    for stale in layer.rglob("__pycache__"):
        shutil.rmtree(stale)
    # "-s" keeps this machine's paths out of the bytecode, and so out of tracebacks.
    run = subprocess.run([*compileall, "-s", layer, "-p", "/opt/python", layer], capture_output=True, check=False)
    if run.returncode:
        raise BuildError(f"The layer does not compile:\n{(run.stdout + run.stderr).decode(errors='replace')}")


def _interpreter(runtime: str) -> str | None:
    """Return the interpreter of a runtime, or None; pyenv's shims stand on the PATH for versions that are not there."""
    found = shutil.which(runtime, path=sam_environment()["PATH"])
    if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
        return found
    return None


def _version(runtime: str) -> tuple[int, ...]:
    return tuple(int(part) for part in runtime.removeprefix("python").split("."))


def _digest() -> str:
    """Return a digest of everything that a build reads."""
    digest = hashlib.sha256()
    for name in _INPUTS:
        path = REPOSITORY / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(REPOSITORY)}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()


def main() -> int:
    """Build, and say for what."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runtime", help="such as python3.13; default: the newest on the PATH")
    parser.add_argument("--architecture", choices=["arm64", "x86_64"], default="arm64")
    arguments = parser.parse_args()
    try:
        target = Target(runtime=arguments.runtime or newest_runtime(), architecture=arguments.architecture)
        with exclusive():
            build(target)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Built for {target.runtime} on {target.architecture}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

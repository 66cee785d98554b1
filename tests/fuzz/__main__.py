"""``make fuzz``: fuzz every parser that a device can reach, one after the other.

    python -m tests.fuzz                          all targets, FUZZ_SECONDS (60) each
    python -m tests.fuzz plist signature          these
    python -m tests.fuzz --reproduce plist FILE   one input again, with what goes wrong

Corpora and findings are kept in ``.local/fuzz``. It fails when there are findings.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

FOLDER: Final = Path(".local/fuzz")
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units: (\d+)")
_COVERED: Final = re.compile(r" cov: (\d+) ")


def main() -> None:
    """Fuzz, or try one input."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers that devices reach.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all when none is named")
    parser.add_argument(
        "--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "60")), help="for each target"
    )
    parser.add_argument("--reproduce", nargs=2, metavar=("TARGET", "FILE"), help="try one input")
    arguments = parser.parse_args()
    if arguments.reproduce:
        name, file = arguments.reproduce
        TARGETS[name](Path(file).read_bytes())
        print("Nothing goes wrong.")
        return
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    if importlib.util.find_spec("atheris") is None:
        print(
            "atheris is not installed for this Python: hypothesis makes the inputs, blindly. See docs/testing.md.",
            file=sys.stderr,
        )
    found = [fuzz(name, arguments.seconds) for name in arguments.targets or TARGETS]
    sys.exit(1 if any(found) else 0)


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target and print how it went; return whether there are findings."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", name, str(seconds), str(folder)],
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    (folder / "log").write_text(run.stderr)
    findings = sorted(path for path in (folder / "findings").glob("*") if path.suffix != ".txt")
    executed, covered = _EXECUTED.search(run.stderr), _COVERED.findall(run.stderr)
    print(
        f"{name:18} {int(executed[1]) if executed else 0:>12,} inputs   "
        f"{covered[-1] if covered else '?':>5} places reached   {len(findings)} findings",
        flush=True,
    )
    for finding in findings:
        print(f"  python -m tests.fuzz --reproduce {name} {finding}")
    if run.returncode and not findings:
        print(f"  The fuzzer itself failed; see {folder / 'log'}")
    return bool(findings or run.returncode)


if __name__ == "__main__":
    main()

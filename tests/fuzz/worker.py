"""One target's fuzzing, in a process of its own: ``python -m tests.fuzz.worker TARGET SECONDS FOLDER``.

With atheris inputs are chosen by the code that they reach. Where atheris cannot be installed, hypothesis makes them:
many fewer, and blindly.
"""

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

try:
    import atheris
except ImportError:
    atheris = None

if TYPE_CHECKING:
    from tests.fuzz.findings import Findings
    from tests.fuzz.targets import Target

MEMORY: Final = 256 * 1024 * 1024
"""What one input may take, and all that the fuzzer remembers, beside what is there before the first one."""

HANG_SECONDS: Final = 30
"""Of the wall's clock: after so long not even a neighbour's load explains it, and the process is ended."""

_EXAMPLES: Final = 500


def main() -> None:
    """Fuzz."""
    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if atheris is None:
        targets, findings = _load(name, folder)
        _with_hypothesis(targets, findings, seconds)
    else:
        with atheris.instrument_imports(include=["mdmlib"]):
            targets, findings = _load(name, folder)
        _with_atheris(targets, findings, seconds, folder)


def _load(name: str, folder: Path) -> "tuple[Target, Findings]":
    # Not before: atheris instruments what is imported from now on.
    from tests.fuzz.findings import Findings
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    findings = Findings(target, folder / "findings")
    for seed in target.seeds:
        findings.try_input(seed.read_bytes())
    findings.try_again()
    _limit_memory()
    return target, findings


def _limit_memory() -> None:
    statm = Path("/proc/self/statm")
    if statm.exists():  # on Linux; elsewhere the limit is not held anyway
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def _with_atheris(target: "Target", findings: "Findings", seconds: int, folder: Path) -> None:
    corpus, dictionary = folder / "corpus", folder / "words"
    corpus.mkdir(exist_ok=True)
    # It must not be empty.
    dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (b"\0",)))
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={HANG_SECONDS}",
        f"-max_len={target.max_bytes}",
        f"-dict={dictionary}",
        f"-artifact_prefix={folder / 'findings'}/",
        "-print_final_stats=1",
    ]
    seeds = sorted({str(seed.parent) for seed in target.seeds})
    atheris.Setup([sys.argv[0], *options, str(corpus), *seeds], findings.try_input)
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _with_hypothesis(target: "Target", findings: "Findings", seconds: int) -> None:
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.fuzz.mutations import mutated

    tried = 0

    @settings(
        max_examples=_EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated([seed.read_bytes() for seed in target.seeds], target.words))
    def try_some(data: bytes) -> None:
        nonlocal tried
        tried += 1
        findings.try_input(data)

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try_some()
    print(f"stat::number_of_executed_units: {tried}", file=sys.stderr)


if __name__ == "__main__":
    main()

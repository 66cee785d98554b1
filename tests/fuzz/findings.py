"""What fuzzing finds is kept: the input, and beside it how it went wrong, once for each place in the code."""

import hashlib
import traceback
from pathlib import Path

from tests.fuzz.targets import Target


class Findings:
    """Tries a target's inputs and keeps those that it gets wrong in ``folder``."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._known: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def try_again(self) -> None:
        """Try what was found before; what goes well by now is forgotten."""
        for path in sorted(self._folder.glob("*.txt")):
            path.unlink()
        for path in sorted(self._folder.iterdir()):
            data = path.read_bytes()
            path.unlink()
            self.try_input(data)

    def try_input(self, data: bytes) -> None:
        """Try one input. Never raises."""
        try:
            self._target(data)
        except Exception as error:  # noqa: BLE001 - everything is a finding
            self._keep(data, error)

    def _keep(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((frame for frame in reversed(frames) if "mdmlib" in frame.filename), frames[-1])
        key = f"{type(error).__name__} {place.filename}:{place.lineno}"
        if key in self._known:
            return
        self._known.add(key)
        name = f"{type(error).__name__}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
        (self._folder / name).write_bytes(data)
        (self._folder / f"{name}.txt").write_text("".join(traceback.format_exception(error)))

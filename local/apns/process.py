"""The simulated APNs as a program beside this one, and its control interface in Python."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

REPOSITORY: Final = Path(__file__).resolve().parent.parent.parent

_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 10


class ApnsSimulatorError(Exception):
    """The simulator does not start, or refuses what it was told."""


class ApnsControl:
    """The control interface; the package's docstring says what each call does."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = build_opener(ProxyHandler({}))

    def register(self, token: str, *, topic: str, magic: str) -> None:
        """Register a device."""
        self._call("POST", "/devices", {"token": token, "topic": topic, "magic": magic})

    def wait(self, token: str, *, seconds: float = 25) -> dict[str, Any] | None:
        """Return the push that waits for the device or arrives within ``seconds``, or None."""
        answer = self._call("GET", f"/devices/{token}/wait?timeout={seconds}", timeout=seconds + 10)
        return cast("dict[str, Any]", json.loads(answer)) if answer else None

    def devices(self) -> list[dict[str, Any]]:
        """Return what is known of all devices."""
        return cast("list[dict[str, Any]]", json.loads(self._call("GET", "/devices")))

    def device(self, token: str) -> dict[str, Any]:
        """Return what is known of a device."""
        return cast("dict[str, Any]", json.loads(self._call("GET", f"/devices/{token}")))

    def unregister(self, token: str, *, timestamp: int | None = None, reason: str = "Unregistered") -> None:
        """Answer 410 for the device from now on; ``timestamp`` is in milliseconds."""
        self._call("POST", f"/devices/{token}/unregister", {"timestamp": timestamp, "reason": reason})

    def remove(self, token: str) -> None:
        """Make the token one that never was."""
        self._call("DELETE", f"/devices/{token}")

    def issue(self, topic: str, *, days: int = 365, foreign: bool = False) -> bytes:
        """Return a push certificate with its key, PEM."""
        return self._call("POST", "/certificates", {"topic": topic, "days": days, "foreign": foreign})

    def revoke(self, topic: str) -> None:
        """Refuse the certificates issued for the topic until now."""
        self._call("POST", "/certificates/revoke", {"topic": topic})

    def pushes(self, *, after: int = 0) -> list[dict[str, Any]]:
        """Return what was asked and answered since number ``after``."""
        return cast("list[dict[str, Any]]", json.loads(self._call("GET", f"/pushes?after={after}")))

    def violations(self) -> list[dict[str, Any]]:
        """Return what must not be."""
        return cast("list[dict[str, Any]]", json.loads(self._call("GET", "/violations")))

    def status(self) -> dict[str, Any]:
        """Return the counters."""
        return cast("dict[str, Any]", json.loads(self._call("GET", "/status")))

    def behave(self, **trouble: object) -> None:
        """Make trouble: fields of :class:`local.apns.behaviour.Behaviour`; none: behave well."""
        self._call("PUT", "/behaviour", trouble)

    def disturb(self, what: str) -> None:
        """``goaway``, ``cut`` or ``freeze`` all connections."""
        self._call("POST", f"/connections/{what}")

    def reset(self) -> None:
        """Forget pushes, violations and trouble."""
        self._call("POST", "/reset")

    def _call(self, method: str, path: str, document: dict[str, Any] | None = None, *, timeout: float = 30) -> bytes:
        body = None if document is None else json.dumps(document).encode()
        request = Request(self._url + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with self._opener.open(request, timeout=timeout) as response:
                return cast("bytes", response.read())
        except HTTPError as error:
            raise ApnsSimulatorError(f"{method} {path}: {error.code} {error.read().decode()}") from error


class ApnsSimulator:
    """A running simulator. ``state`` keeps its authorities and devices for the next start."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, str]) -> None:
        self._process = process
        self.url = ready["url"]
        """Where a provider connects."""
        self.control_url = ready["control"]
        self.trust_anchor = Path(ready["trust_anchor"]).read_text()
        """PEM, of the CA of the simulator's own certificate."""
        self.control = ApnsControl(self.control_url)

    @classmethod
    def start(cls, state: Path, *, port: int = 0, control_port: int = 0) -> Self:
        """Start the program and return when it listens. Raises :class:`ApnsSimulatorError`."""
        state.mkdir(parents=True, exist_ok=True)
        ready_file = state / "ready.json"
        ready_file.unlink(missing_ok=True)
        log = state / "apns.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "local.apns", "serve"),
                    *("--state", state, "--ready-file", ready_file),
                    *("--port", str(port), "--control-port", str(control_port), "--stop-with-stdin"),
                ],
                cwd=REPOSITORY,
                # Held open until we end: the simulator outlives nobody who started it.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group: whoever started the simulator stops it.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.communicate()
                raise ApnsSimulatorError(f"The APNs simulator does not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        return cls(process, json.loads(ready_file.read_text()))

    def stop(self) -> None:
        """Stop the program and wait until it has ended. Safe to repeat."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

"""The control interface of the simulated service in Python, and the service as a program beside this one."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from local.processes import Program


class AdeSimulatorError(Exception):
    """The simulator refuses what it was told."""


class AdeControl:
    """The control interface; the package's docstring says what each call does."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def make_server(self, name: str, certificate: str, *, days: float = 365) -> bytes:
        """Make a server, or renew its token; return its token's file."""
        return self._call("POST", "/servers", {"name": name, "certificate": certificate, "days": days}).content

    def server(self, name: str) -> dict[str, Any]:
        """Return what is known of a server."""
        return self._object("GET", f"/servers/{name}")

    def sign_terms(self, name: str, *, signed: bool = True) -> None:
        """Accept the terms, or have new ones to accept."""
        self._call("POST", f"/servers/{name}/terms", {"signed": signed})

    def buy(self, name: str, serial_numbers: list[str] | None = None, *, count: int = 1, **fields: object) -> list[str]:
        """Buy devices for a server, or move them there; return their serial numbers (at most 1,000)."""
        asked = {"serial_numbers": serial_numbers} if serial_numbers else {"count": count}
        bought: list[str] = self._object("POST", f"/servers/{name}/devices", asked | fields)["serial_numbers"]
        return bought

    def modify(self, name: str, serial_numbers: list[str], **fields: object) -> None:
        """Change what is known of devices."""
        self._call("POST", f"/servers/{name}/devices/modify", {"serial_numbers": serial_numbers} | fields)

    def remove(self, name: str, serial_numbers: list[str]) -> None:
        """Take devices away from a server."""
        self._call("POST", f"/servers/{name}/devices/remove", {"serial_numbers": serial_numbers})

    def device(self, serial_number: str) -> dict[str, Any]:
        """Return what is known of a device."""
        return self._object("GET", f"/devices/{serial_number}")

    def activate(self, serial_number: str) -> dict[str, Any] | None:
        """Return the profile that a device gets out of its box; None: there is none."""
        answer = self._client.post(f"/devices/{serial_number}/activate")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        profile: dict[str, Any] = answer.raise_for_status().json()
        return profile

    def behave(self, **trouble: object) -> None:
        """Make trouble: fields of :class:`local.ade.behaviour.Behaviour`; none: behave well."""
        self._call("PUT", "/behaviour", trouble)

    def expire(self, what: str) -> None:
        """End all ``sessions`` or all ``cursors``."""
        self._call("POST", f"/{what}/expire", {})

    def requests(self, *, after: int = 0) -> list[dict[str, Any]]:
        """Return what was asked and answered since number ``after``."""
        found: list[dict[str, Any]] = self._call("GET", f"/requests?after={after}").json()
        return found

    def violations(self) -> list[dict[str, Any]]:
        """Return what must not be."""
        found: list[dict[str, Any]] = self._call("GET", "/violations").json()
        return found

    def reset(self) -> None:
        """Forget requests, violations and trouble."""
        self._call("POST", "/reset", {})

    def _object(self, method: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(method, path, document).json()
        return answer

    def _call(self, method: str, path: str, document: dict[str, Any] | None = None) -> httpx.Response:
        answer = self._client.request(method, path, json=document)
        if answer.is_error:
            raise AdeSimulatorError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer


class AdeSimulator:
    """A running simulator."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.url = str(program.ready["url"])
        """Where a server asks."""
        self.control_url = str(program.ready["control"])
        self.control = AdeControl(self.control_url)

    @classmethod
    def start(cls, directory: Path, *, port: int = 0, control_port: int = 0, keep_state: bool = False) -> Self:
        """Start the program and return when it listens; its log goes to ``directory``.

        With ``keep_state`` a later start in the same ``directory`` goes on where this one stopped.
        """
        arguments = ["--port", str(port), "--control-port", str(control_port)]
        if keep_state:
            arguments += ["--state", str(directory / "state.json")]
        return cls(Program.start("ade", "local.ade", arguments, directory=directory))

    def stop(self) -> None:
        """Stop the program. Safe to repeat."""
        self.control.close()
        self._program.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

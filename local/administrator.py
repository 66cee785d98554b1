"""An administrator of the deployment: signs requests with SigV4 as ``curl --aws-sigv4`` does, and types ``picomdm``.

Knows the deployment by its admin URL and a user's keys, nothing else.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.progress import Message

_COMMAND_SECONDS: Final = 60


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A user's access key, and where it is good."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


class CommandLineError(Exception):
    """``picomdm`` ended with another exit code than 0."""


CommandLine = Callable[[Sequence[str], Mapping[str, str]], subprocess.CompletedProcess[bytes]]
"""Runs ``picomdm`` with arguments, in an environment."""


def type_picomdm(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run ``picomdm`` as whoever types it does."""
    return subprocess.run(
        [sys.executable, "-m", "picomdm", *arguments],
        env=environment,
        capture_output=True,
        timeout=_COMMAND_SECONDS,
        check=False,
    )


class Administrator:
    """Somebody with ``keys`` at ``url``; ``observer`` sees each request and each command line."""

    def __init__(
        self,
        url: str,
        keys: Keys,
        *,
        observer: Callable[[Message], None] = lambda _message: None,
        command_line: CommandLine = type_picomdm,
    ) -> None:
        self._command_line = command_line
        self._url = url.rstrip("/")
        self._keys = keys
        self._observer = observer
        self._client = httpx.Client(trust_env=False, timeout=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        document: object = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        signed: bool = True,
        note: str = "",
    ) -> httpx.Response:
        """Send a request, ``document`` as JSON or ``body`` as it is, and return the answer, whatever its status."""
        sent = json.dumps(document).encode() if document is not None else body
        to_send = dict(headers or {})
        if sent:
            to_send.setdefault("Content-Type", "application/json")
        if signed:
            to_send = self.sign(method, path, sent, to_send)
        begun = time.perf_counter()
        response = self._client.request(method, f"{self._url}{path}", content=sent, headers=to_send)
        self._observer(
            Message(
                sender="admin",
                receiver="PicoMDM",
                what=f"{method} {path}",
                note=note,
                status=response.status_code,
                sent=len(sent),
                received=len(response.content),
                milliseconds=(time.perf_counter() - begun) * 1000,
            )
        )
        return response

    def sign(self, method: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return ``headers`` with those that sign a request."""
        request = AWSRequest(method, f"{self._url}{path}", data=body, headers=dict(headers or {}))
        credentials = Credentials(self._keys.access_key, self._keys.secret_key)
        SigV4Auth(credentials, "execute-api", self._keys.region).add_auth(request)
        return dict(request.headers.items())

    def picomdm(self, *arguments: str) -> dict[str, Any]:
        """Run ``picomdm`` with ``--json`` and return what it says. Raises :class:`CommandLineError`."""
        begun = time.perf_counter()
        done = self._command_line([*arguments, "--json"], self.environment)
        self._observer(
            Message(
                sender="admin",
                receiver="PicoMDM",
                # Paths as one would type them here.
                what=f"$ picomdm {' '.join(arguments)}".replace(f"{Path.cwd()}/", ""),
                milliseconds=(time.perf_counter() - begun) * 1000,
            )
        )
        if done.returncode:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise CommandLineError(f"picomdm {arguments[0]} ended with {done.returncode}: {said[-2000:]}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which ``picomdm`` finds the deployment, and nothing else of AWS."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PICOMDM_"))}
        return inherited | {
            "PICOMDM_ADMIN_URL": self._url,
            "AWS_ACCESS_KEY_ID": self._keys.access_key,
            "AWS_SECRET_ACCESS_KEY": self._keys.secret_key,
            "AWS_REGION": self._keys.region,
        }

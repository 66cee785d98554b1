"""The command line, run in this process."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from functions.commands import app as commands
from local.apns.portal import Authority
from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from picomdm.main import run
from tests.admin_server import AdminServer
from tests.command_lines import API_KEY, CommandLine, Said
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet


@contextmanager
def serving(server: AdminServer) -> Iterator[AdminServer]:
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminServer]:
    with serving(AdminServer()) as server:
        monkeypatch.setenv("PICOMDM_ADMIN_URL", server.url)
        yield server


@pytest.fixture
def device_server(aws: Emulator, environment: Settings) -> Iterator[AdminServer]:
    """What scripts reach at the devices' address, with the password ``API_KEY``."""
    secret = aws.secretsmanager.get_secret_value(SecretId=environment.secret_id)["SecretString"]
    aws.secretsmanager.put_secret_value(
        SecretId=environment.secret_id, SecretString=json.dumps(json.loads(secret) | {"api_keys": [API_KEY]})
    )

    def handle(event: dict[str, Any], context: Any) -> dict[str, Any]:
        event["requestContext"]["apiId"] = "device-api"
        answer: dict[str, Any] = commands.lambda_handler(event, context)
        return answer

    with serving(AdminServer(handle)) as server:
        yield server


@pytest.fixture
def picomdm(
    aws: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> CommandLine:
    monkeypatch.setenv("PICOMDM_CONFIG", str(tmp_path / "picomdm" / "contexts.json"))

    def picomdm(*arguments: str, stdin: str = "") -> Said:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        # The functions run in this process too, and log as Lambda's do.
        logged = ('{"level"', '{"_aws"')
        out = "".join(line for line in captured.out.splitlines(keepends=True) if not line.startswith(logged))
        return Said(code, out, captured.err)

    return picomdm


@pytest.fixture
def fleet(aws: Emulator, environment: Settings, sealer: Sealer) -> Fleet:
    return Fleet(aws, environment, sealer, Clock(datetime.now(UTC)))


@pytest.fixture(scope="session")
def push_certificate() -> bytes:
    return Authority.new("Authority of push certificates").issue_push(TOPIC)

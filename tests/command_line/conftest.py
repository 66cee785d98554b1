"""The command line, run in this process."""

import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from threading import Thread

import pytest

from local.apns.portal import Authority
from local.emulator import Emulator
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from picomdm.main import run
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine, Said
from tests.deployment import Clock
from tests.fleet import TOPIC, Fleet


@pytest.fixture
def server(environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdminServer]:
    with AdminServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setenv("PICOMDM_ADMIN_URL", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def picomdm(aws: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
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

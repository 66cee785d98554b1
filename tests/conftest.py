"""Fixtures of all levels.

==================  ========  ============================================================================
``emulator``        session   emulated AWS (:class:`local.emulator.Emulator`), with clients: ``emulator.sqs`` …
``aws``             session   the same, and this process' environment leads every boto3 client to it
``tables``          test      two empty tables, the item classes of ``mdmlib.store.tables`` bound to them
``settings``        test      :class:`~mdmlib.settings.Settings` of a fresh bucket, bus, secret, queues and ``tables``
``environment``     test      the variables of ``settings`` set in this process; ``mdmlib.runtime`` starts anew
``proxy``           test      as ``environment``, and every AWS call of this process' runtime goes through this
                              :class:`~local.aws_proxy.AwsProxy`, which counts it (``proxy.counts``) and can disturb it
``sealer``          test      a sealer under the secret of ``settings``
``clock``           test      a :class:`tests.deployment.Clock` that stands at 2026-11-20 12:00 UTC until advanced
``ade``             test      Apple's device enrollment service and its portal (:class:`local.ade.client.AdeSimulator`);
                              ADE_URL of ``environment`` leads there. A test must do nothing that Apple would not like
==================  ========  ============================================================================

Whoever needs other settings takes ``dataclasses.replace(settings, …)``. Tests under ``tests/unit`` have no sockets.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import pytest
from botocore.client import BaseClient
from cryptography.hazmat.primitives.asymmetric import rsa
from pytest_socket import disable_socket, enable_socket
from xdist.scheduler import LoadScopeScheduling

from local.ade.client import AdeSimulator
from local.aws_proxy import AwsProxy
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.clients.aws_json import AwsJsonClient
from mdmlib.runtime import clients
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from tests import deployment, interruptions
from tests.deployment import Clock, TableNames

UNIT = Path(__file__).parent / "unit"
END_TO_END = Path(__file__).parent / "e2e"
ANYTHING_ASKED = END_TO_END / "test_api_description.py"
DEPLOYS_BY_ITSELF = END_TO_END / "test_run.py"
STACKS = {
    "one stack": (
        *("test_api_description.py", "test_bad_input.py", "test_checkin.py", "test_command_line.py"),
        *("test_deployment.py", "test_devices.py", "test_dialects.py", "test_enrollment_ways.py"),
    ),
    "another stack": (
        *("test_every_message.py", "test_life.py", "test_renewal.py", "test_rollover.py", "test_secrets.py"),
        *("test_webhooks.py", "test_workflows.py", "test_zero_touch.py"),
    ),
}
"""The end-to-end tests that share a deployed stack: what they wait for, the others need not wait for."""
STACK_OF = {file: stack for stack, files in STACKS.items() for file in files}
RSA_KEYS = 32
"""So many keys in a row are different."""


class FilesAndStacks(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Lets processes share the tests by files, whose fixtures are made once; those of one stack have one process."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::", 1)[0])
        return STACK_OF.get(file.name, str(file)) if file.parent.name == END_TO_END.name else str(file)


def pytest_configure(config: pytest.Config) -> None:
    """Give each RSA key several times: to make one takes longer than most tests do, and none needs so many.

    It begins here because some are made when tests are collected, which every process does.
    """
    make = rsa.generate_private_key
    made: dict[tuple[int, int], rsa.RSAPrivateKey] = {}
    asked: Counter[int] = Counter()

    def generate(public_exponent: int, key_size: int, backend: object = None) -> rsa.RSAPrivateKey:
        asked[key_size] += 1
        number = (key_size, asked[key_size] % RSA_KEYS)
        if number not in made:
            made[number] = make(public_exponent, key_size, backend)
        return made[number]

    # For who needs one that no other test has.
    generate.anew = make  # type: ignore[attr-defined]
    patch = pytest.MonkeyPatch()
    patch.setattr(rsa, "generate_private_key", generate)
    config.add_cleanup(patch.undo)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesAndStacks:
    return FilesAndStacks(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the end-to-end tests first: they take longest.

    The one that asks for anything at all comes last of them: what it makes, workers of the stack are busy with. The one
    that deploys by itself has to wait: while both stacks are deployed, a third process finds work for the idle core.
    """
    items.sort(
        key=lambda item: (
            not item.path.is_relative_to(END_TO_END) or item.path == DEPLOYS_BY_ITSELF,
            item.path == ANYTHING_ASKED,
        )
    )
    end_to_end = [item for item in items if item.path.parent == END_TO_END]
    deploying = {item.path.name for item in end_to_end if "stack" in getattr(item, "fixturenames", ())}
    if strangers := deploying - STACK_OF.keys():
        raise pytest.UsageError(f"{', '.join(strangers)} would deploy a stack of their own: add them to STACKS.")


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.path.is_relative_to(UNIT):
        yield
        return
    disable_socket()
    yield
    enable_socket()


@pytest.fixture(scope="session", autouse=True)
def _one_loader_of_service_models() -> Iterator[None]:
    # Each botocore session reads the descriptions of its services anew, which takes longer than most tests do.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.loaders.create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_client_for_each_environment() -> Iterator[None]:
    # Each test's runtime would make its own: five clients take longer than most tests do.
    def once(make: Callable[..., Any]) -> Callable[..., Any]:
        @cache
        def made(service: str, options: str, _environment: frozenset[tuple[str, str]]) -> Any:
            return make(service, **json.loads(options))

        def client(service: str, **options: Any) -> Any:
            environment = frozenset((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
            return made(service, json.dumps(options), environment)

        return client

    with pytest.MonkeyPatch.context() as patch:
        for maker in "_client", "_json_client":
            patch.setattr(clients, maker, once(getattr(clients, maker)))
        yield


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    emulator = Emulator.start(tmp_path_factory.mktemp("emulator"))
    yield emulator
    emulator.stop()


@pytest.fixture(scope="session")
def aws(emulator: Emulator) -> Iterator[Emulator]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in emulator.environment.items():
            patch.setenv(name, value)
        yield emulator


@pytest.fixture
def tables(_resources: deployment.Resources) -> Iterator[TableNames]:
    yield _resources.tables()
    interruptions.forget()


@pytest.fixture(scope="session")
def _resources(aws: Emulator) -> Iterator[deployment.Resources]:
    resources = deployment.Resources(aws)
    call = BaseClient._make_api_call  # type: ignore[attr-defined]  # the stubs leave it out
    call_json = AwsJsonClient._make_api_call

    def noted(client: BaseClient, operation: str, parameters: Any) -> Any:
        resources.note(client.meta.service_model.service_name, operation, parameters)
        return call(client, operation, parameters)

    def noted_json(client: AwsJsonClient, operation: str, parameters: Any) -> Any:
        resources.note(client.service.name, operation, parameters)
        return call_json(client, operation, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", noted)
        patch.setattr(AwsJsonClient, "_make_api_call", noted_json)
        yield resources


@pytest.fixture
def settings(_resources: deployment.Resources, tables: TableNames) -> Settings:
    return _resources.settings(tables)


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    for name, value in deployment.environment_of(settings).items():
        monkeypatch.setenv(name, value)
    runtime.forget()
    yield settings
    runtime.forget()


@pytest.fixture(scope="session")
def _aws_proxy(aws: Emulator) -> Iterator[AwsProxy]:
    with AwsProxy(aws.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(environment: Settings, _aws_proxy: AwsProxy, monkeypatch: pytest.MonkeyPatch) -> AwsProxy:
    monkeypatch.setenv("AWS_ENDPOINT_URL", _aws_proxy.url)
    runtime.forget()
    _aws_proxy.reset()
    return _aws_proxy


@pytest.fixture(scope="session")
def _ade_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdeSimulator]:
    with AdeSimulator.start(tmp_path_factory.mktemp("ade")) as simulator:
        yield simulator


@pytest.fixture
def ade(environment: Settings, _ade_simulator: AdeSimulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdeSimulator]:
    monkeypatch.setenv("ADE_URL", _ade_simulator.url)
    runtime.forget()
    _ade_simulator.control.reset()
    yield _ade_simulator
    runtime.ade_servers().close()
    assert _ade_simulator.control.violations() == []


@pytest.fixture
def sealer(aws: Emulator, settings: Settings) -> Sealer:
    return deployment.create_sealer(aws, settings)


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 20, 12, tzinfo=UTC))

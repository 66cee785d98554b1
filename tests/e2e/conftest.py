"""What end-to-end tests run against, once per test run: a deployed stack, and all the others of its world.

========================  =======  ==================================================================================
``stack``                 session  the template, built and deployed onto the emulator (:class:`local.stack.Stack`)
``world``                 session  where everything is: admin API, push service, a customer's listener, a topic
``ready_for_enrollment``  session  the push certificate of the topic is uploaded
``administrator``         session  whoever signs requests to the admin API (:class:`local.administrator.Administrator`)
``pushes``                session  the simulated APNs, as devices are woken by it
``link``                  session  an enrollment link for as many devices as there are
``make_device``           test     makes simulated devices; none may have anything to complain about in the end
``enroll``                test     makes a device and enrolls it with ``link``
``queue``                 test     queues a command for an enrollment; returns its CommandUUID
``start_anew``            session  starts functions anew, so that nothing is left of what they kept in memory; each
                                   time costs seconds
``setting``               test     sets variables of a function's environment, as a deployment with other parameters:
                                   it starts anew, and once more at the end
========================  =======  ==================================================================================

At the end, Apple's services must have seen nothing that they would have objected to, and webhooks nothing
that is not as the schemas of events say.
"""

import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from local.administrator import Administrator
from local.device import Habits, Hardware, SimulatedApns, SimulatedDevice
from local.life import World
from local.processes import Program
from local.stack import Stack
from tests.e2e.warm_command_line import WarmCommandLine
from tests.event_schemas import assert_conforms


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.start(tmp_path_factory.mktemp("stack"), parameters={"BasicAuth": "true"})
    yield stack
    violations = [*stack.apns.control.violations(), *stack.ade.control.violations()]
    for name, log in stack.logs().items():
        # Beside those of the emulator and the simulators, in the directory that pytest keeps.
        (stack.directory / f"function-{name}.log").write_text(log)
    stack.stop()
    assert not violations


@pytest.fixture(scope="session")
def world(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    hmac_key = secrets.token_urlsafe(32)
    key_file = directory / "hmac-key"
    key_file.write_text(hmac_key)
    with ExitStack() as programs:
        listener = Program.start(
            "webhook-listener", "local.webhook_listener", ["--hmac-key-file", key_file], directory=directory
        )
        programs.callback(listener.stop)
        command_line = programs.enter_context(WarmCommandLine())
        yield World(
            admin_url=stack.admin_url,
            device_url=stack.device_url,
            keys=stack.administrator,
            trust=stack.trust_anchor,
            apns_control=stack.apns.control_url,
            ade_control=stack.ade.control_url,
            webhook_url=listener.ready["url"],
            webhook_control=listener.ready["control"],
            hmac_key=hmac_key,
            topic=f"com.apple.mgmt.External.{uuid.uuid4()}",
            directory=directory,
            command_line=command_line.run,
        )
        _assert_that_deliveries_conform(listener.ready["control"])


def _assert_that_deliveries_conform(control: str) -> None:
    """Hold everything that webhooks received during the run against the schemas of ``docs/events``."""
    delivered = httpx.get(f"{control}/deliveries", trust_env=False, timeout=60).raise_for_status().json()["deliveries"]
    for delivery in delivered:
        if not delivery["problems"]:
            assert_conforms(delivery["document"])


@pytest.fixture(scope="session")
def ready_for_enrollment(stack: Stack, world: World) -> None:
    certificate = stack.apns.control.issue(world.topic)
    administrator = Administrator(world.admin_url, world.keys)
    answer = administrator.request("PUT", "/v1/pushcert", body=certificate)
    administrator.close()
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="session")
def administrator(world: World) -> Iterator[Administrator]:
    with Administrator(world.admin_url, world.keys, command_line=world.command_line) as administrator:
        yield administrator


@pytest.fixture(scope="session")
def pushes(world: World) -> Iterator[SimulatedApns]:
    pushes = SimulatedApns(world.apns_control)
    yield pushes
    pushes.close()


@pytest.fixture(scope="session")
def link(administrator: Administrator, ready_for_enrollment: None) -> str:
    answer = administrator.request("POST", "/v2/enrollment-links", document={})
    assert answer.status_code == 201, answer.text
    url: str = answer.json()["url"]
    return url


@pytest.fixture
def make_device(world: World, pushes: SimulatedApns) -> Iterator[Callable[..., SimulatedDevice]]:
    devices: list[SimulatedDevice] = []
    with ExitStack() as to_close:

        def make(hardware: Hardware | None = None, **more: Any) -> SimulatedDevice:
            device = SimulatedDevice(hardware or Hardware.iphone(), push=pushes, trust=world.trust, **more)
            devices.append(to_close.enter_context(device))
            return device

        yield make
        for device in devices:
            if device.is_enrolled:
                device.check_out()
            assert not device.violations
            assert not device.failures


@pytest.fixture
def enroll(make_device: Callable[..., SimulatedDevice], link: str) -> Callable[..., SimulatedDevice]:
    def make(hardware: Hardware | None = None, habits: Habits | None = None, **more: Any) -> SimulatedDevice:
        device = make_device(hardware, habits=habits, **more)
        device.enroll(link)
        return device

    return make


@pytest.fixture
def queue(administrator: Administrator) -> Callable[..., str]:
    def queue(enrollment_id: str, request_type: str, **fields: Any) -> str:
        document = {"udid": enrollment_id, "request_type": request_type, **fields}
        answer = administrator.request("POST", "/v1/commands", document=document)
        assert answer.status_code == 201, answer.text
        command_uuid: str = answer.json()["payload"]["command_uuid"]
        return command_uuid

    return queue


@pytest.fixture(scope="session")
def start_anew(stack: Stack) -> Callable[..., None]:
    functions = stack.emulator.lambda_

    def start_anew(*names: str) -> None:
        for name in names:
            function = f"{stack.name}-{name}"
            variables = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
            changed = variables | {"STARTED_ANEW": str(uuid.uuid4())}
            functions.update_function_configuration(FunctionName=function, Environment={"Variables": changed})

    return start_anew


@pytest.fixture
def setting(stack: Stack) -> Iterator[Callable[..., None]]:
    functions = stack.emulator.lambda_
    before: dict[str, dict[str, str]] = {}

    def set_(function: str, **variables: str) -> None:
        name = f"{stack.name}-{function}"
        environment = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        before.setdefault(name, environment)
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": environment | variables})

    yield set_
    for name, environment in before.items():
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": environment})

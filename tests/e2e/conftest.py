"""What end-to-end tests run against, once per test run: a deployed stack, and all the others of its world.

========================  =======  ==================================================================================
``stack``                 session  the template, built and deployed onto the emulator (:class:`local.stack.Stack`)
``world``                 session  where everything is: admin API, push service, a customer's listener, a topic
``ready_for_enrollment``  session  the push certificate of the topic is uploaded
========================  =======  ==================================================================================

At the end, the push service must have seen nothing that a device or Apple would have objected to.
"""

import secrets
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from local.administrator import Administrator
from local.life import World
from local.processes import Program
from local.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack.start(tmp_path_factory.mktemp("stack"))
    yield stack
    violations = stack.apns.control.violations()
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
        yield World(
            admin_url=stack.admin_url,
            device_url=stack.device_url,
            keys=stack.administrator,
            trust=stack.trust_anchor,
            apns_control=stack.apns.control_url,
            webhook_url=listener.ready["url"],
            webhook_control=listener.ready["control"],
            hmac_key=hmac_key,
            topic=f"com.apple.mgmt.External.{uuid.uuid4()}",
            directory=directory,
        )


@pytest.fixture(scope="session")
def ready_for_enrollment(stack: Stack, world: World) -> None:
    certificate = stack.apns.control.issue(world.topic)
    administrator = Administrator(world.admin_url, world.keys)
    answer = administrator.request("PUT", "/v1/pushcert", body=certificate)
    administrator.close()
    assert answer.status_code == 200, answer.text

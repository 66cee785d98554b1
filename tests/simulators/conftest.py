"""Simulated devices, and a server of the tests' own for them to reject."""

import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.ca import LocalAuthority
from local.device import Habits, Hardware, SimulatedDevice, cms
from tests.simulators.fake_server import FakeScep, FakeServer, Handler, Server, enrollment_profile, new_ca


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> LocalAuthority:
    return LocalAuthority.open(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def https(authority: LocalAuthority) -> Iterator[Server]:
    """One HTTPS server for all tests; each puts its own :class:`FakeServer` behind it."""

    server = Server(("127.0.0.1", 0), Handler)
    made = authority.server_certificate("127.0.0.1", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def ca() -> cms.Identity:
    """Made once: its key takes a while."""
    return new_ca("Fake CA")


@pytest.fixture
def server(https: Server, authority: LocalAuthority, ca: cms.Identity) -> FakeServer:
    url = f"https://127.0.0.1:{https.server_address[1]}"
    fake = FakeServer(url=url, root=authority.root, scep=FakeScep(ca), profile=enrollment_profile(url))
    https.fake = fake
    return fake


@pytest.fixture
def slept() -> list[float]:
    """The delays that the device asked for, none of which is waited for."""
    return []


@pytest.fixture
def make_device(server: FakeServer, slept: list[float]) -> Iterator[Callable[..., SimulatedDevice]]:
    made: list[SimulatedDevice] = []

    def make(hardware: Hardware | None = None, **different: Any) -> SimulatedDevice:
        different.setdefault("trust", server.root)
        different.setdefault("sleep", slept.append)
        device = SimulatedDevice(hardware or Hardware.iphone(), **different)
        made.append(device)
        return device

    yield make
    for device in made:
        device.close()


@pytest.fixture
def device(make_device: Callable[..., SimulatedDevice]) -> SimulatedDevice:
    """An iPhone that tries everything once."""
    return make_device(habits=Habits(retry_delays=()))


@pytest.fixture
def enrolled(device: SimulatedDevice, server: FakeServer) -> SimulatedDevice:
    device.enroll(server.profile_url)
    return device


@pytest.fixture
def mac(make_device: Callable[..., SimulatedDevice], server: FakeServer) -> SimulatedDevice:
    """A Mac that is enrolled."""
    mac = make_device(Hardware.mac())
    mac.enroll(server.profile_url)
    return mac

"""What proves who a device is: a signature, a proxy's header, mutual TLS, and never less than the deployment says."""

import hashlib
import plistlib
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from urllib.parse import quote

import pytest

from functions.checkin import app as checkin
from functions.connect import app as connect
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.certificates import CaIdentity, new_certificate_authority
from mdmlib.settings import Settings
from mdmlib.store.tables import Enrollment
from tests.deployment import environment_of
from tests.gateway import Gateway, http_event
from tests.signed_device import CHECKIN_TYPE, TOPIC, SignedDevice, trusted_authority

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
SECRET = "a secret that only the proxy and its administrator know"

Event = dict[str, Any]


def authenticate() -> Event:
    body = plistlib.dumps({"MessageType": "Authenticate", "UDID": UDID, "Topic": TOPIC})
    return http_event("PUT", "/mdm/checkin", body, headers={"Content-Type": CHECKIN_TYPE})


def signed(event: Event, device: SignedDevice) -> Event:
    event["headers"]["mdm-signature"] = device.sign(b64decode(event["body"]))
    return event


def by_proxy(event: Event, device: SignedDevice, *, secret: str | None = SECRET, name: str = "client-cert") -> Event:
    event["headers"][name] = f":{b64encode(device.der).decode()}:"
    if secret is not None:
        event["headers"]["x-picomdm-proxy-secret"] = secret
    return event


def by_mutual_tls(event: Event, device: SignedDevice) -> Event:
    """Return the event as API Gateway makes it of a request to a domain with mutual TLS."""
    event["requestContext"]["authentication"] = {
        "clientCert": {
            "clientCertPem": device.pem,
            "issuerDN": "CN=Device Identity CA,O=Tests",
            "serialNumber": "1",
            "subjectDN": f"CN={UDID}",
            "validity": {"notBefore": "Nov 20 12:00:00 2026 GMT", "notAfter": "Nov 20 12:00:00 2027 GMT"},
        }
    }
    return event


Method = Callable[[Event, SignedDevice], Event]
METHODS: dict[str, Method] = {"signature": signed, "header": by_proxy, "mtls": by_mutual_tls}


@pytest.fixture
def configure(aws: Emulator, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CaIdentity]:
    """Set the deployment up with settings, and with a CA that it trusts."""

    def configure(**changes: Any) -> CaIdentity:
        changed = replace(settings, proxy_secret_hash=hashlib.sha256(SECRET.encode()).hexdigest(), **changes)
        for name, value in environment_of(changed).items():
            monkeypatch.setenv(name, value)
        runtime.forget()
        runtime.bind_tables()
        return trusted_authority()

    return configure


class Edge:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __call__(self, event: Event) -> int:
        app = connect if event["rawPath"] == "/mdm/connect" else checkin
        return Gateway(app.lambda_handler).answer(event).status

    def refused(self, event: Event) -> str:
        """Return the code that a request is refused with."""
        assert self(event) == 400
        assert Enrollment.count(UDID) == 0
        code: str = self._caplog.records[-1].__dict__["code"]
        return code


@pytest.fixture
def edge(caplog: pytest.LogCaptureFixture) -> Edge:
    return Edge(caplog)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_proves_who_a_device_is(configure: Callable[..., CaIdentity], edge: Edge, method: str) -> None:
    device = SignedDevice(configure(identity=method), UDID)

    assert edge(METHODS[method](authenticate(), device)) == 200

    assert Enrollment.get(UDID, "!").identity == hashlib.sha256(device.der).hexdigest()
    idle = http_event("PUT", "/mdm/connect", plistlib.dumps({"Status": "Idle", "UDID": UDID}))
    assert edge(METHODS[method](idle, device)) == 200


@pytest.mark.parametrize(("asked", "brought"), list(permutations(METHODS, 2)))
def test_what_the_deployment_does_not_ask_for_proves_nothing(
    configure: Callable[..., CaIdentity], edge: Edge, asked: str, brought: str
) -> None:
    device = SignedDevice(configure(identity=asked), UDID)

    assert edge.refused(METHODS[brought](authenticate(), device)) == "identity_missing"


def test_of_several_methods_each_is_taken(configure: Callable[..., CaIdentity], edge: Edge) -> None:
    device = SignedDevice(configure(identity="signature,header,mtls"), UDID)

    for method in METHODS.values():
        assert edge(method(authenticate(), device)) == 200


@pytest.mark.parametrize("method", METHODS)
def test_a_certificate_of_nobody_we_trust_is_refused(
    configure: Callable[..., CaIdentity], edge: Edge, method: str
) -> None:
    configure(identity=method)
    stranger = SignedDevice(new_certificate_authority("Tests", now=datetime.now(UTC)), UDID)

    assert edge.refused(METHODS[method](authenticate(), stranger)) == "certificate_not_ours"


@pytest.mark.parametrize("secret", [None, "", "guessed", SECRET + " ", f"{SECRET},{SECRET}"])
def test_a_certificate_header_without_the_proxys_secret_is_refused(
    configure: Callable[..., CaIdentity], edge: Edge, secret: str | None
) -> None:
    device = SignedDevice(configure(identity="header"), UDID)

    assert edge.refused(by_proxy(authenticate(), device, secret=secret)) == "proxy_secret_wrong"


def test_without_a_secret_of_the_deployment_no_proxy_is_believed(
    configure: Callable[..., CaIdentity], edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = SignedDevice(configure(identity="header"), UDID)
    monkeypatch.setenv("PROXY_SECRET_HASH", "")
    runtime.forget()
    runtime.bind_tables()

    assert edge.refused(by_proxy(authenticate(), device, secret="")) == "proxy_secret_wrong"
    assert edge.refused(by_proxy(authenticate(), device, secret=None)) == "proxy_secret_wrong"


def test_a_good_signature_does_not_make_up_for_a_forged_header(
    configure: Callable[..., CaIdentity], edge: Edge
) -> None:
    ca = configure(identity="signature,header")
    device, victim = SignedDevice(ca, UDID), SignedDevice(ca, "ANOTHER")

    assert edge.refused(by_proxy(signed(authenticate(), device), victim, secret=None)) == "proxy_secret_wrong"


def test_mutual_tls_decides_whatever_else_a_request_brings(configure: Callable[..., CaIdentity], edge: Edge) -> None:
    ca = configure(identity="signature,header,mtls")
    device, other = SignedDevice(ca, UDID), SignedDevice(ca, "ANOTHER")

    assert edge(by_mutual_tls(by_proxy(signed(authenticate(), other), other), device)) == 200

    assert Enrollment.get(UDID, "!").identity == hashlib.sha256(device.der).hexdigest()


def test_the_header_has_the_name_that_the_deployment_says(configure: Callable[..., CaIdentity], edge: Edge) -> None:
    ca = configure(identity="header", certificate_header="X-Amzn-Mtls-Clientcert")
    device = SignedDevice(ca, UDID)

    assert edge.refused(by_proxy(authenticate(), device)) == "identity_missing"
    event = by_proxy(authenticate(), device, name="x-amzn-mtls-clientcert")
    event["headers"]["x-amzn-mtls-clientcert"] = quote(device.pem, safe="+=/")
    assert edge(event) == 200


def test_a_certificate_header_that_came_twice_is_refused(configure: Callable[..., CaIdentity], edge: Edge) -> None:
    device = SignedDevice(configure(identity="header"), UDID)
    event = by_proxy(authenticate(), device)
    event["headers"]["client-cert"] += ", " + event["headers"]["client-cert"]

    assert edge.refused(event) == "certificate_header_malformed"


@pytest.mark.parametrize("authentication", [None, {}, {"clientCert": None}, {"clientCert": {"clientCertPem": ""}}])
def test_a_gateway_that_asked_for_no_certificate_proves_nothing(
    configure: Callable[..., CaIdentity], edge: Edge, authentication: object
) -> None:
    configure(identity="mtls")
    event = authenticate()
    event["requestContext"]["authentication"] = authentication

    assert edge.refused(event) == "identity_missing"


@pytest.mark.parametrize("identity", ["", "signatures", "signature,", "signature,none", "none"])
def test_a_setting_that_nobody_understands_lets_nobody_in(
    configure: Callable[..., CaIdentity], edge: Edge, identity: str
) -> None:
    device = SignedDevice(configure(identity=identity), UDID)
    event = by_mutual_tls(by_proxy(signed(authenticate(), device), device), device)

    assert edge(event) == 500
    assert Enrollment.count(UDID) == 0

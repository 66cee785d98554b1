"""A device's identity is renewed without anybody thinking of it: through the functions, from its enrollment on."""

import plistlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from functions.checkin import app as checkin
from functions.connect import app as connect
from functions.enroll import app as enroll
from functions.housekeeping import app as housekeeping
from local.device.certificate_request import name
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.apple.enrollment_profile import EnrollmentMode, ManagedAccount
from mdmlib.settings import Settings
from mdmlib.store.tables import Enrollment
from tests.deployment import Clock
from tests.event_schemas import assert_conforms
from tests.fleet import Bus
from tests.gateway import FunctionContext, Gateway, http_event
from tests.portal import push_certificate
from tests.queues import QueueSource
from tests.scep_client import ScepClient, rsa_key
from tests.signed_device import CHECKIN_TYPE, TOPIC, SignedDevice

UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"


class Deployment:
    """All functions of a deployment, whose time passes when it is told to."""

    def __init__(self, aws: Emulator, settings: Settings, clock: Clock) -> None:
        self.clock = clock
        self.bus = Bus(aws, settings.event_bus)
        self._tasks = QueueSource(aws, settings.sweep_queue_url, housekeeping.lambda_handler)

    def send(self, event: dict[str, Any]) -> bytes:
        """Let the function of a route answer, and return the body of what has to be a 200."""
        path = event["rawPath"]
        app: Any = connect if path == "/mdm/connect" else checkin if path.startswith("/mdm/c") else enroll
        answer = Gateway(app.lambda_handler).answer(event)
        assert answer.status == 200
        return answer.body

    def refuses(self, event: dict[str, Any]) -> bool:
        app: Any = connect if event["rawPath"] == "/mdm/connect" else checkin
        return Gateway(app.lambda_handler).answer(event).status == 400

    def daily(self) -> None:
        """Do what the daily schedule asks for."""
        context: Any = FunctionContext()
        housekeeping.lambda_handler({"task": "renew_identities"}, context)
        while self._tasks.count():
            assert self._tasks.invoke().stayed == []

    def scep(self, client: ScepClient, challenge: str | None) -> x509.Certificate:
        """Ask SCEP for a certificate."""
        event = http_event(
            "POST", "/scep", client.request(challenge), headers={"Content-Type": "application/x-pki-message"}
        )
        event["rawQueryString"] = "operation=PKIOperation"
        return client.read(self.send(event)).certificate

    def profile(self, document: bytes) -> tuple[str, str]:
        """Return the challenge of an enrollment profile, and the UUID of its MDM payload."""
        payloads = {payload["PayloadType"]: payload for payload in plistlib.loads(document)["PayloadContent"]}
        challenge = payloads["com.apple.security.scep"]["PayloadContent"]["Challenge"]
        return challenge, payloads["com.apple.mdm"]["PayloadUUID"]


class Device:
    """A device that enrolled by a link."""

    def __init__(self, deployment: Deployment, profile: bytes, *, is_user_enrollment: bool = False) -> None:
        self.deployment = deployment
        self._is_user_enrollment = is_user_enrollment
        challenge, self.mdm_payload = deployment.profile(profile)
        ca = x509.load_der_x509_certificate(runtime.certificate_authority().certificate_der())
        payloads = {payload["PayloadType"]: payload for payload in plistlib.loads(profile)["PayloadContent"]}
        subject = payloads["com.apple.security.scep"]["PayloadContent"]["Subject"]
        self.client = ScepClient(ca, subject=name([(kind, value) for ((kind, value),) in subject]))
        self.certificate = deployment.scep(self.client, challenge)
        self.key: rsa.RSAPrivateKey = self.client.key
        self.authenticate()

    @property
    def signed(self) -> SignedDevice:
        return SignedDevice.with_identity(UDID, self.certificate, self.key, is_user_enrollment=self._is_user_enrollment)

    def authenticate(self) -> None:
        self.deployment.send(self.signed.checkin("Authenticate", SerialNumber="C02XXXX"))
        self.deployment.send(self.signed.checkin("TokenUpdate", Token=b"t" * 32, PushMagic="magic"))

    def idle(self) -> dict[str, Any] | None:
        body = self.deployment.send(self.signed.report("Idle"))
        return plistlib.loads(body) if body else None

    def use(self, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        self.certificate, self.key = certificate, key


@pytest.fixture
def deployment(aws: Emulator, environment: Settings, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    clock = Clock(datetime.now(UTC).replace(microsecond=0))
    monkeypatch.setattr(runtime, "now", clock)
    runtime.forget()
    runtime.push_certificates().upload(push_certificate(TOPIC))
    return Deployment(aws, environment, clock)


@pytest.fixture
def device(deployment: Deployment) -> Device:
    _, url = runtime.enrollment_links().create(expires_in=timedelta(days=1))
    return Device(deployment, deployment.send(http_event("GET", url.removeprefix("https://mdm.example.org"))))


def renew_by_signature(device: Device, _challenge: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A RenewalReq: the old identity vouches for the new one."""
    key = rsa_key(f"renewed {device.certificate.serial_number}")
    client = replace(device.client, key=device.key)
    return device.deployment.scep(client.renewal(device.certificate, key), None), key


def renew_by_challenge(device: Device, challenge: str) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    """A PKCSReq, as at the first enrollment: the profile's challenge vouches for the new identity."""
    key = rsa_key(f"renewed {device.certificate.serial_number}")
    return device.deployment.scep(ScepClient(device.client.ca, key=key, subject=device.client.subject), challenge), key


@pytest.mark.parametrize("renew", [renew_by_signature, renew_by_challenge])
@pytest.mark.parametrize("reports", ["with the old identity", "with the new identity", "after enrolling anew"])
def test_an_identity_that_ends_soon_is_renewed_and_the_device_goes_on(
    deployment: Deployment,
    device: Device,
    renew: Callable[[Device, str], tuple[x509.Certificate, rsa.RSAPrivateKey]],
    reports: str,
) -> None:
    deployment.daily()
    assert device.idle() is None, "it is new"
    deployment.clock.advance(days=306)
    deployment.bus.take()
    deployment.daily()

    (event,) = deployment.bus.take()
    assert_conforms(event)
    assert (event["topic"], event["identity_event"]["stage"]) == ("mdm.IdentityExpiring", 60)
    command = device.idle()
    assert command is not None
    assert command["Command"]["RequestType"] == "InstallProfile"
    challenge, mdm_payload = deployment.profile(command["Command"]["Payload"])
    assert mdm_payload == device.mdm_payload

    old, old_device = device.certificate, device.signed
    new, key = renew(device, challenge)
    if reports == "with the old identity":
        deployment.send(device.signed.report("Acknowledged", command["CommandUUID"]))
        device.use(new, key)
    elif reports == "with the new identity":
        device.use(new, key)
        deployment.send(device.signed.report("Acknowledged", command["CommandUUID"]))
    else:
        device.use(new, key)
        device.authenticate()
        deployment.send(old_device.report("Acknowledged", command["CommandUUID"]))

    assert device.idle() is None
    record = Enrollment.get(UDID, "!")
    assert record.identity == device.signed.sha256
    assert record.previous_identity == old_device.sha256
    assert record.identity_not_after == new.not_valid_after_utc.timestamp() > old.not_valid_after_utc.timestamp()
    assert record.link is not None, "it is still known by which link it enrolled"
    assert deployment.refuses(old_device.report("Idle"))
    deployment.bus.take()
    deployment.daily()
    assert deployment.bus.take() == []
    assert device.idle() is None


@pytest.mark.parametrize("mode", EnrollmentMode)
@pytest.mark.parametrize("renew", [renew_by_signature, renew_by_challenge])
def test_the_renewal_of_an_account_driven_enrollment_is_for_the_same_account(
    deployment: Deployment,
    renew: Callable[[Device, str], tuple[x509.Certificate, rsa.RSAPrivateKey]],
    mode: EnrollmentMode,
) -> None:
    profile = runtime.enrollment_profiles().make(topic=TOPIC, account=ManagedAccount("ada@example.org", mode))
    device = Device(deployment, profile, is_user_enrollment=mode is EnrollmentMode.USER)
    for _ in range(2):
        deployment.clock.advance(days=310)
        deployment.daily()
        command = device.idle()
        assert command is not None
        challenge, _ = deployment.profile(command["Command"]["Payload"])
        payloads = plistlib.loads(command["Command"]["Payload"])["PayloadContent"]
        (mdm,) = [payload for payload in payloads if payload["PayloadType"] == "com.apple.mdm"]
        assert (mdm["AssignedManagedAppleID"], mdm["EnrollmentMode"]) == ("ada@example.org", mode.value)
        assert ("AccessRights" in mdm) is (mode is EnrollmentMode.DEVICE)
        device.use(*renew(device, challenge))
        deployment.send(device.signed.report("Acknowledged", command["CommandUUID"]))


def test_a_device_that_never_gets_scep_s_answer_is_asked_until_it_does(deployment: Deployment, device: Device) -> None:
    deployment.clock.advance(days=306)
    for attempt in range(3):
        deployment.daily()
        command = device.idle()
        assert command is not None, attempt
        device.deployment.scep(device.client.renewal(device.certificate, rsa_key(f"lost {attempt}")), None)
        deployment.send(device.signed.report("Error", command["CommandUUID"]))
        assert device.idle() is None
        deployment.clock.advance(days=8)

    deployment.daily()
    command = device.idle()
    assert command is not None
    challenge, _ = deployment.profile(command["Command"]["Payload"])
    device.use(*renew_by_challenge(device, challenge))
    deployment.send(device.signed.report("Acknowledged", command["CommandUUID"]))
    assert Enrollment.get(UDID, "!").identity == device.signed.sha256


def test_a_device_that_was_off_past_the_end_is_renewed_within_the_grace(deployment: Deployment, device: Device) -> None:
    deployment.clock.advance(days=310)
    deployment.daily()
    deployment.clock.advance(days=80)

    command = device.idle()
    assert command is not None, "the renewal has waited for it"
    challenge, _ = deployment.profile(command["Command"]["Payload"])
    device.use(*renew_by_signature(device, challenge))
    assert device.idle() is None, "it needs no other one"
    deployment.send(device.signed.report("Acknowledged", command["CommandUUID"]))
    assert device.idle() is None


def test_the_single_path_hands_out_renewals_too(deployment: Deployment, device: Device) -> None:
    deployment.clock.advance(days=310)
    deployment.daily()
    idle = plistlib.dumps({"Status": "Idle", "UDID": UDID})

    answer = Gateway(checkin.lambda_handler).answer(device.signed.put("/mdm", idle))
    assert b"InstallProfile" in answer.body
    assert not device.signed.put("/mdm", idle)["headers"]["content-type"].startswith(CHECKIN_TYPE)


def test_a_connect_that_hands_out_no_renewal_imports_nothing_for_it(environment: Settings) -> None:
    program = """
import sys
from functions.connect import app
from mdmlib import runtime
runtime.connect_service(), runtime.device_identity()
not_for_it = "profile", "scep", "httpx", "runtime.identities"
print([name for name in sys.modules if any(word in name for word in not_for_it)])
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert said.stdout.strip() == "[]"

"""Over-the-air enrollment at the enroll function, phase by phase."""

import plistlib
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from functions.enroll import app as enroll
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.services.scep_challenges import serial_hash
from mdmlib.settings import Settings
from mdmlib.store.tables import EnrollmentLink
from tests.aws_calls import DynamoDBCalls
from tests.gateway import Answer, Gateway, http_event
from tests.genuine_devices import IPHONE, MAC, Authority, GenuineDevice, check_in
from tests.portal import push_certificate
from tests.scep_client import ScepClient, rsa_key

TOPIC = "com.apple.mgmt.External.11111111-2222-3333-4444-555555555555"
PROFILE = "application/x-apple-aspen-config"
ATTRIBUTES = ("UDID", "VERSION", "PRODUCT", "SERIAL", "IMEI")


class Safari(Gateway):
    """Where a person opens the address on a device, and what the device does then."""

    def __init__(self) -> None:
        super().__init__(enroll.lambda_handler)

    def begin(self, token: str | None) -> Answer:
        return self.get(f"/ota/enroll/{token}" if token else "/ota/enroll")

    def challenge(self, token: str | None) -> str:
        return str(plistlib.loads(self.begin(token).body)["PayloadContent"]["Challenge"])

    def post(self, path: str, message: object) -> Answer:
        assert isinstance(message, bytes)
        return self.request("POST", path, message, headers={"Content-Type": "application/pkcs7-signature"})

    def proceed(self, device: GenuineDevice, challenge: str | None, **changes: Any) -> Answer:
        """Post what the device is asked for, signed with its certificate."""
        told = {key: device.info[key] for key in ATTRIBUTES if key in device.info} | changes
        content = plistlib.dumps(told | ({"CHALLENGE": challenge} if challenge else {}))
        return self.post("/ota/phase23", device.sign(content))

    def scep(self, profile: bytes, key: str) -> GenuineDevice:
        """Get the identity that a profile asks for; return the device with it."""
        event = http_event("GET", "/scep")
        event["rawQueryString"] = "operation=GetCACert"
        client = ScepClient(x509.load_der_x509_certificate(self.answer(event).body), key=rsa_key(key))
        event = http_event("POST", "/scep", client.request(scep_of(profile)["Challenge"]))
        event["rawQueryString"] = "operation=PKIOperation"
        issued = client.read(self.answer(event).body).certificate
        return GenuineDevice(issued, client.key, dict(IPHONE))


def scep_of(profile: bytes) -> dict[str, Any]:
    payloads = plistlib.loads(profile)["PayloadContent"]
    scep: dict[str, Any] = next(each for each in payloads if each["PayloadType"] == "com.apple.security.scep")
    return dict(scep["PayloadContent"])


@pytest.fixture
def safari(aws: Emulator, environment: Settings) -> Safari:
    runtime.push_certificates().upload(push_certificate(TOPIC))
    return Safari()


@pytest.fixture
def phone(safari: Safari) -> GenuineDevice:
    authority = Authority.named("Fruit Phone Device CA")
    runtime.device_authorities().upload("fruit", authority.pem)
    return authority.device()


def make_link(**options: Any) -> tuple[EnrollmentLink, str]:
    link, url = runtime.enrollment_links().create(expires_in=timedelta(days=1), **options)
    return link, url.rsplit("/", 1)[1]


def uses(link: EnrollmentLink) -> int:
    link.refresh(consistent_read=True)
    return int(link.uses)


def test_the_first_phase_asks_who_the_device_is(safari: Safari) -> None:
    _, token = make_link()

    answer = safari.begin(token)

    assert (answer.status, answer.headers["content-type"]) == (200, PROFILE)
    profile = plistlib.loads(answer.body)
    assert profile["PayloadType"] == "Profile Service"
    assert profile["PayloadContent"]["URL"] == "https://mdm.example.org/ota/phase23"
    assert set(profile["PayloadContent"]["DeviceAttributes"]) >= {"UDID", "SERIAL", "PRODUCT", "VERSION"}
    assert token not in profile["PayloadContent"]["Challenge"]


def test_three_phases_lead_to_an_enrollment_profile_for_this_device(safari: Safari, phone: GenuineDevice) -> None:
    link, token = make_link(max_uses=1)
    challenge = safari.challenge(token)

    second = safari.proceed(phone, challenge)
    assert (second.status, second.headers["content-type"]) == (200, PROFILE)
    assert [each["PayloadType"] for each in plistlib.loads(second.body)["PayloadContent"]] == [
        "com.apple.security.scep"
    ]
    identified = safari.scep(second.body, "phase 2")
    assert uses(link) == 0

    third = safari.proceed(identified, None)
    assert third.status == 200
    mdm = next(each for each in plistlib.loads(third.body)["PayloadContent"] if each["PayloadType"] == "com.apple.mdm")
    assert mdm["Topic"] == TOPIC
    found = runtime.scep_challenges().recognize(scep_of(third.body)["Challenge"])
    assert (found.link_id, found.serial_hash) == (link.name, serial_hash(IPHONE["SERIAL"]))

    safari.scep(third.body, "phase 3")
    assert uses(link) == 1
    assert safari.proceed(identified, challenge).status == 403


def test_the_identity_of_the_second_phase_enrolls_nobody(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    identified = safari.scep(safari.proceed(phone, safari.challenge(token)).body, "phase 2")

    message = {"MessageType": "Authenticate", "UDID": IPHONE["UDID"], "SerialNumber": IPHONE["SERIAL"], "Topic": TOPIC}
    answer = check_in(identified, plistlib.dumps(message))

    assert answer.status == 400
    assert runtime.enrollments().get(IPHONE["UDID"]) is None


def test_an_identity_of_a_device_that_is_enrolled_leads_to_no_profile(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    profile = safari.get(f"/mdm/enroll/{token}").body

    assert safari.proceed(safari.scep(profile, "enrolled"), safari.challenge(token)).status == 400


def test_an_identity_that_was_revoked_leads_to_no_profile(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    identified = safari.scep(safari.proceed(phone, safari.challenge(token)).body, "phase 2")
    assert safari.proceed(identified, None).status == 200

    runtime.revocations().revoke_serial_number(f"{identified.certificate.serial_number:x}")

    assert safari.proceed(identified, None).status == 400


def test_the_identity_is_for_the_device_that_asked(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    identified = safari.scep(safari.proceed(phone, safari.challenge(token)).body, "phase 2")

    assert safari.proceed(identified, None, SERIAL=MAC["SERIAL"]).status == 400


def test_a_link_that_ends_between_the_phases_ends_the_enrollment(safari: Safari, phone: GenuineDevice) -> None:
    link, token = make_link()
    challenge = safari.challenge(token)
    identified = safari.scep(safari.proceed(phone, challenge).body, "phase 2")

    runtime.enrollment_links().revoke(link.name)

    assert safari.proceed(phone, challenge).status == 403
    assert safari.proceed(identified, None).status == 403
    assert safari.begin(token).status == 403


def test_who_is_no_genuine_device_gets_no_identity(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    forged = Authority.named("Forger").device()

    assert safari.proceed(forged, safari.challenge(token)).status == 400


def test_nobody_gets_an_identity_while_there_is_no_authority(safari: Safari) -> None:
    _, token = make_link()

    assert safari.proceed(Authority.named("Fruit Phone Device CA").device(), safari.challenge(token)).status == 403


def test_a_genuine_device_needs_the_challenge_of_the_first_phase(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    of_scep = scep_of(safari.get(f"/mdm/enroll/{token}").body)["Challenge"]

    for challenge in (None, "made up", of_scep):
        assert safari.proceed(phone, challenge).status == 403


def test_the_challenge_of_the_first_phase_is_none_for_scep(safari: Safari) -> None:
    from mdmlib.errors import ForbiddenError

    _, token = make_link()
    with pytest.raises(ForbiddenError):
        runtime.scep_challenges().recognize(safari.challenge(token))


def test_the_first_phase_needs_a_link_unless_everybody_may_enroll(
    safari: Safari, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert safari.begin(None).status == 403
    assert safari.begin("x" * 43).status == 404

    monkeypatch.setenv("ENROLLMENT_ACCESS", "open")
    runtime.forget()

    device = Authority.named("Fruit Phone Device CA").device()
    identified = safari.scep(safari.proceed(device, safari.challenge(None)).body, "phase 2")
    assert safari.proceed(identified, None).status == 200


def test_nothing_is_written_in_any_phase_and_nothing_read_for_noise(safari: Safari, phone: GenuineDevice) -> None:
    _, token = make_link()
    runtime.certificate_authority().load()
    challenge = safari.challenge(token)
    identified = safari.scep(safari.proceed(phone, challenge).body, "phase 2")
    calls = DynamoDBCalls(runtime.dynamodb_client())

    safari.begin(token)
    safari.proceed(phone, challenge)
    safari.proceed(identified, challenge)
    assert calls.take_writes() == []

    for message in (b"", b"noise", b"\x30\x80", phone.sign(b"no plist"), Authority.named("Forger").device().sign(b"x")):
        assert safari.post("/ota/phase23", message).status == 400
    assert safari.proceed(Authority.named("Forger").device(), "made up").status == 403
    assert calls.take() == []

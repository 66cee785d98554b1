"""How a device asks for its profile by ADE and over the air, and what it rejects before it is enrolled."""

import base64
import json
import plistlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from local.device import (
    DeviceError,
    Habits,
    Hardware,
    Identity,
    MachineInfoForm,
    ProtocolViolation,
    ServerRefused,
    SignatureForm,
    SimulatedDevice,
    UpdateRequired,
    cms,
)
from local.device_authority import DeviceAuthority
from tests.simulators.conversation import rules
from tests.simulators.fake_server import PROFILE_TYPE, FakeServer, Page, Seen

Make = Callable[..., SimulatedDevice]

UPDATE = {"code": "com.apple.softwareupdate.required", "details": {"OSVersion": "26.2"}}


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> DeviceAuthority:
    return DeviceAuthority.open(tmp_path_factory.mktemp("factory"))


@pytest.fixture
def make_genuine(make_device: Make, factory: DeviceAuthority) -> Make:
    """Make a device with an identity of the factory's."""

    def make(hardware: Hardware | None = None, *, curve: bool = False, **more: Any) -> SimulatedDevice:
        hardware = hardware or Hardware.iphone()
        identity = factory.identity(hardware.udid, curve=curve)
        return make_device(hardware, built_in=Identity.from_pem(identity.read_bytes()), **more)

    return make


def open_signed(message: bytes, authority: Path) -> dict[str, Any]:
    """Verify a SignedData against the factory with nothing of the device's own code; return what was signed."""
    signed = asn1_cms.ContentInfo.load(message, strict=True)["content"]
    [signer] = signed["signer_infos"]
    certificate = x509.load_der_x509_certificate(signed["certificates"][0].chosen.dump())
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    key, issuer_key = certificate.public_key(), issuer.public_key()
    assert isinstance(issuer_key, rsa.RSAPublicKey)
    assert certificate.signature_hash_algorithm
    issuer_key.verify(
        certificate.signature,
        certificate.tbs_certificate_bytes,
        padding.PKCS1v15(),
        certificate.signature_hash_algorithm,
    )
    content: bytes = signed["encap_content_info"]["content"].native
    covered = signer["signed_attrs"].untag().dump() if signer["signed_attrs"] else content
    digest = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[signer["digest_algorithm"]["algorithm"].native]
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signer["signature"].native, covered, padding.PKCS1v15(), digest)
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signer["signature"].native, covered, ec.ECDSA(digest))
    document: dict[str, Any] = plistlib.loads(content)
    return document


def profile_page(server: FakeServer, content_type: str = PROFILE_TYPE) -> Callable[[Seen], Page]:
    return lambda _request: Page(200, content_type, plistlib.dumps(server.profile))


# The factory


def test_the_factorys_identities_stay_and_its_authority_is_one_under_two_certificates(tmp_path: Path) -> None:
    factory = DeviceAuthority.open(tmp_path)
    first = factory.identity("A-DEVICE", digest="sha1").read_bytes()
    assert DeviceAuthority.open(tmp_path).identity("A-DEVICE").read_bytes() == first

    old, new = (
        x509.load_pem_x509_certificate(factory.certificate(digest).read_bytes()) for digest in ("sha1", "sha256")
    )
    assert old.signature_hash_algorithm
    assert old.signature_hash_algorithm.name == "sha1"
    assert old.public_key() == new.public_key()
    assert old.subject == new.subject
    device = Identity.from_pem(first).certificate
    assert device.signature_hash_algorithm
    assert device.signature_hash_algorithm.name == "sha1"
    assert device.issuer == old.subject
    key = old.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(device.signature, device.tbs_certificate_bytes, padding.PKCS1v15(), hashes.SHA1())


def test_the_factory_is_a_program(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "local.device_authority",
        "--directory",
        str(tmp_path),
        "--device",
        "A-DEVICE",
        "--curve",
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)

    identity = Identity.from_pem(Path(told["identity"]).read_bytes())
    assert isinstance(identity.key, ec.EllipticCurvePrivateKey)
    assert identity.certificate.issuer == x509.load_pem_x509_certificate(Path(told["certificate"]).read_bytes()).subject
    assert Path(told["identity"]).stat().st_mode & 0o077 == 0


# ADE


@pytest.mark.parametrize("signature", SignatureForm)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("curve", [True, False])
def test_a_device_shows_who_it_is_signed_by_its_built_in_identity(
    make_genuine: Make,
    server: FakeServer,
    factory: DeviceAuthority,
    signature: SignatureForm,
    digest: cms.Digest,
    *,
    curve: bool,
) -> None:
    server.pages["/ade"] = profile_page(server)
    form = MachineInfoForm(signature=signature, digest=digest, binary=curve)
    device = make_genuine(curve=curve, habits=Habits(machine_info=form))
    device.enroll_by_ade(f"{server.url}/ade", awaiting_configuration=True)

    asked = server.seen[0]
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/pkcs7-signature")
    told = open_signed(asked.body, factory.certificate())
    hardware = device.hardware
    assert hardware.imei
    assert told == {
        "UDID": hardware.udid,
        "SERIAL": hardware.serial_number,
        "PRODUCT": hardware.product_name,
        "VERSION": hardware.build_version,
        "OS_VERSION": hardware.os_version,
        "SUPPLEMENTAL_BUILD_VERSION": hardware.build_version,
        "SOFTWARE_UPDATE_DEVICE_ID": hardware.product_name,
        "IMEI": hardware.imei.replace(" ", ""),
        "MEID": hardware.meid,
        "LANGUAGE": "en-US",
        "MDM_CAN_REQUEST_SOFTWARE_UPDATE": True,
    }
    assert server.messages("TokenUpdate")[0]["AwaitingConfiguration"] is True


def test_an_older_release_tells_less(make_genuine: Make, server: FakeServer, factory: DeviceAuthority) -> None:
    server.pages["/ade"] = profile_page(server)
    device = make_genuine(Hardware.ipad(os_version="16.7"))
    device.enroll_by_ade(f"{server.url}/ade")

    told = open_signed(server.seen[0].body, factory.certificate())
    assert told.keys() == {"UDID", "SERIAL", "PRODUCT", "VERSION", "LANGUAGE"}


def test_behind_a_web_page_the_header_says_who_it_is(
    make_genuine: Make, server: FakeServer, factory: DeviceAuthority
) -> None:
    server.pages["/ade"] = profile_page(server)
    device = make_genuine(Hardware.mac())
    device.enroll_by_ade(f"{server.url}/ade", web_view=True)

    asked = server.seen[0]
    assert asked.method == "GET"
    told = open_signed(base64.b64decode(asked.headers["x-apple-aspen-deviceinfo"]), factory.certificate())
    assert told["SERIAL"] == device.hardware.serial_number
    assert device.is_enrolled


def test_without_a_built_in_identity_nothing_is_asked(device: SimulatedDevice, server: FakeServer) -> None:
    with pytest.raises(DeviceError, match="no built-in identity"):
        device.enroll_by_ade(f"{server.url}/ade")
    assert not server.seen


@pytest.mark.parametrize(("kind", "dump"), [("application/json", json.dumps), ("application/xml", plistlib.dumps)])
def test_a_device_that_has_to_update_first_is_told_to_which_version(
    make_genuine: Make, server: FakeServer, kind: str, dump: Callable[[object], bytes | str]
) -> None:
    said = dump(UPDATE | {"details": {"OSVersion": "26.2", "BuildVersion": "23C54"}, "message": "Update first."})
    server.pages["/ade"] = lambda _request: Page(403, kind, said if isinstance(said, bytes) else said.encode())

    with pytest.raises(UpdateRequired) as required:
        make_genuine().enroll_by_ade(f"{server.url}/ade")
    assert (required.value.os_version, required.value.build_version) == ("26.2", "23C54")


@pytest.mark.parametrize(
    ("os_version", "details"),
    [
        ("16.7", {"OSVersion": "17.0"}),
        ("26.2", {"OSVersion": "26.2"}),
        ("26.2", {"OSVersion": "26.2.0"}),
        ("26.2", {"OSVersion": "18.7"}),
        ("26.1", {"OSVersion": "newest"}),
        ("26.1", {"OSVersion": 26}),
        ("26.1", {}),
        ("26.1", {"OSVersion": "26.2", "BuildVersion": 23}),
    ],
)
def test_an_update_that_makes_no_sense_is_rejected(
    make_genuine: Make, server: FakeServer, os_version: str, details: dict[str, Any]
) -> None:
    said = json.dumps(UPDATE | {"details": details}).encode()
    server.pages["/ade"] = lambda _request: Page(403, "application/json", said)
    device = make_genuine(Hardware.iphone(os_version=os_version))

    with pytest.raises(ProtocolViolation):
        device.enroll_by_ade(f"{server.url}/ade")
    assert rules(device) == ["com.apple.softwareupdate.required"]


@pytest.mark.parametrize(
    "page",
    [
        Page(403, "text/html", json.dumps(UPDATE).encode()),
        Page(403, None, json.dumps(UPDATE).encode()),
        Page(403, "application/json", b"{"),
        Page(403, "application/json", b'{"code": "com.apple.well-known.failed"}'),
        Page(400, "application/json", json.dumps(UPDATE).encode()),
        Page(401, None),
        Page(500, None),
    ],
)
def test_any_other_refusal_is_just_that(make_genuine: Make, server: FakeServer, page: Page) -> None:
    server.pages["/ade"] = lambda _request: page
    device = make_genuine()
    with pytest.raises(ServerRefused) as refused:
        device.enroll_by_ade(f"{server.url}/ade")
    assert not isinstance(refused.value, UpdateRequired)
    assert not device.violations


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_an_answer_that_is_no_profile_is_rejected(make_genuine: Make, server: FakeServer, content_type: str) -> None:
    server.pages["/ade"] = profile_page(server, content_type)
    device = make_genuine()
    with pytest.raises(ProtocolViolation):
        device.enroll_by_ade(f"{server.url}/ade")
    assert rules(device) == ["Content-Type"]


# Over the air


def profile_service(server: FakeServer, **content: Any) -> dict[str, Any]:
    asked = {"URL": f"{server.url}/ota/next", "DeviceAttributes": ["UDID", "SERIAL", "IMEI", "ICCID"], "Challenge": "c"}
    return {
        "PayloadType": "Profile Service",
        "PayloadVersion": 1,
        "PayloadIdentifier": "com.example.ota",
        "PayloadUUID": "3D1A6C11-5F0B-4D9C-8C11-0D7A7B0E2A99",
        "PayloadContent": {key: value for key, value in (asked | content).items() if value is not None},
    }


def serve_ota(server: FakeServer, service: dict[str, Any], *, with_identity: bool = True) -> list[bytes]:
    """Serve all phases; return what was posted."""
    posted: list[bytes] = []

    def answer(request: Seen) -> Page:
        posted.append(request.body)
        profile = dict(server.profile)
        if len(posted) == 1 and with_identity:
            profile["PayloadContent"] = [server.scep_payload]
        return Page(200, PROFILE_TYPE, plistlib.dumps(profile))

    server.pages["/ota"] = lambda _request: Page(200, PROFILE_TYPE, plistlib.dumps(service))
    server.pages["/ota/next"] = answer
    return posted


def test_the_third_phase_is_signed_with_the_identity_of_the_second(
    make_genuine: Make, server: FakeServer, factory: DeviceAuthority, ca: Identity, tmp_path: Path
) -> None:
    posted = serve_ota(server, profile_service(server))
    device = make_genuine()
    device.enroll_over_the_air(f"{server.url}/ota")

    second, third = posted
    told = {
        "UDID": device.udid,
        "SERIAL": device.hardware.serial_number,
        "IMEI": device.hardware.imei,
        "CHALLENGE": "c",
    }
    assert open_signed(second, factory.certificate()) == told
    path = tmp_path / "ca.pem"
    path.write_bytes(ca.certificate.public_bytes(serialization.Encoding.PEM))
    assert open_signed(third, path) == told
    assert len(server.scep.issued) == 2
    assert device.identity.certificate == server.scep.issued[1]
    assert device.connect() == []


def test_a_challenge_goes_back_as_it_came_and_a_server_may_end_after_two_phases(
    make_genuine: Make, server: FakeServer, factory: DeviceAuthority
) -> None:
    posted = serve_ota(server, profile_service(server, Challenge=b"\x01\x02"), with_identity=False)
    device = make_genuine()
    device.enroll_over_the_air(f"{server.url}/ota")

    [second] = posted
    assert open_signed(second, factory.certificate())["CHALLENGE"] == b"\x01\x02"
    assert device.is_enrolled


def test_a_signed_profile_service_is_opened(make_genuine: Make, server: FakeServer, ca: Identity) -> None:
    serve_ota(server, profile_service(server))
    plist = plistlib.dumps(profile_service(server))
    signed = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(plist)
        .add_signer(ca.certificate, ca.key, hashes.SHA256())
        .sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])
    )
    server.pages["/ota"] = lambda _request: Page(200, PROFILE_TYPE, signed)
    device = make_genuine()
    device.enroll_over_the_air(f"{server.url}/ota")
    assert device.is_enrolled


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ({"URL": "http://127.0.0.1/ota"}, "URL"),
        ({"URL": None}, "profile-service"),
        ({"DeviceAttributes": None}, "profile-service"),
        ({"DeviceAttributes": "UDID"}, "profile-service"),
        ({"DeviceAttributes": ["UDID", 1]}, "DeviceAttributes"),
        ({"DeviceAttributes": ["PASSWORD"]}, "DeviceAttributes"),
        ({"Challenge": 4711}, "Challenge"),
    ],
)
def test_a_profile_service_that_breaks_a_rule_is_rejected(
    make_genuine: Make, server: FakeServer, content: dict[str, Any], rule: str
) -> None:
    posted = serve_ota(server, profile_service(server, **content))
    device = make_genuine()
    with pytest.raises(ProtocolViolation):
        device.enroll_over_the_air(f"{server.url}/ota")
    assert rules(device) == [rule]
    assert not posted


def test_an_ordinary_profile_is_no_profile_service(make_genuine: Make, server: FakeServer) -> None:
    device = make_genuine()
    with pytest.raises(ProtocolViolation):
        device.enroll_over_the_air(server.profile_url)
    assert rules(device) == ["profile-service"]


def test_the_second_phases_profile_has_to_bring_an_identity(make_genuine: Make, server: FakeServer) -> None:
    serve_ota(server, profile_service(server))
    server.scep_payload["PayloadType"] = "com.apple.wifi.managed"
    device = make_genuine()
    with pytest.raises(ProtocolViolation):
        device.enroll_over_the_air(f"{server.url}/ota")
    assert rules(device) == ["scep-payload"]


@pytest.mark.parametrize("phase", [2, 3])
def test_a_refused_phase_ends_it(make_genuine: Make, server: FakeServer, phase: int) -> None:
    posted = serve_ota(server, profile_service(server))
    served = server.pages["/ota/next"]
    server.pages["/ota/next"] = lambda request: Page(403, None) if len(posted) == phase - 2 else served(request)
    device = make_genuine()
    with pytest.raises(ServerRefused, match=f"OTA phase {phase}"):
        device.enroll_over_the_air(f"{server.url}/ota")
    assert not device.is_enrolled
    assert not device.violations

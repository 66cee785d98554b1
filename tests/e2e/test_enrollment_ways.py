"""Every way of enrolling, against the deployed stack: the device cancels where a step is not as Apple demands."""

import json
import plistlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.administrator import Administrator
from local.ca import LocalAuthority
from local.device import (
    EnrollmentMode,
    Habits,
    Hardware,
    Identity,
    MachineInfoForm,
    NoAnswer,
    Person,
    Renewal,
    ScepRefused,
    ServerRefused,
    SignatureForm,
    SimulatedApns,
    SimulatedDevice,
    UpdateRequired,
    cms,
)
from local.device_authority import DeviceAuthority
from local.life import World
from local.processes import Program
from local.stack import Stack
from tests.e2e.test_renewal import let_identity_end, look

MakeDevice = Callable[..., SimulatedDevice]
Queue = Callable[..., str]
Admin = Callable[..., httpx.Response]

PUSH_SECONDS = 30.0
ACCOUNT_DRIVEN = "/v2/account-driven-enrollment"
ADA = Person(user="ada@example.org", password="correct horse")
BOB = Person(user="bob@example.org", password="battery staple")


@pytest.fixture(scope="module")
def admin(administrator: Administrator) -> Admin:
    """Ask for something that is granted."""

    def ask(method: str, path: str, document: object = None, *, body: bytes = b"") -> httpx.Response:
        answer = administrator.request(method, path, document=document, body=body)
        assert answer.is_success, answer.text
        return answer

    return ask


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> DeviceAuthority:
    return DeviceAuthority.open(tmp_path_factory.mktemp("factory"))


@pytest.fixture(scope="module")
def trusted_factory(
    factory: DeviceAuthority, admin: Admin, start_anew: Callable[..., None], ready_for_enrollment: None
) -> Iterator[DeviceAuthority]:
    """The administrator trusts the factory, by the certificate that is signed with SHA-1."""
    path = "/v2/device-certificate-authorities/phones"
    admin("PUT", path, body=factory.certificate("sha1").read_bytes())
    start_anew("enroll")
    yield factory
    admin("DELETE", path)


@pytest.fixture
def make_genuine(make_device: MakeDevice, trusted_factory: DeviceAuthority) -> MakeDevice:
    """Make a device that the factory made."""

    def make(
        hardware: Hardware | None = None, *, of: DeviceAuthority = trusted_factory, **more: Any
    ) -> SimulatedDevice:
        form = {key: more.pop(key) for key in ("digest", "curve") if key in more}
        hardware = hardware or Hardware.iphone()
        identity = Identity.from_pem(of.identity(hardware.udid, **form).read_bytes())
        return make_device(hardware, built_in=identity, **more)

    return make


@pytest.fixture
def afresh(setting: Callable[..., None]) -> None:
    """Let the function that enrolls devices read everything anew: what it has read it keeps for a minute."""
    setting("enroll", STARTED_ANEW="yes")


@pytest.fixture
def ade(world: World) -> str:
    """The address that an ADE profile tells devices."""
    return f"{world.device_url}/mdm/enroll"


def new_link(admin: Admin, **options: Any) -> str:
    url: str = admin("POST", "/v2/enrollment-links", options).json()["url"]
    return url


def over_the_air(link: str) -> str:
    return link.replace("/mdm/enroll/", "/ota/enroll/")


# Links and signed profiles


def test_a_signed_profile_shows_who_sent_it(
    enroll: MakeDevice, admin: Admin, link: str, factory: DeviceAuthority, afresh: None
) -> None:
    path = "/v2/enrollment-profile/signing-identity"
    pem = factory.identity("the signer of profiles").read_bytes()
    admin("PUT", path, body=pem)
    try:
        device = enroll()
    finally:
        admin("DELETE", path)
    assert device.profile.profile.signer_certificates == (Identity.from_pem(pem).certificate_der,)
    assert device.connect() == []


# ADE


@pytest.mark.parametrize("signature", SignatureForm)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
@pytest.mark.parametrize("web_view", [True, False])
def test_a_genuine_device_enrolls_by_ade_without_a_link(
    make_genuine: MakeDevice, ade: str, signature: SignatureForm, digest: cms.Digest, *, web_view: bool
) -> None:
    form = MachineInfoForm(signature=signature, digest=digest, binary=web_view)
    device = make_genuine(digest=digest, curve=web_view, habits=Habits(machine_info=form))
    device.enroll_by_ade(ade, web_view=web_view, awaiting_configuration=True)
    assert device.connect() == []


@pytest.mark.parametrize("hardware", [Hardware.mac(), Hardware.ipad(os_version="16.7"), Hardware.ipad(is_shared=True)])
def test_every_kind_of_device_enrolls_by_ade(make_genuine: MakeDevice, ade: str, hardware: Hardware) -> None:
    device = make_genuine(hardware)
    device.enroll_by_ade(ade)
    assert device.connect() == []


def test_a_device_that_awaits_its_configuration_is_told_to_go_on(
    make_genuine: MakeDevice, ade: str, admin: Admin, queue: Queue
) -> None:
    device = make_genuine()
    device.enroll_by_ade(ade, awaiting_configuration=True)
    path = f"/v2/enrollments/{device.udid}"
    assert admin("GET", path).json()["awaiting_configuration"] is True

    queue(device.udid, "DeviceConfigured")
    device.connect()
    assert device.commands.awaiting_configuration is False
    device.update_token()
    assert admin("GET", path).json()["awaiting_configuration"] is False


def test_a_device_of_another_factory_does_not_enroll_by_ade(make_genuine: MakeDevice, ade: str, tmp_path: Path) -> None:
    device = make_genuine(of=DeviceAuthority.open(tmp_path))
    with pytest.raises(ServerRefused) as refused:
        device.enroll_by_ade(ade)
    assert refused.value.status in {400, 403}
    assert not device.is_enrolled


def test_only_a_listed_device_enrolls_while_there_is_a_list(make_genuine: MakeDevice, ade: str, admin: Admin) -> None:
    listed, other = make_genuine(), make_genuine()
    serial = listed.hardware.serial_number
    admin("POST", "/v2/ade-serial-numbers", {"serial_numbers": [serial]})
    try:
        listed.enroll_by_ade(ade)
        with pytest.raises(ServerRefused) as refused:
            other.enroll_by_ade(ade)
    finally:
        admin("DELETE", f"/v2/ade-serial-numbers/{serial}")
    assert refused.value.status == 403


def test_the_identity_of_an_ade_profile_enrolls_no_other_device(
    make_genuine: MakeDevice, make_device: MakeDevice, ade: str
) -> None:
    device, thief = make_genuine(), make_device()
    device.enroll_by_ade(ade)
    stolen = device.profile
    device.check_out()

    with pytest.raises((ServerRefused, ScepRefused)):
        thief.install(stolen)
    assert not thief.is_enrolled


def test_a_device_updates_first_where_a_minimum_is_set(
    make_genuine: MakeDevice, ade: str, admin: Admin, afresh: None
) -> None:
    old = Hardware.iphone(os_version="26.0.1", build_version="23A355")
    path = "/v2/minimum-os-versions/iOS"
    admin("PUT", path, {"os_version": "26.1", "build_version": "23B85"})
    try:
        with pytest.raises(UpdateRequired) as required:
            make_genuine(old).enroll_by_ade(ade)
        assert (required.value.os_version, required.value.build_version) == ("26.1", "23B85")

        updated = make_genuine(replace(old, os_version=required.value.os_version, build_version="23B85"))
        updated.enroll_by_ade(ade)
        # Releases that could not update first are let in: they can be told to once they are enrolled.
        make_genuine(Hardware.iphone(os_version="16.7")).enroll_by_ade(ade)
        make_genuine(Hardware.mac(os_version="14.4")).enroll_by_ade(ade)
    finally:
        admin("DELETE", path)


# Over the air


@pytest.mark.parametrize("signature", SignatureForm)
@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_a_genuine_device_enrolls_over_the_air(
    make_genuine: MakeDevice, link: str, signature: SignatureForm, digest: cms.Digest
) -> None:
    form = MachineInfoForm(signature=signature, digest=digest)
    device = make_genuine(Hardware.mac(), digest=digest, habits=Habits(machine_info=form))
    device.enroll_over_the_air(over_the_air(link))
    assert device.connect() == []


def test_a_device_of_another_factory_does_not_enroll_over_the_air(
    make_genuine: MakeDevice, link: str, tmp_path: Path
) -> None:
    device = make_genuine(of=DeviceAuthority.open(tmp_path))
    with pytest.raises(ServerRefused, match="OTA phase 2"):
        device.enroll_over_the_air(over_the_air(link))


def test_over_the_air_a_link_is_for_as_many_devices_as_it_says(make_genuine: MakeDevice, admin: Admin) -> None:
    url = over_the_air(new_link(admin, max_uses=1))
    first, second = make_genuine(), make_genuine()
    first.enroll_over_the_air(url)
    with pytest.raises((ServerRefused, ScepRefused)):
        second.enroll_over_the_air(url)
    assert not second.is_enrolled
    with pytest.raises(ServerRefused):
        make_genuine().enroll_over_the_air(url.rpartition("/")[0] + "/no-such-link")


def test_the_identity_of_over_the_air_enrollment_enrolls_nothing_by_itself(make_genuine: MakeDevice, link: str) -> None:
    seen: list[bytes] = []
    device = make_genuine(observer=lambda exchange: seen.append(exchange.response_body))
    device.enroll_over_the_air(over_the_air(link))
    identity_only = next(body for body in seen if b"com.apple.security.scep" in body)
    assert b"com.apple.mdm<" not in identity_only
    assert len(plistlib.loads(identity_only)["PayloadContent"]) == 1


# Account-driven


@dataclass
class Organization:
    """An organization: its issuer, and what its administrator asks for.

    The function that enrolls devices keeps for a minute what it has read. It starts anew when that is not so any more,
    and only then, for it takes seconds.
    """

    issuer: Mapping[str, Any]
    admin: Admin
    start_anew: Callable[..., None]
    known: Mapping[str, Any] | None = None
    """What the function has read, or will read when it is asked; None: that nobody signs in."""

    def lets_people_sign_in(self, **options: Any) -> None:
        """Set how people enroll."""
        wanted = {"issuer": self.issuer["issuer"], "audiences": [self.issuer["audience"]]} | options
        if wanted != self.known:
            self.admin("PUT", ACCOUNT_DRIVEN, wanted)
            self.start_anew("enroll")
            self.known = wanted

    def lets_nobody_sign_in(self) -> None:
        """Forget how people enrolled."""
        if self.known is not None:
            self.admin("DELETE", ACCOUNT_DRIVEN)
            self.start_anew("enroll")
            self.known = None

    def signs(self, **changes: Any) -> None:
        """Let the issuer make other tokens."""
        httpx.post(self.issuer["control"], json=changes, trust_env=False).raise_for_status()


@pytest.fixture(scope="module")
def issuer(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Any]]:
    """An issuer with a certificate that devices trust."""
    made = LocalAuthority.open(stack.trust_anchor.parent).server_certificate("127.0.0.1", "localhost")
    arguments = ["--certificate", str(made.certificate), "--key", str(made.key)]
    for person in (ADA, BOB):
        arguments += ["--user", f"{person.user}={person.password}"]
    program = Program.start("oidc", "local.oidc", arguments, directory=tmp_path_factory.mktemp("issuer"))
    yield program.ready
    program.stop()


@pytest.fixture(scope="module")
def any_organization(
    issuer: Mapping[str, Any], admin: Admin, start_anew: Callable[..., None], ready_for_enrollment: None
) -> Iterator[Organization]:
    organization = Organization(issuer, admin, start_anew)
    yield organization
    organization.lets_nobody_sign_in()


@pytest.fixture
def organization(any_organization: Organization) -> Organization:
    """The organization ``example.org``: phones are their users' own, Macs are its own."""
    any_organization.signs(claims={}, algorithm="RS256")
    any_organization.lets_people_sign_in(
        method="apple-as-web",
        sign_in_url=any_organization.issuer["sign_in"],
        domains=["example.org"],
        mode_by_model_family={"Mac": "device"},
    )
    return any_organization


@pytest.fixture
def make_personal(make_genuine: MakeDevice, world: World) -> MakeDevice:
    """Make a device in whose network the organization's domain leads to the server."""
    domains = dict.fromkeys(("example.org", "example.com"), world.device_url)

    def make(hardware: Hardware | None = None, **more: Any) -> SimulatedDevice:
        return make_genuine(hardware, domains=domains, **more)

    return make


OAUTH2 = {"method": "apple-oauth2", "client_id": "devices", "scope": "openid email"}


@pytest.mark.parametrize("oauth2", [True, False], ids=["OAuth 2", "simple"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_person_signs_in_and_manages_only_their_own_part(
    make_personal: MakeDevice,
    organization: Organization,
    admin: Admin,
    queue: Queue,
    pushes: SimulatedApns,
    algorithm: str,
    *,
    oauth2: bool,
) -> None:
    if oauth2:
        organization.lets_people_sign_in(**OAUTH2)
    organization.signs(algorithm=algorithm)
    device = make_personal()
    device.enroll_with_account(ADA.user, ADA)

    assert device.profile.mode is EnrollmentMode.BYOD
    assert device.profile.managed_account == ADA.user
    shown = admin("GET", f"/v2/enrollments/{device.enrollment_id}").json()
    assert (shown["type"], shown["state"]) == ("User Enrollment (Device)", "enrolled")
    assert (shown["serial_number"], shown["imei"]) == (None, None)
    erase = {"ids": [device.enrollment_id], "command": {"request_type": "EraseDevice"}}
    refused = admin("POST", "/v2/commands", erase)
    assert (refused.status_code, refused.json()["targets"][0]["error"]["code"]) == (207, "unsuitable_command")
    queued = [
        queue(device.enrollment_id, "SecurityInfo"),
        admin("POST", "/v2/commands", erase | {"force": True}).json()["command_uuid"],
    ]
    assert pushes.wait(device.push_token, seconds=PUSH_SECONDS)
    assert [(one.uuid, one.status) for one in device.connect()] == [(queued[0], "Acknowledged"), (queued[1], "Error")]
    device.channel.declarations.synchronize()
    device.check_out()
    assert admin("GET", f"/v2/enrollments/{shown['id']}").json()["state"] == "checked_out"


def test_the_organizations_mac_is_enrolled_as_a_whole_with_its_users(
    make_personal: MakeDevice, organization: Organization, queue: Queue
) -> None:
    mac = make_personal(Hardware.mac())
    mac.enroll_with_account(ADA.user, ADA)

    assert mac.profile.mode is EnrollmentMode.ADDE
    assert mac.enrollment_id == mac.udid
    assert mac.get_bootstrap_token() is None
    user = mac.log_in("ada")
    queued = queue(f"{mac.udid}:{user.ids['UserID']}", "ProfileList")
    assert [one.uuid for one in user.connect()] == [queued]


def test_every_enrollment_of_a_person_is_another(make_personal: MakeDevice, organization: Organization) -> None:
    device = make_personal()
    ids = set()
    for _ in range(2):
        device.enroll_with_account(ADA.user, ADA)
        ids.add(device.enrollment_id)
        device.check_out()
    assert len(ids) == 2


@pytest.mark.parametrize("renewal", Renewal)
@pytest.mark.parametrize("hardware", [Hardware.iphone(), Hardware.mac()], ids=["BYOD", "ADDE"])
def test_what_a_person_enrolled_is_renewed_for_them(
    stack: Stack,
    make_personal: MakeDevice,
    organization: Organization,
    pushes: SimulatedApns,
    hardware: Hardware,
    renewal: Renewal,
) -> None:
    device = make_personal(hardware, habits=Habits(renewal=renewal))
    device.enroll_with_account(ADA.user, ADA)
    old = device.identity.certificate
    let_identity_end(stack, device.enrollment_id, days=20)
    look(stack)

    assert pushes.wait(device.push_token, seconds=PUSH_SECONDS)
    assert [(one.request_type, one.status) for one in device.connect()] == [("InstallProfile", "Acknowledged")]
    assert device.identity.certificate != old
    assert device.profile.managed_account == ADA.user
    assert device.connect() == []


def test_an_account_of_another_domain_enrolls_nowhere(make_personal: MakeDevice, organization: Organization) -> None:
    with pytest.raises(ServerRefused) as refused:
        make_personal().enroll_with_account("ada@example.com", ADA)
    assert (refused.value.what, refused.value.status) == ("well-known", 403)
    assert json.loads(refused.value.body)["code"] == "com.apple.well-known.failed"


def test_where_nobody_signs_in_nothing_is_discovered(make_personal: MakeDevice, any_organization: Organization) -> None:
    any_organization.lets_nobody_sign_in()
    with pytest.raises(ServerRefused) as refused:
        make_personal().enroll_with_account(ADA.user, ADA)
    assert (refused.value.what, refused.value.status) == ("well-known", 404)


@pytest.mark.parametrize("person", [replace(ADA, password="wrong"), Person(user="eve@example.org", password="x")])
def test_who_has_no_password_enrolls_nothing(
    make_personal: MakeDevice, organization: Organization, person: Person
) -> None:
    device = make_personal()
    with pytest.raises(ServerRefused, match="sign-in was answered 403"):
        device.enroll_with_account(person.user, person)
    assert not device.is_enrolled


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "somebody-else"}, 401),
        ({"iss": "https://login.example.com"}, 401),
        ({"exp": 1}, 401),
        ({"exp": None}, 401),
        ({"nbf": 4_102_444_800}, 401),
        ({"email": None}, 403),
        ({"email": ["ada@example.org"]}, 403),
        ({"email": "ada@example.com"}, 403),
        ({"email_verified": False}, 403),
    ],
)
def test_a_token_that_is_not_for_this_server_or_names_nobody_enrolls_nothing(
    make_personal: MakeDevice, organization: Organization, claims: dict[str, Any], status: int
) -> None:
    organization.signs(claims=claims)
    device = make_personal()
    with pytest.raises(ServerRefused) as refused:
        device.enroll_with_account(ADA.user, ADA)
    assert (refused.value.what, refused.value.status) == ("MachineInfo", status)
    assert not device.is_enrolled


@pytest.mark.parametrize("claim", [{"upn": "ada@corp.example.org"}, {"upn": "ada"}])
def test_another_claim_may_name_the_account_if_it_is_one(
    make_personal: MakeDevice, organization: Organization, claim: dict[str, Any]
) -> None:
    organization.signs(claims=claim)
    organization.lets_people_sign_in(
        method="apple-as-web", sign_in_url=organization.issuer["sign_in"], account_claim="upn"
    )
    device = make_personal()
    if "@" in claim["upn"]:
        device.enroll_with_account(ADA.user, ADA)
        assert device.profile.managed_account == claim["upn"]
    else:
        # A device would cancel: what is no Managed Apple Account must not get as far as into a profile.
        with pytest.raises(ServerRefused):
            device.enroll_with_account(ADA.user, ADA)


def test_an_issuer_may_change_its_keys(make_personal: MakeDevice, organization: Organization) -> None:
    first = make_personal()
    first.enroll_with_account(ADA.user, ADA)
    organization.signs(rotate=True)
    # The old keys are kept for a minute at least, so that made-up tokens cost the issuer nothing.
    with pytest.raises(ServerRefused):
        make_personal().enroll_with_account(BOB.user, BOB)
    # And then they are forgotten.
    organization.start_anew("enroll")


# What is not offered


@pytest.mark.parametrize("path", ["/mdm/enroll", "/ota/enroll"])
def test_without_a_link_nobody_enrolls_unless_everybody_may(make_genuine: MakeDevice, world: World, path: str) -> None:
    device = make_genuine()
    with pytest.raises(ServerRefused) as refused:
        device.enroll(f"{world.device_url}{path}")
    assert refused.value.status == 403


def test_a_device_does_not_talk_to_a_server_that_it_does_not_trust(link: str) -> None:
    with SimulatedDevice(Hardware.iphone()) as device, pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
        device.enroll(link)

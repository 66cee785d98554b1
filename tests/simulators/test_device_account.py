"""Account-driven enrollment as a device does it, and where it cancels."""

import json
import plistlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from local.device import (
    DeviceError,
    EnrollmentMode,
    Hardware,
    Identity,
    NoAnswer,
    Person,
    ProtocolViolation,
    ServerRefused,
    SimulatedDevice,
)
from local.device_authority import DeviceAuthority
from tests.simulators.conversation import rules
from tests.simulators.fake_server import PROFILE_TYPE, FakeServer, Page, Seen

Make = Callable[..., SimulatedDevice]

ADA = Person(user="ada@example.org", password="secret")
CALLBACK = "apple-remotemanagement-user-login"
REDIRECT = f"{CALLBACK}:/oauth2/redirection"
FORM = '<form method="post" action="/sign-in"><input name="user" value="{}"><input type="password" name="word"></form>'


OAUTH2 = (
    'Bearer method="apple-oauth2", authorization-url="{authorization}", token-url="https://127.0.0.1/t", '
    'redirect-url="{redirect}", client-id="c", scope="s"'
)


@pytest.fixture(scope="session")
def factory(tmp_path_factory: pytest.TempPathFactory) -> DeviceAuthority:
    return DeviceAuthority.open(tmp_path_factory.mktemp("account-factory"))


@pytest.fixture
def make(make_device: Make, factory: DeviceAuthority, server: FakeServer) -> Make:
    def make(hardware: Hardware | None = None) -> SimulatedDevice:
        hardware = hardware or Hardware.iphone()
        built_in = Identity.from_pem(factory.identity("a device").read_bytes())
        return make_device(hardware, built_in=built_in, domains={"example.org": server.url})

    return make


class Organization:
    """What an organization's servers answer; a test makes one of them wrong."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.version = "mdm-byod"
        self.discovered: Page | None = None
        self.challenge: str | None = f'Bearer method="apple-as-web", url="{server.url}/sign-in?tenant=1"'
        self.first: Page | None = None
        self.signed_in = Page(308, None, b"", {"Location": f"{CALLBACK}://authentication-results?access-token=t0ken"})
        self.granted: Page = json_page({"access_token": "t0ken", "token_type": "Bearer", "refresh_token": "r"})
        self.asked: list[Seen] = []
        pages = {
            "/.well-known/com.apple.remotemanagement": self._discover,
            "/account": self._enroll,
            "/sign-in": self._sign_in,
            "/authorize": self._sign_in,
            "/token": lambda request: self._note(request, self.granted),
        }
        server.pages |= pages
        server.mdm.update(EnrollmentMode="BYOD", AssignedManagedAppleID="ada@example.org")
        server.mdm.pop("AccessRights")

    def _note(self, request: Seen, page: Page) -> Page:
        self.asked.append(request)
        return page

    def _discover(self, request: Seen) -> Page:
        servers = [{"Version": self.version, "BaseURL": f"{self.server.url}/account"}]
        return self._note(request, self.discovered or json_page({"Servers": servers}))

    def _enroll(self, request: Seen) -> Page:
        self.asked.append(request)
        if request.headers.get("authorization") == "Bearer t0ken":
            return Page(200, PROFILE_TYPE, plistlib.dumps(self.server.profile))
        return self.first or Page(401, None, b"", {"WWW-Authenticate": self.challenge} if self.challenge else {})

    def _sign_in(self, request: Seen) -> Page:
        self.asked.append(request)
        if request.method == "GET":
            query = dict(parse_qsl(urlsplit(request.path).query))
            return Page(200, "text/html; charset=utf-8", FORM.format(query.get("user-identifier", "")).encode())
        return self.signed_in


def json_page(document: object, status: int = 200) -> Page:
    return Page(status, "application/json", json.dumps(document).encode())


@pytest.fixture
def organization(server: FakeServer) -> Organization:
    return Organization(server)


def test_a_person_signs_in_and_their_own_device_is_enrolled(
    make: Make, server: FakeServer, organization: Organization
) -> None:
    device = make()
    device.enroll_with_account("ada@example.org", ADA)

    discovery, first, page, submitted, second = organization.asked
    assert discovery.path.partition("?")[0] == "/.well-known/com.apple.remotemanagement"
    assert parse_qs(urlsplit(discovery.path).query) == {
        "user-identifier": ["ada@example.org"],
        "model-family": ["iPhone"],
    }
    assert "authorization" not in first.headers
    assert first.body == second.body
    assert (first.method, first.headers["content-type"]) == ("POST", "application/pkcs7-signature")
    assert not any(identifier.encode() in first.body for identifier in (device.udid, device.hardware.serial_number))
    assert parse_qs(urlsplit(page.path).query) == {"tenant": ["1"], "user-identifier": ["ada@example.org"]}
    assert page.headers["user-agent"].startswith("Mozilla/")
    assert parse_qs(submitted.body.decode()) == {"user": ["ada@example.org"], "word": ["secret"]}
    assert second.headers["authorization"] == "Bearer t0ken"
    assert device.profile.mode is EnrollmentMode.BYOD
    assert device.profile.managed_account == "ada@example.org"
    assert {one.headers["authorization"] for one in server.seen if one.method == "PUT"} == {"Bearer t0ken"}
    assert all("UDID" not in message for message in server.messages())


def test_the_organizations_device_is_enrolled_as_a_whole(
    make: Make, server: FakeServer, organization: Organization
) -> None:
    organization.version = "mdm-adde"
    server.mdm.update(EnrollmentMode="ADDE", AccessRights=8191)
    mac = make(Hardware.mac())
    mac.enroll_with_account("ada@example.org", ADA)

    assert "model-family=Mac" in organization.asked[0].path
    assert server.messages("Authenticate")[0]["UDID"] == mac.udid


def test_an_authorization_server_may_grant_the_token(
    make: Make, organization: Organization, server: FakeServer
) -> None:
    organization.challenge = (
        f'Bearer method="apple-oauth2", authorization-url="{server.url}/authorize", token-url="{server.url}/token", '
        f'redirect-url="{REDIRECT}", client-id="devices", scope="openid email"'
    )
    served = server.pages["/authorize"]

    def authorize(request: Seen) -> Page:
        page = served(request)
        if request.method == "GET":
            [state] = parse_qs(urlsplit(request.path).query)["state"]
            callback = f"{REDIRECT}?code=c0de&state={state}"
            organization.signed_in = Page(302, None, b"", {"Location": callback})
            page = Page(200, "text/html", FORM.format("").replace("/sign-in", "/authorize").encode())
        return page

    server.pages["/authorize"] = authorize
    make().enroll_with_account("ada@example.org", ADA)

    asked = next(one for one in organization.asked if one.path.startswith("/authorize?"))
    query = parse_qs(urlsplit(asked.path).query)
    assert query.keys() == {"response_type", "client_id", "redirect_uri", "scope", "state", "login_hint"}
    assert (query["redirect_uri"], query["login_hint"]) == ([REDIRECT], ["ada@example.org"])
    granted = next(one for one in organization.asked if one.path == "/token")
    assert parse_qs(granted.body.decode()) == {
        "grant_type": ["authorization_code"],
        "code": ["c0de"],
        "redirect_uri": [REDIRECT],
        "client_id": ["devices"],
    }


def test_a_redirect_of_the_discovery_keeps_no_query_by_itself(
    make: Make, organization: Organization, server: FakeServer
) -> None:
    path = "/.well-known/com.apple.remotemanagement"
    server.pages["/here"] = server.pages[path]
    server.pages[path] = lambda _request: Page(307, None, b"", {"Location": f"{server.url}/here"})
    make().enroll_with_account("ada@example.org", ADA)
    assert organization.asked[0].path == "/here"


@pytest.mark.parametrize(
    "identifier", ["ada", "@example.org", "ada@", "ada@localhost", "ada@exa mple.org", "ada@-a.org"]
)
def test_what_is_no_account_of_a_domain_is_asked_nowhere(
    make: Make, organization: Organization, identifier: str
) -> None:
    with pytest.raises(DeviceError, match="no account"):
        make().enroll_with_account(identifier, ADA)
    assert not organization.asked


def test_a_domain_that_nobody_has_is_not_found(make: Make) -> None:
    with pytest.raises(NoAnswer):
        make().enroll_with_account("ada@example.com", ADA)


def servers(*entries: object) -> Page:
    return json_page({"Servers": list(entries)})


ENTRY = {"Version": "mdm-byod", "BaseURL": "https://127.0.0.1/account"}


@pytest.mark.parametrize(
    "page",
    [
        servers(),
        servers(ENTRY, ENTRY),
        servers({"Version": "mdm-byod"}),
        servers(ENTRY | {"Version": "mdm-other"}),
        servers(ENTRY | {"BaseURL": "http://127.0.0.1/account"}),
        json_page([]),
        Page(200, "application/json", b"{"),
        Page(200, "text/html", json.dumps({"Servers": [ENTRY]}).encode()),
        Page(302, None, b"", {"Location": "http://127.0.0.1/"}),
    ],
)
def test_a_discovery_that_is_none_cancels(make: Make, organization: Organization, page: Page) -> None:
    organization.discovered = page
    device = make()
    with pytest.raises(ProtocolViolation):
        device.enroll_with_account("ada@example.org", ADA)
    assert rules(device) == ["well-known"]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_account_that_enrolls_nowhere_is_refused(make: Make, organization: Organization, status: int) -> None:
    organization.discovered = json_page({"code": "com.apple.well-known.failed"}, status)
    device = make()
    with pytest.raises(ServerRefused, match="well-known"):
        device.enroll_with_account("ada@example.org", ADA)
    assert not device.violations


@pytest.mark.parametrize(
    "challenge",
    [
        None,
        "",
        "Bearer",
        'Basic method="apple-as-web", url="https://127.0.0.1/sign-in"',
        'Bearer method="apple-as-web"',
        'Bearer method="apple-as-web", url=""',
        'Bearer method="apple-as-web", url="ftp://127.0.0.1/sign-in"',
        'Bearer method="apple-as-web" url="https://127.0.0.1/sign-in"',
        'Bearer url="https://127.0.0.1/sign-in"',
        'Bearer method="saml", url="https://127.0.0.1/sign-in"',
        'Bearer method="apple-oauth2", authorization-url="https://127.0.0.1/a", token-url="https://127.0.0.1/t"',
        OAUTH2.format(authorization="http://127.0.0.1/a", redirect=REDIRECT),
        OAUTH2.format(authorization="https://127.0.0.1/a", redirect="https://127.0.0.1/r"),
    ],
)
def test_a_challenge_that_breaks_a_rule_cancels(make: Make, organization: Organization, challenge: str | None) -> None:
    organization.challenge = challenge
    device = make()
    with pytest.raises(ProtocolViolation):
        device.enroll_with_account("ada@example.org", ADA)
    assert rules(device) == ["WWW-Authenticate"]
    assert not device.is_enrolled


def test_a_server_that_asks_nobody_to_sign_in_is_not_enrolled_with(
    make: Make, organization: Organization, server: FakeServer
) -> None:
    organization.first = Page(200, PROFILE_TYPE, plistlib.dumps(server.profile))
    device = make()
    with pytest.raises(ProtocolViolation):
        device.enroll_with_account("ada@example.org", ADA)
    assert rules(device) == ["WWW-Authenticate"]


def to(url: str, status: int = 308) -> Page:
    return Page(status, None, b"", {"Location": url})


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        (to(f"{CALLBACK}://authentication-results?access-token=t", 302), "authentication-results"),
        (to(f"{CALLBACK}://results?access-token=t"), "authentication-results"),
        (to(f"{CALLBACK}://authentication-results"), "authentication-results"),
        (to(f"{CALLBACK}://authentication-results?access-token="), "authentication-results"),
        (to(f"{CALLBACK}://authentication-results?access-token=a&access-token=b"), "authentication-results"),
        (to("file:///etc/passwd"), "sign-in"),
        (to("/sign-in"), "sign-in"),
        (Page(200, "text/html", b"<p>Welcome"), "sign-in"),
        (Page(200, "text/plain", b"Welcome"), "sign-in"),
    ],
)
def test_a_sign_in_that_does_not_end_as_apple_says_cancels(
    make: Make, organization: Organization, page: Page, rule: str
) -> None:
    organization.signed_in = page
    device = make()
    with pytest.raises(ProtocolViolation):
        device.enroll_with_account("ada@example.org", ADA)
    assert rules(device) == [rule]


def test_who_cannot_sign_in_enrolls_nothing(make: Make, organization: Organization) -> None:
    organization.signed_in = Page(403, None)
    device = make()
    with pytest.raises(ServerRefused, match="sign-in"):
        device.enroll_with_account("ada@example.org", ADA)

    organization.signed_in = Page(200, "text/html", FORM.format("").encode())
    with pytest.raises(DeviceError, match="gives up"):
        device.enroll_with_account("ada@example.org", ADA)
    assert not device.violations


@pytest.mark.parametrize("status", [401, 403, 400])
def test_a_token_that_is_not_taken_ends_it(
    make: Make, organization: Organization, server: FakeServer, status: int
) -> None:
    served = server.pages["/account"]
    server.pages["/account"] = lambda request: (
        Page(status, None) if "authorization" in request.headers else served(request)
    )
    device = make()
    with pytest.raises(ServerRefused, match=f"MachineInfo was answered {status}"):
        device.enroll_with_account("ada@example.org", ADA)
    assert not device.is_enrolled
    assert not device.violations


@pytest.mark.parametrize(
    ("version", "changes", "rule"),
    [
        ("mdm-byod", {"EnrollmentMode": "ADDE"}, "EnrollmentMode"),
        ("mdm-adde", {"AccessRights": 8191}, "EnrollmentMode"),
        ("mdm-byod", {"AccessRights": 8191}, "AccessRights"),
        ("mdm-byod", {"AssignedManagedAppleID": "ada"}, "AssignedManagedAppleID"),
    ],
)
def test_a_profile_of_another_kind_than_announced_cancels(
    make: Make, organization: Organization, server: FakeServer, version: str, changes: dict[str, Any], rule: str
) -> None:
    organization.version = version
    server.mdm.update(changes)
    device = make()
    with pytest.raises(ProtocolViolation):
        device.enroll_with_account("ada@example.org", ADA)
    assert rules(device) == [rule]
    assert not server.messages()

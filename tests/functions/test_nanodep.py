"""MicroMDM's and NanoDEP's APIs for Apple's device enrollment, as ``mdmctl`` and the scripts of NanoDEP call them.

What is sent and what is answered are written down as bytes, from what those programs and their servers do.
"""

import json
from base64 import b64decode, b64encode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from functions.commands import app as function
from local.ade.client import AdeSimulator
from local.emulator import Emulator
from mdmlib import runtime
from mdmlib.settings import Settings
from tests.ade_function import invoked
from tests.ade_portal import Portal
from tests.api_description import DescribedGateway
from tests.gateway import Answer, Gateway

GO_CLIENT = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"}
"""What go-kit's client sends."""
PROFILE = (
    b'{"profile_name":"Pupils","url":"","is_supervised":true,"is_mdm_removable":false,"allow_pairing":false,'
    b'"auto_advance_setup":false,"org_magic":"913FABBB","skip_setup_items":["AppleID","Android"],"devices":null}\n'
)


class Scripts(DescribedGateway):
    """Calls the function as clients do; what is described of its answers holds."""

    def __init__(self) -> None:
        super().__init__(function.lambda_handler)

    def mdmctl(self, method: str, path: str, body: bytes | None = None) -> Answer:
        return self.request(method, path, body, headers=GO_CLIENT)


@pytest.fixture
def scripts(ade: AdeSimulator) -> Scripts:
    return Scripts()


@pytest.fixture
def portal(ade: AdeSimulator) -> Portal:
    return Portal(ade.control)


@pytest.fixture
def configured(scripts: Scripts, portal: Portal) -> None:
    """One server, whose token came by ``mdmctl``."""
    der = b64decode(scripts.mdmctl("GET", "/v1/dep-tokens").document["public_key"])
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
    body = json.dumps({"p7m_content": b64encode(portal.token(pem)).decode()}).encode()
    answer = scripts.mdmctl("PUT", "/v1/dep-tokens", body)
    assert (answer.status, answer.body) == (200, b"{}\n")


# mdmctl


def test_mdmctl_exchanges_a_certificate_for_a_token(scripts: Scripts, portal: Portal) -> None:
    answer = scripts.mdmctl("GET", "/v1/dep-tokens")
    assert answer.body.startswith(b'{\n  "dep_tokens": null,\n  "public_key": "MII')
    assert scripts.mdmctl("GET", "/v1/dep-tokens").body == answer.body
    der = b64decode(answer.document["public_key"])
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
    file = b64encode(portal.token(pem))
    assert scripts.mdmctl("PUT", "/v1/dep-tokens", b'{"p7m_content":"%s"}\n' % file).body == b"{}\n"

    tokens = scripts.mdmctl("GET", "/v1/dep-tokens")

    [token] = tokens.document["dep_tokens"]
    assert list(token) == ["consumer_key", "consumer_secret", "access_token", "access_secret", "access_token_expiry"]
    assert tokens.document["public_key"] == answer.document["public_key"]
    assert [info.name for info in runtime.ade_servers().list()] == ["default"]
    another = b64encode(portal.token(pem, server="another"))
    assert scripts.mdmctl("PUT", "/v1/dep-tokens", b'{"p7m_content":"%s"}\n' % another).status == 409
    forced = scripts.request(
        "PUT", "/v1/dep-tokens", b'{"p7m_content":"%s"}\n' % another, headers=GO_CLIENT, query={"force": "1"}
    )
    assert forced.status == 200


def test_what_needs_a_token_says_so_in_micromdms_words(scripts: Scripts) -> None:
    for method, path, body in [
        ("GET", "/v1/dep/account", None),
        ("POST", "/v1/dep/devices", b'{"serials":["C02AAAAAAAA1"]}'),
        ("PUT", "/v1/dep/profiles", PROFILE),
        ("POST", "/v1/dep/profiles", b'{"uuid":"X"}'),
        ("DELETE", "/v1/dep/profiles", b'{"serials":["C02AAAAAAAA1"]}'),
        ("POST", "/v1/dep/assign", b'{"id":"X","serials":["C02AAAAAAAA1"]}'),
    ]:
        answer = scripts.mdmctl(method, path, body)
        assert (answer.status, answer.document["error"]) == (
            409,
            "DEP not configured yet. add a DEP token to enable DEP",
        )


@pytest.mark.usefixtures("configured")
def test_mdmctl_get_dep_account(scripts: Scripts, portal: Portal) -> None:
    answer = scripts.mdmctl("GET", "/v1/dep/account")

    assert list(answer.document) == [
        *("server_name", "server_uuid", "admin_id", "org_name", "org_email", "org_phone", "org_address"),
        *("org_id", "org_id_hash", "urls", "org_type", "org_version"),
    ]
    assert answer.document["server_name"] == portal.name()
    assert answer.body.endswith(
        b'      "http_method": [\n        "POST",\n        "DELETE"\n      ],\n      "limit": {\n'
        b'        "default": 100,\n        "maximum": 1000\n      }\n    }\n  ],\n'
        b'  "org_type": "org",\n  "org_version": "v2"\n}\n'
    )
    assert answer.document["urls"][0] == {
        "uri": "/account",
        "http_method": ["GET"],
        "limit": {"default": 0, "maximum": 0},
    }


@pytest.mark.usefixtures("configured")
def test_mdmctl_apply_and_get_dep_profiles(scripts: Scripts, portal: Portal) -> None:
    [serial] = portal.buy()
    defined = scripts.mdmctl("PUT", "/v1/dep/profiles", PROFILE)
    uuid = defined.document["profile_uuid"]
    assert defined.body == b'{\n  "profile_uuid": "%s",\n  "devices": {}\n}\n' % uuid.encode()

    shown = scripts.mdmctl("POST", "/v1/dep/profiles", b'{"uuid":"%s"}\n' % uuid.encode())
    assert shown.body == (
        b'{\n  "profile_name": "Pupils",\n'
        b'  "profile_uuid": "%s",\n'
        b'  "url": "https://mdm.example.org/mdm/enroll",\n'
        b'  "allow_pairing": false,\n  "is_supervised": true,\n  "is_mdm_removable": false,\n'
        b'  "auto_advance_setup": false,\n  "org_magic": "913FABBB",\n'
        b'  "skip_setup_items": [\n    "AppleID",\n    "Android"\n  ],\n  "devices": null\n}\n' % uuid.encode()
    )
    with_device = PROFILE.replace(b'"devices":null', b'"devices":["%s"]' % serial.encode())
    assert scripts.mdmctl("PUT", "/v1/dep/profiles", with_device).document["devices"] == {serial: "SUCCESS"}
    assigned = scripts.mdmctl("POST", "/v1/dep/assign", json.dumps({"id": uuid, "serials": [serial]}).encode())
    assert assigned.document == {"profile_uuid": uuid, "devices": {serial: "SUCCESS"}}
    assert portal.control.device(serial)["profile"]["allow_pairing"] is False
    removed = scripts.mdmctl("DELETE", "/v1/dep/profiles", json.dumps({"serials": [serial]}).encode())
    assert removed.body == b'{\n  "serials": {\n    "%s": "SUCCESS"\n  }\n}\n' % serial.encode()
    refused = scripts.mdmctl("PUT", "/v1/dep/profiles", PROFILE.replace(b'"url":""', b'"url":"http://x"'))
    assert (refused.status, refused.document["field"]) == (400, "url")
    unknown = scripts.mdmctl("POST", "/v1/dep/profiles", b'{"uuid":"NONE"}')
    assert (unknown.status, "NOT_FOUND" in unknown.document["error"]) == (502, True)


@pytest.mark.usefixtures("configured")
def test_mdmctl_get_dep_devices(scripts: Scripts, portal: Portal) -> None:
    [serial] = portal.buy()
    answer = scripts.mdmctl("POST", "/v1/dep/devices", json.dumps({"serials": [serial, "ELSEWHERE1"]}).encode())

    assert list(answer.document["devices"]) == sorted([serial, "ELSEWHERE1"])
    assert answer.document["devices"]["ELSEWHERE1"]["response_status"] == "NOT_FOUND"
    device = answer.document["devices"][serial]
    assert list(device)[:5] == ["serial_number", "model", "description", "color", "profile_status"]
    assert (device["profile_status"], device["device_family"], device["response_status"]) == (
        "empty",
        "iPhone",
        "SUCCESS",
    )


@pytest.mark.usefixtures("configured")
def test_one_of_several_servers_is_named(scripts: Scripts, portal: Portal) -> None:
    pem = scripts.request("GET", "/v1/tokenpki/company").body.decode()
    assert scripts.request("PUT", "/v1/tokenpki/company", portal.token(pem, server="company")).status == 200

    asked = scripts.request("GET", "/v1/dep/account", query={"server": "company"})
    assert asked.document["server_name"] == portal.name("company")
    assert scripts.mdmctl("GET", "/v1/dep/account").document["server_name"] == portal.name()


@pytest.mark.usefixtures("configured")
def test_mdmctl_has_all_devices_given_a_profile(scripts: Scripts, aws: Emulator, environment: Settings) -> None:
    path = "/v1/dep/autoassigners"
    assert scripts.mdmctl("GET", path).body == b'{\n  "autoassigners": null\n}\n'
    put = scripts.mdmctl("POST", path, b'{"filter":"*","profile_uuid":"0F8DEA11C72B405F8142A06A29FDF754"}\n')
    assert (put.status, put.body) == (200, b"{}\n")
    assert scripts.mdmctl("GET", path).document == {
        "autoassigners": [{"filter": "*", "profile_uuid": "0F8DEA11C72B405F8142A06A29FDF754"}]
    }
    assert scripts.mdmctl("POST", path, b'{"filter":"C02*","profile_uuid":"0F8D"}').document["field"] == "filter"
    assert scripts.mdmctl("POST", path, b'{"filter":"*"}').document["field"] == "profile_uuid"
    assert scripts.mdmctl("DELETE", path, b'{"filter":"*"}').body == b"{}\n"
    assert scripts.mdmctl("GET", path).document == {"autoassigners": None}


@pytest.mark.usefixtures("configured")
def test_a_script_has_apples_list_read_now(scripts: Scripts, aws: Emulator, environment: Settings) -> None:
    assert scripts.mdmctl("POST", "/v1/dep/syncnow").status == 503
    with invoked(aws, environment):
        answer = scripts.mdmctl("POST", "/v1/dep/syncnow")
    assert (answer.status, answer.body, answer.headers.get("content-type")) == (200, b"", None)
    assert runtime.ade_syncs().state("default").requested_ms > 0


# NanoDEP


def test_nanodeps_token_exchange(scripts: Scripts, portal: Portal) -> None:
    pki = scripts.request("GET", "/v1/tokenpki/school", query={"cn": "depserver", "validity_days": "2"})
    assert (pki.status, pki.headers["content-type"]) == (200, "application/x-pem-file")
    assert pki.headers["content-disposition"] == 'attachment; filename="school.pem"'
    certificate = x509.load_pem_x509_certificate(pki.body)
    assert (certificate.subject.rfc4514_string(), certificate.serial_number) == ("CN=depserver", 1)
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 2
    assert scripts.get("/v1/tokenpki/school").body == pki.body

    stored = scripts.request("PUT", "/v1/tokenpki/school", portal.token(pki.body.decode()))

    assert stored.headers["content-type"] == "application/json"
    assert stored.body.startswith(b'{"consumer_key":"CK_')
    assert stored.body.endswith(b'Z"}\n')
    assert scripts.get("/v1/tokens/school").body == stored.body
    assert scripts.get("/v1/tokenpki/school").body != pki.body, "the former is in use"


def test_nanodeps_tokens_may_come_decrypted(scripts: Scripts, portal: Portal) -> None:
    pem = scripts.get("/v1/tokenpki/school").body.decode()
    token = scripts.request("PUT", "/v1/tokenpki/school", portal.token(pem)).body
    runtime.ade_servers().delete("school")

    assert scripts.request("PUT", "/v1/tokens/moved", token).body == token
    assert scripts.get("/proxy/moved/account").document["server_name"] == portal.name()
    assert scripts.get("/v1/maidjwt/moved").status == 404, "the key did not come with it"
    other = json.dumps(json.loads(token) | {"consumer_key": "CK_other"})
    refused = scripts.request("PUT", "/v1/tokens/moved", other)
    assert (refused.status, refused.document["code"]) == (409, "mismatched_consumer_key")
    assert refused.body.startswith(b'{"error":"The token is of another server')
    assert scripts.request("PUT", "/v1/tokens/moved", other, query={"force": "1"}).status == 200
    for body in (b"", b"{}", b"[]", other.encode().replace(b"20", b"x")):
        assert scripts.request("PUT", "/v1/tokens/moved", body).status == 400


def test_nanodeps_names_come_page_by_page(scripts: Scripts) -> None:
    assert scripts.get("/v1/dep_names").body == b'{\n\t"dep_names": []\n}\n'
    for name in ("a", "b", "c"):
        scripts.request("PUT", f"/v1/config/{name}", b'{"base_url":""}')

    assert scripts.get("/v1/dep_names").document == {"dep_names": ["a", "b", "c"]}
    first = scripts.get("/v1/dep_names", limit="2")
    assert first.body == b'{\n\t"dep_names": [\n\t\t"a",\n\t\t"b"\n\t],\n\t"next_cursor": "b"\n}\n'
    assert scripts.get("/v1/dep_names", limit="2", cursor="b").document == {"dep_names": ["c"]}
    assert scripts.get("/v1/dep_names", offset="1", limit="1").document["dep_names"] == ["b"]
    assert scripts.get("/v1/dep_names", dep_name="c,a,x").document == {"dep_names": ["a", "c"]}
    assert scripts.get("/v1/dep_names", limit="x").status == 400


def test_nanodeps_configuration_leads_elsewhere(scripts: Scripts, ade: AdeSimulator) -> None:
    assert scripts.get("/v1/config/school").document["error"] == "There is no ADE server 'school'."
    body = b'{"base_url":"https://dep.example.org"}'
    assert scripts.request("PUT", "/v1/config/school", body).body == body + b"\n"
    assert scripts.get("/v1/config/school").body == body + b"\n"
    assert scripts.request("PUT", "/v1/config/school", b'{"base_url":"http://dep.example.org"}').status == 400
    assert scripts.request("PUT", "/v1/config/school", b'{"base_url":""}').document == {"base_url": ade.url}


@pytest.fixture
def school(scripts: Scripts, portal: Portal) -> None:
    pem = scripts.get("/v1/tokenpki/school").body.decode()
    assert scripts.request("PUT", "/v1/tokenpki/school", portal.token(pem)).status == 200


@pytest.mark.usefixtures("school")
def test_nanodeps_proxy_passes_on_and_back_what_it_is_given(
    scripts: Scripts, portal: Portal, capsys: pytest.CaptureFixture[str]
) -> None:
    [serial] = portal.buy()
    json_type = {"Content-Type": "application/json", "User-Agent": "curl", "X-Server-Protocol-Version": "3"}
    details = scripts.request("POST", "/proxy/school/devices", json.dumps({"devices": [serial]}), headers=json_type)
    assert details.document["devices"][serial]["response_status"] == "SUCCESS"
    asked = portal.control.requests()[-1]
    assert (asked["version"], asked["user_agent"].startswith("PicoMDM/")) == ("3", True)
    assert "x-adm-auth-session" not in details.headers

    body = json.dumps({"profile_name": "x", "url": "https://mdm.example.org", "org_magic": "1"})
    uuid = scripts.request("POST", "/proxy/school/profile", body, headers=json_type).document["profile_uuid"]
    shown = Gateway(function.lambda_handler).request("GET", "/proxy/school/profile", query={"profile_uuid": uuid})
    assert shown.document["profile_name"] == "x"
    assigned = json.dumps({"profile_uuid": uuid, "devices": [serial]})
    answer = scripts.request("PUT", "/proxy/school/profile/devices", assigned, headers=json_type)
    assert answer.document["devices"] == {serial: "SUCCESS"}
    unknown = scripts.get("/proxy/school/profile")
    assert (unknown.status, unknown.body) == (400, b"PROFILE_UUID_REQUIRED")
    assert scripts.get("/proxy/nowhere/account").status == 404
    portal.control.sign_terms(portal.name(), signed=False)
    runtime.ade_servers().close()
    assert scripts.get("/proxy/school/account").status == 502
    assert runtime.ade_servers().token("school").access_token not in capsys.readouterr().out


@pytest.mark.usefixtures("school")
def test_nanodeps_assigner_is_a_rule_for_all_of_a_servers_devices(scripts: Scripts) -> None:
    assert scripts.get("/v1/assigner/school").body == b'{"profile_uuid":""}\n'
    uuid = "43277A13FBCA0CFC"
    put = scripts.request("PUT", "/v1/assigner/school", query={"profile_uuid": uuid})
    assert put.body == scripts.get("/v1/assigner/school").body == b'{"profile_uuid":"%s"}\n' % uuid.encode()
    assert runtime.ade_assignment_rules().assigner("school") == uuid
    assert scripts.request("PUT", "/v1/assigner/school").document == {"profile_uuid": ""}
    assert scripts.get("/v1/assigner/nowhere").status == 404


@pytest.mark.usefixtures("school")
def test_nanodeps_maid_tokens_are_of_the_key_that_apple_knows(scripts: Scripts) -> None:
    answer = scripts.get("/v1/maidjwt/school")

    server_uuid = runtime.ade_servers().get("school").server_uuid
    assert (answer.headers["content-type"], answer.headers["x-server-uuid"]) == ("application/jwt", server_uuid)
    claims = json.loads(b64decode(answer.body.split(b".")[1] + b"=="))
    assert (claims["iss"], claims["jti"]) == (server_uuid, answer.headers["x-jwt-jti"])
    assert scripts.get("/v1/maidjwt/school", server_uuid="ABC").headers["x-server-uuid"] == "ABC"


def test_nanodeps_bypass_codes(scripts: Scripts) -> None:
    known = (
        b'{"raw":"1ea841db5edfafe6075b5ae0d845d254","code":"3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4",'
        b'"hash":"6ab40d5eabe7218ec04182f461005600c7e3426bddd82cdb405bde9a1e0014b5"}\n'
    )
    assert scripts.get("/v1/bypasscode", raw="1ea841db5edfafe6075b5ae0d845d254").body == known
    assert scripts.get("/v1/bypasscode", code="3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4").body == known
    assert len({scripts.get("/v1/bypasscode").body for _ in range(2)}) == 2
    for query in ({"raw": "xx"}, {"raw": "00"}, {"code": "xx"}, {"raw": "00", "code": "0"}):
        assert scripts.get("/v1/bypasscode", **query).status == 400

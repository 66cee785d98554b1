"""Several deployments by their names, and those that are reached by HTTP Basic alone."""

import json
import plistlib
import re
import stat
from base64 import b64decode
from pathlib import Path

import pytest

from local.apns.portal import Authority
from mdmlib.apple.profile_signing import SigningIdentity
from tests.admin_server import AdminServer
from tests.command_lines import API_KEY, CommandLine
from tests.fleet import Fleet

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"


@pytest.fixture
def config(picomdm: CommandLine, tmp_path: Path) -> Path:
    return tmp_path / "picomdm" / "contexts.json"


@pytest.fixture
def school(device_server: AdminServer, picomdm: CommandLine) -> AdminServer:
    """A context of HTTP Basic that is in use."""
    arguments = ("--url", device_server.url, "--user", "micromdm", "--api-key-file", "-")
    added = picomdm("contexts", "add", "school", *arguments, "--json", stdin=f"{API_KEY}\n")
    assert (added.code, API_KEY in added.out + added.err) == (0, False)
    return device_server


def test_the_first_context_is_meant_until_another_is_used(picomdm: CommandLine, config: Path) -> None:
    assert "picomdm contexts add" in picomdm("contexts", "list").out
    picomdm("contexts", "add", "prod", "--stack", "picomdm-prod", "--profile", "work", "--region", "eu-central-1")
    picomdm("contexts", "add", "dev", "--stack", "picomdm-dev")

    listed = picomdm("contexts", "list").out
    assert re.search(r"\* +prod +SigV4 +picomdm-prod +work", listed)
    assert re.search(r"\n +dev +SigV4 +picomdm-dev", listed)
    assert picomdm("contexts", "use", "dev", "--json").document == {"current": "dev"}
    told = picomdm("contexts", "list", "--json").document["contexts"]
    assert {each["name"]: each["current"] for each in told} == {"dev": True, "prod": False}
    assert picomdm("contexts", "remove", "dev").code == 0
    assert json.loads(config.read_text())["current"] is None
    unknown = picomdm("contexts", "use", "dev")
    assert (unknown.code, "known: prod" in unknown.err) == (2, True)


def test_a_context_says_which_deployment_is_meant(
    server: AdminServer, picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PICOMDM_ADMIN_URL")
    picomdm("contexts", "add", "here", "--admin-url", server.url)
    picomdm("contexts", "add", "nowhere", "--admin-url", "http://127.0.0.1:9")

    assert picomdm("version").code == 0
    assert picomdm("--context", "nowhere", "enroll", "revoke", "x").code == 1
    # Whoever names a stack means no context.
    assert "(no_stack)" in picomdm("--stack", "picomdm-of-another", "enrollments", "list").err
    assert "(no_context)" in picomdm("--context", "another", "enrollments", "list").err


def test_keys_are_in_a_file_for_nobody_else(school: AdminServer, picomdm: CommandLine, config: Path) -> None:
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    assert API_KEY not in picomdm("contexts", "list").out + picomdm("contexts", "list", "--json").out

    config.chmod(0o640)
    refused = picomdm("version")
    assert (refused.code, f"chmod 600 {config}" in refused.err) == (2, True)
    config.chmod(0o600)
    config.write_text(f'{{"contexts": "{API_KEY}"}}')
    broken = picomdm("version")
    assert (broken.code, API_KEY in broken.err) == (2, False)


def test_a_key_may_stay_in_its_variable(
    device_server: AdminServer, picomdm: CommandLine, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picomdm(
        *("contexts", "add", "ci", "--url", device_server.url, "--user", "nanomdm"), "--api-key-variable", "MDM_API_KEY"
    )

    assert API_KEY not in config.read_text()
    missing = picomdm("commands", "clear", UDID)
    assert (missing.code, "MDM_API_KEY" in missing.err) == (2, True)
    monkeypatch.setenv("MDM_API_KEY", "wrong")
    wrong = picomdm("enrollments", "list")
    assert (wrong.code, "The context's user or API key is wrong" in wrong.err) == (1, True)
    monkeypatch.setenv("MDM_API_KEY", API_KEY)
    assert picomdm("enrollments", "list").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "http://mdm.example.org", "--user", "micromdm", "--api-key-variable", "K"),
        ("--url", "https://mdm.example.org", "--user", "ada", "--api-key-variable", "K"),
        ("--url", "https://mdm.example.org", "--user", "micromdm"),
        ("--url", "https://mdm.example.org", "--user", "micromdm", "--api-key-variable", "K", "--stack", "x"),
    ],
)
def test_a_context_that_could_not_work_is_not_kept(
    picomdm: CommandLine, config: Path, arguments: tuple[str, ...]
) -> None:
    assert picomdm("contexts", "add", "x", *arguments).code == 2
    assert not config.exists()


def test_with_basic_devices_are_commanded(school: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    device = fleet.device(UDID)
    listed = picomdm("enrollments", "list")
    sent = picomdm("commands", "send", "device-lock", "--pin", "839201", "--to", "serial:C02XXXX", "--json")
    picomdm("commands", "send", UDID, "ProfileList", "--uuid", "list")
    waiting = picomdm("commands", "list", UDID, "--json").document["commands"]

    assert re.search(rf"{UDID} +Device +C02XXXX", listed.out)
    assert [target["queued"] for target in sent.document["targets"]] == [True]
    assert [each["request_type"] for each in waiting] == ["DeviceLock", "ProfileList"]
    assert device.idle() == sent.document["command_uuid"]
    assert picomdm("commands", "clear", UDID).code == 0
    assert device.idle() is None
    some = picomdm("commands", "send", "profile-list", "--to", UDID, "--to", "nobody", "--json")
    assert (some.code, some.document["queued"]) == (1, 1)
    assert some.document["targets"][1]["error"]["code"] == "unknown_enrollment"
    assert picomdm("enrollments", "block", UDID).code == 0
    assert fleet.device(UDID, enrolled=False).record.blocked
    assert picomdm("enrollments", "unblock", UDID).code == 0
    assert picomdm("enrollments", "delete", UDID, "--yes").code == 0
    assert picomdm("enrollments", "list", "--json").document["enrollments"] == []
    assert picomdm("version").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("enroll", "links"),
        ("enrollments", "show", UDID),
        ("commands", "results", UDID),
        ("commands", "send", "profile-list", "--to", "all"),
        ("queues",),
        ("open", "--print"),
        ("destroy", "--yes"),
    ],
)
def test_what_basic_cannot_do_is_said(school: AdminServer, picomdm: CommandLine, arguments: tuple[str, ...]) -> None:
    said = picomdm(*arguments, "--json")

    assert (said.code, json.loads(said.err)["code"]) == (2, "needs_aws")
    assert school.requests == []


def test_the_doctor_examines_what_it_can_see_by_basic(school: AdminServer, picomdm: CommandLine) -> None:
    findings = {each["what"]: each["well"] for each in picomdm("doctor", "--json").document["findings"]}

    assert findings["admin API"] is findings["clock"] is True
    assert findings["webhooks"] is findings["queues"] is None


def test_profiles_are_kept_listed_shown_and_deleted(school: AdminServer, picomdm: CommandLine, tmp_path: Path) -> None:
    profile = plistlib.dumps({"PayloadIdentifier": "org.example.wifi", "PayloadContent": []})
    file = tmp_path / "wifi.mobileconfig"
    file.write_bytes(profile)

    assert picomdm("profiles", "upload", str(file)).code == 0
    assert re.search(rf"org\.example\.wifi +{len(profile)}", picomdm("profiles", "list").out)
    shown = picomdm("profiles", "show", "org.example.wifi", "--json").document
    assert b64decode(shown["mobileconfig"]) == profile
    assert picomdm("profiles", "delete", "org.example.wifi").code == 0
    assert picomdm("profiles", "list", "--json").document["profiles"] == []
    file.write_bytes(b"signed")
    refused = picomdm("profiles", "upload", str(file))
    assert (refused.code, "--identifier" in refused.err) == (2, True)
    file.write_bytes(plistlib.dumps({"PayloadContent": []}))
    assert "has no PayloadIdentifier" in picomdm("profiles", "upload", str(file)).err
    file.write_bytes(SigningIdentity.decode(Authority.new("Signer").issue_server()).sign(profile))
    assert picomdm("profiles", "upload", str(file)).out == "Kept org.example.wifi.\n"


def test_enrollments_are_forgotten_only_when_that_is_confirmed(
    server: AdminServer, picomdm: CommandLine, fleet: Fleet
) -> None:
    fleet.device(UDID)

    assert picomdm("enrollments", "delete", UDID, stdin="n\n").code == 2
    assert picomdm("enrollments", "show", UDID).code == 0
    assert picomdm("enrollments", "delete", UDID, stdin="y\n").code == 0
    assert picomdm("enrollments", "show", UDID).code == 1


def test_names_that_were_typed_before_go_on_working(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device(UDID)
    for words in (("devices",), ("device", "show", UDID), ("results", UDID), ("command", "list", UDID)):
        assert picomdm(*words).code == 0

"""What operators type about Apple's servers, profiles and devices, against the real functions and a simulated Apple."""

import json
import re
from pathlib import Path

import pytest

from local.ade.client import AdeSimulator
from mdmlib import runtime
from tests.ade_portal import Portal
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine


@pytest.fixture
def portal(ade: AdeSimulator, server: AdminServer) -> Portal:
    return Portal(ade.control)


@pytest.fixture
def imported(picomdm: CommandLine, portal: Portal, tmp_path: Path) -> None:
    """The server ``school``, with its token."""
    assert picomdm("ade", "token", "certificate", "school", "--file", str(tmp_path / "school.pem")).code == 0
    (tmp_path / "token.p7m").write_bytes(portal.token((tmp_path / "school.pem").read_text()))
    assert picomdm("ade", "token", "import", "school", str(tmp_path / "token.p7m")).code == 0


def test_a_server_is_set_up_by_two_commands(picomdm: CommandLine, portal: Portal, tmp_path: Path) -> None:
    assert picomdm("ade", "servers", "list").out.startswith("None.")
    certificate = picomdm("ade", "token", "certificate", "school")
    assert certificate.out.startswith("-----BEGIN CERTIFICATE-----")
    assert picomdm("ade", "token", "certificate", "school").out == certificate.out
    file = tmp_path / "token.p7m"
    file.write_bytes(portal.token(certificate.out))

    said = picomdm("ade", "token", "import", "school", str(file))

    assert re.search(r"organization +Example Organization", said.out)
    assert re.search(r"school +Example Organization +\S+-school +20\d\d-", picomdm("ade", "servers", "list").out)
    file.write_bytes(portal.token(certificate.out, days=380))
    picomdm("ade", "token", "import", "school", str(file))
    assert "renew" not in picomdm("ade", "servers", "show", "school").out
    file.write_bytes(portal.token(certificate.out, days=12.5))
    assert "(in 12 days: renew it)" in picomdm("ade", "token", "import", "school", str(file), "--force").out
    assert re.search(r"org_phone +\+1 408", picomdm("ade", "account", "school").out)
    file.write_bytes(portal.token(certificate.out, server="other"))
    refused = picomdm("ade", "token", "import", "school", str(file))
    assert (refused.code, "another server" in refused.err) == (1, True)
    assert picomdm("ade", "token", "import", "school", str(file), "--force").code == 0
    assert picomdm("ade", "servers", "delete", "school", stdin="college\n").code == 2
    assert picomdm("ade", "servers", "delete", "school", stdin="school\n").code == 0
    assert picomdm("ade", "servers", "show", "school").code == 1


@pytest.mark.usefixtures("imported")
def test_a_token_that_another_server_has_decrypted_is_imported_as_well(picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "token.json"
    file.write_text(json.dumps(runtime.ade_servers().token("school").document()))
    refused = picomdm("ade", "token", "import", "moved", str(file))
    assert (refused.code, "'school' here" in refused.err) == (1, True)

    said = picomdm("ade", "token", "import", "moved", str(file), "--force")

    assert re.search(r"organization +Example Organization", said.out)
    assert "Its key did not come with it" in said.err


@pytest.mark.usefixtures("imported")
def test_a_profile_is_typed_or_read_and_given_to_devices(picomdm: CommandLine, portal: Portal, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps({"department": "IT", "skip_setup_items": ["AppleID"]}))
    root = tmp_path / "school.pem"
    said = picomdm(
        *("ade", "profiles", "set", "pupils", "skip_setup_items+=Siri", "allow_pairing:=false"),
        *("--file", str(tmp_path / "profile.json"), "--anchor", str(root), "--json"),
    )
    assert said.document["profile"]["skip_setup_items"] == ["Siri"]
    assert len(said.document["profile"]["anchor_certs"]) == 1
    assert re.search(r"pupils +school +Siri", picomdm("ade", "profiles", "list").out)
    assert re.search(r"department +IT", picomdm("ade", "profiles", "show", "pupils").out)
    wrong = picomdm("ade", "profiles", "set", "pupils", "skip_setup_items+=Syri")
    assert (wrong.code, "do you mean Siri" in wrong.err) == (1, True)

    bought = portal.buy(2)
    (tmp_path / "serials.txt").write_text(bought[1])
    done = picomdm("ade", "assign", "school", "pupils", bought[0], "--file", str(tmp_path / "serials.txt"))
    assert (done.code, done.out) == (0, "Done for 2 devices.\n")
    portal.control.behave(throttled={bought[0]: 1}, retry_after_seconds=60)
    some = picomdm("ade", "assign", "school", "pupils", *bought, "ELSEWHERE1")
    assert (some.code, "Done for 1 devices." in some.out, "60 seconds" in some.err) == (1, True, True)
    assert re.search(r"ELSEWHERE1 +NOT_ACCESSIBLE", some.out)
    assert picomdm("ade", "unassign", "school", *bought).code == 0
    assert picomdm("ade", "profiles", "delete", "pupils").code == 0


@pytest.mark.usefixtures("imported")
def test_a_device_is_locked_and_disowned(picomdm: CommandLine, portal: Portal) -> None:
    [serial] = portal.buy()
    locked = picomdm("ade", "lock", "school", serial, "--message", "Call us", "--json")
    assert portal.control.device(serial)["activation_lock"]["lost_message"] == "Call us"
    assert locked.document["bypass_code"] in picomdm("ade", "bypass-code", serial).out
    assert picomdm("ade", "lock", "school", "ELSEWHERE1").code == 1

    assert picomdm("ade", "disown", "school", serial, stdin="2\n").code == 2
    assert picomdm("ade", "disown", "school", serial, stdin="1\n").code == 0
    again = picomdm("ade", "disown", "school", serial, "--yes")
    assert (again.code, "NOT_ACCESSIBLE" in again.out) == (1, True)


@pytest.mark.usefixtures("imported")
def test_what_apple_refuses_is_said_once(picomdm: CommandLine, portal: Portal, server: AdminServer) -> None:
    portal.control.sign_terms(portal.name(), signed=False)
    before = len(server.requests)
    said = picomdm("ade", "beta-tokens", "school")
    assert (said.code, "accept Apple's new terms" in said.err, len(server.requests) - before) == (1, True, 1)


@pytest.mark.usefixtures("imported")
def test_apple_is_told_where_accounts_enroll(picomdm: CommandLine) -> None:
    url = "https://mdm.example.org/.well-known/com.apple.remotemanagement"
    assert picomdm("ade", "account-driven", "show", "school").out == "nowhere\n"
    assert picomdm("ade", "account-driven", "set", "school", url).out == f"{url}\n"
    assert picomdm("ade", "account-driven", "off", "school").out == "nowhere\n"
    assert re.search(r"iOS Developer Beta +iOS", picomdm("ade", "beta-tokens", "school").out)

"""What operators type, against the real functions."""

import json
import plistlib
import re
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mdmlib.store import tables
from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.fleet import TOPIC, Fleet

UDID = "55693EB3-DF03-5FD1-9263-F7CDB8AD7FFD"


@pytest.fixture
def uploaded(server: AdminServer, picomdm: CommandLine, push_certificate: bytes, tmp_path: Path) -> Path:
    """A file with a push certificate and its key, which is uploaded."""
    file = tmp_path / "push.pem"
    file.write_bytes(push_certificate)
    assert picomdm("push-cert", "upload", str(file)).code == 0
    return file


# Push certificates


def test_a_push_certificate_is_uploaded_from_two_files_and_shown(
    server: AdminServer, picomdm: CommandLine, push_certificate: bytes, tmp_path: Path
) -> None:
    certificate, mark, key = push_certificate.partition(b"-----BEGIN PRIVATE KEY-----")
    (tmp_path / "push.crt").write_bytes(certificate)
    (tmp_path / "push.key").write_bytes(mark + key)

    uploaded = picomdm("push-cert", "upload", str(tmp_path / "push.crt"), str(tmp_path / "push.key"), "--json")
    shown = picomdm("push-cert", "show")

    assert (uploaded.code, uploaded.document["topic"]) == (0, TOPIC)
    assert (shown.code, TOPIC in shown.out, "days" in shown.out) == (0, True, True)
    assert picomdm("push-cert", "show", TOPIC, "--json").document["push_certificates"] == [uploaded.document]


def test_a_file_that_is_not_there_is_wrong_usage(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("push-cert", "upload", "nowhere.pem")

    assert said.code == 2
    assert "nowhere.pem" in said.err


# Links


@pytest.mark.usefixtures("uploaded")
def test_a_link_is_told_alone_on_stdout_so_that_it_can_be_piped(picomdm: CommandLine) -> None:
    said = picomdm("enroll", "link", "--expires-in", "12h", "--max-uses", "3")

    assert said.code == 0
    assert re.fullmatch(r"https://mdm\.example\.org/mdm/enroll/[\w-]{43}\n", said.out)
    assert "3 devices" in said.err
    assert "in 11 hours" in said.err or "in 12 hours" in said.err


@pytest.mark.usefixtures("uploaded")
def test_links_are_listed_and_revoked(picomdm: CommandLine) -> None:
    link = picomdm("enroll", "link", "--note", "Ada's laptop", "--json").document
    shown = picomdm("enroll", "links").out
    assert re.search(rf"{link['id']} +open +in \d days +0 of any +Ada's laptop", shown)
    # One topic is everybody's.
    assert TOPIC not in shown

    assert picomdm("enroll", "revoke", link["id"]).code == 0
    listed = picomdm("enroll", "links")
    assert "revoked" in listed.out
    assert link["url"].rsplit("/", 1)[1] not in listed.out


def test_what_the_server_refuses_is_told_with_its_code(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("enroll", "link")
    as_json = picomdm("enroll", "link", "--json")

    assert (said.code, said.out) == (1, "")
    assert "push certificate" in said.err
    assert "(push_certificate_not_found)" in said.err
    assert (as_json.code, as_json.out) == (1, "")
    assert json.loads(as_json.err)["code"] == "push_certificate_not_found"


@pytest.mark.parametrize(
    "arguments", [("enroll", "link", "--expires-in", "soon"), ("enroll", "link", "--max-uses", "0")]
)
def test_wrong_usage_is_2_and_asks_the_server_nothing(
    server: AdminServer, picomdm: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert picomdm(*arguments).code == 2
    assert server.requests == []


# Commands


def test_a_command_is_sent_with_typed_fields(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    device = fleet.device(UDID)
    said = picomdm("command", "send", UDID, "DeviceInformation", "queries+=OSVersion", "queries+=DeviceName", "--json")
    queued = picomdm("command", "list", UDID, "--json").document["commands"]

    assert said.code == 0
    assert said.document == {
        "id": UDID,
        "command_uuid": queued[0]["command_uuid"],
        "request_type": "DeviceInformation",
    }
    assert device.idle() == said.document["command_uuid"]


def test_a_command_is_sent_from_a_file_and_changed_by_fields(
    server: AdminServer, picomdm: CommandLine, fleet: Fleet, tmp_path: Path
) -> None:
    fleet.device(UDID)
    file = tmp_path / "lock.json"
    file.write_text(json.dumps({"udid": "another", "request_type": "DeviceLock", "message": "Lost"}))

    from_file = picomdm("command", "send", UDID, "--file", str(file), "pin=839201", "--uuid", "lock-1")
    from_stdin = picomdm("command", "send", UDID, "ProfileList", "--file", "-", "--uuid", "list-1", stdin="{}")

    assert (from_file.code, from_stdin.code) == (0, 0)
    assert "839201" not in from_file.out + from_file.err
    listed = picomdm("commands", "list", UDID)
    assert re.search(r"lock-1 +DeviceLock +pending", listed.out)
    assert re.search(r"list-1 +ProfileList +pending", listed.out)


def test_a_profile_is_sent_as_it_lies_in_a_file(
    server: AdminServer, picomdm: CommandLine, fleet: Fleet, tmp_path: Path
) -> None:
    fleet.device(UDID)
    profile = tmp_path / "wifi.mobileconfig"
    profile.write_bytes(b"<plist/>")
    assert picomdm("command", "send", UDID, "InstallProfile", f"payload@{profile}", "--uuid", "p").code == 0

    payload = fleet.queue.payload(next(fleet.queue.read_on(fleet.device(UDID, enrolled=False).record, after="c#")))
    assert payload is not None
    assert plistlib.loads(payload)["Command"]["Payload"] == b"<plist/>"


def test_a_command_for_nobody_is_refused(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("command", "send", "nobody", "ProfileList")

    assert said.code == 1
    assert "(unknown_enrollment, field udid)" in said.err


def test_waiting_ends_when_the_time_is_up(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device(UDID)
    said = picomdm("command", "send", UDID, "ProfileList", "--wait", "0s")

    assert said.code == 1
    assert "waits on" in said.err


def test_results_show_reports_only_to_who_asks_for_them(
    server: AdminServer, picomdm: CommandLine, fleet: Fleet
) -> None:
    device = fleet.device(UDID)
    fleet.enqueue([device], "good")
    fleet.enqueue([device], "bad")
    device.acknowledge("good", RecoveryKey="ABCD-EFGH", Data=b"\x00\x01", When=datetime(2026, 1, 1, tzinfo=UTC))
    device.report("Error", "bad", ErrorChain=[{"ErrorCode": 12021, "LocalizedDescription": "No such [profile]"}])

    listed = picomdm("results", UDID)
    one = picomdm("results", UDID, "good")
    as_json = picomdm("results", UDID, "good", "--json").document
    payloads = [entry["payload"] for entry in picomdm("results", UDID, "--json").document["results"]]
    asked = [entry["payload"] for entry in picomdm("results", UDID, "--json", "--payloads").document["results"]]

    assert "ABCD" not in listed.out
    assert re.search(r"bad +ProfileList +Error +just now +No such \[profile\]", listed.out)
    assert '"RecoveryKey": "ABCD-EFGH"' in one.out
    assert as_json["report"]["Data"] == b64encode(b"\x00\x01").decode()
    assert as_json["report"]["When"].startswith("2026-01-01T00:00:00")
    assert payloads == [None, None]
    assert all(asked)


def test_a_result_that_is_not_there_yet_is_1(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device(UDID)

    assert picomdm("results", UDID, "nothing").code == 1


# Devices


def test_commands_are_taken_back_one_by_one_or_all(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    device = fleet.device(UDID)
    for uuid in ("C1", "C2", "C3"):
        fleet.enqueue([device], uuid)

    assert picomdm("command", "cancel", UDID, "C1", "--json").document == {
        "id": UDID,
        "command_uuid": "C1",
        "cancelled": True,
    }
    assert device.idle() == "C2"
    assert picomdm("commands", "clear", UDID).code == 0
    assert device.idle() is None
    again = picomdm("command", "cancel", UDID, "C2", "--json")
    assert (again.code, json.loads(again.err)["code"]) == (1, "unknown_command")


def test_what_waits_for_the_users_of_a_device_is_taken_back_with_its_own(
    server: AdminServer, picomdm: CommandLine, fleet: Fleet
) -> None:
    device = fleet.device(UDID)
    user = device.user("USER")
    user.token_update(UserShortName="ada")
    for channel in (device, user):
        fleet.enqueue([channel], f"for {channel}")

    assert picomdm("commands", "clear", UDID).code == 0
    assert (device.idle(), user.idle()) == (None, f"for {user}")
    assert picomdm("commands", "clear", UDID, "--with-users").code == 0
    assert user.idle() is None


def test_devices_are_listed_and_one_is_shown(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    assert "picomdm enroll link" in picomdm("devices").out
    device = fleet.device(UDID)
    user = device.user("USER")
    user.token_update(UserShortName="ada", UserLongName="Ada Lovelace")

    listed = picomdm("devices")
    shown = picomdm("device", "show", str(user))

    assert re.search(rf"{UDID} +Device +C02XXXX +- +15\.1 +enrolled +just now", listed.out)
    assert "ada (Ada Lovelace)" in shown.out
    assert [entry["id"] for entry in picomdm("devices", "--type", "User", "--json").document["enrollments"]] == [
        str(user)
    ]
    device.check_out()
    assert "ended with its device" in picomdm("device", "show", str(user)).out


def test_a_list_that_is_cut_says_so(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device("A")
    fleet.device("B")

    assert "more than these 1" in picomdm("devices", "--limit", "1").err
    assert picomdm("devices", "--limit", "2", "--json").document["more"] is False


@pytest.mark.usefixtures("uploaded")
def test_a_push_says_whom_it_did_not_wake(picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device(UDID)

    assert picomdm("push", UDID).code == 0
    some = picomdm("push", UDID, "nobody")
    assert some.code == 1
    assert re.search(r"nobody +- +There is no enrollment nobody", some.out)


# Webhooks


def test_webhooks_are_made_listed_and_deleted(server: AdminServer, picomdm: CommandLine, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("hunter2\n")
    made = picomdm(
        "webhooks",
        "create",
        "https://example.org/hook",
        "--topic",
        "mdm.Connect",
        "--hmac-key-file",
        str(key),
        "--json",
    )
    listed = picomdm("webhooks", "list")

    assert made.document["signed"] is True
    assert re.search(rf"{made.document['id']} +https://example.org/hook +mdm\.Connect +yes +ok", listed.out)
    assert "hunter2" not in made.out + listed.out
    assert picomdm("webhooks", "delete", made.document["id"]).code == 0
    assert picomdm("webhooks", "delete", made.document["id"]).code == 1


def test_the_key_of_a_webhook_may_come_from_stdin(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    picomdm("webhooks", "create", "https://example.org/hook", "--hmac-key-file", "-", stdin="hunter2\r\n")
    item = next(iter(tables.WebhookSubscription.query("webhook")))

    assert fleet.sealer.open(item.hmac_key, place=f"webhook/{item.name}") == b"hunter2"


def test_an_unsigned_webhook_is_warned_of(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("webhooks", "create", "https://example.org/hook")

    assert (said.code, "not signed" in said.err) == (0, True)


# Around it


def test_both_releases_are_told(server: AdminServer, picomdm: CommandLine) -> None:
    document = picomdm("version", "--json").document

    assert document["command_line"] == document["deployment"]


def test_every_request_is_signed_and_says_who_asks(server: AdminServer, picomdm: CommandLine, fleet: Fleet) -> None:
    fleet.device(UDID).user("a user")
    picomdm("device", "show", f"{UDID}:a user")
    method, path, headers = server.requests[0]

    assert (method, path) == ("GET", f"/v2/enrollments/{UDID}%3Aa%20user")
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=test/")
    assert "/us-east-1/execute-api/aws4_request" in headers["Authorization"]
    assert headers["User-Agent"].startswith("picomdm/")


def test_nobody_there_is_1(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("--admin-url", "http://127.0.0.1:9", "enroll", "link")

    assert said.code == 1
    assert "does not answer" in said.err


def test_no_credentials_are_2(
    server: AdminServer, picomdm: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    said = picomdm("devices")

    assert said.code == 2
    assert "(no_credentials)" in said.err


def test_an_unknown_profile_is_2(server: AdminServer, picomdm: CommandLine) -> None:
    said = picomdm("--profile", "nobody", "devices")

    assert said.code == 2
    assert "(no_profile)" in said.err


def test_what_is_not_named_is_not_asked_for(picomdm: CommandLine) -> None:
    for arguments in (("enrollments", "block", ""), ("commands", "clear", ""), ("apps", "delete", "")):
        assert "(empty_name)" in picomdm(*arguments).err


def test_an_unknown_command_is_2(picomdm: CommandLine) -> None:
    assert picomdm("brew").code == 2
    assert picomdm("--help").code == 0


def test_all_are_woken_by_one_request_and_nobody_by_an_unclear_one(picomdm: CommandLine, uploaded: Path) -> None:
    result = picomdm("push", "--all", "--json")

    assert result.code == 0
    assert (result.document["state"], result.document["types"]) == ("running", None)
    assert picomdm("push").code == 2
    assert picomdm("push", "D1", "--all").code == 2

"""What operators type about who may enroll, against the real functions."""

import plistlib
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.genuine_devices import Authority
from tests.oidc_issuer import OidcIssuer
from tests.profile_templates import template

pytestmark = pytest.mark.usefixtures("server")


def test_authorities_are_uploaded_under_their_files_names(picomdm: CommandLine, tmp_path: Path) -> None:
    files = []
    for name in ("phone", "watch"):
        files.append(tmp_path / f"{name}.cer")
        files[-1].write_bytes(Authority.named(f"Fruit {name} CA").pem)

    assert picomdm("device-ca", "list").out.startswith("No authorities")
    assert picomdm("device-ca", "upload", *map(str, files)).code == 0
    assert picomdm("device-ca", "upload", str(files[0]), "--name", "other").code == 0
    assert picomdm("device-ca", "upload", *map(str, files), "--name", "other").code == 2

    assert re.search(r"watch +CN=Fruit watch CA,O=Fruit +[0-9a-f]{64} +just now", picomdm("device-ca", "list").out)
    assert picomdm("device-ca", "delete", "watch").code == 0
    listed = picomdm("device-ca", "list", "--json").document["device_certificate_authorities"]
    assert [entry["name"] for entry in listed] == ["other", "phone"]


def test_serial_numbers_come_from_the_command_line_and_from_a_file(picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "serials.txt"
    file.write_text("C02AAAAAAAA1\n\n  c02aaaaaaaa2\r\n")

    assert picomdm("ade", "serials", "list").out.startswith("The list is empty")
    assert picomdm("ade", "serials", "add").code == 2
    added = picomdm("ade", "serials", "add", "C02AAAAAAAA3", "--file", str(file), "--note", "Ada's class")
    assert (added.code, added.out) == (0, "3 devices may enroll by ADE.\n")
    assert re.search(r"C02AAAAAAAA2 +just now +Ada's class", picomdm("ade", "serials", "list").out)

    assert picomdm("ade", "serials", "remove", "C02AAAAAAAA1", "C02AAAAAAAA2").code == 0
    listed = picomdm("ade", "serials", "list", "--json").document["ade_serial_numbers"]
    assert [entry["serial_number"] for entry in listed] == ["C02AAAAAAAA3"]


def test_a_link_may_be_for_some_devices_only(picomdm: CommandLine, push_certificate: bytes, tmp_path: Path) -> None:
    (tmp_path / "push.pem").write_bytes(push_certificate)
    (tmp_path / "serials.txt").write_text("C02AAAAAAAA1\n")
    assert picomdm("push-cert", "upload", str(tmp_path / "push.pem")).code == 0

    link = picomdm(
        *("enroll", "link", "--serial", "c02aaaaaaaa2", "--serials-file", str(tmp_path / "serials.txt"), "--json")
    ).document
    picomdm("enroll", "link", "--serial", "C02AAAAAAAA3", "--note", "Ada")

    assert link["serial_numbers"] == ["C02AAAAAAAA1", "C02AAAAAAAA2"]
    listed = picomdm("enroll", "links").out
    assert re.search(r"- +2 devices", listed)
    assert re.search(r"Ada +C02AAAAAAAA3", listed)
    assert picomdm("enroll", "link", "--serial", "x").code == 1


def test_a_minimum_os_is_set_and_removed(server: AdminServer, picomdm: CommandLine) -> None:
    assert picomdm("ade", "minimum-os", "set", "iOS", "17.4.1").code == 0
    assert re.search(r"iOS +17\.4\.1 +-", picomdm("ade", "minimum-os", "list").out)
    refused = picomdm("ade", "minimum-os", "set", "iOS", "newest")
    assert (refused.code, "os_version" in refused.err) == (1, True)

    assert picomdm("ade", "minimum-os", "remove", "iOS").code == 0
    assert picomdm("ade", "minimum-os", "list").out == "Devices may run anything.\n"


def test_a_profile_is_changed_piece_by_piece_and_shown(picomdm: CommandLine, tmp_path: Path) -> None:
    root, signer = Authority.named("Private Root"), Authority.named("Signing Root").device()
    files = {
        "root.pem": root.pem,
        "signer.pem": signer.certificate.public_bytes(Encoding.PEM),
        "signer.key": signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "template.mobileconfig": plistlib.dumps(template()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def change(*options: str) -> dict[str, Any]:
        said = picomdm("enrollment-profile", "set", *options, "--json")
        assert said.code == 0, said.err
        document: dict[str, Any] = said.document
        return document

    assert re.search(r"signed by +nobody", picomdm("enrollment-profile", "show").out)
    change("--organization", "School", "--access-rights", "3", "--trust", str(tmp_path / "root.pem"))
    change("--sign-with", str(tmp_path / "signer.key"), "--sign-with", str(tmp_path / "signer.pem"))
    changed = change("--template", str(tmp_path / "template.mobileconfig"), "--capability", "com.apple.mdm.token")

    assert (changed["organization"], changed["access_rights"]) == ("School", 3)
    assert changed["server_capabilities"] == ["com.apple.mdm.token"]
    assert changed["trust_certificates"] == root.pem.decode()
    assert changed["template"]
    shown = picomdm("enrollment-profile", "show").out
    assert re.search(r"template +uploaded just now", shown)
    assert re.search(r"signed by +CN=device .*, good until 2014-04-16", shown)

    changed = change("--no-template", "--unsigned", "--no-trust", "--organization", "")
    assert changed["template"] is changed["signing_identity"] is changed["trust_certificates"] is None
    assert (changed["organization"], changed["access_rights"]) == (None, 3)


def test_nothing_is_changed_when_a_file_is_missing_or_a_value_wrong(picomdm: CommandLine) -> None:
    before = picomdm("enrollment-profile", "show", "--json").document

    missing = picomdm("enrollment-profile", "set", "--organization", "School", "--template", "nowhere.mobileconfig")
    wrong = picomdm("enrollment-profile", "set", "--organization", "School", "--access-rights", "2")

    assert (missing.code, "nowhere.mobileconfig" in missing.err) == (2, True)
    assert (wrong.code, "access_rights" in wrong.err) == (1, True)
    assert picomdm("enrollment-profile", "show", "--json").document == before


def test_people_enroll_by_signing_in_until_it_is_off(picomdm: CommandLine) -> None:
    with OidcIssuer.running() as issuer:
        both = picomdm(
            "account-driven", "set", issuer.url, "--audience", "mdm", "--sign-in-url", "x", "--client-id", "y"
        )
        said = picomdm(
            *("account-driven", "set", issuer.url, "--audience", "mdm", "--client-id", "mdm"),
            *("--domain", "example.org", "--mode-for", "Mac=device"),
        )
        wrong = picomdm("account-driven", "set", issuer.url + "/x", "--audience", "mdm", "--client-id", "mdm")

    assert (both.code, said.code, wrong.code) == (2, 0, 1)
    assert re.search(r"people sign in +as mdm, for openid email", said.out)
    assert re.search(r"modes +Mac: device, all others: user", picomdm("account-driven", "show").out)
    assert picomdm("account-driven", "off").code == 0
    assert picomdm("account-driven", "show").code == 1


def test_challenges_for_the_profiles_of_others(picomdm: CommandLine, tmp_path: Path) -> None:
    short, secret = tmp_path / "short", tmp_path / "secret"
    short.write_text("short\n")
    secret.write_text("correct horse\n")
    made = picomdm("scep", "challenge", "--expires-in", "1h", "--serial", "C02X", "--json").document
    assert made["serial_number"] == "C02X"
    assert re.fullmatch(r"[A-Za-z0-9+/]{115}\n", picomdm("scep", "challenge").out)
    assert picomdm("scep", "challenge", "--expires-in", "90d").code == 1

    assert picomdm("scep", "static", "show").out == "None.\n"
    assert picomdm("scep", "static", "set", str(short)).code == 1
    assert picomdm("scep", "static", "set", str(secret)).out == "Set.\n"
    assert picomdm("scep", "static", "show").out.startswith("Set ")
    assert picomdm("scep", "static", "off").code == 0
    assert picomdm("scep", "static", "show").out == "None.\n"

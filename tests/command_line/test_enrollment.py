"""What operators type about who may enroll, against the real functions."""

import re
from pathlib import Path

import pytest

from tests.admin_server import AdminServer
from tests.command_lines import CommandLine
from tests.genuine_devices import Authority

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


def test_a_minimum_os_is_set_and_removed(server: AdminServer, picomdm: CommandLine) -> None:
    assert picomdm("ade", "minimum-os", "set", "iOS", "17.4.1").code == 0
    assert re.search(r"iOS +17\.4\.1 +-", picomdm("ade", "minimum-os", "list").out)
    refused = picomdm("ade", "minimum-os", "set", "iOS", "newest")
    assert (refused.code, "os_version" in refused.err) == (1, True)

    assert picomdm("ade", "minimum-os", "remove", "iOS").code == 0
    assert picomdm("ade", "minimum-os", "list").out == "Devices may run anything.\n"

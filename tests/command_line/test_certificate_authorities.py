"""``picomdm ca``, against the real functions."""

import re
from pathlib import Path

import pytest

from tests.command_lines import CommandLine
from tests.genuine_devices import Authority

pytestmark = pytest.mark.usefixtures("server")

ROOT = Authority.named("Corporate Root")
INTERMEDIATE = Authority.named("Corporate Devices", above=ROOT)


def test_an_authority_is_uploaded_from_several_files_listed_shown_and_deleted(
    picomdm: CommandLine, tmp_path: Path
) -> None:
    root, intermediate = tmp_path / "root.pem", tmp_path / "intermediate.pem"
    root.write_bytes(ROOT.pem)
    intermediate.write_bytes(INTERMEDIATE.pem.rstrip())

    assert picomdm("ca", "list").out.startswith("None yet")
    uploaded = picomdm("ca", "upload", "corporate", str(intermediate), str(root))
    assert uploaded.code == 0
    assert "CN=Corporate Devices" in uploaded.out
    assert len(re.findall(r"corporate +CN=Corporate \w+,O=Fruit +[0-9a-f]{64}", picomdm("ca", "list").out)) == 2
    assert picomdm("ca", "show", "corporate").out.encode() == INTERMEDIATE.pem + ROOT.pem
    assert picomdm("ca", "show", "corporate", "--json").document["own"] is False
    assert picomdm("ca", "delete", "corporate").code == 0
    assert picomdm("ca", "list", "--json").document == {"certificate_authorities": []}


def test_what_is_no_authority_is_refused_with_the_reason(picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "device.pem"
    file.write_text("no certificate")

    assert picomdm("ca", "upload", "corporate", str(file)).code == 1
    assert "no certificate" in picomdm("ca", "upload", "corporate", str(file)).err
    assert "scep" in picomdm("ca", "upload", "scep", str(file)).err
    assert picomdm("ca", "upload", "corporate", str(tmp_path / "missing.pem")).code == 2

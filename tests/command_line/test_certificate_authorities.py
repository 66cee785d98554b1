"""``picomdm ca``, against the real functions."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from mdmlib.apple.certificates import new_certificate_authority
from tests.command_lines import CommandLine
from tests.fleet import Fleet
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
    assert len(re.findall(r"corporate +\S* +CN=Corporate \w+,O=Fruit +[0-9a-f]{64}", picomdm("ca", "list").out)) == 2
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


def test_the_next_authority_is_prepared_and_activated(picomdm: CommandLine) -> None:
    picomdm("ca", "prepare")
    prepared = picomdm("ca", "prepare")
    assert prepared.code == 0
    assert "picomdm ca activate scep-2" in prepared.out
    assert picomdm("ca", "prepare").code == 1
    assert picomdm("ca", "prepare", "--replace", "--json").document["name"] == "scep-3"
    assert re.search(r"scep +now .*\n.*scep-3 +next ", picomdm("ca", "list").out)

    later = picomdm("ca", "activate", "scep-3", "--at", "2031-01-31T12:00:00Z")
    assert "from 2031-01-31T12:00:00Z" in later.out
    assert "from 2031-01-31T12:00:00Z" in picomdm("ca", "list").out
    assert "scep-3 follows at 2031-01-31T12:00:00Z" in picomdm("doctor").out
    assert picomdm("ca", "activate", "scep-3", "--at", "tomorrow").code == 1
    assert "within five minutes" in picomdm("ca", "activate", "scep-3").out
    assert re.search(r"scep +no more .*\n.*scep-3 +now ", picomdm("ca", "list").out)
    assert picomdm("ca", "delete", "scep-3").code == 1


def test_an_authority_is_imported_with_its_key(picomdm: CommandLine, tmp_path: Path) -> None:
    identity = new_certificate_authority("Corporation", now=datetime.now(UTC))
    certificate, key = identity.certificate, identity.private_key
    pem, p12, password = tmp_path / "ca.pem", tmp_path / "ca.p12", tmp_path / "password"
    password.write_text("correct horse\n")
    encryption = BestAvailableEncryption(b"correct horse")
    pem.write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    )
    p12.write_bytes(serialize_key_and_certificates(None, key, certificate, None, encryption))

    assert "password is missing" in picomdm("ca", "import", str(pem)).err
    imported = picomdm("ca", "import", str(pem), "--password-file", str(password), "--json").document
    assert (imported["name"], imported["phase"]) == ("scep", "in_use")
    assert picomdm("ca", "import", str(p12), "--password-file", str(password), "--json").document == imported
    assert picomdm("ca", "import", str(p12)).code == 1


def test_a_devices_certificates_are_revoked_and_listed(picomdm: CommandLine, fleet: Fleet) -> None:
    device = fleet.device()
    assert picomdm("ca", "revoked").out == "None.\n"

    revoked = picomdm("ca", "revoke", device.udid, "--reason", "key_compromise")

    sha256 = device.certificate.hash
    assert revoked.out == f"Revoked: {sha256}\n"
    assert picomdm("ca", "revoke", "--sha256", sha256).out == revoked.out
    assert re.search(rf"{sha256} .*{device.udid} +key_compromise ", picomdm("ca", "revoked").out)
    assert picomdm("ca", "revoke").code == 1
    assert picomdm("ca", "revoke", "--serial-number", "abc").code == 1

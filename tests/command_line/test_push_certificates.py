"""``picomdm push-cert``, against the real functions, from the request to the upload."""

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509

from local.device.envelope import seal
from local.push_portal import PushPortal
from tests.command_lines import CommandLine
from tests.http_server import http_server

pytestmark = pytest.mark.usefixtures("server")

TOPIC = "com.apple.mgmt.External.97479ae0-c9db-4c54-8b10-dd6b4a50c0e5"
OTHER_TOPIC = "com.apple.mgmt.External.0f8dea11-c72b-405f-8142-a06a29fdf754"
PORTAL = PushPortal()


def test_a_certificate_is_asked_for_vouched_for_and_uploaded(picomdm: CommandLine, tmp_path: Path) -> None:
    csr, vendor, chain, push = (tmp_path / name for name in ("push.csr", "vendor.pem", "chain.pem", "push.pem"))
    csr.write_text(picomdm("push-cert", "request", "it@example.org", "--country", "US").out)
    vendor.write_bytes(PORTAL.issue_vendor("Example"))
    chain.write_bytes(PORTAL.chain)
    assert "it@example.org" in picomdm("push-cert", "requests").out

    incomplete = picomdm("push-cert", "sign", str(csr), str(vendor))
    assert (incomplete.code, "Simulated WWDR CA" in incomplete.err) == (1, True)
    signed = picomdm("push-cert", "sign", str(csr), str(vendor), str(chain))
    push.write_bytes(PORTAL.issue(signed.out.strip().encode(), topic=TOPIC))

    assert TOPIC in picomdm("push-cert", "upload", str(push)).out
    assert TOPIC in picomdm("push-cert", "show").out
    assert picomdm("push-cert", "requests").out.startswith("None")

    csr.write_text(picomdm("push-cert", "request", "it@example.org").out)
    signed = picomdm("push-cert", "sign", str(csr), str(vendor), str(chain))
    push.write_bytes(PORTAL.issue(signed.out.strip().encode(), topic=OTHER_TOPIC))
    refused = picomdm("push-cert", "upload", str(push))
    assert (refused.code, TOPIC in refused.err, "Renew" in refused.err) == (1, True, True)
    assert picomdm("push-cert", "upload", str(push), "--force").code == 0


def test_mdmcert_download_vouches_for_who_is_no_vendor(picomdm: CommandLine, tmp_path: Path) -> None:
    with http_server() as mdmcert:
        ask = ("push-cert", "ask-mdmcert", "it@example.org", "--api-key", "1234", "--url", mdmcert.url)
        mdmcert.body = json.dumps({"result": "failure", "reason": "key unknown"}).encode()
        refused = picomdm(*ask)
        assert (refused.code, "key unknown" in refused.err) == (1, True)
        mdmcert.body = json.dumps({"result": "success"}).encode()
        made = picomdm(*ask, "--json")
    asked = json.loads(mdmcert.requests[-1].body)
    assert (asked["email"], asked["key"]) == ("it@example.org", "1234")
    assert b"BEGIN CERTIFICATE REQUEST" in base64.b64decode(asked["csr"])
    recipient = x509.load_pem_x509_certificate(base64.b64decode(asked["encrypt"]))
    file = tmp_path / "mailed.p7"
    file.write_text(seal(b"what Apple takes", recipient, cipher="aes128").hex())

    opened = picomdm("push-cert", "open-mdmcert", made.document["id"], str(file))
    assert (opened.code, opened.out.strip()) == (0, "what Apple takes")

"""TLS for one machine: a root that is made once, and server certificates that devices accept."""

import json
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from local import ca
from local.ca import LocalAuthority


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """Connect a client to a server that it calls ``host``; raises the client's ssl.SSLError."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except ssl.SSLError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=host).close()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_trusts_the_root_trusts_the_server(tmp_path: Path, host: str) -> None:
    authority = LocalAuthority.open(tmp_path)
    made = authority.server_certificate("127.0.0.1", "localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.certificate, made.key)
    client = ssl.create_default_context(cafile=str(authority.root))
    client.verify_flags |= ssl.VERIFY_X509_STRICT

    handshake(server, client, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, "mdm.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, ssl.create_default_context(), host)


def test_root_and_certificates_stay_the_same(tmp_path: Path) -> None:
    first = LocalAuthority.open(tmp_path)
    made = first.server_certificate("localhost").certificate.read_bytes()
    again = LocalAuthority.open(tmp_path)
    assert again.root.read_bytes() == first.root.read_bytes()
    assert again.server_certificate("localhost").certificate.read_bytes() == made


def test_programs_that_start_together_get_one_root(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        roots = list(threads.map(lambda _: LocalAuthority.open(tmp_path).root.read_bytes(), range(8)))
    assert len(set(roots)) == 1


def test_a_certificate_is_made_anew_when_it_runs_out_or_is_for_other_hosts(tmp_path: Path) -> None:
    first = LocalAuthority.open(tmp_path).server_certificate("localhost").certificate.read_bytes()
    later = LocalAuthority.open(tmp_path, now=lambda: datetime.now(UTC) + timedelta(days=380))
    second = later.server_certificate("localhost").certificate.read_bytes()
    assert second != first
    assert later.server_certificate("localhost").certificate.read_bytes() == second
    third = later.server_certificate("localhost", "127.0.0.1").certificate.read_bytes()
    assert third != second


def test_a_broken_certificate_or_one_of_another_root_is_made_anew(tmp_path: Path) -> None:
    authority = LocalAuthority.open(tmp_path / "a")
    made = authority.server_certificate("localhost")
    other = LocalAuthority.open(tmp_path / "b").server_certificate("localhost")
    made.certificate.write_bytes(other.certificate.read_bytes())
    made.key.write_bytes(other.key.read_bytes())

    again = authority.server_certificate("localhost")
    x509.load_pem_x509_certificate(again.certificate.read_bytes()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.root.read_bytes())
    )


def test_apple_would_accept_how_long_a_certificate_lives(tmp_path: Path) -> None:
    made = LocalAuthority.open(tmp_path).server_certificate("localhost")
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=398)


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    authority = LocalAuthority.open(tmp_path)
    made = authority.server_certificate("localhost")
    assert {path.stat().st_mode & 0o077 for path in (made.key, tmp_path / "root.key")} == {0}


def test_as_a_program_it_says_where_the_files_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca.main(["--directory", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    assert told.keys() == {"root", "certificate", "key"}
    assert all(Path(path).is_file() for path in told.values())

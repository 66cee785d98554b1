"""``picomdm migrate``, against the real functions."""

import gzip
import plistlib
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from tests.command_lines import CommandLine
from tests.portal import push_certificate

pytestmark = pytest.mark.usefixtures("server")

TOPIC = "com.apple.mgmt.External.97479ae0-c9db-4c54-8b10-dd6b4a50c0e5"
MICROMDM = Path(__file__).parents[1] / "testdata" / "micromdm" / "micromdm.db.gz"
UDID = "A5EF1BA1-586D-4F29-B4F3-759DADAC2DDD"
USER = "B0B0B0B0-0000-0000-0000-000000000001"

# The tables of NanoMDM's schema, with the columns that are read.
NANOMDM_SCHEMA = """
CREATE TABLE devices (id TEXT PRIMARY KEY, identity_cert TEXT, serial_number TEXT, unlock_token BLOB,
  authenticate TEXT NOT NULL, token_update TEXT, bootstrap_token_b64 TEXT);
CREATE TABLE users (id TEXT, device_id TEXT, user_short_name TEXT, token_update TEXT, PRIMARY KEY (id, device_id));
CREATE TABLE enrollments (id TEXT PRIMARY KEY, device_id TEXT, user_id TEXT UNIQUE, type TEXT, topic TEXT,
  push_magic TEXT, token_hex TEXT, enabled BOOLEAN, token_update_tally INTEGER);
CREATE TABLE cert_auth_associations (id TEXT, sha256 TEXT, created_at TIMESTAMP, PRIMARY KEY (id, sha256));
"""


def message(message_type: str, udid: str = UDID, **fields: object) -> str:
    return plistlib.dumps({"MessageType": message_type, "UDID": udid, "Topic": TOPIC, **fields}).decode()


@pytest.fixture
def nanomdm(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'nanomdm.db'}"
    engine = create_engine(url)
    with engine.begin() as database:
        for statement in NANOMDM_SCHEMA.split(";"):
            if statement.strip():
                database.execute(text(statement))
        authenticate = message("Authenticate", SerialNumber="NANO1", OSVersion="26.1")
        update = message("TokenUpdate", PushMagic="magic", Token=b"token")
        database.execute(
            text("INSERT INTO devices VALUES (:id, NULL, 'NANO1', :unlock, :authenticate, :update, 'Ym9vdA==')"),
            {"id": UDID, "unlock": b"unlock", "authenticate": authenticate, "update": update},
        )
        gone = "DEAD0000-0000-0000-0000-000000000000"
        database.execute(
            text("INSERT INTO devices VALUES (:id, NULL, 'NANO2', NULL, :authenticate, :update, NULL)"),
            {"id": gone, "authenticate": message("Authenticate", gone), "update": message("TokenUpdate", gone)},
        )
        user_id = f"{UDID}:{USER}"
        user = message("TokenUpdate", UserID=USER, UserShortName="ada", PushMagic="user magic", Token=b"user token")
        database.execute(
            text("INSERT INTO users VALUES (:id, :device, 'ada', :update)"),
            {"id": user_id, "device": UDID, "update": user},
        )
        for id_, device, user_key, enabled in (
            (UDID, UDID, None, 1),
            (gone, gone, None, 0),
            (user_id, UDID, user_id, 1),
        ):
            database.execute(
                text("INSERT INTO enrollments VALUES (:id, :device, :user, 'x', :topic, 'm', 'aa', :enabled, 1)"),
                {"id": id_, "device": device, "user": user_key, "topic": TOPIC, "enabled": enabled},
            )
        for hash_, at in (("aa" * 32, "2025-01-01"), ("BB" * 32, "2026-01-01")):
            database.execute(
                text("INSERT INTO cert_auth_associations VALUES (:id, :hash, :at)"),
                {"id": UDID, "hash": hash_, "at": at},
            )
    engine.dispose()
    return url


def record(enrollment_id: str) -> Enrollment:
    return Enrollment.get(enrollment_id, tables.RECORD)


def test_nanomdms_enrollments_are_moved_with_their_certificates_and_tokens(picomdm: CommandLine, nanomdm: str) -> None:
    tried = picomdm("migrate", "nanomdm", nanomdm, "--dry-run", "--json").document
    assert tried["moved"] == [UDID, f"{UDID}:{USER}"]
    with pytest.raises(Enrollment.DoesNotExist):
        record(UDID)

    moved = picomdm("migrate", "nanomdm", nanomdm, "--json")

    assert moved.code == 0
    assert moved.document["moved"] == tried["moved"]
    assert [each["id"] for each in moved.document["left"]] == ["DEAD0000-0000-0000-0000-000000000000"]
    device = record(UDID)
    assert (device.state, device.serial_number, device.expected_identity) == ("enrolled", "NANO1", "bb" * 32)
    assert record(f"{UDID}:{USER}").state == "enrolled"
    secrets = {item.item for item in tables.EnrollmentSecret.query(UDID, tables.EnrollmentSecret.item.startswith("s#"))}
    assert len(secrets) == 2, "the unlock token of an earlier TokenUpdate, and the bootstrap token"
    assert picomdm("migrate", "nanomdm", nanomdm, "--json").document["moved"] == tried["moved"], "once more is no harm"


def test_micromdms_devices_are_moved_and_what_cannot_be_is_told(picomdm: CommandLine, tmp_path: Path) -> None:
    database, certificate = tmp_path / "micromdm.db", tmp_path / "push.pem"
    database.write_bytes(gzip.decompress(MICROMDM.read_bytes()))
    without_topic = picomdm("migrate", "micromdm", str(database), "--dry-run")
    assert (without_topic.code, "--topic" in without_topic.err) == (2, True)
    certificate.write_bytes(push_certificate(TOPIC))
    picomdm("push-cert", "upload", str(certificate))

    told = picomdm("migrate", "micromdm", str(database), "--dry-run")
    assert "57" in told.out
    assert "It is not enrolled any more." in told.out
    assert "7 devices come without the hash" in told.err
    moved = picomdm("migrate", "micromdm", str(database), "--json").document
    assert (len(moved["moved"]), len(moved["left"]), moved["without_certificate"]) == (57, 4, 7)
    device = record(moved["moved"][0])
    assert (device.state, device.topic, device.os_version) == ("enrolled", TOPIC, "14.6.1")


def test_what_cannot_be_read_is_told_without_its_password(picomdm: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "no.db"
    file.write_bytes(b"nonsense")
    assert "no Bolt database" in picomdm("migrate", "micromdm", str(file), "--topic", TOPIC).err
    for url in (
        f"sqlite:///{tmp_path / 'empty.db'}",
        "sqlite:///nowhere/at/all.db",
        "nosql://u:hunter2@h/n",
        "hunter2",
    ):
        refused = picomdm("migrate", "nanomdm", url)
        assert refused.code == 2
        assert "hunter2" not in refused.err + refused.out

import gzip
import hashlib
import plistlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picomdm.migration import LeftBehind, MigratedEnrollment
from picomdm.migration.bolt import BoltError, BoltFile
from picomdm.migration.micromdm import DEVICES, read_micromdm

DATABASE = gzip.decompress((Path(__file__).parents[1] / "testdata" / "micromdm" / "micromdm.db.gz").read_bytes())
TOPIC = "com.apple.mgmt.External.97479ae0-c9db-4c54-8b10-dd6b4a50c0e5"
FOUND = list(read_micromdm(DATABASE, topic=TOPIC))
MOVED = {each.id: each for each in FOUND if isinstance(each, MigratedEnrollment)}


def udid(number: int) -> str:
    return f"5A3C1F00-0000-4000-8000-{number:012}"


def messages(number: int) -> dict[str, dict[str, Any]]:
    return {message.message_type: plistlib.loads(message.body) for message in MOVED[udid(number)].messages}


def test_a_bucket_of_many_pages_is_read_in_order() -> None:
    keys = [key for key, _ in BoltFile.decode(DATABASE).bucket(DEVICES)]
    assert keys == [*(f"uuid-{number:04}".encode() for number in range(60)), b"uuid-zzzz"]


def test_a_bucket_that_is_empty_or_not_there_has_nothing() -> None:
    file = BoltFile.decode(DATABASE)
    assert list(file.bucket("mdm.Empty")) == list(file.bucket("mdm.Unknown")) == []


def test_the_last_transaction_counts() -> None:
    assert (b"x", b"short") in BoltFile.decode(DATABASE).bucket("mdm.UDIDCertAuth")


def test_enrolled_devices_become_the_messages_that_they_sent() -> None:
    assert len(MOVED) == 57
    told = messages(3)
    assert told["Authenticate"] == {
        "MessageType": "Authenticate",
        "UDID": udid(3),
        "Topic": TOPIC,
        "SerialNumber": "MICRO000003",
        "OSVersion": "14.6.1",
        "BuildVersion": "23G93",
        "ProductName": "MacBookPro18,3",
        "DeviceName": "Mac 3",
        "Model": "MK183",
        "ModelName": "MacBook Pro",
    }
    assert told["TokenUpdate"] == {
        "MessageType": "TokenUpdate",
        "UDID": udid(3),
        "Topic": TOPIC,
        "Token": hashlib.sha256(udid(3).encode()).digest(),
        "PushMagic": "MAGIC-3",
        "UnlockToken": b"unlock-3",
    }
    assert told["SetBootstrapToken"]["BootstrapToken"] == b"bootstrap-3"
    assert messages(5)["TokenUpdate"]["AwaitingConfiguration"] is True
    assert "SetBootstrapToken" not in messages(4)


def test_the_certificate_that_a_device_has_is_told_where_it_is_known() -> None:
    assert MOVED[udid(0)].certificate_hash == hashlib.sha256(b"cert" + udid(0).encode()).hexdigest()
    assert MOVED[udid(55)].certificate_hash is None


def test_what_cannot_be_moved_is_told_with_the_reason() -> None:
    left = {each.id: each.reason for each in FOUND if isinstance(each, LeftBehind)}
    assert set(left) == {udid(57), udid(58), "MICRO000059", "uuid-zzzz"}
    assert "not enrolled any more" in left[udid(58)]


@pytest.mark.parametrize("content", [b"", b"nonsense" * 2_000, DATABASE[:8_000], b"\0" * 65_536])
def test_what_is_no_database_is_refused(content: bytes) -> None:
    with pytest.raises(BoltError):
        list(read_micromdm(content, topic=TOPIC))


@given(at=st.integers(0, len(DATABASE) - 1), byte=st.integers(0, 255))
def test_a_damaged_database_never_breaks_anything(at: int, byte: int) -> None:
    damaged = bytearray(DATABASE)
    damaged[at] = byte
    try:
        found = list(read_micromdm(bytes(damaged), topic=TOPIC))
    except BoltError:
        return
    assert len(found) <= 61

"""The file of a back-up: whole or not, with the right passphrase or another."""

import io
import stat
from pathlib import Path
from typing import Any

import pytest

from picomdm import archive
from picomdm.archive import MAGIC, ArchiveReader, ArchiveWriter
from picomdm.errors import SetupError

PASSPHRASE = "correct horse battery staple"
CHUNKS: list[list[dict[str, Any]]] = [
    [{"kind": "begin"}],
    [{"kind": "item", "n": 1}, {"kind": "item", "n": 2}],
    [{"n": 3}],
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the key be derived quickly: how long that takes is not what is tested."""
    monkeypatch.setattr(archive, "_SCRYPT", {"n": 2**4, "r": 8, "p": 1})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    writer = ArchiveWriter.begin(path, PASSPHRASE)
    for records in CHUNKS:
        writer.write(records, last=records is CHUNKS[-1])
    writer.close()
    return path


def read(content: bytes, passphrase: str = PASSPHRASE) -> list[Any]:
    return list(ArchiveReader(io.BytesIO(content), passphrase).chunks())


def chunk_ends(content: bytes) -> list[int]:
    ends = [len(MAGIC) + 16]
    while ends[-1] < len(content):
        ends.append(ends[-1] + 17 + int.from_bytes(content[ends[-1] + 13 : ends[-1] + 17], "big"))
    return ends


def test_what_was_written_is_read(path: Path) -> None:
    assert read(path.read_bytes()) == CHUNKS


def test_only_its_owner_can_read_the_file(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_of_it_is_in_clear_and_no_two_are_alike(path: Path, tmp_path: Path) -> None:
    other = ArchiveWriter.begin(tmp_path / "other", PASSPHRASE)
    other.write(CHUNKS[0], last=True)
    other.close()

    assert b"begin" not in path.read_bytes()
    assert path.read_bytes()[len(MAGIC) : len(MAGIC) + 16] != (tmp_path / "other").read_bytes()[len(MAGIC) :][:16]


def test_another_passphrase_opens_nothing(path: Path) -> None:
    with pytest.raises(SetupError, match="passphrase"):
        read(path.read_bytes(), "incorrect horse battery staple")


def test_what_is_no_backup_is_told(path: Path) -> None:
    for content in (b"", b"PicoMDM", b"x" * 100):
        with pytest.raises(SetupError) as refused:
            read(content)
        assert refused.value.code == "no_backup"


def test_a_file_that_breaks_off_anywhere_is_not_taken_for_a_whole_one(path: Path) -> None:
    content = path.read_bytes()
    for length in range(len(MAGIC) + 16, len(content), 7):
        with pytest.raises(SetupError):
            read(content[:length])
    for end in chunk_ends(content)[:-1]:
        with pytest.raises(SetupError) as refused:
            read(content[:end])
        assert refused.value.code == "backup_broken"


def test_no_bit_of_it_can_be_changed(path: Path) -> None:
    content = path.read_bytes()
    for index in range(len(MAGIC), len(content), 5):
        changed = bytearray(content)
        changed[index] ^= 1
        with pytest.raises(SetupError):
            read(bytes(changed))


def test_chunks_cannot_be_left_out_exchanged_or_added(path: Path) -> None:
    content = path.read_bytes()
    begin, *ends = chunk_ends(content)
    first, second, third = (content[start:end] for start, end in zip([begin, *ends], ends, strict=False))

    for chunks in (
        first + third,
        second + first + third,
        first + first + second + third,
        first + second + third + third,
    ):
        with pytest.raises(SetupError):
            read(content[:begin] + chunks)


def test_a_file_that_broke_off_is_gone_on_with_behind_its_last_whole_chunk(path: Path) -> None:
    content = path.read_bytes()
    for cut in (chunk_ends(content)[2], chunk_ends(content)[2] + 10, len(content) - 1):
        path.write_bytes(content[:cut])

        writer, last = ArchiveWriter.go_on(path, PASSPHRASE)
        writer.write(CHUNKS[2], last=True)
        writer.close()

        assert last == CHUNKS[1]
        assert read(path.read_bytes()) == CHUNKS


def test_a_file_without_a_whole_chunk_is_begun_again(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: len(MAGIC) + 20])

    writer, last = ArchiveWriter.go_on(path, PASSPHRASE)
    writer.write(CHUNKS[0], last=True)
    writer.close()

    assert last == []
    assert read(path.read_bytes()) == [CHUNKS[0]]


def test_a_finished_file_is_left_alone(path: Path) -> None:
    before = path.read_bytes()

    with pytest.raises(SetupError) as refused:
        ArchiveWriter.go_on(path, PASSPHRASE)

    assert refused.value.code == "backup_finished"
    assert path.read_bytes() == before

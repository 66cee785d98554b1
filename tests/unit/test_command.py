"""Raw commands."""

import plistlib
from hashlib import sha256
from typing import Any

import pytest

from mdmlib.apple.command import Command
from mdmlib.errors import MalformedBodyError


def raw(**changes: Any) -> bytes:
    document = {"CommandUUID": "0001_ProfileList", "Command": {"RequestType": "ProfileList"}, **changes}
    return plistlib.dumps({key: value for key, value in document.items() if value is not None})


def test_a_command_keeps_its_bytes() -> None:
    body = raw().replace(b"\t", b"     ")

    command = Command.decode(body)

    assert command.uuid == "0001_ProfileList"
    assert command.request_type == "ProfileList"
    assert command.body == body
    assert command.body_hash == sha256(body).hexdigest()


def test_commands_with_the_same_bytes_are_equal() -> None:
    assert Command.decode(raw()) == Command.decode(raw())
    assert Command.decode(raw()).body_hash != Command.decode(raw() + b"\n").body_hash


def test_request_types_that_nobody_has_heard_of_can_be_queued() -> None:
    assert Command.decode(raw(Command={"RequestType": "SomethingNew"})).request_type == "SomethingNew"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"CommandUUID": None}, "CommandUUID"),
        ({"CommandUUID": ""}, "CommandUUID"),
        ({"CommandUUID": " "}, "CommandUUID"),
        ({"CommandUUID": b"C1"}, "CommandUUID"),
        ({"CommandUUID": 1}, "CommandUUID"),
        ({"CommandUUID": "c" * 128}, "CommandUUID"),
        ({"CommandUUID": "a\nb"}, "CommandUUID"),
        ({"Command": None}, "Command"),
        ({"Command": ["RequestType"]}, "Command"),
        ({"Command": {}}, "RequestType"),
        ({"Command": {"RequestType": ""}}, "RequestType"),
        ({"Command": {"RequestType": b"ProfileList"}}, "RequestType"),
        ({"Command": {"RequestType": "r" * 64}}, "RequestType"),
    ],
)
def test_a_command_without_a_name_or_a_request_type_is_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MalformedBodyError) as error:
        Command.decode(raw(**changes))

    assert error.value.field == field


@pytest.mark.parametrize("body", [b"", b"{}", b'{"request_type": "ProfileList"}', plistlib.dumps([])])
def test_what_is_no_plist_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBodyError):
        Command.decode(body)


def test_the_text_of_a_command_shows_no_payload() -> None:
    assert "s3cret" not in repr(Command.decode(raw(Command={"RequestType": "DeviceLock", "PIN": "s3cret"})))

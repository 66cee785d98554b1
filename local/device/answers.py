"""What servers answer to check-in messages, checked (Apple: the response of each). All raise ProtocolViolation."""

import plistlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from xml.parsers.expat import ExpatError

from local.device.configuration_profile import ConfigurationProfile, ProfileError
from local.device.enrollment import Reply
from local.device.errors import ProtocolViolation


def bootstrap_token(reply: Reply) -> bytes | None:
    """Read the answer to GetBootstrapToken; nothing, or a dictionary without the token, means that there is none."""
    if not reply.body:
        return None
    match _document("GetBootstrapToken", reply):
        case {"BootstrapToken": bytes(token)}:
            return token
        case document if "BootstrapToken" not in document:
            return None
        case _:
            raise ProtocolViolation("GetBootstrapToken", "The answer holds no token.")


def token_data(reply: Reply) -> bytes:
    """Read the answer to GetToken."""
    match _document("GetToken", reply):
        case {"TokenData": bytes(token)} if token:
            return token
        case _:
            raise ProtocolViolation("GetToken", "The answer has no TokenData.")


def digest_challenge(reply: Reply) -> str:
    """Read the answer to the first UserAuthenticate; an empty challenge asks for no proof."""
    return _text("UserAuthenticate", reply, "DigestChallenge")


def auth_token(reply: Reply) -> str:
    """Read the answer to the second UserAuthenticate; an empty token says that the password was wrong."""
    return _text("UserAuthenticate", reply, "AuthToken")


@dataclass(frozen=True, kw_only=True)
class ReturnToService:
    """The answer to ReturnToService: what a device needs to erase itself and to come back."""

    enabled: bool
    wifi_profile: ConfigurationProfile | None = None
    mdm_profile: bytes | None = field(repr=False, default=None)
    bootstrap_token: bytes | None = field(repr=False, default=None)

    @classmethod
    def of(cls, reply: Reply) -> Self:
        """Read it."""
        match _document("ReturnToService", reply):
            case {"ReturnToService": {"Enabled": bool(enabled)} as offered}:
                pass
            case _:
                raise ProtocolViolation("ReturnToService", "The answer does not say whether it is Enabled.")
        data = {key: offered.get(key) for key in ("WiFiProfileData", "MDMProfileData", "BootstrapToken")}
        for key, value in data.items():
            if not isinstance(value, bytes | None):
                raise ProtocolViolation("ReturnToService", f"{key} is no data.")
        wifi = data["WiFiProfileData"]
        try:
            return cls(
                enabled=enabled,
                wifi_profile=ConfigurationProfile.decode(wifi) if wifi is not None else None,
                mdm_profile=data["MDMProfileData"],
                bootstrap_token=data["BootstrapToken"],
            )
        except ProfileError as error:
            raise ProtocolViolation("ReturnToService", f"WiFiProfileData: {error}") from error


def nothing(what: str, reply: Reply) -> None:
    """Hold that there is no answer but the status."""
    if reply.body:
        raise ProtocolViolation(what, "Nothing was asked for, and there is an answer.")


def _text(what: str, reply: Reply, key: str) -> str:
    value = _document(what, reply).get(key)
    if not isinstance(value, str):
        raise ProtocolViolation(what, f"The answer has no {key}.")
    return value


def _document(what: str, reply: Reply) -> Mapping[str, Any]:
    try:
        document = plistlib.loads(reply.body)
    except (plistlib.InvalidFileException, ExpatError, ValueError) as error:
        raise ProtocolViolation(what, "The answer is no property list.") from error
    if not isinstance(document, dict):
        raise ProtocolViolation(what, "The answer is no dictionary.")
    return document

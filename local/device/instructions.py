"""What a server tells a device beside the status 403: errors with a code of Apple's, in JSON or as a property list."""

import json
import plistlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Self
from xml.parsers.expat import ExpatError

import httpx

from local.device.errors import ProtocolViolation, ServerRefused, UpdateRequired
from local.device.hardware import Hardware

UNRECOGNIZED_DEVICE: Final = "com.apple.unrecognized.device"
UPDATE_REQUIRED: Final = "com.apple.softwareupdate.required"
WELL_KNOWN_FAILED: Final = "com.apple.well-known.failed"

_VERSION: Final = re.compile(r"(\d+(?:\.\d+){0,3})(?: \([a-z]\))?")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A code and what comes with it."""

    code: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, response: httpx.Response) -> Self | None:
        """Read the body of a 403; None when it is none of these errors, as any other 403."""
        if response.status_code != HTTPStatus.FORBIDDEN:
            return None
        content_type = response.headers.get("content-type", "").partition(";")[0].strip()
        try:
            if content_type == "application/json":
                document = json.loads(response.content)
            elif content_type in {"application/xml", "text/xml"}:
                document = plistlib.loads(response.content)
            else:
                return None
        except (ValueError, ExpatError):
            return None
        match document:
            case {"code": str(code), "details": dict(details)}:
                return cls(code=code, details=details)
            case {"code": str(code)}:
                return cls(code=code)
            case _:
                return None


def refusal_before_enrollment(
    response: httpx.Response, what: str, hardware: Hardware, *, can_update: bool
) -> ServerRefused:
    """Return what became of asking for an enrollment profile, when the answer is not 200.

    Raises :class:`~local.device.errors.ProtocolViolation` for an update that makes no sense to the device.
    """
    instruction = Instruction.of(response)
    if instruction is None or instruction.code != UPDATE_REQUIRED:
        return ServerRefused(what, response.status_code, response.content)
    if not can_update:
        raise ProtocolViolation(UPDATE_REQUIRED, "The device did not say that it could be told to update.")
    match instruction.details:
        case {"OSVersion": str(version)} if match := _VERSION.fullmatch(version):
            pass
        case _:
            raise ProtocolViolation(UPDATE_REQUIRED, f"The details {instruction.details} have no OSVersion.")
    build = instruction.details.get("BuildVersion")
    if not isinstance(build, str | None):
        raise ProtocolViolation(UPDATE_REQUIRED, "BuildVersion is no string.")
    if numbers(match[1]) <= numbers(hardware.os_version):
        raise ProtocolViolation(UPDATE_REQUIRED, f"{version} is not newer than {hardware.os_version}.")
    return UpdateRequired(what, response.content, os_version=match[1], build_version=build)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version for comparison: 17.4 and 17.4.0 are the same."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (4 - len(parts)))

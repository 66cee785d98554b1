"""What devices reported on commands, as people read it."""

import json
import plistlib
import time
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Any, Final

from picomdm.admin_api import AdminAPI, path_part
from picomdm.errors import CommandLineError
from picomdm.terminal import Terminal

_POLL_SECONDS: Final = 1.0


def find_result(api: AdminAPI, enrollment_id: str, command_uuid: str) -> dict[str, Any] | None:
    """Return a device's final report on a command, or None."""
    path = f"/v2/enrollments/{path_part(enrollment_id)}/results"
    return next(api.entries(path, "results", command_uuid=command_uuid), None)


def await_result(
    api: AdminAPI, terminal: Terminal, enrollment_id: str, command_uuid: str, seconds: int
) -> dict[str, Any]:
    """Wait for a device's final report on a command. Raises :class:`~picomdm.errors.CommandLineError`."""
    begun = time.monotonic()
    with terminal.progress("Waiting for the device …") as tell:
        while True:
            if result := find_result(api, enrollment_id, command_uuid):
                return result
            waited = time.monotonic() - begun
            if waited >= seconds:
                raise CommandLineError(
                    f"No final report in {seconds} seconds. The command waits on; later see: "
                    f"picomdm commands results {enrollment_id} {command_uuid}",
                    code="no_result",
                )
            tell(f"Waiting for the device, {waited:.0f} s …")
            time.sleep(_POLL_SECONDS)


def show_result(terminal: Terminal, result: dict[str, Any]) -> None:
    """Show a result, with the whole report."""
    terminal.facts(
        {
            "uuid": result["command_uuid"],
            "request type": result["request_type"],
            "status": result["status"],
            "reported": terminal.ago(result["reported_at"]),
            "error": first_error(result),
        }
    )
    report = readable(result)
    if report is None:
        terminal.note("[dim]The report itself is not kept any more.[/dim]")
        return
    terminal.plain(json.dumps(report, indent=2, ensure_ascii=False))


def readable(result: dict[str, Any]) -> Any:  # noqa: ANN401 - whatever the device reported
    """Return the report's property list as JSON has it: dates as text, bytes as base64."""
    if result["payload"] is None:
        return None
    raw = b64decode(result["payload"])
    try:
        report = plistlib.loads(raw)
    except (ValueError, plistlib.InvalidFileException):
        return result["payload"]
    return json.loads(json.dumps(report, default=_as_json))


def _as_json(value: object) -> str:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else str(value)


def first_error(entry: dict[str, Any]) -> str | None:
    """Return what a result complains of."""
    chain = entry["error_chain"]
    if not chain:
        return None
    first = chain[0]
    return str(first.get("LocalizedDescription") or first.get("USEnglishDescription") or first.get("ErrorCode"))

"""MicroMDM's API: devices, and what waits for them."""

from base64 import b64encode
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.command import Command
from mdmlib.errors import BadRequestError, MalformedBodyError, NotFoundError
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.go_fields import GoFields
from mdmlib.observability import logger

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.ade_devices import AdeDevices
    from mdmlib.services.blocking import Blocking
    from mdmlib.services.device_listing import DeviceListing, ListedDevice
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.enrollments import Enrollments
    from mdmlib.services.queue import CommandQueues
    from mdmlib.services.removal import Removal

_NO_TIME: Final = "0001-01-01T00:00:00Z"
"""What Go writes for a time that was never set."""


def list_devices(request: AdminRequest, devices: "DeviceListing", bought: "AdeDevices") -> "Response[str]":
    """``POST /v1/devices``: the devices, or those of some serial numbers and UDIDs, all or page by page from 0.

    Of what Apple has in its lists only the profiles' statuses are told: ``/v2/ade-devices`` lists what never enrolled.
    """
    fields = GoFields(request.json())
    found = devices.list(
        page=fields.integer("page"),
        per_page=fields.integer("per_page"),
        serials=frozenset(fields.texts("filter_serial")),
        ids=frozenset(fields.texts("filter_udid")),
    )
    statuses = bought.profile_statuses(device.serial_number for device in found) if found else {}
    listed = [_device(device, statuses.get(device.serial_number, "")) for device in found]
    return answer_micromdm(HTTPStatus.OK, {"devices": listed or None})


def remove_devices(request: AdminRequest, removal: "Removal") -> "Response[str]":
    """``DELETE /v1/devices``: forget devices, by UDIDs and serial numbers. They are not told."""
    fields = _options(request)
    removal.remove(ids=fields.texts("udids"), serials=fields.texts("serials"))
    return answer_micromdm(HTTPStatus.OK, {})


def block(udid: str, blocking: "Blocking", enqueue: "EnqueueService") -> "Response[str]":
    """``POST /v1/devices/{udid}/block``: have a device un-enroll, and push it so that it comes and hears of that."""
    blocking.block(udid)
    # One that cannot be pushed comes by itself one day; the block is there.
    enqueue.push([udid])
    return answer_micromdm(HTTPStatus.OK, {})


def unblock(udid: str, blocking: "Blocking") -> "Response[str]":
    """``POST /v1/devices/{udid}/unblock``: let a device come back."""
    blocking.unblock(udid)
    return answer_micromdm(HTTPStatus.OK, {})


def new_raw_command(udid: str, request: AdminRequest, enqueue: "EnqueueService") -> "Response[str]":
    """``POST`` and ``PUT /v1/commands/{udid}``: queue a command that is a property list, XML or binary."""
    try:
        command = Command.decode(request.body)
    except MalformedBodyError as error:
        # With MicroMDM's words in front, which scripts look for.
        phrase = "request is malformed" if error.field else "parse payload as plist"
        raise BadRequestError(f"{phrase}: {error.message}", code="malformed_body", field=error.field) from error
    outcome = enqueue.enqueue(command, [udid]).targets[udid]
    if outcome.command_error:
        raise outcome.command_error
    if outcome.push_error:
        # MicroMDM's answer has no place for it.
        logger.warning("Command queued, its enrollment not woken", enrollment_id=udid, reason=outcome.push_error)
    payload = {
        "udid": udid,
        "command_uuid": command.uuid,
        "command": {"request_type": command.request_type},
        "payload": b64encode(command.body).decode(),
    }
    return answer_micromdm(HTTPStatus.CREATED, {"payload": payload})


def list_commands(udid: str, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v1/commands/{udid}``: what waits for an enrollment, in its order, also what it answered NotNow.

    As much as an answer holds: the first 100, or fewer large ones.
    """
    try:
        waiting = enrollments.commands(udid, payloads=True).entries
    except NotFoundError:
        # Nothing waits for who is unknown: to MicroMDM that is no error.
        waiting = ()
    commands = [{"uuid": queued.item.command_uuid, "payload": _base64(queued.payload)} for queued in waiting]
    return answer_micromdm(HTTPStatus.OK, {"commands": commands} if commands else {})


def clear_commands(udid: str, queues: "CommandQueues") -> "Response[str]":
    """``DELETE /v1/commands/{udid}``: drop all that waits. Nothing waits for who is unknown, which is no error."""
    error = queues.clear([udid])[udid]
    if error and error.code != "unknown_enrollment":
        raise error
    return answer_micromdm(HTTPStatus.OK, {})


def _options(request: AdminRequest) -> GoFields:
    """Return the fields that MicroMDM's client wraps into ``Opts``; who calls without it means the same."""
    fields = GoFields(request.json())
    return fields.within("Opts") if "Opts" in fields else fields


def _device(device: "ListedDevice", dep_profile_status: str) -> dict[str, Any]:
    return {
        "serial_number": device.serial_number,
        "udid": device.id,
        "enrollment_status": device.enrolled,
        "last_seen": _NO_TIME
        if device.last_seen_at is None
        else datetime.fromtimestamp(device.last_seen_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "dep_profile_status": dep_profile_status,
    }


def _base64(payload: bytes | None) -> str | None:
    return None if payload is None else b64encode(payload).decode()

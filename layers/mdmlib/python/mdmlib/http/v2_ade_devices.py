"""PicoMDM's own API, ``/v2``: devices in Apple's lists, how far those were read, and which profiles devices get."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import MAX_SERIAL_NUMBERS, listed, page_asked_for, rfc3339
from mdmlib.services.ade_assignment_rules import DEVICE_FAMILIES, Rule
from mdmlib.services.ade_devices import DELETED, PRESENT, state_of
from mdmlib.services.enrollments import Page
from mdmlib.store.ade_devices import server_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.ade_assignment_rules import AdeAssignmentRules
    from mdmlib.services.ade_devices import AdeDeviceEntry, AdeDevices
    from mdmlib.services.ade_sync import AdeSyncs
    from mdmlib.store.tables import AdeAssignmentRule, AdeDevice, AdeSync
    from mdmlib.store.unchanged import OnlyIf

_STATES: Final = (PRESENT, DELETED)
_ASSIGNMENTS: Final = ("none", "pending", "assigned", "other")
_PROFILE_STATUSES: Final = ("empty", "assigned", "pushed", "removed")
_RULE_FIELDS: Final = ("server", "serial_numbers", "models", "device_families", "profile", "profile_uuid")


# Lists


def request_sync(name: str, request: AdminRequest, syncs: "AdeSyncs") -> "Response[str]":
    """``POST /v2/ade-servers/{name}/sync``: have Apple's list read now; nobody waits for it."""
    if request.body.strip():
        Fields(request.json(), known=())
    syncs.request(name)
    return answer_v2(HTTPStatus.ACCEPTED, _sync(syncs.state(name)))


def get_sync(name: str, request: AdminRequest, syncs: "AdeSyncs") -> "Response[str]":
    """``GET /v2/ade-servers/{name}/sync``: how far Apple's list was read, and why no further."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _sync(syncs.state(name)))


# Devices


def list_devices(request: AdminRequest, devices: "AdeDevices") -> "Response[str]":
    """``GET /v2/ade-devices``: the devices in Apple's lists, and those that were there."""
    query = Fields(
        request.query,
        known=("server", "state", "model", "device_family", "profile_status", "assignment", "limit", "cursor"),
    )
    wanted = {
        "model": query.texts("model"),
        "device_family": query.texts("device_family", choices=DEVICE_FAMILIES),
        "profile_status": query.texts("profile_status", choices=_PROFILE_STATUSES),
        "assignment": query.texts("assignment", choices=_ASSIGNMENTS),
    }
    states = query.texts("state", choices=_STATES) or []
    limit, after = page_asked_for(query)
    page = devices.list(
        server=query.text("server"),
        state=states[0] if len(set(states)) == 1 else None,
        wanted={name: values for name, values in wanted.items() if values},
        limit=limit,
        after=after,
    )
    return answer_v2(HTTPStatus.OK, listed("ade_devices", page, lambda entry: _device(entry.device)))


def get_device(serial_number: str, request: AdminRequest, devices: "AdeDevices") -> "Response[str]":
    """``GET /v2/ade-devices/{serial_number}``: one device, with its enrollments."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _entry(devices.get(serial_number)))


# Rules


def list_rules(request: AdminRequest, rules: "AdeAssignmentRules") -> "Response[str]":
    """``GET /v2/ade-assignment-rules``: all rules, ordered by name."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("ade_assignment_rules", Page(rules.list()), _rule))


def get_rule(name: str, request: AdminRequest, rules: "AdeAssignmentRules") -> "Response[str]":
    """``GET /v2/ade-assignment-rules/{name}``: one rule."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _rule(rules.get(name)))


def put_rule(name: str, request: AdminRequest, rules: "AdeAssignmentRules", syncs: "AdeSyncs") -> "Response[str]":
    """``PUT /v2/ade-assignment-rules/{name}``: say which profile some devices get, from now on and at once."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=_RULE_FIELDS)
    rule = rules.put(
        name,
        Rule(
            server=fields.text("server"),
            serial_numbers=_texts(fields, "serial_numbers"),
            models=_texts(fields, "models"),
            device_families=fields.texts("device_families", choices=DEVICE_FAMILIES),
            profile=fields.text("profile"),
            profile_uuid=fields.text("profile_uuid"),
        ),
        only_if=_rule_seen(request),
    )
    syncs.nudge(rule.server)
    return answer_v2(HTTPStatus.OK, _rule(rule))


def delete_rule(name: str, request: AdminRequest, rules: "AdeAssignmentRules", syncs: "AdeSyncs") -> "Response[str]":
    """``DELETE /v2/ade-assignment-rules/{name}``: forget a rule; another one may decide then."""
    rules.delete(name, only_if=_rule_seen(request))
    syncs.nudge(None)
    return no_content()


def _rule_seen(request: AdminRequest) -> "OnlyIf[AdeAssignmentRule | None] | None":
    return seen(request, lambda rule: _rule(rule) if rule else None)


def _texts(fields: Fields, name: str) -> list[str] | None:
    values = fields.texts(name, most=MAX_SERIAL_NUMBERS)
    if values == []:
        raise BadRequestError(f"{name} is empty.", code="invalid_field", field=name)
    return values


# How things look


def _device(device: "AdeDevice") -> "Mapping[str, Any]":
    return {
        "serial_number": device.name,
        "server": server_of(device),
        "state": state_of(device),
        "deleted_at": rfc3339(device.deleted_at),
        "model": device.model,
        "device_family": device.device_family,
        "mdm_migration_deadline": device.record.get("mdm_migration_deadline"),
        "profile_status": device.profile_status,
        "profile_uuid": device.profile_uuid,
        "assignment": device.assignment,
        "wanted": {
            "rule": device.rule,
            "profile": device.wanted_profile,
            "profile_uuid": device.wanted_uuid,
        },
        "assigned_at": rfc3339(device.assigned_at),
        "refusal": device.refusal,
        "attempts": int(device.attempts or 0),
        "retry_at": rfc3339(device.retry_at),
        "first_seen_at": rfc3339(device.first_seen_at),
        "changed_at": rfc3339(device.changed_at),
    }


def _entry(entry: "AdeDeviceEntry") -> "Mapping[str, Any]":
    return {
        **_device(entry.device),
        "former_servers": list(entry.former_servers),
        "record": entry.device.record,
        "enrollments": [
            {
                "id": record.enrollment_id,
                "type": record.type,
                "state": record.state,
                "awaiting_configuration": record.awaiting_configuration,
            }
            for record in entry.enrollments
        ],
    }


def _rule(rule: "AdeAssignmentRule") -> "Mapping[str, Any]":
    return {
        "name": rule.name,
        "server": rule.server,
        "serial_numbers": rule.serial_numbers,
        "models": rule.models,
        "device_families": rule.device_families,
        "profile": rule.profile,
        "profile_uuid": rule.profile_uuid,
        "changed_at": rfc3339(rule.changed_at),
    }


def _sync(sync: "AdeSync") -> "Mapping[str, Any]":
    counts = sync.counts or {}
    is_running = sync.finished_at is None or (sync.requested_ms or 0) > (sync.answered_ms or 0)
    return {
        "name": sync.name,
        "state": "running" if is_running else ("failed" if sync.error_code else "synced"),
        "phase": sync.phase or "fetch",
        "synced_at": rfc3339(sync.synced_at),
        "started_at": rfc3339(sync.started_at),
        "finished_at": rfc3339(sync.finished_at),
        "problem": {"code": sync.error_code, "detail": sync.error, "at": rfc3339(sync.failed_at)}
        if sync.error_code
        else None,
        **{
            name: int(counts.get(name, 0))
            for name in ("pages", "devices", "added", "modified", "deleted", "assigned", "postponed")
        },
    }

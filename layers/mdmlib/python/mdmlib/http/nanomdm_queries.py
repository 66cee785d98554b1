"""NanoMDM's draft APIs: enrollments and queues."""

from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.http.admin_edge import AdminRequest, answer_nanomdm, no_content
from mdmlib.http.fields import Fields, Query
from mdmlib.http.go_fields import GoFields
from mdmlib.http.v2 import rfc3339
from mdmlib.services.enrollment_query import MAX_LIMIT, Filter

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.enrollment_query import EnrollmentQuery, FoundEnrollment
    from mdmlib.services.enrollments import Enrollments, Page, QueuedCommand
    from mdmlib.services.queue import CommandQueues

_DEFAULT_LIMIT: Final = 100
_MAX_OFFSET: Final = 1_000_000
_LONGEST_CURSOR: Final = 3_000
_TYPES: Final = frozenset(EnrollmentType)


@dataclass(frozen=True)
class _Pagination:
    limit: int
    offset: int
    after: str


def query_enrollments(request: AdminRequest, enrollments: "EnrollmentQuery") -> "Response[str]":
    """``POST /v1/enrollments/query``: the enrollments that all filters fit.

    User channels have the serial number of their device. Certificates of devices are not kept here, so
    ``include_device_cert`` brings none.
    """
    fields = GoFields(request.json())
    wanted, options = fields.within("filter"), fields.within("options")
    page = _pagination(request)
    found = enrollments.find(
        Filter(
            ids=frozenset(wanted.texts("ids")),
            serials=frozenset(wanted.texts("serials")),
            user_short_names=frozenset(wanted.texts("user_short_names")),
            types=_types(wanted.texts("types")),
            enabled=wanted.flag("enabled"),
        ),
        limit=page.limit,
        offset=page.offset,
        after=page.after,
        with_unlock_tokens=bool(options.flag("include_unlock_token")),
    )
    listed = {"enrollments": [_enrollment(one) for one in found.enrollments]}
    return answer_nanomdm(HTTPStatus.OK, listed | _next_cursor(found.next_cursor))


def list_queue(enrollment_id: str, request: AdminRequest, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v1/queue/{id}``: what waits for an enrollment, in its order. Nothing waits for who is unknown."""
    page = _pagination(request)
    try:
        waiting = _queue_page(enrollment_id, page, enrollments)
    except NotFoundError:
        waiting = None
    listed = {"commands": [_command(queued) for queued in (waiting.entries if waiting else ())]}
    return answer_nanomdm(HTTPStatus.OK, listed | _next_cursor(waiting.next_cursor if waiting else None))


def clear_queue(enrollment_ids: str, queues: "CommandQueues") -> "Response[str]":
    """``DELETE /v1/queue/{id[,id…]}``: drop all that waits. 204; 207 when that failed for some, 500 for all."""
    outcomes = queues.clear([id_ for id_ in enrollment_ids.split(",") if id_])
    failed = {id_: error.message for id_, error in sorted(outcomes.items()) if error}
    if not failed:
        return no_content()
    status = HTTPStatus.INTERNAL_SERVER_ERROR if len(failed) == len(outcomes) else HTTPStatus.MULTI_STATUS
    return answer_nanomdm(status, {"status": failed})


def _queue_page(enrollment_id: str, page: _Pagination, enrollments: "Enrollments") -> "Page[QueuedCommand] | None":
    after = page.after
    if page.offset:
        skipped = enrollments.commands(enrollment_id, payloads=False, limit=page.offset).next_cursor
        if skipped is None:
            return None
        after = skipped
    return enrollments.commands(enrollment_id, payloads=True, limit=page.limit, after=after)


def _pagination(request: AdminRequest) -> _Pagination:
    """Read ``limit``, ``offset`` and ``cursor``; a limit below 1 is the default."""
    query = Fields(
        Query({name: request.query[name] for name in ("limit", "offset", "cursor") if name in request.query}),
        known=("limit", "offset", "cursor"),
    )
    limit = query.integer("limit", least=0, most=MAX_LIMIT) or _DEFAULT_LIMIT
    offset = query.integer("offset", least=0, most=_MAX_OFFSET) or 0
    cursor = query.text("cursor", longest=_LONGEST_CURSOR)
    if cursor and offset:
        raise BadRequestError("both cursor and offset set", code="invalid_field", field="cursor")
    try:
        after = b64decode(cursor, altchars="-_", validate=True).decode() if cursor else ""
    except ValueError:
        raise BadRequestError("The cursor is none of this API.", code="invalid_cursor", field="cursor") from None
    return _Pagination(limit, offset, after)


def _next_cursor(position: str | None) -> dict[str, str]:
    return {"next_cursor": urlsafe_b64encode(position.encode()).decode()} if position else {}


def _types(names: Collection[str]) -> frozenset[str]:
    for name in names:
        if name not in _TYPES:
            raise BadRequestError(
                f"invalid request: '{name[:100]}' is not a valid enrollment type", code="invalid_field", field="types"
            )
    return frozenset(names)


def _enrollment(one: "FoundEnrollment") -> dict[str, Any]:
    record = one.record
    device = {"serial_number": one.device.serial_number or ""}
    if one.unlock_token is not None:
        device["unlock_token"] = b64encode(one.unlock_token).decode()
    user = {"user_short_name": record.user_short_name, "user_long_name": record.user_long_name}
    told = {
        "id": record.enrollment_id,
        "type": record.type,
        "device": device,
        "user": {name: value for name, value in user.items() if value} or None,
        "enabled": one.enabled,
        "token_update_tally": int(record.token_update_tally),
        "last_seen": rfc3339(record.last_seen_at),
    }
    return {name: value for name, value in told.items() if value is not None}


def _command(queued: "QueuedCommand") -> dict[str, Any]:
    return {
        "command_uuid": queued.item.command_uuid,
        "request_type": queued.item.request_type,
        "command": None if queued.payload is None else b64encode(queued.payload).decode(),
    }

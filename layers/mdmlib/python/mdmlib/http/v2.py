"""PicoMDM's own API, ``/v2``.

JSON in and out, times in RFC 3339, errors as RFC 9457. What is unknown is ``null``, never left away. A list is an
object with its entries and ``next_cursor``: give it back as ``cursor`` for the next page, until it is null.
"""

from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mdmlib.apple import plist_json
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.fields import Fields
from mdmlib.services.enrollments import MAX_LIMIT

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.enrollment_links import EnrollmentLinks
    from mdmlib.services.enrollments import EnrollmentEntry, Enrollments, Page, QueuedCommand, ReportedResult
    from mdmlib.services.queue import CommandQueues
    from mdmlib.store.tables import EnrollmentLink

MAX_SERIAL_NUMBERS: Final = 1_000
"""In one request."""

_STATES: Final = ("authenticated", "enrolled", "checked_out")
_MINUTE: Final = 60
_DAY: Final = 86_400
_DEFAULT_LINK_SECONDS: Final = 7 * _DAY
_MAX_LINK_SECONDS: Final = 366 * _DAY
_MAX_CURSOR: Final = 1_000
_PAGE: Final = ("limit", "cursor")
_T = TypeVar("_T")


# Enrollments


def list_enrollments(request: AdminRequest, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v2/enrollments``: all, or those of a ``serial_number`` or ``parent_id``; ``type`` and ``state`` filter."""
    query = Fields(request.query, known=("type", "state", "serial_number", "parent_id", *_PAGE))
    types = query.texts("type", choices=list(EnrollmentType)) or ()
    states = query.texts("state", choices=_STATES) or ()
    limit, after = page_asked_for(query)
    if serial_number := query.text("serial_number"):
        page = enrollments.of_serial_number(serial_number, types=types, states=states)
    elif parent_id := query.text("parent_id"):
        page = enrollments.of_parent(parent_id, types=types, states=states)
    else:
        page = enrollments.list(types=types, states=states, limit=limit, after=after)
    return answer_v2(HTTPStatus.OK, listed("enrollments", page, _listed_enrollment))


def get_enrollment(enrollment_id: str, request: AdminRequest, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v2/enrollments/{id}``: all that is known of one enrollment, without its secrets."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _enrollment(enrollments.get(enrollment_id)))


def list_commands(enrollment_id: str, request: AdminRequest, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v2/enrollments/{id}/commands``: what waits, in the order in which it goes out.

    ``payloads=true`` adds the raw plists, which may hold PINs, passwords and tokens, ``expired=true`` those that are
    not handed out any more and not deleted yet.
    """
    query = Fields(request.query, known=("payloads", "expired", *_PAGE))
    limit, after = page_asked_for(query)
    page = enrollments.commands(
        enrollment_id,
        payloads=query.flag("payloads", default=False),
        expired=query.flag("expired", default=False),
        limit=limit,
        after=after,
    )
    return answer_v2(HTTPStatus.OK, listed("commands", page, _command))


def list_results(enrollment_id: str, request: AdminRequest, enrollments: "Enrollments") -> "Response[str]":
    """``GET /v2/enrollments/{id}/results``: what the device reported, by command UUID, with the whole reports.

    ``newest=true`` lists them by time, ``command_uuid`` asks for one; ``decoded=true`` gives the reports as JSON in
    place of the plists; ``payloads=false`` leaves the reports away, which may be long.
    """
    query = Fields(request.query, known=("payloads", "decoded", "newest", "command_uuid", *_PAGE))
    limit, after = page_asked_for(query)
    decoded = query.flag("decoded", default=False)
    payloads = query.flag("payloads", default=True) or decoded
    if command_uuid := query.text("command_uuid"):
        page = enrollments.result(enrollment_id, command_uuid, payloads=payloads)
    elif query.flag("newest", default=False):
        page = enrollments.history(enrollment_id, payloads=payloads, limit=limit, after=after)
    else:
        page = enrollments.results(enrollment_id, payloads=payloads, limit=limit, after=after)
    return answer_v2(HTTPStatus.OK, listed("results", page, _decoded_result if decoded else _result))


def clear_commands(enrollment_id: str, request: AdminRequest, queues: "CommandQueues") -> "Response[str]":
    """``DELETE /v2/enrollments/{id}/commands``: drop all that waits, however much it is.

    ``user_channels=true`` drops also what waits for the users of the device.
    """
    with_users = Fields(request.query, known=("user_channels",)).flag("user_channels", default=False)
    outcomes = dict(queues.clear([enrollment_id]))
    if with_users and not outcomes[enrollment_id]:
        outcomes |= queues.clear(queues.user_channels(enrollment_id))
    for error in filter(None, outcomes.values()):
        raise error
    return no_content()


def cancel_command(
    enrollment_id: str, command_uuid: str, request: AdminRequest, queues: "CommandQueues"
) -> "Response[str]":
    """``DELETE /v2/enrollments/{id}/commands/{command_uuid}``: take one command back that waits."""
    Fields(request.query, known=())
    queues.cancel(enrollment_id, command_uuid)
    return no_content()


# Enrollment links


def create_enrollment_link(
    request: AdminRequest, links: "EnrollmentLinks", authority: "CertificateAuthorityService"
) -> "Response[str]":
    """``POST /v2/enrollment-links``: a link by which devices may enroll.

    The ``url`` is told only now: whoever has it may enroll. The first link makes the CA too, so that no device has to
    wait for its key.
    """
    fields = Fields(request.json(), known=("topic", "expires_in", "max_uses", "serial_numbers", "note"))
    expires_in = fields.integer("expires_in", least=_MINUTE, most=_MAX_LINK_SECONDS) or _DEFAULT_LINK_SECONDS
    link, url = links.create(
        topic=fields.text("topic"),
        expires_in=timedelta(seconds=expires_in),
        max_uses=fields.integer("max_uses", least=1, most=10_000_000),
        serial_numbers=fields.texts("serial_numbers", most=MAX_SERIAL_NUMBERS) or (),
        note=fields.text("note"),
    )
    authority.load()
    return answer_v2(HTTPStatus.CREATED, _enrollment_link(link) | {"url": url})


def list_enrollment_links(request: AdminRequest, links: "EnrollmentLinks") -> "Response[str]":
    """``GET /v2/enrollment-links``: all links, also those that are over, without their URLs."""
    Fields(request.query, known=())
    return answer_v2(
        HTTPStatus.OK,
        {"enrollment_links": [_enrollment_link(link) for link in links.list()], "next_cursor": None},
    )


def revoke_enrollment_link(link_id: str, links: "EnrollmentLinks") -> "Response[str]":
    """``DELETE /v2/enrollment-links/{id}``: nobody enrolls by this link any more. Who did so stays enrolled."""
    links.revoke(link_id)
    return no_content()


# How things look


def _listed_enrollment(entry: "EnrollmentEntry") -> dict[str, Any]:
    record = entry.record
    return {
        "id": record.enrollment_id,
        "type": record.type,
        "parent_id": record.parent_id,
        "state": record.state,
        "enabled": entry.enabled,
        "blocked": bool(record.blocked),
        "serial_number": record.serial_number,
        "model": record.model,
        "product_name": record.product_name,
        "os_version": record.os_version,
        "device_name": record.device_name,
        "enrolled_at": rfc3339(record.enrolled_at),
        "last_seen_at": rfc3339(record.last_seen_at),
    }


def _enrollment(entry: "EnrollmentEntry") -> dict[str, Any]:
    record = entry.record
    return _listed_enrollment(entry) | {
        "model_name": record.model_name,
        "build_version": record.build_version,
        "imei": record.imei,
        "meid": record.meid,
        "user_short_name": record.user_short_name,
        "user_long_name": record.user_long_name,
        "awaiting_configuration": record.awaiting_configuration,
        "token_update_tally": int(record.token_update_tally),
        "authenticated_at": rfc3339(record.authenticated_at),
        "token_updated_at": rfc3339(record.token_updated_at),
        "checked_out_at": rfc3339(record.checked_out_at),
        "enrollment_link": record.link,
        "push": {
            "topic": record.topic,
            "token_known": record.push is not None,
            "failure": record.push_failure,
            "failed_at": rfc3339(record.push_failed_at),
        },
        "identity": {
            "sha256": record.identity,
            "not_after": rfc3339(record.identity_not_after),
            "revoked": record.identity in (record.revoked_identities or ()),
            "renewal_attempts": int(record.renewal_attempts or 0),
            "renewal_queued_at": rfc3339(record.renewal_queued_at),
        },
    }


def _command(queued: "QueuedCommand") -> dict[str, Any]:
    item = queued.item
    return {
        "command_uuid": item.command_uuid,
        "request_type": item.request_type,
        "state": queued.state,
        "enqueued_at": rfc3339(item.enqueued_at),
        "expires_at": rfc3339(item.expires_at),
        "not_before": rfc3339(item.not_before),
        "not_now_at": rfc3339(item.not_now_at),
        "not_now_tally": int(item.not_now_tally or 0),
        "payload": _base64(queued.payload),
    }


def _result(result: "ReportedResult") -> dict[str, Any]:
    item = result.item
    return {
        "command_uuid": item.command_uuid,
        "request_type": item.request_type,
        "status": item.status,
        "error_chain": item.error_chain,
        "reported_at": rfc3339(item.reported_at),
        "event_id": item.event_id,
        "payload": _base64(result.payload),
    }


def _decoded_result(result: "ReportedResult") -> dict[str, Any]:
    """Return a result with its report as JSON; one that is no plist, or too long as JSON, stays as it came."""
    told = _result(result) | {"report": None}
    if result.payload is not None and (report := plist_json.readable(result.payload)) is not None:
        told |= {"payload": None, "report": report}
    return told


def _enrollment_link(link: "EnrollmentLink") -> dict[str, Any]:
    return {
        "id": link.name,
        "topic": link.topic,
        "created_at": rfc3339(link.created_at),
        "expires_at": rfc3339(link.expires_at),
        "max_uses": None if link.max_uses is None else int(link.max_uses),
        "uses": int(link.uses),
        "serial_numbers": link.serial_numbers,
        "revoked": bool(link.revoked),
        "note": link.note,
    }


def listed(name: str, page: "Page[_T]", entry: Callable[[_T], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a page as a list is told of."""
    cursor = page.next_cursor
    return {
        name: [entry(one) for one in page.entries],
        "next_cursor": urlsafe_b64encode(cursor.encode()).decode() if cursor else None,
    }


def page_asked_for(query: Fields) -> tuple[int, str]:
    """Return how many entries are asked for, and the position behind which they begin."""
    cursor = query.text("cursor", longest=_MAX_CURSOR * 2)
    try:
        after = b64decode(cursor, altchars="-_", validate=True).decode() if cursor else ""
    except ValueError:
        raise BadRequestError("The cursor is none of this API.", code="invalid_cursor", field="cursor") from None
    return query.integer("limit", least=1, most=MAX_LIMIT) or MAX_LIMIT, after[:_MAX_CURSOR]


def rfc3339(seconds: float | None) -> str | None:
    """Return a time (epoch seconds) as it is told of."""
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _base64(payload: bytes | None) -> str | None:
    return None if payload is None else b64encode(payload).decode()

"""PicoMDM's own API, ``/v2``: waking many at once."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import rfc3339
from mdmlib.services.push_jobs import MAX_IDS, PushSelection

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.push_jobs import PushJobs
    from mdmlib.store.tables import PushJob

_SELECTIONS: Final = ("all", "types", "topic", "ids")
_LATEST: Final = 4_294_967_295
"""The last second that APNs' header can say."""


def create_push(request: AdminRequest, jobs: "PushJobs") -> "Response[str]":
    """``POST /v2/pushes``: wake ``all``, those of ``types``, those of a ``topic``, or ``ids``: 202."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=(*_SELECTIONS, "expiration"))
    selection = PushSelection(
        types=fields.texts("types", choices=list(EnrollmentType)) or (),
        topic=fields.text("topic"),
        ids=fields.texts("ids", most=MAX_IDS) or None,
    )
    everybody = fields.flag("all", default=False)
    # An empty list must not become everybody.
    if not (everybody or selection.types or selection.topic or selection.ids) or (
        (everybody or selection.ids)
        and (everybody + bool(selection.types or selection.topic) + bool(selection.ids)) > 1
    ):
        raise BadRequestError(
            'Say whom to wake: "all": true, "types" and "topic" (one or both), or "ids".',
            code="invalid_field",
            field="all",
        )
    job = jobs.start(selection, expiration=fields.integer("expiration", least=0, most=_LATEST))
    return answer_v2(HTTPStatus.ACCEPTED, _job(job))


def get_push(job_id: str, request: AdminRequest, jobs: "PushJobs") -> "Response[str]":
    """``GET /v2/pushes/{id}``: how it is getting on."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _job(jobs.get(job_id)))


def _job(job: "PushJob") -> dict[str, Any]:
    return {
        "id": job.name,
        "state": "done" if job.ended >= job.parts else "running",
        **job.selection,
        "progress": round(int(job.ended) / max(int(job.parts), 1), 3),
        "woken": int(job.woken),
        "not_woken": int(job.not_woken),
        "created_at": rfc3339(job.created_at),
    }

"""``/v2/commands`` and ``/v2/command-jobs``: one command for many enrollments."""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.command import Command
from mdmlib.apple.command_json import command_of
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2
from mdmlib.http.command_options import OPTIONS, CommandOptions, options_of
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import rfc3339
from mdmlib.services.command_jobs import MAX_SERIAL_NUMBERS, Selection
from mdmlib.services.enqueue import MAX_TARGETS
from mdmlib.store.tables import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.command_jobs import CommandJobs
    from mdmlib.services.enqueue import EnqueueService, TargetOutcome
    from mdmlib.store.tables import CommandJob

_TARGETS: Final = ("all", "ids", "serial_numbers", "types")


def queue_command(
    request: AdminRequest, enqueue: "EnqueueService", jobs: "Callable[[], CommandJobs]"
) -> "Response[str]":
    """``POST /v2/commands``: queue a command for many.

    For ``ids`` it is done at once: 201 when it waits for all of them, 207 when it does not. For ``all`` that are
    enabled, for ``types`` and for ``serial_numbers`` it is a job: 202.
    """
    document = request.json()
    fields = Fields(document, known=("command", "payload", *_TARGETS, *OPTIONS))
    options = options_of(document)
    named = [name for name in _TARGETS if document.get(name) not in (None, False)]
    if len(named) != 1:
        raise BadRequestError(f"Name one of {', '.join(_TARGETS)}.", code="no_targets", field="ids")
    command = _command(document, options)
    if named == ["ids"]:
        ids = fields.texts("ids", most=MAX_TARGETS) or []
        outcome = enqueue.enqueue(command, ids, **options.of_queue)
        targets = [_target(id_, target) for id_, target in outcome.targets.items()]
        queued = sum(target["queued"] for target in targets)
        return answer_v2(
            HTTPStatus.CREATED if queued == len(targets) else HTTPStatus.MULTI_STATUS,
            {
                "command_uuid": command.uuid,
                "request_type": command.request_type,
                "queued": queued,
                "targets": targets,
            },
        )
    selection = _selection(named[0], fields)
    return answer_v2(HTTPStatus.ACCEPTED, _job(jobs().start(command, selection, **options.of_queue)))


def list_command_jobs(request: AdminRequest, jobs: "CommandJobs") -> "Response[str]":
    """``GET /v2/command-jobs``: the newest 100."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, {"command_jobs": [_job(job) for job in jobs.list()], "next_cursor": None})


def get_command_job(job_id: str, request: AdminRequest, jobs: "CommandJobs") -> "Response[str]":
    """``GET /v2/command-jobs/{id}``: how a job is getting on."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _job(jobs.get(job_id)))


def cancel_command_job(job_id: str, request: AdminRequest, jobs: "CommandJobs") -> "Response[str]":
    """``DELETE /v2/command-jobs/{id}``: stop a job. What it has queued stays queued."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _job(jobs.cancel(job_id)))


def _selection(name: str, fields: Fields) -> Selection:
    """Return whom a job is for. An empty list must not become everybody."""
    if name == "all":
        if fields.flag("all", default=False):
            return Selection()
    elif name == "types":
        if types := fields.texts("types", choices=list(EnrollmentType)):
            return Selection(types=types)
    elif serial_numbers := fields.texts("serial_numbers", most=MAX_SERIAL_NUMBERS):
        return Selection(serial_numbers=list(dict.fromkeys(serial_numbers)))
    raise BadRequestError(f"{name} names nobody.", code="no_targets", field=name)


def _command(document: Mapping[str, Any], options: CommandOptions) -> Command:
    """Return the command: ``command`` in MicroMDM's JSON, or ``payload``, a whole property list in base64."""
    written, payload = document.get("command"), document.get("payload")
    if (written is None) == (payload is None):
        raise BadRequestError("Give either a command or a payload.", code="missing_field", field="command")
    if payload is not None:
        try:
            return Command.decode(b64decode(payload, validate=True))
        except (Base64Error, TypeError, ValueError) as error:
            raise BadRequestError(
                "payload has to be a property list in base64.", code="invalid_field", field="payload"
            ) from error
    if not isinstance(written, dict):
        raise BadRequestError("command has to be an object.", code="invalid_field", field="command")
    if any(name.casefold() == "udid" for name in written):
        raise BadRequestError(
            "Whom a command is for stands beside it, in ids.", code="unknown_field", field="command.udid"
        )
    command, _ = command_of(written, unknown=options.unknown)
    return command


def _target(enrollment_id: str, target: "TargetOutcome") -> dict[str, Any]:
    error = target.command_error
    return {
        "id": enrollment_id,
        "queued": target.queued,
        "push_id": target.push_result,
        "push_error": target.push_error,
        "error": {"code": error.code, "detail": error.message} if error else None,
    }


def _job(job: "CommandJob") -> dict[str, Any]:
    selection = job.selection
    return {
        "id": job.name,
        "command_uuid": job.command_uuid,
        "request_type": job.request_type,
        "state": job.state,
        "types": selection.get("types"),
        "serial_numbers": selection.get("serial_numbers"),
        "progress": _progress(job),
        "examined": int(job.examined),
        "queued": int(job.queued),
        "refused": int(job.refused),
        "errors": job.errors or [],
        "created_at": rfc3339(job.created_at),
        "finished_at": rfc3339(job.finished_at),
    }


def _progress(job: "CommandJob") -> float:
    """Return how much of it is done, 0 to 1: of serial numbers exactly, of an index by its 16 shards."""
    if job.state == "done":
        return 1.0
    total = job.selection.get("serial_numbers")
    if total is not None:
        return round(int(job.position or 0) / max(int(total), 1), 3)
    shard = int(str(job.position)[0], 16) if job.position else 0
    return shard / SHARDS

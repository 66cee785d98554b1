"""MicroMDM's API: its JSON commands and its push.

Requests and successful answers are MicroMDM's to the byte. Where it answers 500 to everything that is wrong, or takes
what it cannot do (a command for an enrollment that nobody knows), here the status tells: 400, 404, 409, 413.
"""

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from mdmlib.apple import command_json
from mdmlib.errors import BadRequestError, ConflictError
from mdmlib.http.admin_edge import AdminRequest, answer_micromdm
from mdmlib.http.command_options import options_of
from mdmlib.observability import logger

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.enqueue import EnqueueService
    from mdmlib.services.scep_challenges import ScepChallenges

_CHALLENGE_GOOD_FOR: Final = timedelta(days=1)


def new_command(request: AdminRequest, enqueue: "EnqueueService") -> "Response[str]":
    """``POST /v1/commands``: queue a command that is written in JSON, and wake its enrollment.

    ``udid`` may name any enrollment, also a user channel. 201 says that the command waits; a push that could not be
    sent is no error, for the enrollment gets the command whenever it connects. How it is queued may be said in the
    query (:mod:`mdmlib.http.command_options`), which MicroMDM's clients leave empty.
    """
    options = options_of(request.query)
    document = request.json()
    command, echo = command_json.from_json(document, unknown=options.unknown)
    udid = command_json.udid_of(document)
    outcome = enqueue.enqueue(command, [udid], **options.of_queue).targets[udid]
    if outcome.command_error:
        raise outcome.command_error
    if outcome.push_error:
        # MicroMDM's answer has no place for it.
        logger.warning("Command queued, its enrollment not woken", enrollment_id=udid, reason=outcome.push_error)
    return answer_micromdm(HTTPStatus.CREATED, echo)


def push(enrollment_id: str, request: AdminRequest, enqueue: "EnqueueService") -> "Response[str]":
    """``POST /v1/push/{udid}``: wake an enrollment.

    ``expiration`` (epoch seconds) in the query is for how long APNs keeps trying.
    """
    outcome = enqueue.push([enrollment_id], expiration=_expiration(request)).targets[enrollment_id]
    if outcome.command_error:
        raise outcome.command_error
    if outcome.push_error:
        raise ConflictError(f"{enrollment_id} cannot be woken: {outcome.push_error}.", code="push_not_sent")
    return answer_micromdm(HTTPStatus.OK, {"status": "success", "push_notification_id": outcome.push_result})


def new_challenge(challenges: "ScepChallenges", authority: "CertificateAuthorityService") -> "Response[str]":
    """``POST /v1/challenge``: a SCEP challenge that is good for one identity, within a day."""
    challenge, _ = challenges.new_one_time(good_for=_CHALLENGE_GOOD_FOR)
    authority.load()
    return answer_micromdm(HTTPStatus.OK, {"string": challenge})


def _expiration(request: AdminRequest) -> int | None:
    text = request.query.get("expiration", "")
    if not text:
        return None
    if not text.isdecimal() or len(text) > len("9999999999"):
        raise BadRequestError("expiration is a time in seconds since 1970.", code="invalid_field", field="expiration")
    return int(text)

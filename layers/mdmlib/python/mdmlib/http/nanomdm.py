"""NanoMDM's API: push certificates, commands, pushes, Activation Lock, messages of another server, version."""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from aws_lambda_powertools.event_handler import Response

from mdmlib import __version__
from mdmlib.apple.checkin import decode_checkin
from mdmlib.apple.command import Command
from mdmlib.errors import BadRequestError, ConflictError, MalformedBodyError
from mdmlib.http.admin_edge import AdminRequest, PassedBack, answer_nanomdm
from mdmlib.http.fields import Fields

if TYPE_CHECKING:
    from mdmlib.services.enqueue import EnqueueOutcome, EnqueueService
    from mdmlib.services.escrow_key_unlock import EscrowKeyUnlock
    from mdmlib.services.migration import Migration
    from mdmlib.services.push_certificates import PushCertificateInfo, PushCertificates

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def version() -> "Response[str]":
    """``GET /version``: NanoMDM's ``version``, and beside it what MicroMDM's says where it was built without them."""
    unknown = dict.fromkeys(("branch", "revision", "go_version", "build_date", "build_user"), "unknown")
    return answer_nanomdm(HTTPStatus.OK, {"version": __version__, "server": "PicoMDM"} | unknown)


def put_push_certificate(request: AdminRequest, push_certificates: "PushCertificates") -> "Response[str]":
    """``PUT /v1/pushcert``: a PEM certificate and its PEM key, one after the other, take the place of the former."""
    return answer_nanomdm(HTTPStatus.OK, _push_certificate(push_certificates.upload(request.body)))


def get_push_certificate(request: AdminRequest, push_certificates: "PushCertificates") -> "Response[str]":
    """``GET /v1/pushcert?topic=…``: until when the topic's certificate is good."""
    topic = request.query.get("topic")
    if not topic:
        raise BadRequestError("missing required query parameter: topic", code="missing_field", field="topic")
    return answer_nanomdm(HTTPStatus.OK, _push_certificate(push_certificates.get(topic)))


def push(enrollment_ids: str, _: AdminRequest, enqueue: "EnqueueService") -> "Response[str]":
    """``/v1/push/{id[,id…]}``: wake enrollments. What concerns one of them stands beside its id.

    The status is NanoMDM's: 200, 207 when some were not woken, 500 when none was.
    """
    return _api_result(enqueue.push(_ids(enrollment_ids)))


def enqueue(enrollment_ids: str, request: AdminRequest, enqueue: "EnqueueService") -> "Response[str]":
    """``PUT /v1/enqueue/{id[,id…]}``: queue the command that is the body, XML or binary, and wake the enrollments.

    ``nopush``, whatever its value, wakes nobody. No body wakes alone. The status is NanoMDM's: 200, 207 when something
    failed for some, 500 when it did for all, or when it is wrong with the command.
    """
    ids = _ids(enrollment_ids)
    no_push = bool(request.query.get("nopush"))
    if not request.body:
        if no_push:
            return _failed({"no_push": True, "command_error": "must enqueue or push"})
        return _api_result(enqueue.push(ids))
    try:
        command = Command.decode(request.body)
    except MalformedBodyError as error:
        return _failed({"command_error": f"decoding command: {error.message}"})
    try:
        outcome = enqueue.enqueue(command, ids, push=not no_push)
    except (BadRequestError, ConflictError) as error:
        result: dict[str, Any] = {"no_push": True} if no_push else {}
        result |= {"command_error": error.message}
        return _failed(result | {"command_uuid": command.uuid, "request_type": command.request_type})
    return _api_result(outcome, no_push=no_push)


def unlock_with_escrow_key(request: AdminRequest, escrow_key_unlock: "EscrowKeyUnlock") -> "Response[bytes]":
    """``POST /v1/escrowkeyunlock``: have Apple end a device's Activation Lock; the answer is Apple's.

    The parameters are a form's.
    """
    try:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        raise BadRequestError("The body is no form.", code="malformed_body") from None
    parameters = {**request.query, **form}
    answer = escrow_key_unlock.unlock(parameters.get("topic", ""), parameters)
    return PassedBack(answer.status, content_type=answer.content_type or "application/octet-stream", body=answer.body)


def migrate(request: AdminRequest, migration: "Migration") -> "Response[str]":
    """``PUT /migration``: take in a check-in message of another server, the body, without a certificate.

    The answer is an empty 200. Two parameters are ours: without ``overwrite=1`` an enrollment that lives here is left
    alone, and ``certificate_hash`` (of an Authenticate) says by which certificate alone the device will be known.
    """
    query = Fields(request.query, known=("overwrite", "certificate_hash"))
    certificate_hash = query.text("certificate_hash")
    if certificate_hash is not None and not _SHA256.fullmatch(certificate_hash):
        raise BadRequestError(
            "certificate_hash has to be the SHA-256 of a certificate, in lower-case hexadecimal digits.",
            code="invalid_field",
            field="certificate_hash",
        )
    message = decode_checkin(request.body)
    migration.take(message, overwrite=query.flag("overwrite", default=False), certificate_hash=certificate_hash)
    return Response(HTTPStatus.OK, body="")


def _push_certificate(info: "PushCertificateInfo") -> dict[str, str]:
    return {"topic": info.topic, "not_after": info.not_after.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _ids(path: str) -> list[str]:
    ids = [id_ for id_ in path.split(",") if id_]
    if not ids:
        raise BadRequestError("getting enrollment ids: there is none in the path", code="missing_field", field="id")
    return ids


def _failed(result: dict[str, Any]) -> "Response[str]":
    """Answer for a request that did nothing at all: NanoMDM says 500, whoever's fault it is."""
    return answer_nanomdm(HTTPStatus.INTERNAL_SERVER_ERROR, result)


def _api_result(outcome: "EnqueueOutcome", *, no_push: bool = False) -> "Response[str]":
    """Write NanoMDM's ``APIResult``; Go sorts a map by its keys and leaves empty ones out."""
    status: dict[str, dict[str, str]] = {}
    failed = 0
    for id_, target in sorted(outcome.targets.items()):
        # Of a push alone, whatever is wrong is wrong with the push.
        error = target.command_error if outcome.command_uuid else None
        entry = {
            "push_error": target.push_error,
            "push_result": target.push_result,
            "command_error": error.message if error else None,
        }
        if told := {name: value for name, value in entry.items() if value}:
            status[id_] = told
        failed += bool(target.push_error or error)
    document: dict[str, Any] = {"status": status} if status else {}
    if no_push:
        document["no_push"] = True
    if outcome.command_uuid:
        document |= {"command_uuid": outcome.command_uuid, "request_type": outcome.request_type}
    if not failed:
        return answer_nanomdm(HTTPStatus.OK, document)
    whole = HTTPStatus.INTERNAL_SERVER_ERROR if failed == len(outcome.targets) else HTTPStatus.MULTI_STATUS
    return answer_nanomdm(whole, document)

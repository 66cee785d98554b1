"""PicoMDM's own API, ``/v2``: whose certificates prove who a device is."""

from base64 import b64decode
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.hashes import SHA256

from mdmlib.apple.authority_import import MAX_BYTES
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, page_asked_for, rfc3339
from mdmlib.services.enrollments import Page
from mdmlib.services.revocations import REASONS

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response
    from cryptography import x509

    from mdmlib.services.certificate_authorities import AuthorityInfo, CertificateAuthorities
    from mdmlib.services.certificate_authority import CertificateAuthorityService
    from mdmlib.services.revocations import Revocations
    from mdmlib.services.scep_challenges import ScepChallenges
    from mdmlib.services.static_challenge import StaticChallenge
    from mdmlib.store.tables import RevokedCertificate, StaticScepChallenge

_MINUTE: Final = 60
_CHALLENGE_SECONDS: Final = 86_400
_MAX_CHALLENGE_SECONDS: Final = 30 * 86_400


def put_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``PUT /v2/certificate-authorities/{name}``: trust certificates of devices that these have issued.

    The body is a PEM bundle, the authority with its intermediates in any order, or one certificate in DER.
    """
    Fields(request.query, known=())
    only_if = seen(request, _whole_authority)
    return answer_v2(HTTPStatus.OK, _authority(authorities.upload(name, request.body, only_if=only_if)))


def post_certificate_authority(request: AdminRequest, authorities: "CertificateAuthorities") -> "Response[str]":
    """``POST /v2/certificate-authorities``: a CA that issues identities, made here or brought with its key.

    Where there is one already it waits to follow that. ``pem`` or ``pkcs12`` (base64), with a ``password`` if the key
    is encrypted, bring one of your own; with neither, one is made. ``replace_next`` puts it in the place of another one
    that waits.
    """
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("pem", "pkcs12", "password", "replace_next"))
    pem, pkcs12 = fields.text("pem", longest=MAX_BYTES), fields.text("pkcs12", longest=2 * MAX_BYTES)
    password, replace_next = fields.text("password"), fields.flag("replace_next", default=False)
    if pem and pkcs12:
        raise BadRequestError("Send pem or pkcs12, not both.", code="invalid_field", field="pkcs12")
    encoded = _base64_of(pkcs12) if pkcs12 else (pem or "").encode()
    if encoded:
        info = authorities.install(encoded, is_pkcs12=pkcs12 is not None, password=password, replace_next=replace_next)
    else:
        info = authorities.prepare(replace_next=replace_next)
    return answer_v2(HTTPStatus.CREATED, _authority(info))


def activate_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``PUT /v2/certificate-authorities/{name}/activation``: let a CA that waits issue, from ``at`` or now on."""
    Fields(request.query, known=())
    fields = Fields(request.json() if request.body.strip() else {}, known=("at",))
    return answer_v2(HTTPStatus.OK, _authority(authorities.activate(name, at=fields.time("at"))))


def list_certificate_authorities(request: AdminRequest, authorities: "CertificateAuthorities") -> "Response[str]":
    """``GET /v2/certificate-authorities``: whose certificates are trusted; the deployment's own CA is among them."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("certificate_authorities", Page(authorities.list()), _authority))


def get_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``GET /v2/certificate-authorities/{name}``: one of them, with its certificates as PEM."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _whole_authority(authorities.get(name)))


def delete_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``DELETE /v2/certificate-authorities/{name}``: trust it no more. Devices with its certificates are locked out.

    Of the deployment's own, one that waits or was in use before can be deleted.
    """
    authorities.delete(name, only_if=seen(request, _whole_authority))
    return no_content()


def post_certificate_revocation(request: AdminRequest, revocations: "Revocations") -> "Response[str]":
    """``POST /v2/certificate-revocations``: revoke what an enrollment has, or one certificate, for good.

    One of ``enrollment_id``, ``sha256`` and ``serial_number`` (the certificate's, hex) says which.
    """
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("enrollment_id", "sha256", "serial_number", "reason"))
    enrollment_id, sha256, serial_number = (fields.text(name) for name in ("enrollment_id", "sha256", "serial_number"))
    if sum(one is not None for one in (enrollment_id, sha256, serial_number)) != 1:
        raise BadRequestError("Send one of enrollment_id, sha256 and serial_number.", code="missing_field")
    reason = fields.text("reason") or REASONS[0]
    if reason not in REASONS:
        raise BadRequestError(f"reason has to be one of {', '.join(REASONS)}.", code="invalid_field", field="reason")
    if enrollment_id:
        revoked = revocations.revoke_enrollment(enrollment_id, reason=reason)
    elif sha256:
        revoked = [revocations.revoke_certificate(sha256, reason=reason)]
    else:
        revoked = [revocations.revoke_serial_number(serial_number or "", reason=reason)]
    return answer_v2(HTTPStatus.OK, listed("certificate_revocations", Page(revoked), _revocation))


def list_certificate_revocations(request: AdminRequest, revocations: "Revocations") -> "Response[str]":
    """``GET /v2/certificate-revocations``: what is revoked, until it has ended anyway."""
    query = Fields(request.query, known=("limit", "cursor"))
    limit, after = page_asked_for(query)
    page = revocations.list(limit=limit, after=after)
    return answer_v2(HTTPStatus.OK, listed("certificate_revocations", page, _revocation))


def post_scep_challenge(
    request: AdminRequest, challenges: "ScepChallenges", authority: "CertificateAuthorityService"
) -> "Response[str]":
    """``POST /v2/scep-challenges``: a challenge that is good for one identity, and told only now.

    With ``serial_number`` only that device enrolls with the identity.
    """
    Fields(request.query, known=())
    fields = Fields(request.json() if request.body.strip() else {}, known=("expires_in", "serial_number"))
    expires_in = fields.integer("expires_in", least=_MINUTE, most=_MAX_CHALLENGE_SECONDS) or _CHALLENGE_SECONDS
    serial_number = fields.text("serial_number")
    challenge, expires_at = challenges.new_one_time(good_for=timedelta(seconds=expires_in), serial_number=serial_number)
    authority.load()
    document = {"challenge": challenge, "expires_at": rfc3339(expires_at.timestamp()), "serial_number": serial_number}
    return answer_v2(HTTPStatus.CREATED, document)


def put_static_challenge(request: AdminRequest, static: "StaticChallenge") -> "Response[str]":
    """``PUT /v2/scep-challenges/static``: let whoever knows this challenge get identities."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("challenge",))
    challenge = static.set(fields.required_text("challenge"), only_if=seen(request, _static_challenge))
    return answer_v2(HTTPStatus.OK, _static_challenge(challenge))


def get_static_challenge(request: AdminRequest, static: "StaticChallenge") -> "Response[str]":
    """``GET /v2/scep-challenges/static``: since when there is one; it is told to nobody."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _static_challenge(static.get()))


def delete_static_challenge(request: AdminRequest, static: "StaticChallenge") -> "Response[str]":
    """``DELETE /v2/scep-challenges/static``: let nobody get an identity by it any more."""
    static.end(only_if=seen(request, _static_challenge))
    return no_content()


def _static_challenge(item: "StaticScepChallenge | None") -> dict[str, Any]:
    return {"set_at": rfc3339(item.set_at) if item else None}


def _revocation(item: "RevokedCertificate") -> dict[str, Any]:
    return {
        "sha256": item.name,
        "serial_number": item.serial_number,
        "issuer": item.issuer,
        "enrollment_id": item.enrollment_id,
        "reason": item.reason,
        "revoked_at": rfc3339(item.revoked_at),
        "not_after": rfc3339(item.not_after),
    }


def _authority(info: "AuthorityInfo") -> dict[str, Any]:
    return {
        "name": info.name,
        "own": info.phase is not None,
        "phase": info.phase,
        "activates_at": rfc3339(info.activates_at),
        "certificates": [_certificate(certificate) for certificate in info.certificates],
        "uploaded_at": rfc3339(info.uploaded_at),
    }


def _whole_authority(info: "AuthorityInfo | None") -> dict[str, Any] | None:
    return None if info is None else _authority(info) | {"pem": info.pem}


def _certificate(certificate: "x509.Certificate") -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_after": rfc3339(certificate.not_valid_after_utc.timestamp()),
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


def _base64_of(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise BadRequestError("pkcs12 has to be the file in base64.", code="invalid_field", field="pkcs12") from None

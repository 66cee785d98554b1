"""PicoMDM's own API, ``/v2``: push certificates, from the request for one to its upload."""

from base64 import b64decode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from mdmlib.apple.push_request import MAX_BYTES, VendorIdentity, decode_push_csr
from mdmlib.errors import BadRequestError
from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.etags import seen
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from aws_lambda_powertools.event_handler import Response

    from mdmlib.services.push_certificate_requests import PushCertificateRequests, RequestInfo
    from mdmlib.services.push_certificates import PushCertificateInfo, PushCertificates

_COUNTRY_LETTERS: Final = 2


def list_push_certificates(request: AdminRequest, push_certificates: "PushCertificates") -> "Response[str]":
    """``GET /v2/push-certificates``: the topics, and until when their certificates are good."""
    Fields(request.query, known=())
    listed = [_push_certificate(info) for info in push_certificates.topics()]
    return answer_v2(HTTPStatus.OK, {"push_certificates": listed, "next_cursor": None})


def delete_push_certificate(topic: str, push_certificates: "PushCertificates") -> "Response[str]":
    """``DELETE /v2/push-certificates/{topic}``: forget a topic whose certificate has ended."""
    push_certificates.delete(topic)
    return no_content()


def post_push_certificate(
    request: AdminRequest, push_certificates: "PushCertificates", requests: "PushCertificateRequests"
) -> "Response[str]":
    """``POST /v2/push-certificates``: a certificate of Apple's portal takes the place of its topic's former one.

    ``pem`` has it with its key, or alone if the key is that of a request made here; ``pkcs12`` (base64) has both. One
    of another topic than the deployment's is refused without ``force``: it could wake no device that is enrolled.
    """
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("pem", "pkcs12", "password", "force"))
    pem, pkcs12 = fields.text("pem", longest=MAX_BYTES), fields.text("pkcs12", longest=2 * MAX_BYTES)
    if bool(pem) == bool(pkcs12):
        raise BadRequestError("Send either pem or pkcs12.", code="invalid_field", field="pem")
    info = push_certificates.replace(
        _base64_of(pkcs12, "pkcs12") if pkcs12 else (pem or "").encode(),
        is_pkcs12=bool(pkcs12),
        password=fields.text("password"),
        requests=requests,
        force=fields.flag("force", default=False),
    )
    return answer_v2(HTTPStatus.CREATED, _push_certificate(info))


def post_push_certificate_request(request: AdminRequest, requests: "PushCertificateRequests") -> "Response[str]":
    """``POST /v2/push-certificate-requests``: a new key, and a request for its certificate."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("common_name", "email", "country"))
    email, country = fields.required_text("email", longest=128), fields.text("country")
    if country and not (len(country) == _COUNTRY_LETTERS and country.isascii() and country.isalpha()):
        raise BadRequestError(
            "country has to be two letters (ISO 3166), such as US.", code="invalid_field", field="country"
        )
    common_name = fields.text("common_name", longest=64) or "PicoMDM push certificate"
    if "@" not in email or not email.isprintable():
        raise BadRequestError("email has to be an address.", code="invalid_field", field="email")
    if not common_name.isprintable():
        raise BadRequestError("common_name has to be printable.", code="invalid_field", field="common_name")
    made = requests.create(common_name=common_name, email=email, country=country.upper() if country else None)
    return answer_v2(HTTPStatus.CREATED, _request(made))


def list_push_certificate_requests(request: AdminRequest, requests: "PushCertificateRequests") -> "Response[str]":
    """``GET /v2/push-certificate-requests``: those whose certificates were not uploaded yet."""
    Fields(request.query, known=())
    listed = [_request(info) for info in requests.list()]
    return answer_v2(HTTPStatus.OK, {"push_certificate_requests": listed, "next_cursor": None})


def get_push_certificate_request(
    request_id: str, request: AdminRequest, requests: "PushCertificateRequests"
) -> "Response[str]":
    """``GET /v2/push-certificate-requests/{id}``."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _request(requests.get(request_id)))


def delete_push_certificate_request(
    request_id: str, request: AdminRequest, requests: "PushCertificateRequests"
) -> "Response[str]":
    """``DELETE /v2/push-certificate-requests/{id}``: forget a request with its key."""
    requests.delete(request_id, only_if=seen(request, lambda info: _request(info) if info else None))
    return no_content()


def open_push_certificate_request(
    request_id: str, request: AdminRequest, requests: "PushCertificateRequests"
) -> "Response[str]":
    """``POST /v2/push-certificate-requests/{id}/opened``: read what mdmcert.download has mailed, in base64."""
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("answer",))
    answer = _base64_of(fields.required_text("answer", longest=2 * MAX_BYTES), "answer")
    return answer_v2(HTTPStatus.OK, {"push_request": requests.open(request_id, answer).decode().strip()})


def sign_push_certificate_request(request: AdminRequest, now: "Callable[[], datetime]") -> "Response[str]":
    """``POST /v2/signed-push-certificate-requests``: vouch, as an MDM vendor, for a customer's request.

    ``vendor`` has the vendor's certificate, its key and Apple's certificates above it, PEM. Nothing of it is kept.
    """
    Fields(request.query, known=())
    fields = Fields(request.json(), known=("csr", "vendor", "password"))
    csr = decode_push_csr(fields.required_text("csr", longest=MAX_BYTES).encode())
    vendor = fields.required_text("vendor", longest=MAX_BYTES).encode()
    signed = VendorIdentity.decode(vendor, fields.text("password"), at=now()).sign(csr)
    return answer_v2(HTTPStatus.OK, {"push_request": signed.decode()})


def _push_certificate(info: "PushCertificateInfo") -> dict[str, str]:
    return {"topic": info.topic, "not_after": info.not_after.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _request(info: "RequestInfo") -> dict[str, Any]:
    return {
        "id": info.id,
        "subject": info.csr.subject.rfc4514_string(),
        "created_at": rfc3339(int(info.created_at.timestamp())),
        "csr": info.csr.public_bytes(Encoding.PEM).decode(),
        "encryption_certificate": info.certificate.public_bytes(Encoding.PEM).decode(),
    }


def _base64_of(text: str, field: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise BadRequestError(f"{field} has to be base64.", code="invalid_field", field=field) from error

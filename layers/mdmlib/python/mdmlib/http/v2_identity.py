"""PicoMDM's own API, ``/v2``: whose certificates prove who a device is."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.hashes import SHA256

from mdmlib.http.admin_edge import AdminRequest, answer_v2, no_content
from mdmlib.http.fields import Fields
from mdmlib.http.v2 import listed, rfc3339
from mdmlib.services.enrollments import Page

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler import Response
    from cryptography import x509

    from mdmlib.services.certificate_authorities import AuthorityInfo, CertificateAuthorities


def put_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``PUT /v2/certificate-authorities/{name}``: trust certificates of devices that these have issued.

    The body is a PEM bundle, the authority with its intermediates in any order, or one certificate in DER.
    """
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, _authority(authorities.upload(name, request.body)))


def list_certificate_authorities(request: AdminRequest, authorities: "CertificateAuthorities") -> "Response[str]":
    """``GET /v2/certificate-authorities``: whose certificates are trusted; the deployment's own CA is among them."""
    Fields(request.query, known=())
    return answer_v2(HTTPStatus.OK, listed("certificate_authorities", Page(authorities.list()), _authority))


def get_certificate_authority(
    name: str, request: AdminRequest, authorities: "CertificateAuthorities"
) -> "Response[str]":
    """``GET /v2/certificate-authorities/{name}``: one of them, with its certificates as PEM."""
    Fields(request.query, known=())
    info = authorities.get(name)
    return answer_v2(HTTPStatus.OK, _authority(info) | {"pem": info.pem})


def delete_certificate_authority(name: str, authorities: "CertificateAuthorities") -> "Response[str]":
    """``DELETE /v2/certificate-authorities/{name}``: trust it no more. Devices with its certificates are locked out."""
    authorities.delete(name)
    return no_content()


def _authority(info: "AuthorityInfo") -> dict[str, Any]:
    return {
        "name": info.name,
        "own": info.is_ours,
        "certificates": [_certificate(certificate) for certificate in info.certificates],
        "uploaded_at": rfc3339(info.uploaded_at),
    }


def _certificate(certificate: "x509.Certificate") -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "not_after": rfc3339(certificate.not_valid_after_utc.timestamp()),
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }

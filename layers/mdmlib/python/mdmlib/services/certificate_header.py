"""Headers in which a proxy that ended mutual TLS tells of the client's certificate.

=====================  ===================================================================================
RFC 9440, section 2.1  ``Client-Cert``: DER in base64 between two colons
nginx, HAProxy         ``$ssl_client_escaped_cert``: PEM, percent-encoded
AWS ALB                ``X-Amzn-Mtls-Clientcert``, ``…-Leaf``: PEM, percent-encoded but for ``+``, ``=`` and ``/``
Traefik                ``X-Forwarded-Tls-Client-Cert``: the base64 of PEM, with or without percent-encoding
=====================  ===================================================================================

Whether to believe such a header is asked elsewhere: anybody can send one.
"""

import re
from base64 import b64decode
from typing import Final
from urllib.parse import unquote

from mdmlib.errors import IdentityError

_BYTE_SEQUENCE: Final = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
# Some encode the blanks as in a query; the base64 between holds no blank, so that a plus is a plus there.
_PEM: Final = re.compile(r"-----BEGIN[ +]CERTIFICATE-----(.+?)-----END[ +]CERTIFICATE-----", re.DOTALL)


def decode_certificate_header(value: str) -> bytes:
    """Return the certificate (DER, unverified) that a header tells of; of a chain, the first: the client's own.

    A header that was sent twice arrives as one with a comma. Then one of them may be the client's own invention, and
    nobody can tell which: it is refused. Raises :class:`~mdmlib.errors.IdentityError`.
    """
    if "," in value:
        raise IdentityError("There are several certificate headers.", code="certificate_header_malformed")
    value = value.strip()
    if not value.startswith(":"):
        return decode_pem(unquote(value, errors="replace"))
    if (sequence := _BYTE_SEQUENCE.fullmatch(value)) is None:
        raise IdentityError("The certificate header is no byte sequence.", code="certificate_header_malformed")
    return _decode(sequence[1])


def decode_pem(text: str) -> bytes:
    """Return the first certificate (DER, unverified) of a PEM, whose lines may be missing.

    Raises :class:`~mdmlib.errors.IdentityError`.
    """
    certificate = _PEM.search(text)
    return _decode(certificate[1] if certificate else text)


def _decode(base64: str) -> bytes:
    try:
        der = b64decode("".join(base64.split()), validate=True)
    except ValueError as error:
        raise IdentityError("The certificate is not base64.", code="certificate_header_malformed") from error
    if not der:
        raise IdentityError("There is no certificate in the header.", code="certificate_header_malformed")
    return der

"""Apple's service that ends Activation Locks, as strict as it can be from what Apple says of it.

It knows servers by their push certificate, takes one request (POST, a form, what names the device in the query) and
answers a device that it knows the escrow key of. Everything else is refused, and noted in ``violations``.

Apple's page: https://developer.apple.com/documentation/devicemanagement/creating-and-using-bypass-codes.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web
from cryptography import x509

from local.apns.portal import topic_of
from local.ca import LocalAuthority
from local.serving import ServerThread, body_of

PATH: Final = "/deviceservicesworkers/escrowKeyUnlock"

_QUERY: Final = {"serial", "productType", "imei", "imei2", "meid"}
_REQUIRED_IN_QUERY: Final = ("serial", "productType")
_FORM: Final = {"orgName", "guid", "escrowKey"}
_FORM_TYPE: Final = "application/x-www-form-urlencoded"


class EscrowKeyUnlockService:
    """The service on 127.0.0.1, from :meth:`start` until :meth:`stop`; ``directory`` keeps its TLS certificate.

    ``locked`` has the escrow key of each serial number whose device is locked; whoever names it unlocks the device.
    """

    def __init__(self, directory: Path, *, push_authority: bytes, locked: Mapping[str, str]) -> None:
        authority = LocalAuthority.open(directory)
        made = authority.server_certificate("127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=push_authority.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(made.certificate, made.key)
        self.trust_anchor = (directory / "root.pem").read_text()
        self.locked = dict(locked)
        self.violations: list[str] = []
        self.topics: list[str] = []
        """Of the certificates that were shown, in their order."""
        self._thread = ServerThread(self._answer, name="escrow key unlock", tls=context)

    def start(self) -> str:
        """Listen, and return the service's URL."""
        return f"https://127.0.0.1:{self._thread.start()}{PATH}"

    def stop(self) -> None:
        """End it. Safe to repeat."""
        self._thread.stop()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await body_of(request) or b""
        query, form = dict(request.query), dict(parse_qsl(body.decode(), keep_blank_values=True))
        self.topics.append(_topic(request))
        wrong = _violation(request, query, form)
        if wrong:
            self.violations.append(wrong)
            return web.Response(status=400, text=wrong)
        if self.locked.get(query["serial"]) != form["escrowKey"]:
            return web.json_response({"code": "NOT_UNLOCKED"}, status=404)
        del self.locked[query["serial"]]
        return web.json_response({"code": "UNLOCKED"})


def _violation(request: web.BaseRequest, query: Mapping[str, str], form: Mapping[str, str]) -> str | None:
    if request.method != "POST" or request.path != PATH:
        return f"{request.method} {request.path}"
    if request.content_type != _FORM_TYPE:
        return f"content type {request.content_type}"
    if set(query) - _QUERY or not all(query.get(name) for name in _REQUIRED_IN_QUERY):
        return f"query {sorted(query)}"
    if set(form) != _FORM or not all(form.values()):
        return f"form {sorted(form)}"
    return None


def _topic(request: web.BaseRequest) -> str:
    # The handshake has verified it.
    transport = request.transport
    der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) if transport else b""
    return topic_of(x509.load_der_x509_certificate(der)) or ""

"""The HTTPS edge: what devices see of the device API on this machine.

The emulator answers over plain HTTP, below a path of its own. Devices want ``https://`` and the API at the root of a
host, as API Gateway and its custom domains give it. This proxy stands between: headers and bodies pass it as they are,
and it refuses what API Gateway refuses before any function is asked.
"""

import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import ClientError, web
from multidict import CIMultiDict
from yarl import URL

from local.ca import LocalAuthority
from local.serving import BodyTooLargeError, ServerThread, body_of, passed_on, streamed

MAX_HEAD_BYTES: Final = 10_240
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""Quotas of HTTP APIs: the request line with all header fields, and the payload."""


class DeviceEdge:
    """An HTTPS server at :attr:`url` in front of the device API that :meth:`lead_to` says.

    Its certificate is of the local authority in ``tls_directory``; devices have to trust its root :attr:`trust_anchor`.
    """

    def __init__(self, tls_directory: Path, *, port: int = 0) -> None:
        authority = LocalAuthority.open(tls_directory)
        certificate = authority.server_certificate("127.0.0.1", "localhost")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        self.trust_anchor = authority.root
        self._server = ServerThread(self._forward, name="device-edge", port=port, tls=tls)
        self._upstream: str | None = None
        self.port = self._server.start()
        self.url = f"https://127.0.0.1:{self.port}"

    def lead_to(self, emulator_url: str, api_id: str) -> None:
        """Pass requests on to this API; before, they are answered 503. The address is needed to deploy the API."""
        self._upstream = f"{emulator_url}/_aws/execute-api/{api_id}"

    def stop(self) -> None:
        """End it. Safe to repeat."""
        self._server.stop()

    async def _forward(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._upstream is None:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)
        head = len(request.method) + len(request.raw_path) + sum(len(n) + len(v) for n, v in request.raw_headers)
        if head > MAX_HEAD_BYTES:
            return _refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        try:
            body = await body_of(request, limit=MAX_BODY_BYTES)
            async with self._server.session.request(
                request.method,
                # Not parsed: a path that a device encoded in its own way stays so.
                URL(self._upstream + request.raw_path, encoded=True),
                headers=passed_on(request.headers),
                data=streamed(body),
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                headers = [pair for pair in passed_on(answer.headers) if pair[0].lower() != "content-length"]
                return web.Response(status=answer.status, headers=CIMultiDict(headers), body=content)
        except BodyTooLargeError:
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except ClientError:
            return _refusal(HTTPStatus.SERVICE_UNAVAILABLE)


def _refusal(status: HTTPStatus) -> web.Response:
    """Answer as API Gateway does by itself."""
    return web.json_response({"message": status.phrase}, status=status)

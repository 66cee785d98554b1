"""The authenticating proxy (NanoMDM's): ``/authproxy/…`` leads enrolled devices, and nobody else, to another server.

That server needs no certificates and no signatures: it is told which enrollment asks. A device's identity is proven as
on ``/mdm``; every failure of that is 400, never 401.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from mdmlib.errors import BadRequestError, IdentityError, NotFoundError
from mdmlib.services.associations import Associations
from mdmlib.services.device_identity import PROXY_SECRET_HEADER, DeviceIdentity, Evidence, Role
from mdmlib.store.enrollments import LIVE_STATES, EnrollmentStore

if TYPE_CHECKING:
    from mdmlib.clients.reverse_proxy import ForwardedAnswer, ReverseProxyClient
    from mdmlib.settings import Settings

PREFIX: Final = "/authproxy/"
ENROLLMENT_HEADER: Final = "x-enrollment-id"
TRACE_HEADER: Final = "x-trace-id"

# RFC 9110, section 7.6.1, and what is of this connection alone.
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_SIGNATURE: Final = "mdm-signature"
# What RFC 3986 lets a path have beside letters and digits.
_SAFE: Final = "/-._~!$&'()*+,;=:@"


@dataclass(frozen=True, kw_only=True)
class ProxiedRequest:
    """A request of a device for another server."""

    method: str
    path: str
    """Percent-decoded, with :data:`PREFIX`."""
    query: str
    """As it was sent, without the question mark."""
    evidence: Evidence = field(repr=False)
    """What may prove who sent it, with its headers and its body."""
    trace_id: str


class AuthProxy:
    """Passes on what enrolled devices send."""

    def __init__(
        self,
        *,
        identity: DeviceIdentity,
        enrollments: EnrollmentStore,
        client: "Callable[[], ReverseProxyClient]",
        settings: "Settings",
        now: Callable[[], datetime],
    ) -> None:
        self._identity = identity
        self._enrollments = enrollments
        self._associations = Associations(enrollments=enrollments, settings=settings)
        self._client = client
        self._settings = settings
        self._now = now

    def forward(self, request: ProxiedRequest) -> "ForwardedAnswer":
        """Return the other server's answer.

        Raises :class:`~mdmlib.errors.NotFoundError` while there is no other server,
        :class:`~mdmlib.errors.IdentityError` for whoever is not enrolled, :class:`~mdmlib.errors.BadRequestError` for a
        path that leads elsewhere, and :class:`~mdmlib.errors.UpstreamFailedError`.
        """
        if not self._settings.auth_proxy_url:
            raise NotFoundError("There is no server behind the proxy.", code="auth_proxy_off")
        enrollment_id = self._enrollment(request.evidence)
        answer = self._client().forward(
            request.method,
            self._url(request),
            headers={
                **self._passed_on(request.evidence.headers),
                ENROLLMENT_HEADER: enrollment_id,
                TRACE_HEADER: request.trace_id,
            },
            body=request.evidence.body,
        )
        return type(answer)(answer.status, _without(answer.headers, _HOP_BY_HOP), answer.body)

    def _enrollment(self, evidence: Evidence) -> str:
        """Return the id of the device's enrollment whose current identity sent this."""
        certificate = self._identity.prove(evidence)
        associated = self._enrollments.get_associated(certificate.hash)
        device, role = self._associations.role(certificate, associated, at=self._now())
        if role is not Role.CURRENT:
            raise IdentityError("A replaced certificate may only report results.", code="certificate_replaced")
        if device.state not in LIVE_STATES or device.blocked:
            raise IdentityError("The enrollment has ended, or is blocked.", code="enrollment_ended")
        return device.enrollment_id

    def _url(self, request: ProxiedRequest) -> str:
        path = request.path.removeprefix(PREFIX)
        if any(part in {".", ".."} for part in path.replace("\\", "/").split("/")) or not path.isprintable():
            raise BadRequestError("The path leads out of what is proxied.", code="path_not_proxied")
        url = f"{self._settings.auth_proxy_url}/{quote(path, safe=_SAFE)}"
        return f"{url}?{request.query}" if request.query else url

    def _passed_on(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        # The signature is large and proven; the others are what a proxy in front of us proves itself with.
        ours = {_SIGNATURE, PROXY_SECRET_HEADER, self._settings.certificate_header.lower()}
        return _without(headers, _HOP_BY_HOP | ours | {ENROLLMENT_HEADER, TRACE_HEADER})


def _without(headers: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    named = {name.strip().lower() for name in headers.get("connection", "").split(",")}
    return {name: value for name, value in headers.items() if name not in names and name not in named}

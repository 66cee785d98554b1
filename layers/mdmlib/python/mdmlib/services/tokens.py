"""GetToken: tokens of Apple's services, made here or by a server of the administrator's.

Apple's page: https://developer.apple.com/documentation/devicemanagement/get-token. A service for which nobody makes
tokens is answered 400, as that page asks.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mdmlib.apple.checkin import MAID_SERVICE, GetToken
from mdmlib.apple.enrollment_id import EnrollmentID
from mdmlib.apple.maid_token import maid_token
from mdmlib.errors import BadRequestError
from mdmlib.store.ade_servers import AdeServerStore
from mdmlib.store.tables import Enrollment


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """What a token is asked for: the service, its parameters, and for whom."""

    service_type: str
    parameters: Mapping[str, str] = field(repr=False)
    enrollment_id: EnrollmentID
    serial_number: str | None
    at: datetime


class TokenSource(Protocol):
    """Makes tokens of a service."""

    def token(self, request: TokenRequest) -> bytes | None:
        """Return a token, or None when this source has none for this request.

        Raises :class:`~mdmlib.errors.UnavailableError` when asking again later is right.
        """


class Tokens:
    """Asks the sources, in their order, until one has a token.

    Each is asked for every service: which ones it makes tokens of may change while this runs.
    """

    def __init__(self, *sources: TokenSource) -> None:
        self._sources = sources

    def issue(self, record: Enrollment, message: GetToken, *, at: datetime) -> bytes:
        """Return a token. Raises BadRequestError (code ``token_service_unknown``) when nobody has one."""
        request = TokenRequest(
            service_type=message.service_type,
            parameters=message.parameters,
            enrollment_id=message.enrollment_id,
            serial_number=record.serial_number,
            at=at,
        )
        for source in self._sources:
            if (token := source.token(request)) is not None:
                return token
        raise BadRequestError("Nobody makes tokens of this service.", code="token_service_unknown")


class MaidTokenSource:
    """Makes the tokens of one service, ``com.apple.maid``, while there is an ADE server with a key."""

    def __init__(self, servers: AdeServerStore, *, new_id: Callable[[], str]) -> None:
        self._servers = servers
        self._new_id = new_id

    def token(self, request: TokenRequest) -> bytes | None:
        """Return a token."""
        identity = self._servers.identity() if request.service_type == MAID_SERVICE else None
        if identity is None:
            return None
        return maid_token(
            identity.private_key,
            server_uuid=identity.server_uuid,
            issued_at=request.at,
            token_id=self._new_id(),
        )

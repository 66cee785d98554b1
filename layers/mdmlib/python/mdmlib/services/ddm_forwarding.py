"""DeclarativeManagement at another server, as NanoMDM's ``-dm`` forwards it (KMFDDM and others understand it).

``GET <url>/<endpoint>``, or PUT with a status report, with ``X-Enrollment-ID``, ``X-Enrollment-Type`` and, for a user
channel, ``X-Enrollment-ParentID``. ``X-Hmac-Signature`` signs bodies in both directions, each with its own key.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pynamodb.exceptions import DoesNotExist

from mdmlib.apple.checkin import DeclarativeManagement
from mdmlib.errors import BadRequestError, NotFoundError, UnavailableError
from mdmlib.services.checkin_message import CheckinAnswer, Received
from mdmlib.settings import Settings
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import DdmServer, Enrollment
from mdmlib.store.unchanged import OnlyIf, only_while

if TYPE_CHECKING:
    from mdmlib.clients.signed_http import SignedHttpClient

COLLECTION: Final = "ddm_server"
DEFAULT: Final = "default"

_MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_MAX_KEY_LENGTH: Final = 1_024
_KEEP: Final = timedelta(minutes=1)


class DdmKeys:
    """The keys that are shared with the other server, kept for a minute."""

    def __init__(self, *, sealer: Sealer, now: Callable[[], datetime]) -> None:
        self._sealer = sealer
        self._now = now
        self._known: DdmServer | None = None
        self._read_at: datetime | None = None

    def put(
        self, *, send_key: str | None, receive_key: str | None, only_if: OnlyIf[DdmServer | None] | None = None
    ) -> DdmServer:
        """Set both keys (their UTF-8); None: that direction is not signed.

        Raises :class:`~mdmlib.errors.BadRequestError`, and what ``only_if`` raises.
        """
        for field, key in (("send_hmac_key", send_key), ("receive_hmac_key", receive_key)):
            if key is not None and not 0 < len(key) <= _MAX_KEY_LENGTH:
                raise BadRequestError(f"An HMAC key has between 1 and {_MAX_KEY_LENGTH} characters.", field=field)
        server = DdmServer(
            COLLECTION,
            DEFAULT,
            send_key=self._seal(send_key, "send"),
            receive_key=self._seal(receive_key, "receive"),
            changed_at=int(self._now().timestamp()),
        )
        with only_while(DdmServer, self.server, only_if) as condition:
            server.save(condition=condition)
        self._read_at = None
        return server

    def server(self) -> DdmServer | None:
        """Return what is set, as of now."""
        try:
            return DdmServer.get(COLLECTION, DEFAULT, consistent_read=True)
        except DoesNotExist:
            return None

    def pair(self) -> tuple[bytes | None, bytes | None]:
        """Return the keys for sending and for receiving."""
        if self._read_at is None or self._now() - self._read_at > _KEEP:
            self._known, self._read_at = self.server(), self._now()
        if self._known is None:
            return None, None
        return self._open(self._known.send_key, "send"), self._open(self._known.receive_key, "receive")

    def _seal(self, key: str | None, direction: str) -> bytes | None:
        return None if key is None else self._sealer.seal(key.encode(), place=_place(direction))

    def _open(self, sealed: bytes | None, direction: str) -> bytes | None:
        return None if sealed is None else self._sealer.open(sealed, place=_place(direction))


class ForwardedDeclarations:
    """The declarations of another server."""

    def __init__(self, client: "Callable[[], SignedHttpClient]", *, keys: DdmKeys, settings: Settings) -> None:
        self._client = client
        self._keys = keys
        self._url = settings.ddm_url

    def answer(self, received: Received, message: DeclarativeManagement, record: Enrollment) -> CheckinAnswer | None:  # noqa: ARG002 - a DeclarationServer's signature
        """Answer what the other server answers: its 404 is passed on, every other failure is 503."""
        enrollment_id = message.enrollment_id
        headers = {"X-Enrollment-ID": enrollment_id.value, "X-Enrollment-Type": enrollment_id.type.value}
        if enrollment_id.parent:
            headers["X-Enrollment-ParentID"] = enrollment_id.parent
        if message.data:
            headers["Content-Type"] = "application/json"
        send_key, receive_key = self._keys.pair()
        answer = self._client().send(
            "PUT" if message.data else "GET",
            f"{self._url}/{path_of(message.endpoint)}",
            message.data,
            headers=headers,
            hmac_key=send_key,
            answer_hmac_key=receive_key,
            longest=_MAX_ANSWER_BYTES,
        )
        if answer is None:
            raise NotFoundError("The declarative management server has no such thing.", code="unknown_declaration")
        if not _is_utf8(answer):
            raise UnavailableError("The declarative management server's answer is no JSON.", code="server_unusable")
        return CheckinAnswer.json(answer) if answer else None


def path_of(endpoint: str) -> str:
    """Return the path of an endpoint, which a device names: it must not lead anywhere but below the server's URL.

    Raises :class:`~mdmlib.errors.NotFoundError` for one that would.
    """
    segments = endpoint.split("/")
    if any(segment in {"", ".", ".."} for segment in segments):
        raise NotFoundError("Declarative management has no such endpoint.", code="unknown_endpoint")
    return "/".join(quote(segment, safe="") for segment in segments)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _place(direction: str) -> str:
    return f"{COLLECTION}/{DEFAULT}/{direction}"

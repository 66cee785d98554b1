"""An enrollment as the device has it: whom it reports to, and how its messages look on the wire."""

import base64
import plistlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from local.device.cms import Digest, Identity, SignatureForm, sign_message
from local.device.errors import ServerRefused, Unenrolled
from local.device.hardware import Hardware, Platform
from local.device.instructions import UNRECOGNIZED_DEVICE, Instruction
from local.device.profile import EnrollmentProfile
from local.device.wire import Wire

CHECK_IN: Final = "application/x-apple-aspen-mdm-checkin"
CONNECT: Final = "application/x-apple-aspen-mdm"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_USERS: Final = {"UserID", "EnrollmentUserID"}


@dataclass(frozen=True, kw_only=True)
class MessageForm:
    """The habits of one operating system's release; the defaults are today's."""

    signature: SignatureForm = SignatureForm.DER_WITH_ATTRIBUTES
    digest: Digest = "sha256"
    null_parameters: bool = True
    """Whether the signature's algorithm identifiers have a NULL."""
    binary: bool = False
    """Binary property lists instead of XML."""
    byte_order_mark: bool = False
    """XML after a UTF-8 byte order mark."""
    connect_content_type: bool = True
    """Whether a report has a Content-Type."""
    optional_keys: bool = True
    """Whether Authenticate and TokenUpdate carry more than Apple requires."""

    def encode(self, message: Mapping[str, Any]) -> bytes:
        """Return the message as a property list."""
        if self.binary:
            return plistlib.dumps(dict(message), fmt=plistlib.FMT_BINARY)
        return (_UTF8_MARK if self.byte_order_mark else b"") + plistlib.dumps(dict(message))


@dataclass(frozen=True)
class Reply:
    """What a check-in message was answered with, beside the status 200."""

    body: bytes
    content_type: str
    """Without parameters; empty when there is none."""


class Enrollment:
    """The way to one server, with the identity that it knows the device by.

    ``access_token`` is what an account-driven enrollment began with. ``ended`` is called when the server ends the
    enrollment, before :class:`~local.device.errors.Unenrolled` is raised.
    """

    def __init__(
        self,
        profile: EnrollmentProfile,
        identity: Identity,
        *,
        hardware: Hardware,
        wire: Wire,
        form: MessageForm,
        access_token: str | None = None,
        ended: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.profile = profile
        self.identity = identity
        self.access_token = access_token
        self._hardware = hardware
        self._wire = wire
        self._form = form
        self._ended = ended
        self._now = now

    def check_in(self, message: Mapping[str, Any], *, patient: bool = False) -> Reply:
        """Send a check-in message (its ``MessageType`` says which) and return what it was answered.

        Raises :class:`~local.device.errors.ServerRefused`, :class:`~local.device.errors.NoAnswer` and
        :class:`~local.device.errors.Unenrolled`.
        """
        what = message["MessageType"]
        if what == "DeclarativeManagement":
            what += f" {message['Endpoint']}"
        response = self._put(self.profile.checkin_url, CHECK_IN, message, what, self.identity, patient=patient)
        return Reply(response.content, response.headers.get("content-type", "").partition(";")[0].strip())

    def connect(self, report: Mapping[str, Any], *, what: str, identity: Identity) -> bytes:
        """Send a report, signed by ``identity``, and return the next command's plist, or nothing. Raises as above."""
        content_type = CONNECT if self._form.connect_content_type else None
        return self._put(self.profile.server_url, content_type, report, what, identity, patient=True).content

    def _put(
        self,
        url: str,
        content_type: str | None,
        message: Mapping[str, Any],
        what: str,
        identity: Identity,
        *,
        patient: bool,
    ) -> httpx.Response:
        body = self._form.encode(message)
        signature = sign_message(
            body,
            identity,
            form=self._form.signature,
            digest=self._form.digest,
            at=self._now(),
            null_parameters=self._form.null_parameters,
        )
        headers = {"Mdm-Signature": base64.b64encode(signature).decode("ascii")}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if self.access_token and self._shows_token(message):
            headers["Authorization"] = f"Bearer {self.access_token}"
        response = self._wire.send("PUT", url, what=what, body=body, headers=headers, patient=patient)
        if response.status_code == HTTPStatus.OK:
            return response
        if response.status_code == HTTPStatus.UNAUTHORIZED or self._is_unrecognized(response):
            self._ended()
            raise Unenrolled(f"{what} was answered {response.status_code}: the device removed its management.")
        raise ServerRefused(what, response.status_code, response.content)

    def _shows_token(self, message: Mapping[str, Any]) -> bool:
        # A Mac's device channel runs without its user, whose token it is.
        return self._hardware.platform is not Platform.MACOS or not message.keys().isdisjoint(_USERS)

    def _is_unrecognized(self, response: httpx.Response) -> bool:
        """Whether it is the 403 that ends an enrollment (Apple: Error Unrecognized Device)."""
        instruction = Instruction.of(response) if self._hardware.knows_unrecognized_device else None
        return instruction is not None and instruction.code == UNRECOGNIZED_DEVICE

"""A check-in message on its way through the services: who sent it, when, what is kept of it, and how it is answered."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Self

from mdmlib.apple import plist
from mdmlib.apple.checkin import CheckinMessage
from mdmlib.apple.identity import VerifiedCertificate
from mdmlib.store import tables
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import EnrollmentSecret, Message

ATTEMPTS: Final = 3
"""How often a message is tried again that found the enrollment changed between its read and its commit."""

REPEAT_SECONDS: Final = 3_600
"""A message that comes again within an hour is the retry of a device that did not get our answer."""


@dataclass(frozen=True)
class Received:
    """A message, who signed it, and when it came."""

    message: CheckinMessage
    certificate: VerifiedCertificate
    url_params: Mapping[str, str]
    at: datetime
    event_id: str

    @property
    def id(self) -> str:
        """The enrollment's id."""
        return self.message.enrollment_id.value

    @property
    def device_id(self) -> str:
        """The id of its device channel, which is the same but for a user channel."""
        return self.message.enrollment_id.device

    @property
    def seconds(self) -> int:
        """When it came, in epoch seconds."""
        return int(self.at.timestamp())

    @property
    def hash(self) -> str:
        """Tells a retry from a new message."""
        return hashlib.sha256(self.message.body + b"\0" + self.certificate.hash.encode()).hexdigest()

    def kept_message(self, sealer: Sealer) -> Message:
        """Return the item that keeps the message whole, in place of the last one of its type."""
        item = tables.MESSAGE + self.message.message_type
        body = sealer.seal(self.message.body, place=f"{self.id}/{item}")
        return Message(self.id, item, body=body, received_at=self.seconds)

    def secret(self, sealer: Sealer, name: str, value: bytes) -> EnrollmentSecret:
        """Return the item that keeps a secret of the enrollment."""
        item = tables.SECRET + name
        return EnrollmentSecret(
            self.id, item, value=sealer.seal(value, place=f"{self.id}/{item}"), received_at=self.seconds
        )


@dataclass(frozen=True)
class CheckinAnswer:
    """What a message is answered with; many are answered with nothing."""

    body: bytes = field(repr=False)
    media_type: str

    @classmethod
    def plist(cls, document: Mapping[str, Any]) -> Self:
        """Answer with a plist."""
        return cls(plist.dumps(document), "application/xml")

    @classmethod
    def json(cls, body: bytes) -> Self:
        """Answer with a JSON document, in UTF-8."""
        return cls(body, "application/json")

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
        return kept_message(self.message, sealer, at=self.seconds)

    def secret(self, sealer: Sealer, name: str, value: bytes) -> EnrollmentSecret:
        """Return the item that keeps a secret of the enrollment."""
        return kept_secret(self.id, name, value, sealer, at=self.seconds)


def kept_message(message: CheckinMessage, sealer: Sealer, *, at: int) -> Message:
    """Return the item that keeps a message whole, in place of the last one of its type. ``at`` is in epoch seconds."""
    id_, item = message.enrollment_id.value, tables.MESSAGE + message.message_type
    return Message(id_, item, body=sealer.seal(message.body, place=f"{id_}/{item}"), received_at=at)


def kept_secret(enrollment_id: str, name: str, value: bytes, sealer: Sealer, *, at: int) -> EnrollmentSecret:
    """Return the item that keeps a secret of an enrollment. ``at`` is in epoch seconds."""
    item = tables.SECRET + name
    return EnrollmentSecret(
        enrollment_id, item, value=sealer.seal(value, place=f"{enrollment_id}/{item}"), received_at=at
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

"""The documents that receivers get: what travelled sealed or in the bucket is put back, or left out on request."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import MalformedBodyError, UnavailableError
from mdmlib.services.events import MESSAGE_PARTS, event_place, holds_secret, payload_key
from mdmlib.store.payloads import PayloadStore
from mdmlib.store.sealing import Sealer

REDACTED: Final = "payload_redacted"
"""Stands, with true, where the raw message was left out."""

_SEALED: Final = "raw_payload_sealed"
_REFERRED: Final = "payload_ref"
_IN_CLEAR: Final = "raw_payload"
_ANY_FORM: Final = (_IN_CLEAR, _SEALED, _REFERRED)

# Nobody has noted of a message in the bucket whether it was taken for secret without a look. Those of these topics
# never are.
_TOPICS_THAT_SHOW_THEIR_SECRETS: Final = frozenset({"mdm.Connect", "ddm.StatusReport"})


class WebhookDocuments:
    """Makes of an event on the bus what a receiver gets."""

    def __init__(self, *, payloads: PayloadStore, sealer: Sealer) -> None:
        self._payloads = payloads
        self._sealer = sealer

    def opened(self, event: Mapping[str, Any], *, redact: str | None) -> dict[str, Any]:
        """Return the document as it was before it went to the bus: the message in clear, in its place.

        With ``redact`` ``payload`` it is left out; with ``secrets`` when it holds any.
        Raises :class:`~mdmlib.errors.PicoMDMError` when the message cannot be read.
        """
        return {
            key: self._opened_part(value, event, redact) if key in MESSAGE_PARTS and value else value
            for key, value in event.items()
        }

    def _opened_part(self, part: Mapping[str, Any], event: Mapping[str, Any], redact: str | None) -> dict[str, Any]:
        opened: dict[str, Any] = {}
        for key, value in part.items():
            if key == "status_report" and redact == "payload":
                # The message once more, as JSON.
                continue
            if key not in _ANY_FORM:
                opened[key] = value
            elif redact == "payload" or (redact == "secrets" and self._is_secret(key, value, event)):
                opened[REDACTED] = True
            else:
                opened[_IN_CLEAR] = value if key == _IN_CLEAR else b64encode(self._raw(key, value, event)).decode()
        return opened

    def _is_secret(self, form: str, value: str, event: Mapping[str, Any]) -> bool:
        if form != _REFERRED:
            return form == _SEALED
        return event.get("topic") not in _TOPICS_THAT_SHOW_THEIR_SECRETS or holds_secret(self._raw(form, value, event))

    def _raw(self, form: str, value: str, event: Mapping[str, Any]) -> bytes:
        event_id = str(event.get("event_id"))
        if form == _SEALED:
            return self._sealer.open(b64decode(value), place=event_place(event_id))
        # Commands and results lie in the same bucket: an event leads to its own body only.
        if value != payload_key(event_id):
            raise MalformedBodyError("An event refers to a body that is not its own.")
        try:
            return self._payloads.get(value)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("An event's body cannot be read from the payload bucket.") from error

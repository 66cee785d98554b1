"""Messages of the webhook queue.

A rule of the bus makes them: ``{"subscription": "<id>", "event": <document>}``. One that is put back carries more, for
it is a new message to SQS:

``since``     when the event first came to the queue, epoch seconds; the time of a pause does not count
``attempts``  how often it was received
``paused``    how many seconds it has waited for the end of a pause
``turn_ms``   its turn with a receiver that is slow, milliseconds since 1970
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from mdmlib.errors import MalformedBodyError

TEST_TOPIC: Final = "webhook.Test"


@dataclass(frozen=True, kw_only=True)
class WebhookMessage:
    """A message of the webhook queue, as it was received."""

    subscription_id: str
    event: Mapping[str, Any] = field(repr=False)
    receipt_handle: str
    attempts: int
    """How often it was received, this time included."""
    since: int
    """When the event first came to the queue, epoch seconds."""
    paused: int = 0
    turn_ms: int | None = None

    @classmethod
    def decode(cls, body: str, *, receipt_handle: str, receive_count: int, sent_at: int) -> Self:
        """Read an SQS message; ``receive_count`` and ``sent_at`` (epoch seconds) are what SQS says of it.

        Raises :class:`~mdmlib.errors.MalformedBodyError` for what never was one.
        """
        try:
            document = json.loads(body)
            turn_ms = document.get("turn_ms")
            return cls(
                subscription_id=document["subscription"],
                event={**document["event"]},
                receipt_handle=receipt_handle,
                attempts=int(document.get("attempts", 0)) + receive_count,
                since=int(document.get("since", sent_at)),
                paused=int(document.get("paused", 0)),
                # Who had a turn and failed has to wait for another.
                turn_ms=int(turn_ms) if turn_ms is not None and receive_count == 1 else None,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            # No cause: the decoder's error would show a part of the body.
            raise MalformedBodyError("A message of the webhook queue is malformed.") from None

    @property
    def event_id(self) -> str:
        """The event's id, for the log."""
        return str(self.event.get("event_id"))

    @property
    def is_test(self) -> bool:
        """Whether an administrator tries the receiver."""
        return self.event.get("topic") == TEST_TOPIC

    def encode(self) -> str:
        """Return the body of a message that goes on where this one stands."""
        return json.dumps(
            {
                "subscription": self.subscription_id,
                "event": self.event,
                "since": self.since,
                "attempts": self.attempts,
                "paused": self.paused,
                "turn_ms": self.turn_ms,
            },
            separators=(",", ":"),
        )

    def encode_afresh(self) -> str:
        """Return the body of a message that has nothing behind it, as the bus sends it."""
        return json.dumps({"subscription": self.subscription_id, "event": self.event}, separators=(",", ":"))

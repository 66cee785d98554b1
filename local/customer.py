"""A customer whose webhook hears of events, and who checks that each is exactly the document that was promised."""

import base64
import json
import plistlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from local.progress import Message

_WAIT_SECONDS: Final = 60.0
_LONG_POLL_SECONDS: Final = 5.0

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")

# MicroMDM's keys come first and in its order; a client that knows only MicroMDM reads no further.
_CHECKIN_KEYS: Final[tuple[str, ...]] = ("udid", "url_params", "raw_payload")
_REPORT_KEYS: Final[tuple[str, ...]] = ("udid", "status", "command_uuid", "raw_payload")


class WrongEventError(Exception):
    """An event is not the document that it should be, or never came."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An event as it was delivered, verified by the listener."""

    topic: str
    event_id: str
    document: Mapping[str, Any] = field(repr=False)
    raw: bytes = field(repr=False)
    """The device's message; empty for an event that is none's."""

    @property
    def told(self) -> str:
        """What it tells, in a few words."""
        part = self.document.get("acknowledge_event") or self.document.get("command_event") or {}
        return " ".join(filter(None, (self.topic, part.get("request_type"), part.get("status"))))


class Customer:
    """Reads what the listener at ``control`` has received; ``observer`` sees each delivery once."""

    def __init__(
        self, control: str, *, path: str, observer: Callable[[Message], None] = lambda _message: None, after: int = 0
    ) -> None:
        self._control = control.rstrip("/")
        self._path = path
        self._observer = observer
        self._after = after
        self._waiting: list[Heard] = []
        self._client = httpx.Client(trust_env=False, timeout=_LONG_POLL_SECONDS + 10)
        self.events: dict[str, Heard] = {}
        """What was heard, by event_id: the same event again is a repetition, which must be the same to the byte."""

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def skip(self) -> None:
        """Ignore what came before now."""
        self._after = max(self._after, self._fetch(wait=0.0)["next"])

    def hear(self, condition: Callable[[Heard], bool], *, what: str, seconds: float = _WAIT_SECONDS) -> Heard:
        """Return the oldest event, not returned before, that meets the condition; wait for it.

        Raises :class:`WrongEventError`.
        """
        deadline = time.monotonic() + seconds
        while True:
            for heard in self._waiting:
                if condition(heard):
                    self._waiting.remove(heard)
                    return heard
            if time.monotonic() > deadline:
                others = [heard.topic for heard in self._waiting]
                raise WrongEventError(f"The webhook did not hear of {what} in {seconds:.0f} s, only of {others}.")
            self._receive()

    def left_over(self) -> list[Heard]:
        """Return what came and was never waited for, and forget it."""
        self._receive(wait=0.0)
        left_over, self._waiting = self._waiting, []
        return left_over

    def _fetch(self, *, wait: float) -> dict[str, Any]:
        response = self._client.get(f"{self._control}/deliveries", params={"after": self._after, "wait": wait})
        response.raise_for_status()
        document: dict[str, Any] = response.json()
        return document

    def _receive(self, *, wait: float = _LONG_POLL_SECONDS) -> None:
        answer = self._fetch(wait=wait)
        self._after = answer["next"]
        for delivery in answer["deliveries"]:
            if delivery["path"] != self._path:
                continue
            if delivery["problems"]:
                raise WrongEventError(f"A delivery is wrong: {'; '.join(delivery['problems'])}.")
            body = base64.b64decode(delivery["body"])
            heard = _read(body)
            earlier = self.events.get(heard.event_id)
            if earlier is not None and earlier.document != heard.document:
                raise WrongEventError(f"Two different events have the id {heard.event_id}.")
            self.events[heard.event_id] = heard
            if earlier is None:
                self._waiting.append(heard)
            self._observer(
                Message(
                    sender="PicoMDM",
                    receiver="customer",
                    what=f"POST {delivery['path']}",
                    note=f"{heard.told}{', again' if earlier else ''}, HMAC ok",
                    status=delivery["status"],
                    sent=len(body),
                )
            )


def _read(body: bytes) -> Heard:
    document = json.loads(body)
    if body != json.dumps(document, indent=2, ensure_ascii=False).encode():
        raise WrongEventError("A delivery is not indented as MicroMDM's are.")
    if list(document)[:3] != ["topic", "event_id", "created_at"]:
        raise WrongEventError(f"A delivery begins with {list(document)[:3]}.")
    if not _UUID.fullmatch(document["event_id"]) or not _RFC3339.fullmatch(document["created_at"]):
        raise WrongEventError("event_id is no UUID, or created_at no time in RFC 3339 and UTC.")
    part = document.get("acknowledge_event") or document.get("checkin_event") or {}
    raw = base64.b64decode(part.get("raw_payload", ""), validate=True)
    return Heard(topic=document["topic"], event_id=document["event_id"], document=document, raw=raw)


def check_message_event(heard: Heard, *, body: bytes, more: Mapping[str, Any]) -> None:
    """Hold an event against the message of a device channel, ``body``, that it tells of.

    ``more`` are the keys behind MicroMDM's that must be there. Raises :class:`WrongEventError`.
    """
    message = plistlib.loads(body)
    udid = message["UDID"]
    if "MessageType" in message:
        topic, name = f"mdm.{message['MessageType']}", "checkin_event"
        expected: dict[str, Any] = {"udid": udid, "url_params": None}
        keys = _CHECKIN_KEYS
    else:
        topic, name = "mdm.Connect", "acknowledge_event"
        expected = {"udid": udid, "status": message["Status"]}
        if "CommandUUID" in message:
            expected["command_uuid"] = message["CommandUUID"]
        keys = tuple(key for key in _REPORT_KEYS if key in expected or key == "raw_payload")
    if heard.topic != topic or list(heard.document)[3:] != [name]:
        raise WrongEventError(f"A {topic} was told as {heard.topic} with {list(heard.document)[3:]}.")
    part = heard.document[name]
    if tuple(part)[: len(keys)] != keys:
        raise WrongEventError(f"The {name} of {topic} begins with {tuple(part)[: len(keys)]}, not {keys}.")
    if heard.raw != body:
        raise WrongEventError(f"The raw_payload of {topic} is not what the device sent.")
    expected |= {"ids": {"id": udid, "type": "Device"}, **more}
    for key, value in expected.items():
        if part.get(key) != value:
            raise WrongEventError(f"{key} of {topic} is {part.get(key)!r}, not {value!r}.")

"""What was promised and what was heard: each message that was answered 200 is an event that the customer hears of."""

import base64
import json
import plistlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import httpx

from local.device import Exchange

_ONE_EVENT: Final = {"Authenticate", "TokenUpdate", "CheckOut"}
"""What is the same event when it comes again. Others change nothing, or the same as before, and are told of twice."""
_ALLOWED: Final = {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}


class Ledger:
    """Hears of all that devices send, of all commands that are queued, and of what the customer's listener received."""

    def __init__(self, listener: str, *, path: str) -> None:
        """``listener`` is the listener's control, ``path`` where its deliveries arrive."""
        self._listener = listener.rstrip("/")
        self._path = path
        self._lock = threading.Lock()
        self._answered: Counter[bytes] = Counter()
        self._commands: set[str] = set()
        self._heard: dict[str, Mapping[str, Any]] = {}
        self._after = 0
        self.wrong: list[str] = []
        """What devices must never be answered, and events that are not what they were."""

    def observe(self, exchange: Exchange) -> None:
        """Note what a device sent and got."""
        if exchange.status not in _ALLOWED:
            with self._lock:
                self.wrong.append(f"{exchange.what} was answered {exchange.status or exchange.failure}")
        if exchange.status == HTTPStatus.OK and exchange.path.startswith("/mdm/c"):
            with self._lock:
                self._answered[exchange.request_body] += 1

    def queued(self, command_uuid: str) -> None:
        """Note a command that an administrator was told to be queued."""
        with self._lock:
            self._commands.add(command_uuid)

    def settle(self, *, seconds: float, meanwhile: Callable[[], object]) -> list[str]:
        """Wait until everything was heard of; return what was not, and what is wrong with what was.

        ``meanwhile`` is done now and then.
        """
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=30) as client:
            while True:
                self._listen(client)
                missing = self._missing()
                if not missing or time.monotonic() > deadline:
                    return missing + self._doubled() + self.wrong
                meanwhile()
                time.sleep(2)

    def _listen(self, client: httpx.Client) -> None:
        answer = client.get(f"{self._listener}/deliveries", params={"after": self._after}).raise_for_status().json()
        self._after = answer["next"]
        for delivery in answer["deliveries"]:
            if delivery["path"] != self._path or delivery["status"] != HTTPStatus.OK:
                continue
            document = json.loads(base64.b64decode(delivery["body"]))
            earlier = self._heard.setdefault(document["event_id"], document)
            if earlier != document:
                different = [key for key in document if document[key] != earlier.get(key)]
                self.wrong.append(f"{document['topic']} came twice under an id, with another {', '.join(different)}")

    def _missing(self) -> list[str]:
        heard = self._ids_by_body()
        announced = {
            document["command_event"]["command_uuid"]
            for document in self._heard.values()
            if "command_event" in document
        }
        with self._lock:
            missing = []
            for body, times in self._answered.items():
                needed = 1 if _is_one_event(plistlib.loads(body)) else times
                if len(heard.get(body, ())) < needed:
                    missing.append(f"lost: {needed - len(heard.get(body, ()))} event(s) of {_told(body)}")
            return missing + [f"lost: mdm.CommandQueued of {uuid}" for uuid in sorted(self._commands - announced)]

    def _doubled(self) -> list[str]:
        return [
            f"doubled: {_told(body)} is {len(ids)} events"
            for body, ids in self._ids_by_body().items()
            if len(ids) > 1 and _is_one_event(plistlib.loads(body))
        ]

    def _ids_by_body(self) -> Mapping[bytes, set[str]]:
        found: dict[bytes, set[str]] = defaultdict(set)
        for id_, document in self._heard.items():
            part = document.get("acknowledge_event") or document.get("checkin_event")
            if part:
                found[base64.b64decode(part["raw_payload"])].add(id_)
        return found

    def hears(self, topic: str, *, seconds: float, **part: Any) -> bool:
        """Wait until an event of a topic was heard of whose part says all of ``part``; return whether it was."""
        deadline = time.monotonic() + seconds
        with httpx.Client(trust_env=False, timeout=30) as client:
            while True:
                self._listen(client)
                if self.heard(topic, **part):
                    return True
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)

    def heard(self, topic: str, **part: Any) -> Iterable[str]:
        """Return the ids of the events of a topic whose part says all of ``part``."""
        return [
            id_
            for id_, document in self._heard.items()
            if document["topic"] == topic
            and any(isinstance(one, dict) and part.items() <= one.items() for one in document.values())
        ]


def _is_one_event(message: Mapping[str, Any]) -> bool:
    if "MessageType" in message:
        return message["MessageType"] in _ONE_EVENT
    return message["Status"] not in {"Idle", "NotNow"}


def _told(body: bytes) -> str:
    message = plistlib.loads(body)
    words = [message.get("MessageType") or message.get("Status"), message.get("CommandUUID"), message.get("UDID")]
    return " ".join(filter(None, words))

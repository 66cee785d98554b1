"""Apple's rules for a push, as its documentation of the provider API tells them, applied in one place.

``judge`` looks at a request as APNs does: certificate, path, headers, payload, token. Where Apple leaves room (it
tolerates upper-case UUIDs, or no topic with a certificate of one topic), the stricter reading is taken.
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from local.apns.devices import Device, Devices, Push

MAX_PAYLOAD_BYTES: Final = 4096

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TOPIC: Final = re.compile(r"com\.apple\.mgmt\.[A-Za-z0-9.-]+")
_TOKEN: Final = re.compile(r"([0-9a-f]{2})+")


@dataclass(frozen=True)
class Request:
    """A request as it came: header fields in order, the body, and what the client's certificate says."""

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    certificate_topic: str | None
    """The UID of the certificate; None when the client presented none."""
    certificate_revoked: bool = False


@dataclass(frozen=True)
class Answer:
    """What APNs answers, and what it does."""

    status: int
    reason: str | None = None
    timestamp: int | None = None
    retry_after: int | None = None
    apns_id: str | None = None
    device: Device | None = None
    push: Push | None = None
    violation: str | None = None
    """What APNs would not notice, but a device."""

    def headers(self) -> list[tuple[str, str]]:
        """Return the response's header fields."""
        headers = [(":status", str(self.status))]
        if self.apns_id:
            headers.append(("apns-id", self.apns_id))
        if self.retry_after is not None:
            headers.append(("retry-after", str(self.retry_after)))
        return headers

    def body(self) -> bytes:
        """Return the response's body: empty for an accepted push, else the reason."""
        if self.reason is None:
            return b""
        document: dict[str, object] = {"reason": self.reason}
        if self.timestamp is not None:
            document["timestamp"] = self.timestamp
        return json.dumps(document).encode()


class RefusedError(Exception):
    """APNs refuses the request."""

    def __init__(self, status: int, reason: str, timestamp: int | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.timestamp = status, reason, timestamp


def judge(request: Request, devices: Devices) -> Answer:
    """Decide about a request; nothing is done yet."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
    apns_id = headers.get("apns-id") or str(uuid4())
    try:
        _check_certificate(request)
        _check_request_line(headers)
        expiration = _check_headers(request, headers)
        _check_payload_size(request.body)
        device = _find_device(headers, devices)
    except RefusedError as refused:
        return Answer(refused.status, refused.reason, refused.timestamp, apns_id=apns_id)
    if violation := _what_the_device_minds(request.body, device):
        return Answer(200, apns_id=apns_id, violation=violation)
    return Answer(200, apns_id=apns_id, device=device, push=Push(apns_id, time.time(), expiration))


def _check_certificate(request: Request) -> None:
    if request.certificate_topic is None:
        raise RefusedError(403, "MissingProviderToken")
    if request.certificate_revoked:
        raise RefusedError(403, "BadCertificate")


def _check_request_line(headers: dict[str, str]) -> None:
    path = headers.get(":path", "")
    if not path.startswith("/3/device"):
        raise RefusedError(404, "BadPath")
    if headers.get(":method") != "POST":
        raise RefusedError(405, "MethodNotAllowed")
    if path.rstrip("/") == "/3/device":
        raise RefusedError(400, "MissingDeviceToken")


def _check_headers(request: Request, headers: dict[str, str]) -> int | None:
    if len(headers) != len(request.headers):
        raise RefusedError(400, "DuplicateHeaders")
    if "apns-id" in headers and not _UUID.fullmatch(headers["apns-id"]):
        raise RefusedError(400, "BadMessageId")
    if headers.get("apns-push-type") != "mdm":
        raise RefusedError(400, "InvalidPushType")
    if headers.get("apns-priority", "10") not in {"1", "5", "10"}:
        raise RefusedError(400, "BadPriority")
    if len(headers.get("apns-collapse-id", "").encode()) > 64:  # noqa: PLR2004 - Apple's number, used once
        raise RefusedError(400, "BadCollapseId")
    expiration = headers.get("apns-expiration")
    if expiration is not None and not (expiration.isdecimal() and len(expiration) <= len("4294967295")):
        raise RefusedError(400, "BadExpirationDate")
    topic = headers.get("apns-topic")
    if not topic:
        raise RefusedError(400, "MissingTopic")
    if not _TOPIC.fullmatch(topic):
        raise RefusedError(400, "BadTopic")
    if topic != request.certificate_topic:
        raise RefusedError(400, "TopicDisallowed")
    return None if expiration is None else int(expiration)


def _check_payload_size(body: bytes) -> None:
    if not body:
        raise RefusedError(400, "PayloadEmpty")
    if len(body) > MAX_PAYLOAD_BYTES:
        raise RefusedError(413, "PayloadTooLarge")


def _find_device(headers: dict[str, str], devices: Devices) -> Device:
    token = headers[":path"].removeprefix("/3/device/")
    device = devices.get(token) if _TOKEN.fullmatch(token) else None
    if device is None:
        raise RefusedError(400, "BadDeviceToken")
    if device.topic != headers["apns-topic"]:
        raise RefusedError(400, "DeviceTokenNotForTopic")
    if device.unregistered_at is not None:
        raise RefusedError(410, device.unregistered_reason, device.unregistered_at)
    return device


def _what_the_device_minds(body: bytes, device: Device) -> str | None:
    try:
        payload = json.loads(body)
    except ValueError:
        return "the payload is not JSON"
    if not isinstance(payload, dict) or payload.keys() != {"mdm"} or not isinstance(payload["mdm"], str):
        return 'the payload is not exactly {"mdm": <magic>}'
    if payload["mdm"] != device.magic:
        return "the magic is not the device's"
    return None

"""What a person is shown of what went over the wire."""

import re
from collections.abc import Mapping
from typing import Any

from local.device import Command, Exchange, ProtocolViolation
from local.progress import Message


def seen_exchange(exchange: Exchange, device: str) -> Message:
    """Return what a person is shown of a device's request."""
    return Message(
        sender=device,
        receiver="PicoMDM",
        what=f"{exchange.method} {_shortened(exchange.path)}",
        note=_meaning(exchange),
        status=exchange.status,
        sent=len(exchange.request_body),
        received=len(exchange.response_body),
        milliseconds=exchange.milliseconds,
    )


def _meaning(exchange: Exchange) -> str:
    """Return what a message says and which command it is answered with, in Apple's words."""
    if exchange.method != "PUT":
        return ""
    try:
        given = Command.decode(exchange.response_body).request_type if exchange.response_body else ""
    except ProtocolViolation:
        return exchange.what
    return f"{exchange.what}, is given {given}" if given else exchange.what


def seen_push(push: Mapping[str, Any]) -> Message:
    """Return what a person is shown of a request to APNs."""
    return Message(
        sender="PicoMDM",
        receiver="Apple",
        what=f"POST /3/device/{push['token'][:8]}…",
        note="HTTP/2, with the topic's certificate",
        status=push["status"],
    )


def _shortened(path: str) -> str:
    """Leave out what is secret or long: an enrollment link's token, a SCEP message in the query."""
    path = re.sub(r"(/mdm/enroll/.{6})[^?]*", r"\1…", path)
    return re.sub(r"(message=.{6})[^&]*", r"\1…", path)

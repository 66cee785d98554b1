"""Declarative management as a device does it: it asks for tokens, items and declarations, and reports its status.

Apple's pages: TokensResponse, DeclarationItemsResponse and StatusReport. Each channel has declarations of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, Self

from local.device import answers
from local.device.enrollment import Reply
from local.device.errors import ProtocolViolation, ServerRefused
from local.device.hardware import Hardware

CHECK_IN: Final = "DeclarativeManagement"

KINDS: Final[Mapping[str, str]] = {
    "Activations": "activation",
    "Configurations": "configuration",
    "Assets": "asset",
    "Management": "management",
}
"""The lists of a manifest, and what a device asks for one of each as."""

MAX_IDENTIFIER_OCTETS: Final = 64
MAX_SERVER_TOKEN_OCTETS: Final = 64
MAX_DECLARATIONS_TOKEN_OCTETS: Final = 256

_ATTEMPTS: Final = 3
"""How often tokens and items may contradict each other, because the server's declarations change meanwhile."""

_SUBSCRIPTIONS: Final = "com.apple.configuration.management.status-subscriptions"

Key = tuple[str, str]
"""A kind (a value of :data:`KINDS`) and an identifier."""


class CheckIn(Protocol):
    """Sends a check-in message of the channel."""

    def __call__(self, message_type: str, **fields: Any) -> Reply:  # noqa: ANN401  # any property list
        """Send it; raises as :meth:`local.device.enrollment.Enrollment.check_in` does."""


@dataclass(frozen=True)
class SyncTokens:
    """What tells a device whether its declarations are those that it should have."""

    declarations_token: str
    timestamp: datetime

    @classmethod
    def decode(cls, data: bytes, *, what: str) -> Self:
        """Read a TokensResponse. Raises :class:`~local.device.errors.ProtocolViolation`."""
        match _object(data, what):
            case {"SyncTokens": {"DeclarationsToken": str(token), "Timestamp": str(timestamp)}}:
                pass
            case _:
                raise ProtocolViolation(what, "There are no SyncTokens with a DeclarationsToken and a Timestamp.")
        try:
            at = datetime.fromisoformat(timestamp)
        except ValueError as error:
            raise ProtocolViolation(what, f"The Timestamp {timestamp!r} is none.") from error
        if at.tzinfo is None:
            raise ProtocolViolation(what, f"The Timestamp {timestamp!r} has no time zone.")
        return cls(_sized(token, "DeclarationsToken", MAX_DECLARATIONS_TOKEN_OCTETS, what), at)


@dataclass(frozen=True)
class Manifest:
    """The declarations that a device should have, with their ServerTokens."""

    declarations_token: str
    server_tokens: Mapping[Key, str]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a DeclarationItemsResponse. Raises :class:`~local.device.errors.ProtocolViolation`."""
        what = "declaration-items"
        match _object(data, what):
            case {"Declarations": dict(lists), "DeclarationsToken": str(token)}:
                pass
            case _:
                raise ProtocolViolation(what, "There are no Declarations with a DeclarationsToken.")
        if unknown := lists.keys() - KINDS.keys():
            raise ProtocolViolation(what, f"There are no declarations called {sorted(unknown)}.")
        items: dict[Key, str] = {}
        for name, kind in KINDS.items():
            declared = lists.get(name)
            # Apple's schema requires all four, also when they are empty.
            if not isinstance(declared, list):
                raise ProtocolViolation(what, f"{name} is no array.")
            for item in declared:
                match item:
                    case {"Identifier": str(identifier), "ServerToken": str(server_token)}:
                        pass
                    case _:
                        raise ProtocolViolation(what, f"{item!r} of {name} has no Identifier or no ServerToken.")
                key = kind, _sized(identifier, "Identifier", MAX_IDENTIFIER_OCTETS, what)
                if any(known == identifier for _, known in items):
                    raise ProtocolViolation(what, f"{identifier} stands twice.")
                items[key] = _sized(server_token, "ServerToken", MAX_SERVER_TOKEN_OCTETS, what)
        return cls(_sized(token, "DeclarationsToken", MAX_DECLARATIONS_TOKEN_OCTETS, what), items)


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A declaration as the server sent it."""

    kind: str
    identifier: str
    server_token: str
    type: str
    payload: Mapping[str, Any] = field(repr=False)

    @classmethod
    def decode(cls, data: bytes, key: Key, server_token: str) -> Self:
        """Read the declaration that was asked for. Raises :class:`~local.device.errors.ProtocolViolation`."""
        what = "declaration"
        kind, identifier = key
        match _object(data, what):
            case {"Type": str(type_), "Identifier": str(named), "ServerToken": str(token), "Payload": dict(payload)}:
                pass
            case _:
                raise ProtocolViolation(what, f"{identifier} has no Type, Identifier, ServerToken or Payload.")
        if named != identifier:
            raise ProtocolViolation(what, f"{identifier} was asked for, and {named} came.")
        if token != server_token:
            raise ProtocolViolation(what, f"The ServerToken of {identifier} is not the one of the manifest.")
        if not type_.startswith(f"com.apple.{kind}."):
            raise ProtocolViolation(what, f"{identifier} is a {type_}, and no {kind}.")
        return cls(kind=kind, identifier=identifier, server_token=token, type=type_, payload=payload)


class DeclarativeClient:
    """The declarations of one channel. Off until the first command, and then never off again.

    ``identifies`` says whether the server may know the device again, as no User Enrollment does.
    """

    is_on: bool
    declarations_token: str | None
    declarations: dict[Key, Declaration]
    reports: list[dict[str, Any]]
    """The status reports that the server took."""

    def __init__(self, check_in: CheckIn, hardware: Hardware, *, identifies: bool = True) -> None:
        self._check_in = check_in
        self._hardware = hardware
        self._identifies = identifies
        self.forget()

    def forget(self) -> None:
        """Be as before the first command: a new enrollment knows nothing of the declarations of the one before."""
        self.is_on = False
        self.declarations_token = None
        self.declarations = {}
        self.reports = []

    def synchronize(self, tokens: bytes | None = None) -> None:
        """Do what a DeclarativeManagement command asks for; ``tokens`` is its ``Data``.

        Raises what a check-in raises, and :class:`~local.device.errors.ProtocolViolation`.
        """
        first = not self.is_on
        self.is_on = True
        known = SyncTokens.decode(tokens, what="Data") if tokens is not None else self._ask_for_tokens()
        if known.declarations_token == self.declarations_token:
            return
        manifest = self._ask_for_items(known)
        fetched = {
            key: self._fetch(key, server_token)
            for key, server_token in manifest.server_tokens.items()
            if key not in self.declarations or self.declarations[key].server_token != server_token
        }
        kept = {key: one for key, one in self.declarations.items() if key in manifest.server_tokens}
        self.declarations = kept | fetched
        self.declarations_token = manifest.declarations_token
        self.report_status(full=first)

    def report_status(self, *, full: bool = False) -> None:
        """Send a status report, as after a change, or a ``full`` one as once a day."""
        report = self.status_report(full=full)
        reply = self._check_in(CHECK_IN, Endpoint="status", Data=json.dumps(report).encode())
        answers.nothing("status", reply)
        self.reports.append(report)

    def status_report(self, *, full: bool) -> dict[str, Any]:
        """Return what there is to report (Apple: StatusReport)."""
        states: dict[str, list[dict[str, Any]]] = {name.lower(): [] for name in KINDS}
        for name, kind in KINDS.items():
            states[name.lower()] = [self._state(one) for one in self.declarations.values() if one.kind == kind]
        management: dict[str, Any] = {"declarations": states}
        if full:
            management["client-capabilities"] = {
                "supported-versions": ["1.0.0"],
                "supported-features": {},
                "supported-payloads": {"declarations": {}, "status-items": []},
            }
        items: dict[str, Any] = {"management": management, **self._subscribed()}
        return {"StatusItems": items, "Errors": []} | ({"FullReport": True} if full else {})

    def _ask_for_tokens(self) -> SyncTokens:
        reply = self._check_in(CHECK_IN, Endpoint="tokens")
        return SyncTokens.decode(_json("tokens", reply), what="tokens")

    def _ask_for_items(self, tokens: SyncTokens) -> Manifest:
        for _ in range(_ATTEMPTS):
            manifest = Manifest.decode(
                _json("declaration-items", self._check_in(CHECK_IN, Endpoint="declaration-items"))
            )
            if manifest.declarations_token == tokens.declarations_token:
                return manifest
            tokens = self._ask_for_tokens()
        raise ProtocolViolation("DeclarationsToken", "That of the items is never that of the tokens.")

    def _fetch(self, key: Key, server_token: str) -> Declaration:
        try:
            reply = self._check_in(CHECK_IN, Endpoint="/".join(("declaration", *key)))
        except ServerRefused as refused:
            if refused.passing:
                raise
            raise ProtocolViolation("declaration", f"{key[1]} is in the manifest; {refused}.") from refused
        return Declaration.decode(_json("declaration", reply), key, server_token)

    def _state(self, one: Declaration) -> dict[str, Any]:
        reasons = []
        active = one.kind != "management"
        if one.kind == "activation":
            wanted = one.payload.get("StandardConfigurations", [])
            if missing := [each for each in wanted if ("configuration", each) not in self.declarations]:
                active = False
                reasons = [{"code": "Error.MissingConfigurations", "details": {"Identifiers": missing}}]
        elif one.kind == "configuration":
            active = one.identifier in self._activated()
        state: dict[str, Any] = {
            "identifier": one.identifier,
            "server-token": one.server_token,
            "active": active,
            "valid": "invalid" if reasons else "valid",
        }
        return state | ({"reasons": reasons} if reasons else {})

    def _activated(self) -> set[str]:
        activations = [one for one in self.declarations.values() if one.kind == "activation"]
        return {each for one in activations for each in one.payload.get("StandardConfigurations", [])}

    def _subscribed(self) -> dict[str, Any]:
        """Return the status items that active configurations subscribe to, nested as their names are."""
        hardware = self._hardware
        identifiers = {
            "device.identifier.serial-number": hardware.serial_number,
            "device.identifier.udid": hardware.udid,
        }
        known = (identifiers if self._identifies else {}) | {
            "device.model.family": hardware.model_family,
            "device.model.identifier": hardware.product_name,
            "device.operating-system.version": hardware.os_version,
            "device.operating-system.build-version": hardware.build_version,
        }
        names = {
            item["Name"]
            for one in self.declarations.values()
            if one.type == _SUBSCRIPTIONS and one.identifier in self._activated()
            for item in one.payload.get("StatusItems", [])
        }
        found: dict[str, Any] = {}
        for name in names & known.keys():
            *path, last = name.split(".")
            inner = found
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = known[name]
        return found


def _json(what: str, reply: Reply) -> bytes:
    if reply.content_type != "application/json":
        raise ProtocolViolation("Content-Type", f"That of {what} is {reply.content_type!r}, not application/json.")
    return reply.body


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise ProtocolViolation(what, "The answer is no JSON.") from error
    if not isinstance(document, dict):
        raise ProtocolViolation(what, "The answer is no object.")
    return document


def _sized(text: str, name: str, longest: int, what: str) -> str:
    if not 0 < len(text.encode()) <= longest:
        raise ProtocolViolation(what, f"The {name} {text!r} has not between 1 and {longest} octets.")
    return text

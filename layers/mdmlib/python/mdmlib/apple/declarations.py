"""Declarative management: what a device is told of its declarations, and what it reports on them.

Apple's pages: TokensResponse, DeclarationItemsResponse and StatusReport under
https://developer.apple.com/documentation/devicemanagement/declarative-management. All documents are JSON.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from mdmlib.errors import MalformedBodyError

KINDS: Final[Mapping[str, str]] = {
    "activation": "Activations",
    "asset": "Assets",
    "configuration": "Configurations",
    "management": "Management",
}
"""What there are declarations of, as a device asks for one; the values are the keys of the items' lists."""

_MAX_DEPTH: Final = 64


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One declaration as a device gets it."""

    kind: str
    """A key of :data:`KINDS`."""
    identifier: str
    server_token: str
    """Changes whenever ``body`` does."""
    body: bytes = field(repr=False)
    """The JSON of the whole declaration, ``ServerToken`` included."""


class DeclarationSet:
    """The declarations of one enrollment. The same declarations in another order are the same set."""

    def __init__(self, declarations: Iterable[Declaration] = ()) -> None:
        self._declarations = sorted(declarations, key=lambda one: (one.kind, one.identifier))

    @property
    def token(self) -> str:
        """The ``DeclarationsToken``: a digest of what is in the set, so that no change means no synchronization."""
        content = [[one.kind, one.identifier, one.server_token] for one in self._declarations]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def tokens_response(self, changed_at: datetime) -> bytes:
        """Return the answer to ``tokens``."""
        timestamp = changed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json({"SyncTokens": {"DeclarationsToken": self.token, "Timestamp": timestamp}})

    def items_response(self) -> bytes:
        """Return the answer to ``declaration-items``: all four lists, also when they are empty."""
        lists: dict[str, list[dict[str, str]]] = {name: [] for name in KINDS.values()}
        for one in self._declarations:
            lists[KINDS[one.kind]].append({"Identifier": one.identifier, "ServerToken": one.server_token})
        return _json({"Declarations": lists, "DeclarationsToken": self.token})

    def find(self, kind: str, identifier: str) -> Declaration | None:
        """Return a declaration; one of another kind with this identifier is another."""
        wanted = (kind, identifier)
        return next((one for one in self._declarations if (one.kind, one.identifier) == wanted), None)


def decode_status_report(data: bytes) -> dict[str, Any]:
    """Decode a status report: an object with ``StatusItems``, an object, and ``Errors``, a list, if they are there.

    Raises :class:`~mdmlib.errors.MalformedBodyError` for anything else; a device must not be told to send it again.
    """
    try:
        report = json.loads(data, parse_constant=_finite, parse_float=_finite)
        _check_depth(report)
    except (ValueError, RecursionError):
        raise MalformedBodyError("The status report is no JSON.", field="Data") from None
    if not isinstance(report, dict):
        raise MalformedBodyError("The status report is no object.", field="Data")
    for key, kind in (("StatusItems", dict), ("Errors", list)):
        if not isinstance(report.get(key, kind()), kind):
            raise MalformedBodyError(f"The status report's {key} are of the wrong type.", field="Data")
    return report


def _finite(text: str) -> float:
    number = float(text)
    # The report goes on as JSON, which knows no infinity.
    if not math.isfinite(number):
        raise ValueError
    return number


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, depth + 1)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

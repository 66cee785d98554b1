"""Property lists as JSON, for people and programs that have no decoder: bytes in base64, dates as RFC 3339."""

import json
from base64 import b64encode
from datetime import datetime
from math import isfinite
from typing import Any, Final

from mdmlib.apple import plist
from mdmlib.errors import BadRequestError

MAX_CHARACTERS: Final = 3 * 1024 * 1024
"""A report may be longer as JSON than it was: what is longer than an answer holds is not written out."""


def readable(raw: bytes) -> dict[str, Any] | None:
    """Return what a plist holds, or None of one that cannot be read, or that is too long when it is written out."""
    try:
        document: dict[str, Any] = _as_json(plist.loads(raw))
    except BadRequestError:
        return None
    return document if len(json.dumps(document)) <= MAX_CHARACTERS else None


def _as_json(value: Any) -> Any:  # noqa: ANN401 - any of a plist's types, any of JSON's
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_json(one) for one in value]
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and not isfinite(value):
        return str(value)  # JSON has no such numbers.
    return value

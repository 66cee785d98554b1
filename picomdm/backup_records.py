"""What the file of a back-up has: an item, a rule, an object a record."""

import base64
from collections.abc import Mapping
from typing import Any, Final

from picomdm.archive import Record

KEYS: Final = {"enrollment": ("enrollment_id", "item"), "resource": ("collection", "name")}
RECORD: Final = "!"
COUNTED: Final = frozenset({"item", "rule", "object"})
OWN_BUSINESS: Final = frozenset({"schedule", "measurement"})
"""Collections that say how a deployment does; another one does as it does."""


def counted(record: Record) -> str:
    """Return what a record is counted as."""
    if record["kind"] != "item":
        return {"rule": "webhook rules", "object": "objects"}[record["kind"]]
    if record["table"] == "resource":
        return "resources"
    item = record["item"]
    of_enrollment = item["item"]["S"] == RECORD and "#" not in item["enrollment_id"]["S"]
    return "enrollments" if of_enrollment else "items"


def said(counts: Mapping[str, int]) -> str:
    """Return counts in words."""
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "nothing"


def encoded(value: Any) -> Any:  # noqa: ANN401 - any of DynamoDB's
    """Return an item, or a part of it, as JSON can have it; its types tell what was bytes."""
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: encoded(each) for name, each in value.items()}
    return [encoded(each) for each in value] if isinstance(value, list) else value


def decoded(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return an item as DynamoDB has it."""
    return {name: _decoded_value(value) for name, value in item.items()}


def _decoded_value(value: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind:
        case "B":
            content = base64.b64decode(content)
        case "BS":
            content = [base64.b64decode(each) for each in content]
        case "M":
            content = decoded(content)
        case "L":
            content = [_decoded_value(each) for each in content]
    return {kind: content}

"""What a device's reports add to its record.

Its answer to DeviceInformation is the only message that tells of an update; that it is configured, its report says.
"""

from collections.abc import Mapping
from typing import Final

from mdmlib.apple.command_report import ACKNOWLEDGED, CommandReport
from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from mdmlib.store.transactions import Update

_TEXTS: Final[Mapping[str, str]] = {
    "BuildVersion": "build_version",
    "DeviceName": "device_name",
    "Model": "model",
    "ModelName": "model_name",
    "OSVersion": "os_version",
    "ProductName": "product_name",
}
_MAX_TEXT: Final = 256
_CONFIGURED: Final = frozenset({"DeviceConfigured", "UserConfigured"})
"""They end the wait in Setup Assistant, of a device or of somebody on a Shared iPad."""


def device_facts(record: Enrollment, report: CommandReport, request_type: str) -> dict[str, str | bool]:
    """Return what a report says that the record does not say yet, by the names of its attributes."""
    if request_type in _CONFIGURED and report.status == ACKNOWLEDGED and record.awaiting_configuration:
        return {"awaiting_configuration": False}
    if request_type != "DeviceInformation" or report.status != ACKNOWLEDGED or record.parent_id:
        return {}
    answers = report.fields.get("QueryResponses")
    if not isinstance(answers, Mapping):
        return {}
    told = {name: answers[key] for key, name in _TEXTS.items() if _is_text(answers.get(key))}
    if isinstance(answers.get("IsSupervised"), bool):
        told["is_supervised"] = answers["IsSupervised"]
    if isinstance(answers.get("AwaitingConfiguration"), bool):
        told["awaiting_configuration"] = answers["AwaitingConfiguration"]
    return {name: value for name, value in told.items() if value != getattr(record, name)}


def bring_up_to_date(record: Enrollment, facts: Mapping[str, str | bool]) -> list[Update]:
    """Return the write that puts facts into the record, to go with the report's own; none when there are none.

    What is written is of this generation of the enrollment alone: a report that comes late must not tell of the device
    that was there before.
    """
    if not facts:
        return []
    actions = [getattr(Enrollment, name).set(value) for name, value in facts.items()]
    unchanged = Enrollment.generation == record.generation
    return [Update("record", Enrollment(record.enrollment_id, tables.RECORD), actions, unchanged)]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()

"""What a device's answer to DeviceInformation adds to its record: it is the only message that tells of an update."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mdmlib.apple.command_report import ACKNOWLEDGED, CommandReport
from mdmlib.store import tables
from mdmlib.store.tables import Enrollment
from mdmlib.store.transactions import Update

if TYPE_CHECKING:
    from pynamodb.attributes import UnicodeAttribute
    from pynamodb.expressions.update import Action

_TEXTS: Final[Mapping[str, "UnicodeAttribute"]] = {
    "BuildVersion": Enrollment.build_version,
    "DeviceName": Enrollment.device_name,
    "Model": Enrollment.model,
    "ModelName": Enrollment.model_name,
    "OSVersion": Enrollment.os_version,
    "ProductName": Enrollment.product_name,
}
_MAX_TEXT: Final = 256


def device_facts(record: Enrollment, report: CommandReport, request_type: str) -> list[Update]:
    """Return the write that brings the record up to date, to go with the report's own; none when it says nothing new.

    What is written is of this generation of the enrollment alone: a report that comes late must not tell of the device
    that was there before.
    """
    if request_type != "DeviceInformation" or report.status != ACKNOWLEDGED or record.parent_id:
        return []
    answers = report.fields.get("QueryResponses")
    if not isinstance(answers, Mapping):
        return []
    actions: list[Action] = [
        attribute.set(answers[key])
        for key, attribute in _TEXTS.items()
        if _is_text(answers.get(key)) and answers[key] != getattr(record, str(attribute.attr_name))
    ]
    supervised: Any = answers.get("IsSupervised")
    if isinstance(supervised, bool) and supervised != record.is_supervised:
        actions.append(Enrollment.is_supervised.set(supervised))
    if not actions:
        return []
    unchanged = Enrollment.generation == record.generation
    return [Update("record", Enrollment(record.enrollment_id, tables.RECORD), actions, unchanged)]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT and value.isprintable()

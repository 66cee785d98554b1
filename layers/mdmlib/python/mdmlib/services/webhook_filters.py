"""Which events a subscription is about, and the pattern of the event bus that says so.

An event has to pass every filter that is set. What lacks the field that a filter looks at does not pass: with
``statuses`` nothing comes but ``mdm.Connect``, for nothing else has a status.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from mdmlib.apple.command_report import MAX_STATUS_LENGTH
from mdmlib.apple.enrollment_id import EnrollmentType
from mdmlib.errors import BadRequestError
from mdmlib.services.events import SOURCE
from mdmlib.store.tables import WebhookSubscription

MAX_PATTERN: Final = 2_048
"""Characters of a rule's pattern: EventBridge takes no more unless AWS was asked."""

_MAX_VALUES: Final = 50
_TOPIC: Final = re.compile(r"[A-Za-z]+\.(?:[A-Za-z0-9]+|\*)")
_WORD: Final = re.compile(rf"[A-Za-z][A-Za-z0-9]{{0,{MAX_STATUS_LENGTH - 1}}}")

# What each part of a document can be filtered by. A command is queued for many enrollments of several types at once.
_FILTERED_PARTS: Final[Mapping[str, Collection[str]]] = {
    "acknowledge_event": ("enrollment_type", "request_type", "status"),
    "checkin_event": ("enrollment_type",),
    "command_event": ("request_type",),
    "device_event": ("enrollment_type",),
    "identity_event": ("enrollment_type",),
    "push_event": ("enrollment_type",),
    "stale_event": ("enrollment_type",),
    "status_event": ("enrollment_type",),
}


@dataclass(frozen=True, kw_only=True)
class WebhookFilter:
    """A subscription's filters; None lets everything pass."""

    topics: Sequence[str] | None = None
    """``mdm.Connect``, or a whole family: ``dep.*``."""
    enrollment_types: Sequence[str] | None = None
    request_types: Sequence[str] | None = None
    statuses: Sequence[str] | None = None

    @classmethod
    def checked(cls, asked: Mapping[str, Collection[str] | None]) -> Self:
        """Return a filter as an administrator asked for it, its values in one order and once each.

        Raises :class:`~mdmlib.errors.BadRequestError`, whose ``field`` is the filter that is wrong.
        """
        wanted = cls(**{name: _sorted(name, values) for name, values in asked.items()})
        for topic in wanted.topics or ():
            if not _TOPIC.fullmatch(topic):
                raise BadRequestError(f"{topic!r} is no topic, such as mdm.Connect or dep.*.", field="topics")
        for enrollment_type in wanted.enrollment_types or ():
            if enrollment_type not in set(EnrollmentType):
                known = ", ".join(EnrollmentType)
                raise BadRequestError(
                    f"{enrollment_type!r} is no type of enrollments; there are: {known}.", field="enrollment_types"
                )
        for name, example in (("request_types", "DeviceInformation"), ("statuses", "Acknowledged")):
            for value in getattr(wanted, name) or ():
                if not _WORD.fullmatch(value):
                    raise BadRequestError(f"{value!r} is none of Apple's words, such as {example}.", field=name)
        if len(json.dumps(wanted.pattern())) > MAX_PATTERN:
            raise BadRequestError(
                f"These filters are too long together: EventBridge takes {MAX_PATTERN} characters. "
                "Name families (mdm.*), or make two subscriptions."
            )
        return wanted

    @classmethod
    def of(cls, subscription: WebhookSubscription) -> Self:
        """Return the filter of a stored subscription."""
        return cls(**{name: getattr(subscription, name) for name in FILTERS})

    def values(self) -> dict[str, Sequence[str] | None]:
        """Return the filters by their names."""
        return {name: getattr(self, name) for name in FILTERS}

    def pattern(self) -> dict[str, Any]:
        """Return the pattern of the subscription's rule."""
        pattern: dict[str, Any] = {"source": [SOURCE]}
        if self.topics:
            pattern["detail-type"] = [{"prefix": topic[:-1]} if topic.endswith("*") else topic for topic in self.topics]
        if self._by_field():
            alternatives = self._alternatives()
            pattern["detail"] = {"$or": alternatives} if len(alternatives) > 1 else alternatives[0]
        return pattern

    def _by_field(self) -> dict[str, Sequence[str]]:
        filters = {
            "enrollment_type": self.enrollment_types,
            "request_type": self.request_types,
            "status": self.statuses,
        }
        return {name: values for name, values in filters.items() if values}

    def _alternatives(self) -> list[dict[str, Any]]:
        """Return what an event's document has to look like, for each part that has all that is looked at."""
        by_field = self._by_field()
        wanted = {name: list(values) for name, values in by_field.items()}
        return [{part: wanted} for part, known in _FILTERED_PARTS.items() if set(by_field) <= set(known)]


FILTERS: Final = tuple(field.name for field in fields(WebhookFilter))
"""The names of the filters, in the API and in the item."""


def _sorted(name: str, values: Collection[str] | None) -> list[str] | None:
    if values is None:
        return None
    wanted = sorted(set(values))
    if not 0 < len(wanted) <= _MAX_VALUES:
        raise BadRequestError(f"Name between 1 and {_MAX_VALUES} {name}, or none at all for all.", field=name)
    return wanted

"""What administrators say of devices, by serial number: tags, which blueprints look at, and values of variables.

Both can be said before a device enrolls, and stay when it enrolls again.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pynamodb.exceptions import DoesNotExist

from mdmlib.errors import BadRequestError, NotFoundError
from mdmlib.services.enrollments import Page
from mdmlib.store.sealing import Sealer
from mdmlib.store.tables import DeviceAttributes

COLLECTION: Final = "device_attributes"

MAX_TAGS: Final = 50
MAX_VALUES: Final = 100
MAX_VALUE: Final = 4_000
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""Of a value: ``{{values.asset_tag}}`` is a variable."""

MAX_LISTED: Final = 100
_EXAMINED: Final = 1_000
_ROOM: Final = 1_000_000
"""Characters of values in a page, and those of one device more: an answer of Lambda has at most 6 MB."""

_TAG: Final = re.compile(r"[\w][\w .:@/-]{0,99}")
_MAX_SERIAL: Final = 200


@dataclass(frozen=True)
class Attributes:
    """What is said of a device."""

    serial_number: str
    tags: frozenset[str] = frozenset()
    values: Mapping[str, str] = field(default_factory=dict, repr=False)


class DeviceAttributeStore:
    """The attributes of devices."""

    def __init__(
        self,
        *,
        sealer: Sealer,
        now: Callable[[], datetime],
        on_change: Callable[[Attributes], None] = lambda _said: None,
    ) -> None:
        """``on_change`` is told what was said of a device; twice, when it is said twice."""
        self._sealer = sealer
        self._now = now
        self._on_change = on_change

    def put(self, serial_number: str, *, tags: Collection[str], values: Mapping[str, object]) -> Attributes:
        """Say it, in place of what was said before. Raises :class:`~mdmlib.errors.BadRequestError`."""
        if not 0 < len(serial_number) <= _MAX_SERIAL or not serial_number.isprintable():
            raise BadRequestError("That is no serial number.", code="invalid_field", field="serial_number")
        if len(tags) > MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
            raise BadRequestError(
                f"tags are at most {MAX_TAGS} texts of letters, digits, blanks and . : @ / - _.",
                code="invalid_field",
                field="tags",
            )
        checked = {name: _value(name, value) for name, value in values.items()}
        if len(checked) > MAX_VALUES:
            raise BadRequestError(f"There are at most {MAX_VALUES} values.", code="invalid_field", field="values")
        item = DeviceAttributes(
            COLLECTION, serial_number, tags=sorted(set(tags)) or None, changed_at=int(self._now().timestamp())
        )
        if checked:
            item.values = self._sealer.seal(json.dumps(checked).encode(), place=_place(serial_number))
        item.save()
        said = self._opened(item)
        self._on_change(said)
        return said

    def find(self, serial_number: str | None) -> Attributes:
        """Return what is said of a device; of an unknown one nothing is."""
        if serial_number and len(serial_number) <= _MAX_SERIAL:
            try:
                return self._opened(DeviceAttributes.get(COLLECTION, serial_number, consistent_read=True))
            except DoesNotExist:
                pass
        return Attributes(serial_number or "")

    def get(self, serial_number: str) -> Attributes:
        """Return what is said of a device. Raises :class:`~mdmlib.errors.NotFoundError` when nothing is."""
        found = self.find(serial_number)
        if not found.tags and not found.values:
            raise NotFoundError("Nothing is said of that serial number.", code="unknown_serial_number")
        return found

    def list(self, *, tag: str | None = None, limit: int = MAX_LISTED, after: str = "") -> Page[Attributes]:
        """Return a page of what is said of all devices, or of those with a tag, by serial number."""
        found: list[Attributes] = []
        room = _ROOM
        behind = DeviceAttributes.name > after if after else None
        items = DeviceAttributes.query(COLLECTION, behind, consistent_read=True, page_size=MAX_LISTED)
        for examined, item in enumerate(items, start=1):
            if tag is None or tag in (item.tags or ()):
                found.append(self._opened(item))
                room -= sum(map(len, found[-1].values.values()))
            if len(found) == limit or examined == _EXAMINED or room <= 0:
                return Page(found, item.name)
        return Page(found)

    def delete(self, serial_number: str) -> None:
        """Say nothing any more."""
        if 0 < len(serial_number) <= _MAX_SERIAL:
            DeviceAttributes(COLLECTION, serial_number).delete()

    def _opened(self, item: DeviceAttributes) -> Attributes:
        values = json.loads(self._sealer.open(item.values, place=_place(item.name))) if item.values is not None else {}
        return Attributes(item.name, frozenset(item.tags or ()), values)


def _value(name: str, value: object) -> str:
    if not NAME.fullmatch(name):
        raise BadRequestError(
            "The name of a value is lower-case letters, digits and _.", code="invalid_field", field="values"
        )
    if not isinstance(value, str) or len(value) > MAX_VALUE:
        raise BadRequestError(
            f"A value is a text of at most {MAX_VALUE} characters.", code="invalid_field", field=f"values.{name}"
        )
    return value


def _place(serial_number: str) -> str:
    return f"{COLLECTION}/{serial_number}"

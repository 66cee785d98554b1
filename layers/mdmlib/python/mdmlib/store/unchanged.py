"""Writing only if nobody else has meanwhile: what an administrator has seen is what is changed, or nothing is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pynamodb.exceptions import DeleteError, PutError, UpdateError
from pynamodb.expressions.condition import Condition

from mdmlib.errors import PreconditionFailedError
from mdmlib.store.refusals import condition_failed
from mdmlib.store.tables import ResourceItem

_KEYS = frozenset({"collection", "name", "cls"})
_T = TypeVar("_T")
_Item = TypeVar("_Item", bound=ResourceItem)

OnlyIf = Callable[[_T], None]
"""Raises :class:`~mdmlib.errors.PreconditionFailedError` when what is there is not what was seen."""


@contextmanager
def only_while(
    kind: type[_Item], read: Callable[[], _Item | None], only_if: OnlyIf[_Item | None] | None
) -> Iterator[Condition | None]:
    """Hold what is there against ``only_if``; give the condition for the write, that it is still so.

    Without ``only_if`` there is no condition. Raises :class:`~mdmlib.errors.PreconditionFailedError`, also when it is
    the write's condition that fails.
    """
    if only_if is None:
        yield None
        return
    item = read()
    only_if(item)
    try:
        yield unchanged(kind, item)
    except (DeleteError, PutError, UpdateError) as error:
        if not condition_failed(error):
            raise
        raise PreconditionFailedError("Somebody else changed it in this very moment: read it again.") from error


def unchanged(kind: type[ResourceItem], item: ResourceItem | None) -> Condition:
    """Return the condition that an item is as it was read, attribute for attribute; None: that there is none.

    No version has to be counted for that: it holds against every write, also those that know nothing of it.
    """
    condition: Condition = kind.name.does_not_exist() if item is None else kind.name.exists()
    if item is None:
        return condition
    for name, attribute in kind.get_attributes().items():
        if name not in _KEYS:
            value = item.attribute_values.get(name)
            condition &= attribute.does_not_exist() if value is None else attribute == value
    return condition

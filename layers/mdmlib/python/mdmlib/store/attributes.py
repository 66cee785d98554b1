"""Attributes whose conditions and changes cost a third of what pynamodb's cost.

pynamodb takes a name apart into a document's path, and looks at a value for whatever it may be. As a rule ours are the
names of attributes, and plain values: those are put down as they are. All else is left to pynamodb.
"""

import json
from typing import Any, Final, TypeVar

from pynamodb import attributes
from pynamodb.expressions.condition import Comparison, Exists, NotExists
from pynamodb.expressions.update import RemoveAction, SetAction

_T = TypeVar("_T")
_PLAIN: Final = frozenset({str, int, float, bool, bytes})


class _Name:
    """An attribute's name, as an operand of an expression."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def serialize(self, names: dict[str, str], _values: dict[str, Any]) -> str:
        placeholder = names.get(self._name)
        if placeholder is None:
            placeholder = names[self._name] = f"#{len(names)}"
        return placeholder


class _Value:
    """A value in DynamoDB's form, as an operand of an expression."""

    __slots__ = ("_value",)

    def __init__(self, value: dict[str, Any]) -> None:
        self._value = value

    def serialize(self, _names: dict[str, str], values: dict[str, Any]) -> str:
        placeholder = f":{len(values)}"
        values[placeholder] = self._value
        return placeholder


class _Attribute(attributes.Attribute[_T]):  # noqa: PLW1641 - pynamodb's has no hash either
    def __eq__(self, other: object) -> Comparison:  # type: ignore[override]  # pynamodb makes conditions of it
        if type(other) not in _PLAIN:
            return super().__eq__(other)
        return Comparison("=", _name(self), _value(self, other))

    def exists(self) -> Exists:
        return Exists(_name(self))

    def does_not_exist(self) -> NotExists:
        return NotExists(_name(self))

    def set(self, value: Any) -> SetAction | RemoveAction:  # noqa: ANN401 - a value, or an expression of pynamodb's
        if type(value) not in _PLAIN:
            return super().set(value)
        return SetAction(_name(self), _value(self, value))

    def remove(self) -> RemoveAction:
        return RemoveAction(_name(self))


class UnicodeAttribute(_Attribute[str], attributes.UnicodeAttribute):
    """A text."""


class BinaryAttribute(_Attribute[bytes], attributes.BinaryAttribute):
    """Bytes. DynamoDB takes them as they are, if pynamodb is told so: its ``legacy_encoding`` is base64 of base64."""


class BooleanAttribute(_Attribute[bool], attributes.BooleanAttribute):
    """True or false."""


class NumberAttribute(_Attribute[float], attributes.NumberAttribute):
    """A number; nearly all are whole."""

    def serialize(self, value: float) -> str:
        """Return it in DynamoDB's form."""
        return str(value) if type(value) is int else json.dumps(value)

    def deserialize(self, value: str) -> float:
        """Read it from DynamoDB's form."""
        try:
            return int(value)
        except ValueError:
            number: float = json.loads(value)
            return number


def _name(attribute: attributes.Attribute[Any]) -> Any:  # noqa: ANN401 - an operand, to pynamodb's eyes
    return _Name(attribute.attr_name)


def _value(attribute: attributes.Attribute[Any], value: object) -> Any:  # noqa: ANN401 - an operand, too
    return _Value({attribute.attr_type: attribute.serialize(value)})

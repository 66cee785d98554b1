"""What the items of both tables have in common: how they come from DynamoDB's form, and how they go into it.

pynamodb goes through every attribute that an item could have, twice when it reads one; an enrollment has sixty, of
which a third are there. Here only those that are there are looked at.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, NamedTuple, Self

from botocore.exceptions import ClientError
from pynamodb.exceptions import AttributeDeserializationError, GetError
from pynamodb.models import Model

from mdmlib.store.attributes import BinaryAttribute, UnicodeAttribute
from mdmlib.store.patience import until_some_are_processed

_NULL: Final = "NULL"


class Item(Model):
    """An item of either table."""

    def __init__(self, hash_key: str | None = None, range_key: str | None = None, **attributes: object) -> None:
        """Make an item (not written yet) of its keys and attributes. Raises ``ValueError`` for what it has not."""
        self.attribute_values = dict(_defaults(type(self)))
        if hash_key is not None:
            attributes[str(self._hash_keyname)] = hash_key
        if range_key is not None:
            attributes[str(self._range_keyname)] = range_key
        known = self.get_attributes()
        for name, value in attributes.items():
            if name not in known:
                raise ValueError(f"A {type(self).__name__} has no attribute {name}.")
            self.attribute_values[name] = value

    @classmethod
    def from_raw_data(cls, data: dict[str, Any]) -> Self:
        """Read an item as DynamoDB answers it. What this release does not know of it is passed over.

        Raises ``ValueError`` for an item of a class that is not this one or below it.
        """
        kind = cls._get_discriminator_class(data) or cls
        if not issubclass(kind, cls):
            raise ValueError(  # noqa: TRY004 - as pynamodb does
                f"An item is of the class {kind.__name__} where a {cls.__name__} belongs."
            )
        item = kind()
        readers, values = _readers(kind), item.attribute_values
        for name, typed in data.items():
            reader = readers.get(name)
            if reader is None or _NULL in typed:
                continue
            if reader.type not in typed:
                raise AttributeDeserializationError(name, reader.type)
            value = typed[reader.type]
            values[reader.name] = reader.read(value) if reader.read else value
        return item

    def raw_data(self) -> dict[str, Any]:
        """Return the item in DynamoDB's form, whole."""
        known = self.get_attributes()
        return {
            known[name].attr_name: {known[name].attr_type: known[name].serialize(value)}
            for name, value in self.attribute_values.items()
            if value is not None
        }

    def raw_key(self) -> dict[str, Any]:
        """Return the item's key in DynamoDB's form."""
        values = self.attribute_values
        # Every key of both tables is a text.
        return {name: {"S": values[name]} for name in (self._hash_keyname, self._range_keyname) if name}

    @classmethod
    def _batch_get_page(cls, keys_to_get: Any, consistent_read: Any, attributes_to_get: Any) -> Any:  # noqa: ANN401
        """Ask for a page of a batch. pynamodb asks for what was left out, again and again, at once and for ever."""
        ask: Any = super()._batch_get_page
        try:
            return until_some_are_processed(
                lambda keys: ask(keys, consistent_read=consistent_read, attributes_to_get=attributes_to_get),
                keys_to_get,
            )
        except ClientError as error:
            raise GetError(cause=error) from error


class _Reader(NamedTuple):
    """How one attribute is read."""

    name: str
    """In Python."""
    type: str
    """In DynamoDB."""
    read: Callable[[Any], Any] | None
    """None: the value is as it came."""


@cache
def _readers(kind: type[Item]) -> Mapping[str, _Reader]:
    """Return the readers of a class, by the names of its attributes in DynamoDB."""
    readers = {}
    for name, attribute in kind.get_attributes().items():
        read: Callable[[Any], Any] | None = attribute.deserialize
        if isinstance(attribute, UnicodeAttribute) or (
            isinstance(attribute, BinaryAttribute) and not attribute.legacy_encoding
        ):
            read = None
        readers[attribute.attr_name] = _Reader(name, attribute.attr_type, read)
    return readers


@cache
def _defaults(kind: type[Item]) -> Mapping[str, Any]:
    """Return what the attributes of a class are where nothing was said; ``cls`` says which class it is."""
    attributes: Any = kind.get_attributes()
    defaults = {name: attribute.default for name, attribute in attributes.items() if attribute.default is not None}
    if attributes["cls"].get_discriminator(kind) is not None:
        defaults["cls"] = kind
    return defaults

"""What the values of a JSON command may be, and what becomes of them in the plist.

Each :class:`Kind` turns one JSON value into what the answer repeats and what the device receives. Names, types and
which keys a device always receives are MicroMDM's (:mod:`mdmlib.apple.request_types` is the table) and Apple's
(:mod:`mdmlib.apple.command_fields`); unlike in MicroMDM, a ``false`` or ``0`` that was given is kept.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from enum import Enum
from math import isfinite
from typing import Any, Final, NamedTuple

from mdmlib.apple import plist
from mdmlib.apple.plist_limits import MAX_DEPTH
from mdmlib.errors import BadRequestError, MalformedBodyError

_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DECIMAL: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_MAX_INTEGER: Final = (1 << 63) - 1
_LONGEST_SHOWN: Final = 100


class Unknown(Enum):
    """What becomes of a key that an object should not have."""

    REFUSE = "refuse"
    KEEP = "keep"
    """It goes into the plist as it is spelt, with its value as it is: Apple's spelling has to be used."""


class Converted(NamedTuple):
    """``echo`` is for the JSON answer, ``value`` for the plist."""

    echo: Any
    value: Any


@dataclass(frozen=True)
class Kind:
    """A type of JSON value.

    ``convert`` takes the value, never null, and the name to blame. ``zero`` is what a device receives when a key that
    it always receives was not given. An empty value is left out of the plist when ``omit_empty``.
    """

    convert: Callable[[object, str], Converted]
    zero: Any = None
    zero_echo: Any = None
    omit_empty: bool = False
    name: str = "text"
    """For people."""
    choices: tuple[Any, ...] = ()
    """All that the value may be, where that is known."""
    fields: "tuple[Field, ...]" = ()
    """Of an object."""
    element: "Kind | None" = None
    """Of an array."""
    variants: "Mapping[str, tuple[Field, ...]]" = dataclass_field(default_factory=dict)
    """Of an object that is one of several, by its ``item``."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One JSON key and the plist key that it becomes.

    ``always`` puts it into the plist also when it was not given, ``echoed`` into the answer; one that is ``required``
    has to be given. ``aliases`` are other spellings that are understood: MicroMDM has misspelled a few.
    """

    name: str
    key: str
    kind: Kind
    always: bool = False
    echoed: bool = False
    aliases: tuple[str, ...] = ()
    required: bool = False


def record(*fields: Field, omit_empty: bool = False, unknown: Unknown = Unknown.REFUSE) -> Kind:
    """Return the kind of an object with these fields."""
    return Kind(
        lambda value, name: convert_fields(_object(value, name), fields, prefix=f"{name}.", unknown=unknown),
        zero={},
        zero_echo={},
        omit_empty=omit_empty,
        name="object",
        fields=fields,
    )


def one_of(
    variants: Mapping[str, tuple[Field, ...]], *, otherwise: tuple[Field, ...], unknown: Unknown = Unknown.REFUSE
) -> Kind:
    """Return the kind of an object whose ``item`` says which of these fields it has.

    An item that is none of them has the fields ``otherwise``, where what is unknown is kept.
    """

    def convert(value: object, name: str) -> Converted:
        given = _object(value, name)
        item = folded(given).get("item")
        if not isinstance(item, str):
            raise missing(f"{name}.item") if item is None else invalid(f"{name}.item", "a string")
        fields = variants.get(item)
        if fields is None and unknown is Unknown.REFUSE:
            raise invalid(f"{name}.item", f"one of {', '.join(sorted(variants))}")
        return convert_fields(given, fields or otherwise, prefix=f"{name}.", unknown=unknown)

    return Kind(convert, zero={}, zero_echo={}, name="object", variants=variants)


def limited(kind: Kind, choices: Sequence[Any]) -> Kind:
    """Return a kind whose values are among ``choices`` alone."""

    def convert(value: object, name: str) -> Converted:
        converted = kind.convert(value, name)
        # True is 1 to Python.
        if not any(type(choice) is type(converted.value) and choice == converted.value for choice in choices):
            raise invalid(name, f"one of {', '.join(str(choice) for choice in choices)}")
        return converted

    return replace(kind, convert=convert, choices=tuple(choices))


def array(element: Kind, *, omit_empty: bool = True) -> Kind:
    """Return the kind of an array of such elements, which may not be null."""

    def convert(value: object, name: str) -> Converted:
        if not isinstance(value, list):
            raise invalid(name, "an array")
        converted = [element.convert(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return Converted([item.echo for item in converted], [item.value for item in converted])

    return Kind(convert, zero=[], zero_echo=[], omit_empty=omit_empty, name="list", element=element)


def convert_fields(
    document: Mapping[str, object],
    fields: Sequence[Field],
    *,
    prefix: str = "",
    unknown: Unknown = Unknown.REFUSE,
    beside: Collection[str] = (),
) -> Converted:
    """Convert an object's fields, in the order of ``fields``. Keys are matched whatever their case, as Go does.

    ``beside`` are keys, in lower case, that are not of the command. Raises :class:`~mdmlib.errors.BadRequestError`
    with the codes ``invalid_field``, ``missing_field`` and ``unknown_field``.
    """
    given = folded(document)
    others = _unknown_keys(document, fields, beside)
    if others and unknown is Unknown.REFUSE:
        known = ", ".join(sorted(field.name for field in fields)) or "none"
        shown = others[0][:_LONGEST_SHOWN]
        raise BadRequestError(
            f"{prefix}{shown if shown.isprintable() else '?'} is unknown here; known: {known}.",
            code="unknown_field",
            field=prefix + shown,
        )
    echo: dict[str, Any] = {}
    value: dict[str, Any] = {}
    for field in fields:
        names = (name.casefold() for name in (field.name, *field.aliases))
        found = next((given[name] for name in names if given.get(name) is not None), None)
        if found is None:
            if field.required:
                raise missing(prefix + field.name)
            if field.always:
                value[field.key] = copy(field.kind.zero)
            if field.echoed:
                echo[field.name] = copy(field.kind.zero_echo)
            continue
        converted = field.kind.convert(found, prefix + field.name)
        if converted.value or not field.kind.omit_empty or field.always:
            value[field.key] = converted.value
        if converted.value or not field.kind.omit_empty or field.echoed:
            echo[field.name] = converted.echo
    for name in others:
        echo[name] = document[name]
        value[_text(name, prefix + name).value] = _plist_value(document[name], prefix + name, depth=0)
    return Converted(echo, value)


def _unknown_keys(document: Mapping[str, object], fields: Iterable[Field], beside: Collection[str]) -> list[str]:
    """Return the keys that are of no field; one that is null is as good as none."""
    names = {name.casefold() for field in fields for name in (field.name, *field.aliases)}
    return [
        key
        for key, value in document.items()
        if value is not None and (folded_key := key.casefold()) not in names and folded_key not in beside
    ]


def folded(document: Mapping[str, object]) -> dict[str, object]:
    """Return the object with its keys in lower case; of those that only differ in case the last counts."""
    return {key.casefold(): value for key, value in document.items()}


def invalid(name: str, wanted: str) -> BadRequestError:
    """Return the error for a field that is not what it has to be."""
    return BadRequestError(f"{name} must be {wanted}.", code="invalid_field", field=name)


def missing(name: str) -> BadRequestError:
    """Return the error for a field that has to be given."""
    return BadRequestError(f"{name} is missing.", code="missing_field", field=name)


def _object(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise invalid(name, "an object")
    return value


def _text(value: object, name: str) -> Converted:
    if not isinstance(value, str):
        raise invalid(name, "a string")
    if _NOT_IN_XML.search(value):
        raise invalid(name, "a string without control characters")
    return Converted(value, value)


def _boolean(value: object, name: str) -> Converted:
    if not isinstance(value, bool):
        raise invalid(name, "true or false")
    return Converted(value, value)


def _integer(value: object, name: str) -> Converted:
    # Python counts True as an integer, and JSON has no other than 64-bit ones for Go.
    if isinstance(value, bool) or not isinstance(value, int) or not -_MAX_INTEGER - 1 <= value <= _MAX_INTEGER:
        raise invalid(name, "an integer")
    return Converted(value, value)


def _data(value: object, name: str) -> Converted:
    if not isinstance(value, str):
        raise invalid(name, "a string in base64")
    try:
        # Line breaks are what encoders of mail put in; Go skips them too.
        content = b64decode(value.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError as error:
        raise invalid(name, "a string in base64") from error
    return Converted(b64encode(content).decode(), content)


def _scan_time(value: object, name: str) -> Converted:
    if isinstance(value, str):
        return Converted(value, int(value)) if _DECIMAL.fullmatch(value) else _text(value, name)
    return _integer(value, name)


def _property_list(value: object, name: str) -> Converted:
    if isinstance(value, dict):
        return _document(value, name)
    echo, content = _data(value, name)
    if not content:
        return Converted(echo, {})
    try:
        return Converted(echo, plist.loads(content))
    except MalformedBodyError as error:
        raise invalid(name, "an object, or a property list in base64, its root a dictionary") from error


def _document(value: object, name: str) -> Converted:
    return Converted(value, _plist_value(_object(value, name), name, depth=0))


def _plist_value(value: object, name: str, *, depth: int) -> Any:  # noqa: ANN401 - any of a plist's types
    if depth > MAX_DEPTH // 2:
        raise invalid(name, "nested less deep")
    if isinstance(value, str):
        return _text(value, name).value
    if isinstance(value, bool) or (isinstance(value, float) and isfinite(value)):
        return value
    if isinstance(value, int):
        return _integer(value, name).value
    if isinstance(value, Mapping):
        return {_text(key, name).value: _plist_value(item, name, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plist_value(item, name, depth=depth + 1) for item in value]
    raise invalid(name, "an object of strings, finite numbers, booleans, arrays and objects: a plist has no null")


TEXT: Final = Kind(_text, zero="", zero_echo="", omit_empty=True)
BOOLEAN: Final = Kind(_boolean, zero=False, zero_echo=False, name="boolean")
INTEGER: Final = Kind(_integer, zero=0, zero_echo=0, name="integer")
DATA: Final = Kind(_data, zero=b"", omit_empty=True, name="base64")
"""A string in base64; data in the plist."""
TEXTS: Final = array(TEXT)
DATAS: Final = array(DATA)
SCAN_TIME: Final = Kind(_scan_time, name="integer")
"""A string in MicroMDM, an integer to Apple: decimal strings become integers."""
PROPERTY_LIST: Final = Kind(_property_list, omit_empty=True, name="object")
"""An object, or a whole plist in base64; in the command it is the dictionary."""
DOCUMENT: Final = Kind(_document, name="object")
"""An object whose keys and values become those of a dictionary, as they are."""
ANY: Final = Kind(lambda value, name: Converted(value, _plist_value(value, name, depth=0)), name="any")
"""Whatever a plist may hold, but for data and dates."""
OPTIONAL_TEXT: Final = Kind(_text)
"""A string that is null, and not empty, in the answer when it was not given."""

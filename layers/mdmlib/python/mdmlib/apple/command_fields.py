"""The JSON fields of every request type: MicroMDM's where it has them, Apple's keys in snake case for the rest.

Names, types, what has to be given and what is allowed come from Apple's schema
(:mod:`mdmlib.apple.command_catalogue`); a field of MicroMDM's (:mod:`mdmlib.apple.request_types`) keeps its name, its
kind of value and what it repeats in the answer. Every field is understood under Apple's spelling too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Final

from mdmlib.apple.command_catalogue import CommandKey, catalogue
from mdmlib.apple.json_fields import (
    ANY,
    BOOLEAN,
    DATA,
    DOCUMENT,
    INTEGER,
    OPTIONAL_TEXT,
    PROPERTY_LIST,
    Field,
    Kind,
    Unknown,
    array,
    limited,
    one_of,
    record,
)
from mdmlib.apple.request_types import REQUEST_TYPES

_SIMPLE: Final[Mapping[str, Kind]] = {
    "any": ANY,
    "boolean": BOOLEAN,
    "data": replace(DATA, omit_empty=False),
    "integer": INTEGER,
    "string": OPTIONAL_TEXT,
}
_SPELT_AS_ONE: Final = {"iOS": "Ios", "iTunes": "Itunes", "eSIM": "Esim", "WiFi": "Wifi", "VPNUUID": "VpnUuid"}
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

NETWORK_TETHER: Final = Field(
    name="request_requires_network_tether",
    key="RequestRequiresNetworkTether",
    kind=BOOLEAN,
    aliases=("RequestRequiresNetworkTether",),
)
"""Of every command, though the schema does not say so: it is refused while the device has no tethered network."""

_MAY_BE_LEFT_OUT: Final = frozenset({"NewPassword"})
"""Required by Apple, but MicroMDM puts in the empty one for its clients: it removes the password."""


def snake_case(key: str) -> str:
    """Return the JSON name of one of Apple's keys: ``DisallowProximitySetup`` is ``disallow_proximity_setup``."""
    for spelt, one in _SPELT_AS_ONE.items():
        key = key.replace(spelt, one)
    return _WORDS.sub("_", key).lower()


@cache
def fields_of(request_type: str, *, unknown: Unknown = Unknown.REFUSE) -> tuple[Field, ...]:
    """Return the fields of a request type of the catalogue. Raises ``KeyError`` for another one."""
    fields = _merged(REQUEST_TYPES.get(request_type, ()), catalogue()[request_type].keys, unknown)
    if any(field.key == NETWORK_TETHER.key for field in fields):
        return fields
    return (*fields, NETWORK_TETHER)


def _merged(own: Iterable[Field], keys: Mapping[str, CommandKey], unknown: Unknown) -> tuple[Field, ...]:
    """Return MicroMDM's fields, then those of Apple's that it does not have."""
    fields = [_enriched(field, keys.get(field.key), unknown) for field in own]
    known = {field.key for field in fields}
    return (*fields, *(_field(name, key, unknown) for name, key in keys.items() if name not in known))


def _enriched(field: Field, key: CommandKey | None, unknown: Unknown) -> Field:
    aliases = (*field.aliases, field.key)
    if key is None:
        return replace(field, aliases=aliases)
    required = key.required and field.key not in _MAY_BE_LEFT_OUT
    return replace(field, aliases=aliases, kind=_enriched_kind(field.kind, key, unknown), required=required)


def _enriched_kind(kind: Kind, key: CommandKey, unknown: Unknown) -> Kind:
    """Return MicroMDM's kind of value with what Apple's schema adds to it."""
    if kind is DOCUMENT and key.keys:
        # Its keys are Apple's, as MicroMDM's clients write them.
        return record(*(_field(name, inner, unknown, name=name) for name, inner in key.keys.items()), unknown=unknown)
    if kind.element and key.items:
        if key.items.variants:
            return array(_settings(kind.element.fields, key.items.variants, unknown))
        return array(_enriched_kind(kind.element, key.items, unknown))
    if kind.fields:
        # Of a dictionary that may have whatever keys, MicroMDM knows a few.
        inside = unknown if key.keys else Unknown.KEEP
        fields = _merged(kind.fields, key.keys, inside)
        return replace(record(*fields, omit_empty=kind.omit_empty, unknown=inside), zero=kind.zero)
    return limited(kind, key.values) if key.values and unknown is Unknown.REFUSE else kind


def _settings(own: Sequence[Field], variants: Mapping[str, CommandKey], unknown: Unknown) -> Kind:
    """Return the kind of an item of Settings: MicroMDM has one flat object for all of them."""
    # These two it repeats whether they were given or not.
    repeated = [field for field in own if field.echoed and field.key in {"Identifier", "Configuration"}]

    def fields_of_variant(variant: CommandKey) -> tuple[Field, ...]:
        mine = [field for field in own if field.key in variant.keys]
        return (*_merged(mine, variant.keys, unknown), *(field for field in repeated if field not in mine))

    return one_of(
        {name: fields_of_variant(variant) for name, variant in variants.items()},
        otherwise=tuple(replace(field, aliases=(*field.aliases, field.key)) for field in own),
        unknown=unknown,
    )


def _field(key_name: str, key: CommandKey, unknown: Unknown, *, name: str | None = None) -> Field:
    """Return the field of a key that MicroMDM does not have."""
    name = name or snake_case(key_name)
    other = snake_case(key_name) if name == key_name else key_name
    return Field(name=name, key=key_name, kind=_kind(key, unknown), aliases=(other,), required=key.required)


def _kind(key: CommandKey, unknown: Unknown) -> Kind:
    if key.type == "array":
        return array(_kind(key.items, unknown) if key.items else ANY, omit_empty=False)
    if key.type == "dictionary":
        if not key.keys:
            return PROPERTY_LIST
        return record(*(_field(name, inner, unknown) for name, inner in key.keys.items()), unknown=unknown)
    kind = _SIMPLE[key.type]
    return limited(kind, key.values) if key.values and unknown is Unknown.REFUSE else kind

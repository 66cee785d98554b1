"""The fields of a command as they are typed: ``name=value``, ``name:=JSON``, ``name+=value``, ``name@file``."""

import json
import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import typer

_FIELD: Final = re.compile(r"([A-Za-z0-9_-]+)(:=|\+=|=|@)(.*)", re.DOTALL)

FORMS: Final = (
    "name=text, name:=JSON (true, 5, …), name+=text (one more entry of a list), name@FILE (the file's bytes, as base64)"
)


def is_field(argument: str) -> bool:
    """Say whether an argument is written as a field."""
    return _FIELD.fullmatch(argument) is not None


def fields_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the JSON fields that ``arguments`` stand for.

    Raises :class:`typer.BadParameter`; a message never quotes a value, which may be a PIN.
    """
    fields: dict[str, Any] = {}
    for argument in arguments:
        match = _FIELD.fullmatch(argument)
        if match is None:
            raise typer.BadParameter(f"A field is written as one of: {FORMS}.")
        name, form, value = match.groups()
        if form == "+=":
            entries = fields.setdefault(name, [])
            if not isinstance(entries, list):
                raise typer.BadParameter(f"{name} is given both as a list and not as one.")
            entries.append(value)
        elif name in fields:
            raise typer.BadParameter(f"{name} is given twice; for a list write {name}+=… for each entry.")
        else:
            fields[name] = _value(name, form, value)
    return fields


def _value(name: str, form: str, value: str) -> Any:  # noqa: ANN401 - any JSON
    if form == "=":
        return value
    if form == ":=":
        try:
            return json.loads(value)
        except ValueError:
            raise typer.BadParameter(f"{name}:= is followed by no JSON.") from None
    try:
        return b64encode(Path(value).read_bytes()).decode()
    except OSError as error:
        raise typer.BadParameter(f"{name}: {value} cannot be read: {error.strerror}.") from None

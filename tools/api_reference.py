"""Writes ``docs/api/reference.md``: the admin API's description, as people read it.

``docs/api/admin.openapi.yaml`` is what is edited; a test says when the two disagree. Run it with
``.venv/bin/python tools/api_reference.py``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

_FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "api"
DESCRIPTION: Final = _FOLDER / "admin.openapi.yaml"
REFERENCE: Final = _FOLDER / "reference.md"

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_HEAD: Final = """# The admin API, in full

Every operation, parameter and field. Made of [admin.openapi.yaml](admin.openapi.yaml) by `tools/api_reference.py`:
change that file, not this one. How the API feels, with examples, is [on its own page](../api.md).
"""

Document = dict[str, Any]


def read() -> Document:
    """Read the description."""
    document: Document = yaml.safe_load(DESCRIPTION.read_text())
    return document


def render(document: Document) -> str:
    """Return the reference."""
    return "\n".join(_lines(document)).rstrip() + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield _HEAD
    operations = [
        (method, path, item[method] | {"parameters": item.get("parameters", []) + item[method].get("parameters", [])})
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item
    ]
    tags = [tag["name"] for tag in document["tags"]]
    yield from (f"- [{_title(tag)}](#{_anchor(_title(tag))})" for tag in tags)
    yield "- [Schemas](#schemas)\n"
    for tag in tags:
        yield f"## {_title(tag)}\n"
        for method, path, operation in operations:
            if operation["tags"][0] == tag:
                yield from _operation(document, f"{method.upper()} {path}", operation)
    yield "## Schemas\n"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield f"### {name}\n"
        yield from _schema(schema)


def _operation(document: Document, route: str, operation: Document) -> Iterator[str]:
    yield f"### `{route}`\n"
    yield f"{operation['summary']}.\n"
    if "description" in operation:
        yield f"{operation['description'].strip()}\n"
    parameters = [_resolved(document, one) for one in operation["parameters"]]
    if parameters:
        yield "| Parameter | In | Type | |"
        yield "| --- | --- | --- | --- |"
        for one in parameters:
            yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {_cell(one.get('description', ''))} |"
        yield ""
    body = operation.get("requestBody", {})
    for content_type, content in body.get("content", {}).items():
        needed = "Body" if body.get("required") else "Body, which may be left out"
        yield f"{needed}: `{content_type}`{_whole(content['schema'])}\n"
        if "$ref" not in content["schema"]:
            yield from _fields(content["schema"])
    yield from _answers(document, operation["responses"])


def _answers(document: Document, responses: Mapping[str, Document]) -> Iterator[str]:
    """Yield the table of an operation's answers; statuses that say the same share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for status, response in sorted(responses.items()):
        told = _resolved(document, response)
        schemas = [content["schema"] for content in told.get("content", {}).values() if "schema" in content]
        bodies = " or ".join(dict.fromkeys(map(_body, schemas)))
        rows.setdefault((_cell(told.get("description", "")), bodies), []).append(status)
    yield "| Answer | | Body |"
    yield "| --- | --- | --- |"
    for (description, bodies), statuses in rows.items():
        yield f"| {', '.join(statuses)} | {description} | {bodies} |"
    yield ""


def _schema(schema: Document) -> Iterator[str]:
    if "description" in schema:
        yield f"{schema['description'].strip()}\n"
    parts = schema.get("allOf", [])
    if parts:
        yield f"All of {', '.join(_type(part) for part in parts)}.\n"
    fields = [one for part in [schema, *parts] if "$ref" not in part for one in _fields(part)]
    yield from fields or ([] if parts else [f"{_type(schema)}\n"])


def _fields(schema: Document) -> Iterator[str]:
    """Yield the table of an object's fields, those of objects in it with dots."""
    rows = list(_rows(schema, ""))
    if not rows:
        return
    yield "| Field | Type | |"
    yield "| --- | --- | --- |"
    yield from rows
    yield ""


def _rows(schema: Document, prefix: str) -> Iterator[str]:
    needed = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        mark = ", required" if name in needed else ""
        yield f"| `{prefix}{name}` | {_type(field)}{mark} | {_cell(field.get('description', ''))} |"
        inner = field.get("items", {}) if "properties" not in field else field
        if "properties" in inner:
            yield from _rows(inner, f"{prefix}{name}{'[]' if inner is not field else ''}.")


def _whole(schema: Document) -> str:
    return f", {_type(schema)}" if "properties" not in schema else ""


def _body(schema: Document) -> str:
    """Return what an answer's body is: of an object that has no name its fields, too."""
    if "allOf" in schema:
        return " and ".join(_body(part) for part in schema["allOf"])
    fields = ", ".join(f"`{name}`: {_type(field)}" for name, field in schema.get("properties", {}).items())
    return fields or _type(schema)


def _type(schema: Mapping[str, Any]) -> str:
    """Return what a value has to be, in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{_anchor(name)})"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join("null" if value is None else f"`{value}`" for value in schema["enum"])
    for several in ("oneOf", "anyOf"):
        if any("type" in one or "$ref" in one for one in schema.get(several, [])):
            return " or ".join(_type(one) for one in schema[several])
    kinds = schema.get("type", "anything")
    named = [kinds] if isinstance(kinds, str) else kinds
    words = [f"array of {_type(schema['items'])}" if kind == "array" and "items" in schema else kind for kind in named]
    return " or ".join(words) + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    told = []
    if "format" in schema:
        told.append(schema["format"])
    if "contentEncoding" in schema:
        told.append(schema["contentEncoding"])
    for least, most, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
    ):
        low, high = schema.get(least), schema.get(most)
        if low is not None and high is not None:
            told.append(f"{low} to {high}{unit}")
        elif high is not None:
            told.append(f"at most {high}{unit}")
        elif low:
            told.append(f"at least {low}{unit}")
    if schema.get("default") is not None:
        told.append(f"default {json.dumps(schema['default'])}")
    return f" ({', '.join(told)})" if told else ""


def _resolved(document: Document, described: Document) -> Document:
    if "$ref" not in described:
        return described
    found: Any = document
    for name in described["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    resolved: Document = found
    return resolved


def _title(tag: str) -> str:
    return tag[0].upper() + tag[1:]


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE.write_text(render(read()))

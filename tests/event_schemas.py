"""The JSON Schemas of ``docs/events``, for whoever receives an event in a test."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

FOLDER = Path(__file__).parent.parent / "docs" / "events"


def assert_conforms(document: Mapping[str, Any]) -> None:
    """Hold an event's document against the schema of its topic. Also keys that no schema describes fail here."""
    validator = _validator(document)
    problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    problems += [f"{key}: no schema describes it" for key in sorted(undescribed_keys(document))]
    assert not problems, "\n".join(problems)


def undescribed_keys(document: Mapping[str, Any]) -> set[str]:
    """Return the keys, of the document and of the part that tells of what happened, that its schema does not name.

    The schemas themselves are open: a consumer's validator must not fail on a key that a later release adds.
    """
    properties = _validator(document).schema["properties"]
    unknown = set(document) - set(properties)
    for name, part in document.items():
        if isinstance(part, Mapping) and name in properties:
            unknown |= {f"{name}.{key}" for key in set(part) - set(properties[name]["properties"])}
    return unknown


def schemas() -> dict[str, Any]:
    """Return all schemas by the name of their file."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.schema.json"))}


def _validator(document: Mapping[str, Any]) -> Any:
    # Check-in messages that are not known yet have topics that no schema lists.
    topic = "mdm.Authenticate" if "checkin_event" in document else document["topic"]
    return _validators()[topic]


@cache
def _validators() -> dict[str, Any]:
    registry: Registry[Any] = Registry().with_resources(
        (schema["$id"], Resource.from_contents(schema)) for schema in schemas().values()
    )
    validators = {}
    for schema in schemas().values():
        topic = schema.get("properties", {}).get("topic", {})
        known, *_ = topic.get("anyOf", [topic])
        for name in known.get("enum", [known.get("const")]):
            validators[name] = Draft202012Validator(schema, registry=registry)
    return validators

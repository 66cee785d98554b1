"""Apple's request types as the command line knows them: each is a sub-command, each of its fields an option."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final

import typer

_FILE: Final = Path(__file__).with_name("request_types.json")
_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MANY_CHOICES: Final = 12


@dataclass(frozen=True, kw_only=True)
class FieldOption:
    """A field of a command."""

    name: str
    key: str
    type: str
    """``text``, ``boolean``, ``integer``, ``base64``, ``object``, ``any``."""
    many: bool = False
    required: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def flag(self) -> str:
        """How its option is written: ``--obliteration-behavior``."""
        return "--" + self.name.replace("_", "-")

    @property
    def annotation(self) -> Any:  # noqa: ANN401 - what typer takes for a parameter's type
        """What typer makes an option of."""
        kind: Any = {"boolean": bool, "integer": int}.get(self.type, str)
        flags = [f"{self.flag}/--no-{self.flag[2:]}"] if self.type == "boolean" else [self.flag]
        metavar = {"base64": "FILE", "object": "JSON", "any": "JSON"}.get(self.type)
        option = typer.Option(*flags, help=self._help, metavar=metavar)
        return Annotated[list[kind] | None if self.many else kind | None, option]

    @property
    def _help(self) -> str:
        shown = ", ".join(str(choice) for choice in self.choices[:_MANY_CHOICES])
        parts = [
            f"Apple's {self.key}{f': {shown}' if shown else ''}{', …' if len(self.choices) > _MANY_CHOICES else ''}.",
            "May be repeated." if self.many else "",
            "Required." if self.required else "",
        ]
        return " ".join(part for part in parts if part)

    def value(self, given: Any) -> Any:  # noqa: ANN401 - what was typed, and any JSON
        """Return the JSON of what was typed. Raises :class:`typer.BadParameter`, which quotes no value."""
        if not self.many:
            return self._one(given)
        values = [self._one(each) for each in given]
        # A list of objects may be written in one piece, too.
        return [one for value in values for one in (value if isinstance(value, list) else [value])]

    def _one(self, given: Any) -> Any:  # noqa: ANN401 - see above
        if self.type == "base64":
            try:
                return b64encode(Path(given).read_bytes()).decode()
            except OSError as error:
                raise typer.BadParameter(f"{self.flag}: {given} cannot be read: {error.strerror}.") from None
        if self.type in {"object", "any"}:
            try:
                return json.loads(given)
            except ValueError:
                raise typer.BadParameter(f"{self.flag} takes JSON.") from None
        return given


@cache
def request_types() -> Mapping[str, tuple[str, tuple[FieldOption, ...]]]:
    """Return by the name of its sub-command (``device-lock``) each request type and its fields."""
    document: dict[str, Any] = json.loads(_FILE.read_bytes())
    document.pop("")
    return {
        _WORDS.sub("-", request_type).lower(): (
            request_type,
            tuple(FieldOption(**{**field, "choices": tuple(field.get("choices", ()))}) for field in fields),
        )
        for request_type, fields in document.items()
    }


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names what is alike, with a blank in front; nothing where nothing is."""
    alike = {name.lower(): name for name in known}
    near = [name for name in alike if name.startswith(word.lower())] or get_close_matches(
        word.lower(), alike, cutoff=0.8
    )
    return f" Did you mean {' or '.join(alike[name] for name in near[:3])}?" if near else ""

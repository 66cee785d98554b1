"""Durations as people write them: ``90s``, ``30m``, ``12h``, ``7d``, ``2w``."""

import re
from typing import Final

import typer

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw]?)")


def seconds_of(text: str) -> int:
    """Return a duration in seconds; a number alone is seconds."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration, such as 30m, 12h, 7d or 2w.")
    return int(match[1]) * _SECONDS[match[2] or "s"]

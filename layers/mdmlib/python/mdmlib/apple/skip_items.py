"""Panes of Setup Assistant that a profile of ADE may skip (``skip_setup_items``).

The data is Apple's schema in a form of our own (``skip_items.json``, made by ``tools/skip_items.py``), with what has
changed since, which is kept by hand here. Apple's page: https://developer.apple.com/documentation/devicemanagement/skipkeys.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

from mdmlib.errors import BadRequestError

_FILE: Final = Path(__file__).with_name("skip_items.json")

_ADDED: Final[Mapping[str, Mapping[str, str]]] = {
    "AccessibilityAppearance": {"iOS": "17.0"},
    "DeviceFeaturesTour": {"iOS": "27.0"},
    "LiquidGlass": {"iOS": "27.0", "macOS": "27.0"},
    "Multitasking": {"iOS": "26.0"},
    "OSShowcase": {"iOS": "26.0", "macOS": "26.1"},
    "SafetyAndHandling": {"iOS": "18.4"},
    "Tips": {"visionOS": "26.0"},
    "UnlockWithWatch": {"macOS": "15.0"},
    "WebContentFiltering": {"iOS": "18.2"},
}
"""What is not in the schema of release 18. Those that later releases removed stay: devices ignore them."""

_NEVER: Final = frozenset({"AgeAssurance", "AgeBasedSafetySettings"})
"""Apple had listed them and has taken that back: no device knows them."""


@cache
def skip_items() -> Mapping[str, Mapping[str, str]]:
    """Return all items: on which platforms each is known, and since which release."""
    listed: dict[str, Mapping[str, str]] = json.loads(_FILE.read_text())
    del listed[""]
    return {**listed, **_ADDED}


def check_skip_item(name: str) -> None:
    """Raise :class:`~mdmlib.errors.BadRequestError` for what is no item: devices would show the pane all the same."""
    if name in skip_items():
        return
    by_lower_case = {each.lower(): each for each in skip_items()}
    close = [by_lower_case[each] for each in get_close_matches(name[:64].lower(), by_lower_case, n=1)]
    hint = "no device knows it" if name in _NEVER else f"do you mean {close[0]}?" if close else "see Apple's SkipKeys"
    raise BadRequestError(
        f"{name[:64]!r} is no pane that can be skipped: {hint}", code="unknown_skip_item", field="skip_setup_items"
    )

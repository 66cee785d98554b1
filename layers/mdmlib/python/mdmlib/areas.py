"""Packages of several modules that are asked as one, where a module is imported when something of it is asked for."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def looked_for_in(package: str, areas: Sequence[str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package: what it has not itself is looked for in its areas, in this order.

    Type checkers are told otherwise, by ``from … import *`` under ``TYPE_CHECKING``: they would take every name for one
    that is there.
    """

    def find(name: str) -> Any:  # noqa: ANN401 - whatever an area has
        if name in areas:
            return import_module(f"{package}.{name}")
        if not name.startswith("__"):
            for area in areas:
                found = vars(import_module(f"{package}.{area}")).get(name)
                if found is not None:
                    setattr(sys.modules[package], name, found)
                    return found
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find

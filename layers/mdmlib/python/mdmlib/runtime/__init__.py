"""The composition root: builds each service once, on first use.

Each area has a module here. It is imported when something of it is first asked for, and what a service needs is
imported when it is built: so a function pays for its own services alone (connect never imports httpx), and importing
this package has no effect.

Everybody asks the package, as in ``runtime.connect_service()``, the areas each other too: what a test puts in the place
of one of these, all services are built with.
"""

import sys
from typing import TYPE_CHECKING, Final

from mdmlib.areas import looked_for_in

if TYPE_CHECKING:
    from mdmlib.runtime.ade import *
    from mdmlib.runtime.administration import *
    from mdmlib.runtime.clients import *
    from mdmlib.runtime.commands import *
    from mdmlib.runtime.devices import *
    from mdmlib.runtime.enrolling import *
    from mdmlib.runtime.foundation import *
    from mdmlib.runtime.identities import *
    from mdmlib.runtime.pushes import *
    from mdmlib.runtime.resources import *
    from mdmlib.runtime.schedules import *
    from mdmlib.runtime.webhook_subscriptions import *
    from mdmlib.runtime.workflows import *

# In the order in which a name is looked for: what devices wait for comes first.
_AREAS: Final = (
    "foundation",
    "clients",
    "devices",
    "identities",
    "enrolling",
    "commands",
    "pushes",
    "ade",
    "administration",
    "resources",
    "workflows",
    "webhook_subscriptions",
    "schedules",
)

if not TYPE_CHECKING:
    __getattr__ = looked_for_in(__name__, _AREAS)


def forget() -> None:
    """Forget everything that was built: for tests that change the environment."""
    for area in _AREAS:
        loaded = sys.modules.get(f"{__name__}.{area}")
        for built in list(vars(loaded).values()) if loaded else ():
            if callable(built) and hasattr(built, "cache_clear"):
                built.cache_clear()

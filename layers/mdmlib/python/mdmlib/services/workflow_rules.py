"""The rules of the event bus that bring it to the workflow queue when devices check in, or have nothing to do.

Few deployments want to know, and each connect of a device would be a message. So the template makes these rules
disabled, and they are enabled as long as somebody has subscribed to such an event.
"""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from botocore.exceptions import BotoCoreError, ClientError

from mdmlib.errors import UnavailableError
from mdmlib.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient

CHECKINS: Final = "checkins"
"""Each Authenticate and TokenUpdate of a device."""
IDLE: Final = "idle"
"""Each time that a device asks for commands."""


class WorkflowRules:
    """Enables and disables the rules. All methods raise :class:`~mdmlib.errors.UnavailableError`."""

    def __init__(self, events_client: "Callable[[], EventBridgeClient]", *, settings: Settings) -> None:
        self._events = events_client
        self._stack = settings.stack_name
        self._bus = settings.event_bus

    def enable(self, rules: Collection[str]) -> None:
        """Enable some of them; safe to repeat."""
        for rule in rules:
            self._call(self._events().enable_rule, rule)

    def disable(self, rules: Collection[str]) -> None:
        """Disable some of them; safe to repeat."""
        for rule in rules:
            self._call(self._events().disable_rule, rule)

    def _call(self, change: Callable[..., object], rule: str) -> None:
        try:
            change(Name=f"{self._stack}-workflow-{rule}", EventBusName=self._bus)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError("The event bus does not change the rule.", code="bus_unavailable") from error

"""What every command has: the deployment, its API, and the terminal."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import typer

from picomdm.admin_api import AdminAPI
from picomdm.deployment import Deployment
from picomdm.terminal import Terminal


@dataclass
class Operator:
    """Whoever runs a command, with what they run it on."""

    choose: Callable[[], Deployment] = Deployment
    """Says which deployment is meant; asked when somebody wants to know."""
    terminal: Terminal = field(default_factory=Terminal)

    @cached_property
    def deployment(self) -> Deployment:
        """The deployment that is meant."""
        return self.choose()

    @cached_property
    def api(self) -> AdminAPI:
        """The deployment's admin API."""
        return AdminAPI(self.deployment)


def operator_of(context: typer.Context) -> Operator:
    """Return the operator that the command line was begun with."""
    operator = context.find_object(Operator)
    if operator is None:
        raise TypeError("A command was run without an operator.")
    return operator


def _speak_json(context: typer.Context, value: bool) -> bool:  # noqa: FBT001 - typer's callbacks are called like this
    operator_of(context).terminal.as_json |= value
    return value


JSON = Annotated[
    bool, typer.Option("--json", callback=_speak_json, is_eager=True, help="Answer with JSON, for programs.")
]
"""``--json``, for a parameter ``_json`` that its command does not read: the callback tells the terminal."""

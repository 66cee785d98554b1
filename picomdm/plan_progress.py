"""Waiting for plans, and showing them."""

import time
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, Final

import typer

from picomdm.context import Operator
from picomdm.errors import CommandLineError
from picomdm.terminal import Terminal

PATH: Final = "/v2/plans"
Wait = Annotated[str | None, typer.Option(help="Wait so long (30s, 10m) for the plans to end, and show them.")]
_POLL_SECONDS: Final = 1.0


def await_plans(
    operator: Operator, enrollment_ids: Sequence[str], *, run: str, most: int, seconds: int
) -> list[dict[str, Any]]:
    """Wait until so many plans that were begun together are over, and return them.

    Raises :class:`~picomdm.errors.CommandLineError` when that takes longer; they go on all the same.
    """
    begun, seen = time.monotonic(), set[tuple[str, str]]()
    with operator.terminal.progress("Waiting for the devices …") as tell:
        while True:
            plans = chain.from_iterable(
                operator.api.entries(PATH, "plans", enrollment_id=id_) for id_ in enrollment_ids
            )
            # One that was begun anew meanwhile goes on with what the former has not come to.
            found = [plan for plan in plans if plan["run"] == run or _key(plan) in seen]
            seen |= {_key(plan) for plan in found}
            over = [plan for plan in found if plan["state"] != "running"]
            if len(over) >= most:
                return over
            if time.monotonic() - begun >= seconds:
                one = f"show {enrollment_ids[0]}" if len(enrollment_ids) == 1 else "list"
                raise CommandLineError(
                    f"Not over in {seconds} seconds. It goes on; later see: picomdm plans {one}", code="not_over"
                )
            steps = [step for plan in found for step in plan["steps"]]
            done = sum(step["state"] in {"done", "unneeded", "failed"} for step in steps)
            tell(f"Waiting for the devices: {done} of {len(steps)} steps …")
            time.sleep(_POLL_SECONDS)


def show_plans(terminal: Terminal, plans: Sequence[dict[str, Any]]) -> None:
    """Show plans with their steps."""
    for plan in plans:
        terminal.facts(
            {
                "plan": plan["kind"],
                "blueprints": ", ".join(plan["blueprints"]) or None,
                "state": plan["state"],
                "cause": plan["cause"],
                "begun": terminal.ago(plan["begun_at"]),
                "over": terminal.ago(plan["finished_at"]),
            }
        )
        terminal.table(
            ("STEP", "STATE", "TRIED", "WHY"),
            [(step["title"], step["state"], step["attempts"], step["reason"]) for step in plan["steps"]],
            empty="It has no steps.",
        )


def failed(plans: Sequence[dict[str, Any]]) -> bool:
    """Say whether a step of any of them has failed."""
    return any(step["state"] == "failed" for plan in plans for step in plan["steps"])


def _key(plan: dict[str, Any]) -> tuple[str, str]:
    return plan["enrollment_id"], plan["kind"]

"""``picomdm webhooks test``, ``redrive``, ``replay``: whether deliveries arrive, and those that have to come again."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from picomdm.admin_api import path_part
from picomdm.context import JSON, operator_of
from picomdm.durations import seconds_of
from picomdm.queues import Moved, move_back
from picomdm.webhooks import Id, outcome_of, path_of

_POLL_SECONDS: Final = 0.5
_LONGEST_TEST_SECONDS: Final = 90
_OVER: Final = frozenset({"completed", "cancelled", "failed"})


def try_out(context: typer.Context, *, subscription_id: Id, _json: JSON = False) -> None:
    """Post a test event to the receiver, on the way of all events, and show its answer."""
    operator = operator_of(context)
    terminal = operator.terminal
    path = path_of(subscription_id)
    sent = operator.api.request("POST", f"{path}/test")
    deadline = time.monotonic() + _LONGEST_TEST_SECONDS
    outcome: dict[str, Any] = {}
    with terminal.progress("Waiting for the receiver's answer …"):
        while not outcome and time.monotonic() < deadline:
            last = operator.api.get(path)["last_test"]
            if last and last["event_id"] == sent["event_id"]:
                outcome = last
            else:
                time.sleep(_POLL_SECONDS)

    def show() -> None:
        if not outcome:
            terminal.say("[red]Nothing is known yet:[/red] see `picomdm webhooks show`, and `picomdm queues`.")
            return
        terminal.facts({"receiver": outcome_of(outcome), "event": outcome["event_id"]})
        if outcome["answer"]:
            terminal.plain(outcome["answer"])

    terminal.answer(outcome or {"event_id": sent["event_id"], "delivered": None}, show)
    if not outcome.get("delivered"):
        raise typer.Exit(1)


def redrive(
    context: typer.Context,
    *,
    subscription_id: Annotated[str | None, typer.Argument(metavar="ID", help="Only this webhook's.")] = None,
    _json: JSON = False,
) -> None:
    """Try deliveries again that were given up, of one webhook or of all."""
    operator = operator_of(context)
    terminal = operator.terminal
    total = Moved()
    with terminal.progress("Moving deliveries …") as tell:
        for queue in ("webhook", "targets"):
            total += move_back(operator, queue, tell=tell, subscription=subscription_id)

    def show() -> None:
        terminal.say(f"{total.moved} tried again.")
        if total.left:
            terminal.say(f"[yellow]{total.left} left: SQS did not take them, or they are none of ours.[/yellow]")

    terminal.answer({"webhook": subscription_id, "moved": total.moved, "left": total.left}, show)
    if total.left:
        raise typer.Exit(1)


def replay(
    context: typer.Context,
    *,
    subscription_id: Id,
    start: Annotated[
        str, typer.Option("--from", help="The first event's time, 2026-11-20T12:00:00Z, or how long ago: 2h, 3d.")
    ],
    end: Annotated[str, typer.Option("--to", help="The last event's time, or how long ago.")] = "0s",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is in the webhook's queue.")] = False,
    _json: JSON = False,
) -> None:
    """Send a webhook the events of a range of time once more, out of the archive. No other webhook gets them."""
    operator = operator_of(context)
    terminal = operator.terminal
    now = terminal.now()
    document = {"start": _moment(start, now), "end": _moment(end, now)}
    path = f"{path_of(subscription_id)}/replays"
    found = operator.api.request("POST", path, document=document)
    with terminal.progress("Replaying …") as tell:
        while wait and found["state"] not in _OVER:
            time.sleep(_POLL_SECONDS)
            found = operator.api.get(f"{path}/{path_part(found['name'])}")
            tell(f"Replayed until {found['replayed_until'] or found['start']} …")
    terminal.answer(
        found, lambda: terminal.facts({name: found[name] for name in ("name", "state", "start", "end", "reason")})
    )
    if found["state"] in {"failed", "cancelled"}:
        raise typer.Exit(1)


def replay_status(
    context: typer.Context,
    *,
    subscription_id: Id,
    name: Annotated[str, typer.Argument(metavar="REPLAY", help="As `picomdm webhooks replay` named it.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop it.")] = False,
    _json: JSON = False,
) -> None:
    """Show how far a replay is, or stop it."""
    operator = operator_of(context)
    path = f"{path_of(subscription_id)}/replays/{path_part(name)}"
    if cancel:
        operator.api.request("DELETE", path)
    found = operator.api.get(path)
    operator.terminal.answer(found, lambda: operator.terminal.facts(found))


def _moment(text: str, now: datetime) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = now - timedelta(seconds=seconds_of(text))
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} needs a time zone, such as Z.")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

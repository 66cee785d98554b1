"""How a person watches: each step, what went over the wire in it, how long it took.

On a terminal a step is drawn while it runs and stays when it is done; everywhere else each line is printed once, as it
happens, without colours.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH: Final = 118
_ROUTE_WIDTH: Final = 24
_INDENT: Final = "      "
_LAST_GOOD_STATUS: Final = 399
_KILOBYTE: Final = 1000
_SECOND: Final = 1000.0

_COLOURS: Final = {"admin": "blue", "apple": "magenta", "customer": "yellow", "picomdm": "cyan"}
_DEVICE_COLOUR: Final = "green"


@dataclass(frozen=True, kw_only=True)
class Message:
    """One thing that went over the wire, from ``sender`` to ``receiver``; or one command that somebody typed."""

    sender: str
    receiver: str
    what: str
    status: int | None = None
    """The HTTP status of its answer; 0 when there was none."""
    sent: int | None = None
    """Bytes of the body that went there, and of the one that came back."""
    received: int | None = None
    milliseconds: float | None = None
    note: str = ""
    """What it meant, in a few words."""


@dataclass
class Shown:
    """A step that is being shown: tell it what happens."""

    number: int | None
    title: str
    messages: list[Message] = field(default_factory=list)
    outcome: str = ""
    """What came of it, in one line; shown beside the title when it is done."""
    failure: str | None = None
    seconds: float | None = None
    begun: float = field(default_factory=time.perf_counter)


class Progress:
    """Shows steps on a console; ``plain`` prints lines instead of drawing."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._plain = not self.console.is_terminal
        if self._plain:
            self.console.width = PLAIN_WIDTH
        self._shown: Shown | None = None
        self._live: Live | None = None

    def headline(self, text: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.print(Text(text, style="bold"))

    def say(self, *parts: RenderableType) -> None:
        """Print something between the steps."""
        for part in parts:
            self.console.print(part, soft_wrap=True)

    @contextmanager
    def step(self, title: str, *, number: int | None = None) -> Iterator[Shown]:
        """Show a step while it runs: with a mark when it is done, with the error when it raises (and let it)."""
        shown = Shown(number=number, title=title)
        self._shown = shown
        try:
            if self._plain:
                self.console.print(_title(shown, mark="*"))
                try:
                    with _ending(shown):
                        yield shown
                finally:
                    self._print_end(shown)
            else:
                # The ending is inside, so that the last picture, which stays, shows how it ended.
                drawing = Live(
                    _Drawing(shown), console=self.console, refresh_per_second=12, vertical_overflow="visible"
                )
                with drawing, _ending(shown):
                    yield shown
        finally:
            self._shown = None

    def message(self, message: Message) -> None:
        """Show what went over the wire: in the step that runs, or on its own between steps."""
        if self._shown is None:
            self.console.print(_table([message]))
            return
        self._shown.messages.append(message)
        if self._plain:
            self.console.print(_table([message]))

    def _print_end(self, shown: Shown) -> None:
        verdict = f"failed: {shown.failure}" if shown.failure else f"passed{_said(shown)}"
        self.console.print(Text(f"{_INDENT}{verdict} ({shown.seconds:.2f} s)"), soft_wrap=True)


@contextmanager
def _ending(shown: Shown) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        shown.failure = "interrupted"
        raise
    except BaseException as error:
        shown.failure = str(error) or type(error).__name__
        raise
    finally:
        shown.seconds = time.perf_counter() - shown.begun


class _Drawing:
    """A step as it stands at each refresh."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._shown
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(width=2)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        elapsed = shown.seconds if shown.seconds is not None else time.perf_counter() - shown.begun
        mark: RenderableType = self._spinner
        if shown.failure:
            mark = Text("✗", style="bold red")
        elif shown.seconds is not None:
            mark = Text("✓", style="bold green")
        head.add_row(mark, _title(shown), Text(_duration(elapsed * _SECOND), style="dim"))
        parts: list[RenderableType] = [head]
        if shown.messages:
            parts.append(_table(shown.messages))
        if shown.failure:
            parts.append(Text(f"{_INDENT}{shown.failure}", style="red"))
        elif shown.outcome and shown.seconds is not None:
            parts.append(Text(f"{_INDENT}{shown.outcome}", style="italic"))
        yield Group(*parts)


def _title(shown: Shown, *, mark: str = "") -> Text:
    number = "" if shown.number is None else f"{shown.number:2d}. "
    return Text.assemble(f"{mark} " if mark else "", (number, "dim"), (shown.title, "bold"))


def _said(shown: Shown) -> str:
    return f": {shown.outcome}" if shown.outcome else ""


def _table(messages: list[Message]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=len(_INDENT) - 1)
    table.add_column(width=_ROUTE_WIDTH, no_wrap=True)
    table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=9)
    for message in messages:
        table.add_row("", _route(message), _what(message), _answer(message), _took(message))
    return table


def _route(message: Message) -> Text:
    sender = (message.sender, _colour(message.sender))
    if not message.receiver:
        return Text.assemble(sender)
    return Text.assemble(sender, (" → ", "dim"), (message.receiver, _colour(message.receiver)))


def _colour(who: str) -> str:
    return _COLOURS.get(who.lower().partition(" ")[0], _DEVICE_COLOUR)


def _what(message: Message) -> Text:
    return Text.assemble(message.what, (f"  {message.note}" if message.note else "", "dim"))


def _answer(message: Message) -> Text:
    parts: list[tuple[str, str]] = []
    if message.sent:
        parts.append((f"{_size(message.sent)} ", "dim"))
    if message.status is not None:
        good = 0 < message.status <= _LAST_GOOD_STATUS
        parts.append((str(message.status or "no answer"), "green" if good else "red"))
    if message.received:
        parts.append((f" {_size(message.received)}", "dim"))
    return Text.assemble(*parts)


def _took(message: Message) -> Text:
    return Text(_duration(message.milliseconds) if message.milliseconds is not None else "", style="dim")


def _size(count: int) -> str:
    return f"{count} B" if count < _KILOBYTE else f"{count / _KILOBYTE:.1f} kB"


def _duration(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < _SECOND else f"{milliseconds / _SECOND:.1f} s"

"""What a command says: answers on stdout, as tables or as JSON; everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from picomdm.errors import CommandLineError

_COLUMNS: Final = 1_000
"""Wider than anything that is said: the terminal wraps a long row, where rich would cut an id short."""

_NOTHING: Final = "[dim]-[/dim]"
_UNITS: Final = (("day", 86_400), ("hour", 3_600), ("minute", 60))

_HINTS: Final = {
    "unknown_enrollment": "Is it a serial number? Then say serial:C02XXXX. `picomdm enrollments list` shows both.",
}
"""What helps, by the code of the error: what the server says is for users of its API, too."""

Cell = str | int | bool | None


class Terminal:
    """Speaks to a person, or with ``as_json`` to a program."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.as_json = False
        self.now = now
        self._out = Console(emoji=False, highlight=False, soft_wrap=True, width=_COLUMNS)
        self._err = Console(emoji=False, highlight=False, soft_wrap=True, stderr=True)

    def answer(self, document: Mapping[str, Any], show: Callable[[], None]) -> None:
        """Say the answer: ``document`` to a program, whatever ``show`` says to a person."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            show()

    def say(self, text: str) -> None:
        """Say something, in rich's markup, as (a part of) the answer."""
        self._out.print(text)

    def plain(self, text: str) -> None:
        """Say something as it is: a URL that is copied, a document."""
        self._out.out(_printable(text), highlight=False)

    def note(self, text: str) -> None:
        """Say something beside the answer, in rich's markup; programs do not hear it."""
        if not self.as_json:
            self._err.print(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str) -> None:
        """Say a table, or ``empty`` when there is nothing in it."""
        if not rows:
            self.say(f"[dim]{empty}[/dim]")
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        self._out.print(table)

    def facts(self, facts: Mapping[str, Cell]) -> None:
        """Say names and values, one a line; what is unknown is left away."""
        table = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            if value is not None:
                table.add_row(f"[bold]{escape(name)}[/bold]", _cell(value))
        self._out.print(table)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that something is under way; the function that is given changes the text."""
        if self.as_json or not self._err.is_terminal:
            yield lambda _: None
            return
        with self._err.status(escape(text)) as status:
            yield lambda changed: status.update(escape(changed))

    @contextmanager
    def transfer(self, total: int) -> Iterator[Callable[[int], None]]:
        """Show how many of so many bytes are through; the function that is given is told the size of each part."""
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        quiet = self.as_json or not self._err.is_terminal
        with Progress(*columns, console=self._err, disable=quiet, transient=True) as progress:
            task = progress.add_task("", total=total)
            yield lambda part: progress.advance(task, part)

    def failure(self, error: CommandLineError) -> None:
        """Say what went wrong, on stderr."""
        if self.as_json:
            told = {"error": error.message, "code": error.code, "field": error.field}
            sys.stderr.write(json.dumps({name: value for name, value in told.items() if value}) + "\n")
            return
        place = f", field {error.field}" if error.field else ""
        self._err.print(
            f"[bold red]error:[/bold red] {escape(error.message)} [dim]({escape(error.code + place)})[/dim]"
        )
        if hint := _HINTS.get(error.code):
            self._err.print(f"[dim]{escape(hint)}[/dim]")

    def ago(self, instant: str | None) -> str | None:
        """Return how long ago, or in how long, an instant (RFC 3339) is."""
        if instant is None:
            return None
        seconds = int((self.now() - datetime.fromisoformat(instant)).total_seconds())
        # What was made for 7 days a moment ago ends in 7 days, to whoever made it.
        length_of_time = seconds if seconds >= 0 else -seconds + 5
        for unit, length in _UNITS:
            if (count := length_of_time // length) >= 1:
                text = f"{count} {unit}{'s' if count > 1 else ''}"
                return f"{text} ago" if seconds > 0 else f"in {text}"
        return "just now" if seconds >= 0 else "in less than a minute"


def _cell(value: Cell) -> str:
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(_printable(str(value)))


def _printable(text: str) -> str:
    # A device names itself: what it sends must not reach the terminal as an escape sequence.
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )

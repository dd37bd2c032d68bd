"""What people and scripts read: lines, progress with the time left, and one JSON line at the end."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress

# Where progress goes to a file, a line this often says that the run is alive.
PLAIN_SECONDS = 30.0
Update = Callable[[float, float, str], None]


class Reporter:
    """Write for people to standard output; with ``as_json``, to standard error, and JSON to standard output."""

    def __init__(self, *, as_json: bool, name: str = "") -> None:
        self.as_json = as_json
        self._name = name
        self._shared: Progress | None = None

    def named(self, name: str) -> Reporter:
        """Return a reporter that puts a name before its lines and progress, for one of several things at once."""
        reporter = Reporter(as_json=self.as_json, name=name)
        reporter._shared = self._shared
        return reporter

    @contextmanager
    def together(self) -> Iterator[None]:
        """Show the progress of several things at once, each in a bar of its own."""
        if not sys.stderr.isatty():
            yield
            return
        with _bar() as self._shared:
            yield
        self._shared = None

    def say(self, text: str = "") -> None:
        """Write a line for people."""
        click.echo(f"{self._name}: {text}" if self._name else text, err=self.as_json)

    def fail(self, text: str) -> None:
        """Write an error that does not end the run."""
        click.echo(f"error: {text}", err=True)

    def result(self, values: Mapping[str, Any]) -> None:
        """Write the JSON line, if it was asked for."""
        if self.as_json:
            click.echo(json.dumps(_plain(values), ensure_ascii=False))

    def table(self, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """Write a table as wide as the terminal allows."""
        from rich.box import SIMPLE, SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(*headings, box=SIMPLE_HEAD if any(headings) else SIMPLE, show_header=any(headings))
        for row in rows:
            table.add_row(*(_literal(cell) for cell in row))
        Console(stderr=self.as_json, highlight=False).print(table)

    @contextmanager
    def progress(self, title: str) -> Iterator[Update]:
        """Show a bar on standard error; call what it gives with the fraction done, the seconds left and a text."""
        title = f"{self._name}: {title}" if self._name else title
        if self._shared:
            with _task(self._shared, title) as update:
                yield update
        elif sys.stderr.isatty():
            with _bar() as bar, _task(bar, title, keep=True) as update:
                yield update
        else:
            yield _plain_updates(title)


@contextmanager
def _task(bar: Progress, title: str, *, keep: bool = False) -> Iterator[Update]:
    """Add a bar; it goes away at the end, or stays."""
    task = bar.add_task(title, total=1.0, text="", left="")

    def update(fraction: float, remaining: float, text: str) -> None:
        bar.update(task, completed=fraction, text=text, left=f"{duration(remaining)} left")

    try:
        yield update
    finally:
        if not keep:
            bar.remove_task(task)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    fields = ("description", "fields[text]", "fields[left]")
    columns = [TextColumn(f"{{task.{field}}}", markup=False) for field in fields]
    console = Console(stderr=True, highlight=False)
    return Progress(columns[0], BarColumn(), TaskProgressColumn(), *columns[1:], console=console)


def _plain_updates(title: str) -> Update:
    """Write a line now and then, the first one at the first update."""
    following = -math.inf

    def update(fraction: float, remaining: float, text: str) -> None:
        nonlocal following
        if following < math.inf and (fraction >= 1 or time.monotonic() >= following):
            following = math.inf if fraction >= 1 else time.monotonic() + PLAIN_SECONDS
            click.echo(f"{title}: {fraction:.0%}, {text}, {duration(remaining)} left", err=True)

    return update


def duration(seconds: float) -> str:
    """Write a time as people say it: ``8 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _literal(cell: str) -> Any:
    """Keep brackets in a cell from being read as markup."""
    from rich.text import Text

    return Text(cell)


def _plain(value: Any) -> Any:
    """Make values fit for JSON, which has neither infinity nor paths."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if math.isfinite(value) else None
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)

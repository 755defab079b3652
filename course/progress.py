"""How far a command is: a bar on a terminal; elsewhere, such as in a log, a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINE_SECONDS = 30.0  # between two lines in a log


class RateColumn(ProgressColumn):
    """How many are done in a second, over the last minute or so."""

    def render(self, task: Task) -> Text:
        return Text(rate_text(task.speed))


def rate_text(per_second: float | None) -> str:
    """A rate as it is printed.

    >>> rate_text(2.345), rate_text(0.05), rate_text(None)
    ('2.3/s', '3/min', '')
    """
    if not per_second:
        return ""
    return f"{per_second:.1f}/s" if per_second >= 1 else f"{per_second * 60:.0f}/min"


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yields what is called with (what is done, how many are done, of how many); printed on stderr by default."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console).update
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
    columns += (TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=60) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


class _Lines:
    """Progress as lines of text: one at most every LINE_SECONDS, none for what is over sooner."""

    def __init__(self, console: Console):
        self.console = console
        self.what = None
        self.began = self.told = time.monotonic()
        self.first = 0

    def update(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if what != self.what or done < self.first:
            self.what, self.began, self.told, self.first = what, now, now, done
        if total and now - self.told >= LINE_SECONDS:
            self.told = now
            rate = (done - self.first) / (now - self.began)
            left = f", {(total - done) / rate / 60:.0f} min left" if rate else ""
            line = f"{what}: {done} of {total}, {rate_text(rate)}{left}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

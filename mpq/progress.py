"""Shows how far long work is: as a bar on a terminal, elsewhere (the log of a job, a pipe) as a line every half minute.

Both go to standard error, since standard output may be what another program reads. A line comes from a thread of its
own, so that one item that takes minutes does not look like the end of the work. Work that takes less than half a minute
writes no line.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
_SECONDS = 30.0  # between two lines


class Work:
    """Counts the finished items of some work; `report` sets the count, and a note that is shown beside it."""

    def __init__(self, title: str, total: int, unit: str, done: int = 0) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = done
        self.note = ""
        self._before = done  # by an earlier process, so not at this one's speed
        self._began = time.monotonic()
        self._changed: Callable[[], None] = lambda: None

    def report(self, done: int, note: str = "") -> None:
        """Say that `done` items are finished."""
        self.done = done
        self.note = note
        self._changed()

    def line(self) -> str:
        """Return how far the work is, how fast, and when it will end at this speed."""
        seconds, made = time.monotonic() - self._began, self.done - self._before
        parts = [f"{self.title}: {self.done} of {self.total} {self.unit}, {100 * self.done / max(1, self.total):.0f} %"]
        if made:
            each = seconds / made
            parts.append(f"{each:.3g} s each" if each >= 1 else f"{made / seconds:.3g} a second")
            left = (self.total - self.done) * each
            ends = datetime.now() + timedelta(seconds=left)
            parts.append(f"{duration(left)} left, ends {ends:%H:%M}" if left else f"took {duration(seconds)}")
            parts[-1] += f" on {ends:%d %B}" if left and ends.date() != datetime.now().date() else ""
        else:
            parts.append(f"the first takes {duration(seconds)} so far")
        return ", ".join([*parts, *([self.note] if self.note else [])])


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: 45 s, 12 min 5 s, 3 h 20 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def work(title: str, total: int, unit: str, done: int = 0, shown: bool = True) -> Iterator[Work]:
    """Show the progress of a block that reports to the yielded `Work`, unless `shown` is false.

    `done`: items that an earlier process finished.
    """
    made, console = Work(title, total, unit, done), Console(stderr=True)
    if not shown:
        yield made
    elif console.is_terminal or console.is_jupyter:
        with _bar(made, console):
            yield made
    else:
        with _lines(made):
            yield made


def track(items: Iterable[Item], title: str, unit: str, total: int | None = None, shown: bool = True) -> Iterator[Item]:
    """Yield `items`, showing how many are finished; `total` is their number if they have no length."""
    number = len(items) if isinstance(items, Sized) else total or 0
    with work(title, number, unit, shown=shown) as made:
        for count, item in enumerate(items, start=1):
            yield item
            made.report(count)


@contextmanager
def _bar(made: Work, console: Console) -> Iterator[None]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    # Text for the same terminal must go above the bar; text for a file or a pipe must not go to the bar's console.
    same = sys.stdout.isatty()
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, redirect_stdout=same) as progress:
        bar = progress.add_task(made.title, total=made.total, completed=made.done, note="")
        made._changed = lambda: progress.update(bar, completed=made.done, note=made.note)
        yield


@contextmanager
def _lines(made: Work) -> Iterator[None]:
    ended, told = threading.Event(), False

    def tell() -> None:
        nonlocal told
        while not ended.wait(_SECONDS):
            told = True
            _print(made.line())

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
    if told:
        _print(made.line())


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

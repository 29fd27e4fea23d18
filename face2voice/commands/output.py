"""What commands tell the user beside their results, on stderr."""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

to_user = Console(stderr=True, highlight=False, soft_wrap=True)

_LINE_SECONDS = 30.0


class Advance(Protocol):
    def __call__(self, done: float, total: float | None = None, label: str | None = None) -> None:
        """`done` of `total`, which may change, as may the label; None leaves them as they are."""


@contextmanager
def progress(label: str, total: float | None = 1.0, lines: bool = True) -> Iterator[Advance]:
    """A bar where a person is watching; elsewhere, such as in a job's log, a line every half minute.

    Args:
        total: 1 is told as a percentage, more as a count; None if nobody knows.
        lines: False where the command says enough by itself.
    """
    watched = to_user.is_terminal
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=to_user, transient=True, disable=not watched) as bar:
        task = bar.add_task(label, total=total, told="")
        started, begun = None, 0.0
        told_at = time.monotonic()

        def advance(done: float, total: float | None = None, label: str | None = None) -> None:
            nonlocal started, begun, told_at
            shown, now = bar.tasks[0], time.monotonic()
            total, label = total or shown.total, label or shown.description
            if started is None or total != shown.total:  # the work begins here, or goes on from an earlier call's
                started, begun = now, done
            told = _amount(done, total)
            bar.update(task, completed=done, total=total, description=label, told=told)
            if lines and not watched and now - told_at >= _LINE_SECONDS:
                told_at = now
                more = done - begun
                left = f", {_clock((now - started) * (total - done) / more)} left" if total and more > 0 else ""
                to_user.print(f"{label}: {told}{left}", markup=False)

        yield advance


def _amount(done: float, total: float | None) -> str:
    if total == 1:
        return f"{done:.0%}"
    return f"{done:g}" if total is None else f"{done:g} of {total:g}"


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))

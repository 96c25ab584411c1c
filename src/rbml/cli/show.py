"""Progress and tables, on a terminal and in a log file."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from rbml.training import Progress as Step
    from rbml.training import Score

_LOG_WIDTH = 200  # the width if the output is not a terminal

_plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names are printed unchanged
_terminal = sys.stdout.isatty()
console = Console(**_plain, soft_wrap=not _terminal, width=None if _terminal else _LOG_WIDTH)
errors = Console(**_plain, stderr=True, soft_wrap=not sys.stderr.isatty())


@contextmanager
def bar(total: int, done: int = 0, what: str = "") -> Iterator[Progress]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as progress:
        progress.add_task(what, total=total, completed=done, now="")
        yield progress


def follow(steps: Iterator[Step], total: int, done: int) -> Step | None:
    """Show a training run that continues after step ``done`` (negative while pretraining); return its last step."""
    last, spoken, began = None, time.monotonic(), time.monotonic()
    validation = ""
    with bar(total, max(done, 0), "meta-training") as progress:
        for last in steps:
            if last.validation is not None:
                validation = f" val {last.metric.shown(last.validation)}"
            name = _SHORT.get(last.metric.name, last.metric.name)
            now = f"loss {last.loss:.3f} {name} {last.metric.shown(last.value)}{validation}"
            if last.step <= 0:
                now = f"pretraining, {-last.step} steps left: {now}"
            progress.update(progress.task_ids[0], completed=max(last.step, 0), now=now)
            quiet = time.monotonic() - spoken > 20
            if not errors.is_terminal and (quiet or last.validation is not None or last.step in (0, total)):
                left = (time.monotonic() - began) / max(last.step - done, 1) * (total - last.step)
                errors.print(f"step {max(last.step, 0)}/{total}  {now}  {left:.0f} s left")
                spoken = time.monotonic()
    return last


_SHORT = {"accuracy": "acc"}


def percent(score: Score) -> str:
    """Return a score in per cent: ``97.4 ± 0.3``."""
    return f"{100 * score.mean:.1f} ± {100 * score.interval:.1f}"


def table(title: str, columns: list[str], rows: list[list[str]], text: int = 1) -> None:
    """Print a table; its first ``text`` columns are text, the others are numbers."""
    if title:
        console.print(title, style="bold")
    view = Table()
    for index, column in enumerate(columns):
        if index < text:
            view.add_column(column, overflow="fold")
        else:
            view.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        view.add_row(*row)
    console.print(view)


def keep_memory() -> None:
    """Ask glibc to keep freed memory: returning it to the system at every step costs page faults (docs/facts.md)."""
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_threshold = -1, -3
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 32 << 20)  # the largest value that glibc accepts
        libc.mallopt(trim_threshold, 1 << 30)
    except (OSError, AttributeError):  # another C library
        return

"""What a command prints: words for people on stderr, one JSON object as the last line of stdout for programs."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from FedSegCore.common.files import is_disk_full
from FedSegCore.common.progress import Progress, ProgressCallback


class _SteadyConsole(Console):
    """Loses words where the disk that they go to is full: who looks after a site for months must not end over that."""

    def print(self, *objects: Any, **how: Any) -> None:
        try:
            super().print(*objects, **how)
        except OSError as error:
            if not is_disk_full(error):
                raise


console = _SteadyConsole(stderr=True, highlight=False, markup=False, emoji=False)
"""For people: progress, tables, messages (stderr, so that stdout stays machine-readable).

Words are shown as they are, brackets and all, since they hold what others wrote. Colour comes as ``rich.text.Text``.
"""

LINE_EVERY_S = 10.0
"""Where standard error is no terminal, a line of progress is printed this often."""


def emit_json(value: dict[str, Any]) -> None:
    """Print ``value`` as one line of JSON on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


@contextmanager
def _bar(title: str) -> Iterator[ProgressCallback]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda fraction, stage: bar.update(task, completed=fraction, description=f"{title}: {stage}")


def _lines(title: str) -> ProgressCallback:
    """Return what reports to a log file: a line now and then instead of a bar."""
    started = time.monotonic()
    told = -LINE_EVERY_S

    def show(fraction: float, stage: str) -> None:
        nonlocal told
        now = time.monotonic() - started
        if now - told >= LINE_EVERY_S:
            told = now
            console.print(f"{title}: {fraction:4.0%} after {now:.0f} s: {stage}", soft_wrap=True)

    return show


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Let Ctrl+C and SIGTERM set the event instead of ending the command; only look at it, never wait for it."""
    stopped = threading.Event()

    def stop(_signum: int, _frame: FrameType | None) -> None:
        stopped.set()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar with stage and remaining time; Ctrl+C or SIGTERM cancels the work it is handed to."""
    with (
        stop_signals() as cancelled,
        _bar(title) if console.is_terminal else nullcontext(_lines(title)) as show,
    ):
        yield Progress(show, cancelled)

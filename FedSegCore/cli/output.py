"""What a command prints: words for people on stderr, one JSON object as the last line of stdout for programs."""

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from FedSegCore.common.progress import Progress

console = Console(stderr=True, highlight=False)
"""For people: progress, tables, messages (stderr, so that stdout stays machine-readable)."""


def emit_json(value: dict[str, Any]) -> None:
    """Print ``value`` as one line of JSON on stdout."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a progress bar with stage and remaining time; Ctrl+C or SIGTERM cancels the work it is handed to."""
    cancelled = threading.Event()

    def cancel(_signum: int, _frame: FrameType | None) -> None:
        cancelled.set()

    previous = {number: signal.signal(number, cancel) for number in (signal.SIGINT, signal.SIGTERM)}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    try:
        with Bar(*columns, console=console, transient=not console.is_terminal) as bar:
            task = bar.add_task(title, total=1.0)
            yield Progress(
                lambda fraction, stage: bar.update(task, completed=fraction, description=f"{title}: {stage}"), cancelled
            )
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

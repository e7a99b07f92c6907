"""Progress of long work, and its cancellation, in one object handed down the call chain."""

import threading
from collections.abc import Callable

from FedSegCore.common.errors import CancelledError

ProgressCallback = Callable[[float, str], None]


class Progress:
    """Reports a fraction in [0, 1] with a stage in plain words; raises when the user has cancelled.

    Args:
        callback: called as ``callback(fraction, stage)``; None reports nowhere.
        cancelled: event that cancels the work when set; one is made if None.
        start: fraction of the whole at which this part begins.
        end: fraction of the whole at which this part ends.
    """

    def __init__(
        self,
        callback: ProgressCallback | None = None,
        cancelled: threading.Event | None = None,
        start: float = 0.0,
        end: float = 1.0,
    ) -> None:
        self._callback = callback
        self._cancelled = cancelled if cancelled is not None else threading.Event()
        self._start = start
        self._end = end

    def update(self, fraction: float, stage: str) -> None:
        """Report ``fraction`` of this part done; raises CancelledError if the work was cancelled."""
        self.check()
        if self._callback is not None:
            clipped = min(1.0, max(0.0, fraction))
            self._callback(self._start + clipped * (self._end - self._start), stage)

    def check(self) -> None:
        """Raise CancelledError if the work was cancelled."""
        if self._cancelled.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Cancel the work: the next ``update`` or ``check`` raises."""
        self._cancelled.set()

    def quiet(self) -> "Progress":
        """Return a Progress that reports nowhere and is cancelled with this one."""
        return Progress(None, self._cancelled)

    def part(self, start: float, end: float) -> "Progress":
        """Return a Progress whose 0..1 covers ``start``..``end`` of this one; cancellation is shared."""
        span = self._end - self._start
        return Progress(self._callback, self._cancelled, self._start + start * span, self._start + end * span)

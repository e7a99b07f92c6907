"""Reads a site's journal, beside whatever else is being done."""

from typing import Any

from .Errors import UserError
from .Signal import Signal
from .WorkerSession import WorkerSession


class JournalReader:
    """Asks the worker for a journal's entries and for the proof that it is whole; nothing waits.

    Signals: ``changed()`` something below is new.

    Attributes:
        told: ``rows``, the newest first; ``total``, how many such entries there are; ``verified``; None before.
        onlyLeft: whether ``told`` is only what left the computer, or was refused.
        error: why it could not be read the last time, None if it could.
        isReading: whether an answer is awaited.

    Args:
        session: the worker.
    """

    def __init__(self, session: WorkerSession) -> None:
        self.changed = Signal()
        self._session = session
        self._number = 0
        self.forget()

    def read(self, site: str, onlyLeft: bool) -> None:
        """Read the journal in this site's folder; an earlier reading that is not done yet is not told any more."""
        self._number += 1
        number = self._number
        self.isReading = True

        def read(told: dict[str, Any]) -> None:
            if number == self._number:
                self.told, self.onlyLeft, self.error, self.isReading = told, onlyLeft, None, False
                self.changed.emit()

        def failed(error: UserError) -> None:
            if number == self._number:
                self.told, self.error, self.isReading = None, error, False
                self.changed.emit()

        self._session.request("site.journal", {"site": site, "only_left": onlyLeft}, read, failed)
        self.changed.emit()

    def forget(self) -> None:
        """Let go of what was read."""
        self._number += 1
        self.told: dict[str, Any] | None = None
        self.error: UserError | None = None
        self.onlyLeft = self.isReading = False

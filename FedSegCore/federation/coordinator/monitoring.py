"""What the serving coordinator looks after beside its work: status page, metrics, certificate, logs of bounded size."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.coordinator.ended_runs import EndedRuns
from FedSegCore.federation.coordinator.folder import CoordinatorFolder
from FedSegCore.federation.coordinator.metrics_files import MetricsFiles
from FedSegCore.federation.coordinator.renewal import renew_in_time
from FedSegCore.federation.coordinator.run_view import RunFold, run_folders
from FedSegCore.federation.coordinator.status import ServerView, ask_server, status_of
from FedSegCore.federation.coordinator.status_page import RENEWED_S, write_status_page
from FedSegCore.federation.log_tail import cut_log

STATUS_PAGE = "status.html"

_LOOK_EVERY_S = 5.0
_RENEW_EVERY_S = 60.0  # a clock that was wrong at the start may have been set right since

_TROUBLES = ("site-refused", "site-failed", "site-left", "round-failed", "state-damaged", "failed")

_log = logging.getLogger(__name__)


class Monitor:
    """Follows the run in which something happens last, renews the certificate; its owner calls ``tick`` at any rate.

    Args:
        folder: the coordinator.
        ask: says how SuperLink stands.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        folder: CoordinatorFolder,
        ask: Callable[[CoordinatorFolder], ServerView] = ask_server,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._ask = ask
        self._clock = clock
        self._fold: RunFold | None = None
        self._metrics: MetricsFiles | None = None
        self._ended = EndedRuns(folder.runs)
        self._next_look = 0.0
        self._next_page = self._next_renewal = 0.0
        self._began = time.time()

    @property
    def page(self) -> Path:
        """The status page."""
        return self._folder.path / STATUS_PAGE

    def tick(self) -> None:
        """Take in what has happened; write the page after every event, and at least every minute.

        What cannot be read or written is logged: a full disk or a damaged list must not end the federation.
        """
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_EVERY_S
        if now >= self._next_renewal:
            self._next_renewal = now + _RENEW_EVERY_S
            renew_in_time(self._folder)
        try:
            for log in self._folder.logs.glob("*.log"):
                cut_log(log)
            if self._follow() or now >= self._next_page:
                self._next_page = now + RENEWED_S
                server = self._ask(self._folder)
                if self._ended.look(server.runs or {}):
                    self._next_page = now
                self._write(server)
        except (OSError, ValueError, FedSegError):
            _log.warning("the status page or the metrics cannot be written", exc_info=True)

    def close(self) -> None:
        """Write a last page that says that nothing is served any more, and close the metrics."""
        try:
            self._follow()
            self._write(ServerView(False))
            if self._metrics is not None:
                self._metrics.close()
        except (OSError, ValueError, FedSegError):
            _log.warning("the last status page cannot be written", exc_info=True)

    def _follow(self) -> bool:
        folders = run_folders(self._folder.runs)
        if not folders:
            return False
        if self._fold is None or self._fold.view.name != folders[0].name:
            if self._metrics is not None:
                self._metrics.close()
            self._fold, self._metrics = RunFold(folders[0]), MetricsFiles(folders[0])
        new = self._fold.update()
        for event in new:
            self._log_event(event)
        if new and self._metrics is not None:
            self._metrics.write(self._fold.view)
        return bool(new)

    def _log_event(self, event: Mapping[str, Any]) -> None:
        """Put an event into the log unless it is older than this process; names of sites stay in the run's events."""
        kind, when = str(event.get("event")), event.get("time")
        if isinstance(when, int | float) and when >= self._began:
            number, rounds = event.get("round"), event.get("rounds")
            level = logging.WARNING if kind in _TROUBLES else logging.INFO
            more = {"event": f"run.{kind}", "code": str(event.get("code", ""))}
            _log.log(level, "round %s of %s", number, rounds, extra=more)

    def _write(self, server: ServerView) -> None:
        run = None if self._fold is None else self._fold.view
        names = tuple(folder.name for folder in run_folders(self._folder.runs))
        write_status_page(self.page, status_of(self._folder, server, run, names))

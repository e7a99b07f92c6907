"""How a run has ended, told in its events where its own process could not: it was killed, or its computer was."""

import re
from collections.abc import Mapping
from pathlib import Path

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.coordinator.run_view import RunFold
from FedSegCore.federation.coordinator.runs import RunStatus
from FedSegCore.federation.events import EVENTS_FILE, Event, EventLog

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
PROCESS_ENDED = "its process has ended"


def run_stopped() -> CannotDoHereError:
    """Return the error of a run that somebody stopped."""
    return CannotDoHereError("run.stopped", "The run was stopped.", "Start it again to go on with its next round.")


def run_failed(details: str) -> CannotDoHereError:
    """Return the error of a run that failed for a reason that ``details`` say."""
    return CannotDoHereError(
        "run.failed",
        f"The run failed: {details or 'no reason was given'}.",
        "Read logs/superexec.log in the coordinator's folder; start it again to go on with its next round.",
    )


def tell_ended(runs: Path, run_id: int, found: Mapping[int, RunStatus]) -> None:
    """Note in a run's events that it was stopped or has failed, unless they say so or another process drives it now.

    Args:
        runs: the coordinator's folder of runs.
        run_id: Flower's id of what has ended; a delivery is no run.
        found: how Flower's runs stand.
    """
    status = found[run_id]
    goes_on = any(other.run == status.run and not other.finished for other in found.values())
    if goes_on or not RUN_NAME.fullmatch(status.run) or not (runs / status.run).is_dir():
        return
    fold = RunFold(runs / status.run)
    fold.update()
    if fold.view.stage in ("starting", "running"):
        # Flower's details may hold an exception's text, which is not for the events
        error = run_stopped() if status.outcome == "stopped" else run_failed(PROCESS_ENDED)
        words = f"{error.what} {error.remedy}"
        EventLog(runs / status.run / EVENTS_FILE).emit(Event("failed", words, code=error.code))


class EndedRuns:
    """Tells of runs that have ended while nobody followed them; looked after by the serving coordinator.

    Args:
        runs: its folder of runs.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._seen: set[int] = set()
        self._settled: set[int] = set()

    def look(self, found: Mapping[int, RunStatus]) -> bool:
        """Take in how Flower's runs stand, the newest first; returns whether one is to be told of at the next look.

        Not at once: who follows a run, or the next start of it, may be about to.
        """
        latest: dict[str, int] = {}
        for run_id, status in found.items():
            latest.setdefault(status.run, run_id)
        ended = {
            run_id
            for name, run_id in latest.items()
            if name and found[run_id].finished and found[run_id].outcome != "completed"
        } - self._settled
        for run_id in ended & self._seen:
            tell_ended(self._runs, run_id, found)
            self._settled.add(run_id)
        self._seen = ended
        return bool(ended - self._settled)

"""What happens in a run, as JSON lines: read by the coordinator's console, the report and tests."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import SEEK_END
from pathlib import Path
from typing import Any, Literal

from FedSegCore.federation.log_tail import LogTail

EVENTS_FILE = "events.jsonl"
RUNS_VARIABLE = "FEDSEG_RUNS"
"""Environment variable by which a server app finds the coordinator's folder of runs."""

_log = logging.getLogger(__name__)

EventKind = Literal[
    "site-joined",
    "site-refused",
    "site-left",
    "waiting",
    "round-started",
    "site-answered",
    "site-failed",
    "round-closed",
    "round-failed",
    "group-finished",
    "state-damaged",
    "release-delivered",
    "release-declined",
    "finished",
    "failed",
]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        event: what kind of thing.
        message: the same in plain words.
        group: the group, or empty.
        round_number: 1-based round, or 0.
        rounds: rounds planned, or 0.
        site: the site, or empty.
        code: the stable reason code of a failure or refusal, or empty.
        data: numbers: ``loss``, ``examples``, ``bytes``, ``seconds``, ``scores`` (label → mean Dice) …
        time: seconds since the epoch.
    """

    event: EventKind
    message: str
    group: str = ""
    round_number: int = 0
    rounds: int = 0
    site: str = ""
    code: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def line(self) -> str:
        """Return the event as one JSON object without line end; ``data`` lies beside the other entries."""
        entries = {
            "time": round(self.time, 3),
            "event": self.event,
            "group": self.group,
            "round": self.round_number,
            "rounds": self.rounds,
            "site": self.site,
            "code": self.code,
            "message": self.message,
        }
        return json.dumps({**self.data, **entries}, ensure_ascii=False, allow_nan=False)


EventCallback = Callable[[Event], None]


class EventLog:
    """Appends events to a file, whole lines at once, and hands them to a callback.

    The file is for people: a run goes on where it cannot be written. A line that a killed process left unfinished is
    ended, so that it does not swallow the next one.

    Args:
        path: the file; None writes none.
        callback: told of every event, in the loop's thread.
    """

    def __init__(self, path: Path | None, callback: EventCallback | None = None) -> None:
        self._path = path
        self._callback = callback
        self._begun = False

    def emit(self, event: Event) -> None:
        """Write and hand on one event."""
        if self._path is not None:
            try:
                self._append(self._path, event.line())
            except OSError as error:
                _log.warning("an event could not be written (%s): %s", type(error).__name__, event.message)
        if self._callback is not None:
            self._callback(event)

    def _append(self, path: Path, line: str) -> None:
        with path.open("ab+") as file:
            if not self._begun and file.tell() > 0:
                file.seek(-1, SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            self._begun = True


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the lines written so far as dicts; a last line that is being written, or a damaged one, is left out."""
    return LogTail(path).objects()

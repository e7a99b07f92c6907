"""What happens in a run, as JSON lines: read by the coordinator's console, the report and tests."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

EVENTS_FILE = "events.jsonl"

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

    Args:
        path: the file; None writes none.
        callback: told of every event, in the loop's thread.
    """

    def __init__(self, path: Path | None, callback: EventCallback | None = None) -> None:
        self._path = path
        self._callback = callback

    def emit(self, event: Event) -> None:
        """Write and hand on one event."""
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(event.line() + "\n")
        if self._callback is not None:
            self._callback(event)


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the lines written so far as dicts; a last line that is being written is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

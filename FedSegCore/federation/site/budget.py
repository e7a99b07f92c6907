"""What servers have taken of this computer so far, over all runs: hours of work and room on its disk.

The hours are read from the journal: from an order to what ended it. An order whose end is missing (the machine was
switched off) counts until the next one, but no longer than a round may take.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from FedSegCore.common.errors import FedSegError
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import Entry, Left, Line, OrderReceived, Refused
from FedSegCore.federation.site.policy import PolicyError, WorkBudget

DAY, WEEK = timedelta(days=1), timedelta(days=7)

_OF_OTHER_MESSAGES = (
    *("site.bundle-refused", "site.name", "trainer.busy"),
    *("policy.", "gate.", "request.", "tensors.", "reply.", "release.", "import."),
)
"""Starts of codes that, without a round's number, may belong to another message than the order that is worked on: a
server that sends such a message in between must not end the counting."""

_GROWING = ("journal", "logs", "refused", "flower", "run")
_HOUR = timedelta(hours=1)


def hours_worked(lines: Iterable[Line], since: datetime, most: timedelta, now: datetime | None = None) -> float:
    """Return the hours worked for servers since then.

    Args:
        lines: of a journal, oldest first, beginning ``most`` or more before ``since``.
        since: work before it is left out.
        most: no order counts for longer.
        now: what was written later than that was written by a clock that was set ahead; None believes every clock.
    """
    told = list(lines)
    worked = timedelta(0)
    begun: datetime | None = None
    for line, moment in zip(told, _moments(told, now), strict=True):
        entry = line.entry
        if _ends(entry) or isinstance(entry, OrderReceived):
            if begun is not None:
                # a clock that was set back makes no work undone
                ended = min(max(moment, begun), begun + most)
                worked += max(timedelta(0), ended - max(begun, since))
            begun = moment if isinstance(entry, OrderReceived) else None
    return worked / _HOUR


def _moments(lines: Sequence[Line], now: datetime | None) -> list[datetime]:
    """Return when the lines were written; lines of the future, moved as a whole, end at the next that is not.

    Else a clock that was a year ahead for a day would have used up every day's hours for a year.
    """
    found: list[datetime] = []
    after, ahead = now, timedelta(0)
    for line in reversed(lines):
        told = datetime.fromisoformat(line.time)
        if now is None or after is None or told <= now:
            after, ahead = told, timedelta(0)
        elif not ahead:
            ahead = told - after
        found.append(told - ahead)
    return found[::-1]


def _ends(entry: Entry) -> bool:
    """Return whether ``entry`` says how work on an order ended."""
    if isinstance(entry, Refused):
        return entry.round_number is not None or not entry.code.startswith(_OF_OTHER_MESSAGES)
    return isinstance(entry, Left)


def bytes_grown(folder: SiteFolder) -> int:
    """Return the bytes of everything in the site's folder that servers make grow; neither cohort nor key."""
    return sum(_size(path) for name in _GROWING for path in (folder.path / name).rglob("*"))


def check_room(folder: SiteFolder, budget: WorkBudget) -> None:
    """Check the room taken: PolicyError ``policy.disk``."""
    grown = bytes_grown(folder)
    if grown > budget.disk_bytes:
        raise PolicyError(
            "policy.disk",
            "What servers make grow in the site's folder fills the room that the policy gives it.",
            "Look into logs and journal why; move old ones away, or raise disk_bytes in the site's policy.json.",
            grown,
            budget.disk_bytes,
        )


def has_room(folder: SiteFolder) -> bool:
    """Return whether there is room for what a server makes grow; an unreadable policy counts as a new one."""
    try:
        budget = folder.policy().budget
    except FedSegError:
        budget = WorkBudget()
    return bytes_grown(folder) <= budget.disk_bytes


def check_hours(folder: SiteFolder, budget: WorkBudget, now: datetime | None = None) -> tuple[float, float]:
    """Check the hours worked and return those of the last day and of the last week.

    Raises:
        PolicyError: ``policy.hours``.
    """
    time = now or datetime.now(UTC)
    most = timedelta(seconds=folder.settings().round_limit_s)
    lines = folder.journal.recent(time - WEEK - most, time)
    day, week = (hours_worked(lines, time - span, most, time) for span in (DAY, WEEK))
    for worked, allowed, words in ((day, budget.hours_per_day, "24 hours"), (week, budget.hours_per_week, "7 days")):
        if worked >= allowed:
            raise PolicyError(
                "policy.hours",
                f"This computer worked {worked:.1f} hours for servers in the last {words}; {allowed:g} are allowed.",
                "Wait, or raise the hours in the site's policy.json.",
                worked,
                allowed,
            )
    return day, week


def _size(path: Path) -> int:
    try:
        return 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
    except OSError:  # it has just gone
        return 0

"""A site's state in plain words, from its files alone: for the module, the status command, and whoever asks."""

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from FedSegCore.federation.site.control import Halt, halt_now
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.status import ProcessesState, SiteStatus, is_looked_after, read_status

StateName = Literal[
    "not-a-member",
    "request-sent",
    "admitted",
    "connected",
    "waiting",
    "training",
    "paused",
    "finished",
    "left",
    "problem",
]

_NOT_ADMITTED = "site.not-admitted"
_COME_BACK = (
    "Tell the coordinator, if it does not know yet. To come back, join with a new invitation: in another folder, or "
    "after everything here is deleted."
)


@dataclass(frozen=True)
class SiteState:
    """How a site stands.

    Attributes:
        state: for programs.
        words: for people, one sentence.
        remedy: what to do; empty where nothing is to be done.
        code: of the problem; empty where there is none.
        running: whether the site's processes are looked after at this moment.
        round_number: the round in training, or the last one; 0 before the first.
        rounds: rounds planned; 0 before the first.
        fraction: share of the present round that is done, in [0, 1].
        waiting_for: so many more sites are waited for.
        set_aside: cases that could not be used when the images were last read.
        last_message: when the coordinator's last message came (seconds since the epoch).
        until: when a pause ends by itself (local time).
    """

    state: StateName
    words: str
    remedy: str = ""
    code: str = ""
    running: bool = False
    round_number: int = 0
    rounds: int = 0
    fraction: float = 0.0
    waiting_for: int = 0
    set_aside: int = 0
    last_message: float | None = None
    until: datetime | None = None


def site_state(folder: SiteFolder | Path, now: datetime | None = None) -> SiteState:
    """Return how the site in ``folder`` stands; never raises for what its files hold.

    Args:
        folder: a site's folder, or one that is none yet.
        now: local time; the clock's by default.
    """
    site = folder if isinstance(folder, SiteFolder) else SiteFolder(folder.absolute())
    if not site.settings_file.exists():
        return SiteState("not-a-member", "This computer is not a member of a federation.", "Open an invitation.")
    status = read_status(site)
    running = status is not None and is_looked_after(site, status)
    halt = halt_now(site, now)
    if halt is not None and halt.code == "site.left":
        return SiteState("left", "This site has left the federation.", _COME_BACK, running=running)
    if status is not None and status.code and status.code != _NOT_ADMITTED:
        return _problem(status, running)
    if status is None or not running:
        return _also_paused(_at_rest(status), halt)
    if not status.was_connected:
        return _also_paused(_running(site, status), halt)
    return _running(site, status) if halt is None else _paused(halt, status)


def _problem(status: SiteStatus, running: bool) -> SiteState:
    words = status.what if running else f"{status.what} The site is not running."
    return SiteState("problem", words, status.remedy, status.code, running, last_message=status.last_message)


def _paused(halt: Halt, status: SiteStatus) -> SiteState:
    words, remedy = f"The site is paused{_until(halt)}: {halt.words}.", _resume(halt)
    return SiteState("paused", words, remedy, running=True, last_message=status.last_message, until=halt.until)


def _also_paused(state: SiteState, halt: Halt | None) -> SiteState:
    """Return a state that no pause changes, with the pause named after it."""
    if halt is None:
        return state
    words = f"{state.words} It is also paused{_until(halt)}: {halt.words}."
    return replace(state, words=words, remedy=f"{state.remedy} {_resume(halt)}".strip(), until=halt.until)


def _until(halt: Halt) -> str:
    return "" if halt.until is None else f" until {halt.until:%H:%M}"


def _resume(halt: Halt) -> str:
    return "Resume it when it may go on." if halt.until is None else ""


def _at_rest(status: SiteStatus | None) -> SiteState:
    if status is not None and status.was_connected:
        return SiteState(
            "admitted",
            "This site is a member of the federation; it is not running.",
            "Start it to take part.",
            last_message=status.last_message,
        )
    return SiteState(
        "request-sent",
        "This site is set up; the coordinator has not yet let it in.",
        "Send the coordinator the request, read out the fingerprint, and start the site.",
    )


def _running(site: SiteFolder, status: SiteStatus) -> SiteState:
    last = status.last_message
    if status.processes != ProcessesState.CONNECTED:
        if status.was_connected:
            return SiteState("admitted", "Connecting to the coordinator.", running=True, last_message=last)
        return SiteState(
            "request-sent",
            "Waiting to be admitted by the coordinator.",
            "Read the fingerprint out to the coordinator." if status.code == _NOT_ADMITTED else "",
            status.code,
            running=True,
        )
    told = _read(site.progress)
    number, rounds = _whole(told.get("round")), _whole(told.get("rounds"))
    common: dict[str, Any] = {"running": True, "round_number": number, "rounds": rounds, "last_message": last}
    common["set_aside"] = _whole(told.get("set_aside"))
    if told.get("state") == "training":
        fraction = told.get("fraction")
        share = min(1.0, max(0.0, fraction)) if isinstance(fraction, int | float) else 0.0
        return SiteState("training", f"Training round {number} of {rounds}.", fraction=share, **common)
    problem = told.get("problem")
    if isinstance(problem, dict):
        what, remedy, code = (str(problem.get(key, "")) for key in ("what", "remedy", "code"))
        return SiteState("problem", what, remedy, code, **common)
    return _between_rounds(site, told, number, rounds, common)


def _between_rounds(
    site: SiteFolder, told: dict[str, Any], number: int, rounds: int, common: dict[str, Any]
) -> SiteState:
    notice = _read(site.notice)
    missing = _whole(notice.get("missing"))
    if missing and _time(notice) > _time(told) - 1.0:
        more = "one more site" if missing == 1 else f"{missing} more sites"
        return SiteState("waiting", f"Waiting for {more}.", waiting_for=missing, **common)
    if rounds and number >= rounds:
        return SiteState("finished", f"All {rounds} rounds are done.", fraction=1.0, **common)
    if rounds:
        return SiteState(
            "connected",
            f"Round {number} of {rounds} was answered; the other sites are awaited.",
            fraction=1.0,
            **common,
        )
    return SiteState("connected", "Connected; no round has begun yet.", **common)


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _time(told: dict[str, Any]) -> float:
    value = told.get("time")
    return float(value) if isinstance(value, int | float) else 0.0

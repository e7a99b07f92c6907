"""How a federation stands, from the coordinator's files and, where it answers, its SuperLink."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import CannotDoHereError
from FedSegCore.federation.coordinator.admission import pending
from FedSegCore.federation.coordinator.folder import AdmittedSite, CoordinatorFolder
from FedSegCore.federation.coordinator.run_view import GroupView, RunView, SiteView
from FedSegCore.federation.coordinator.runs import NOT_RUNNING, ControlClient, RunStatus
from FedSegCore.federation.reason_words import code_words


@dataclass(frozen=True)
class ServerView:
    """What SuperLink says.

    Attributes:
        serving: whether it answers; None where it answers with an error (a locked database, for a moment).
        online: node ids that are connected.
        runs: Flower's run id → how it stands.
    """

    serving: bool | None
    online: frozenset[int] = frozenset()
    runs: Mapping[int, RunStatus] | None = None


@dataclass(frozen=True)
class CoordinatorStatus:
    """Everything there is to show.

    Attributes:
        federation: its name.
        time: when this was looked up, seconds since the epoch.
        server: what SuperLink says.
        admitted: admitted sites.
        run: the run that is shown; None where none has begun.
        run_names: all runs that have begun, the latest first.
        requests: names of sites that ask to be let in.
    """

    federation: str
    time: float
    server: ServerView
    admitted: tuple[AdmittedSite, ...]
    run: RunView | None
    run_names: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()

    def connected(self, site: AdmittedSite) -> bool | None:
        """Return whether a site is connected; None where nobody can tell."""
        return site.node_id in self.server.online if self.server.serving else None

    def json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        runs = self.server.runs or {}
        return {
            "federation": self.federation,
            "time": round(self.time, 3),
            "serving": self.server.serving,
            "sites": [{"name": site.name, "connected": self.connected(site)} for site in self.admitted],
            "runs": [
                {"run_id": str(number), "run": r.run, "stage": r.stage, "outcome": r.outcome}
                for number, r in runs.items()
            ],
            "run": None if self.run is None else _run_json(self.run),
            "run_names": list(self.run_names),
            "requests": list(self.requests),
        }


def ask_server(folder: CoordinatorFolder) -> ServerView:
    """Return what SuperLink says, without waiting for it."""
    try:
        with ControlClient(folder) as control:
            return ServerView(True, control.online(), control.runs())
    except CannotDoHereError as error:
        return ServerView(False if error.code == NOT_RUNNING else None)


def status_of(
    folder: CoordinatorFolder, server: ServerView, run: RunView | None, names: tuple[str, ...] = ()
) -> CoordinatorStatus:
    """Return the status of a coordinator's folder."""
    requests = tuple(request.site for request in pending(folder))
    return CoordinatorStatus(folder.settings().federation, time.time(), server, folder.sites(), run, names, requests)


def site_words(site: SiteView, now: float) -> str:
    """Return where a site stands in words (``"late: did not answer within the round's deadline, 3 min ago"``)."""
    ago = duration_words(now - site.since)
    if site.state in ("late", "failed", "paused", "refused"):
        why = code_words(site.code) or site.code
        return f"{site.state}: {why} ({ago} ago)"
    return {
        # it has a group once it was asked; it is here again where the run ended before it had answered
        "here": "here; nothing is asked of it now" if site.group else "here; not asked yet",
        "asked": f"training; asked {ago} ago",
        "answered": f"answered {ago} ago",
        "resting": "resting after being late; asked again in a later round",
        "away": f"away for {ago}",
    }[site.state]


def group_words(group: GroupView, now: float) -> str:
    """Return where a group stands in words (``"round 3 of 20: 2 of 5 answered, 12 min left"``)."""
    if group.stage == "ended":
        why = code_words(group.code) or group.code
        return f"all {group.rounds} rounds done" if not group.code else f"ended after round {group.done}: {why}"
    if group.stage == "waiting":
        kind = "" if group.name == "all" else f" {group.name}"
        sites = "site" if group.missing == 1 else "sites"
        return f"after round {group.done} of {group.rounds}: waiting for {group.missing} more{kind} {sites}"
    if group.open is None:
        return f"round {group.done} of {group.rounds} is done"
    answered = f"{len(group.open.answered)} of {len(group.open.asked)} answered"
    awaited = f"round {group.open.number} of {group.rounds}: {answered}"
    left = group.open.started + group.open.deadline_s - now
    return awaited + (f", {duration_words(left)} left" if group.open.deadline_s and left > 0 else "")


def duration_words(seconds: float) -> str:
    """Return a duration as people say it: ``"12 s"``, ``"5 min"``, ``"3 h"``, ``"2 days"``."""
    for limit, unit, word in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{max(0.0, seconds) / unit:.0f} {word}"
    return f"{seconds / 86400:.0f} days"


def byte_words(count: float) -> str:
    """Return a size as people say it: ``"340 B"``, ``"1.2 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _run_json(run: RunView) -> dict[str, Any]:
    told = asdict(run)
    told["sites"] = [{**asdict(site), "why": code_words(site.code)} for _, site in sorted(run.sites.items())]
    for name, group in run.groups.items():
        rounds = [
            {**kept, "bytes_received": round_.bytes_received, "dice": round_.dice()}
            for kept, round_ in zip(told["groups"][name]["closed"], group.closed, strict=True)
        ]
        told["groups"][name]["closed"] = rounds
    return told


def newest(folders: list[Path], wanted: str | None) -> Path | None:
    """Return the folder called ``wanted``, else the first; None where there is none."""
    if wanted is None:
        return folders[0] if folders else None
    return next((folder for folder in folders if folder.name == wanted), None)

"""How a run stands, folded from its events: what the terminal, the status page and the metrics are made from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeGuard

from FedSegCore.federation.events import EVENTS_FILE
from FedSegCore.federation.log_tail import LogTail

Standing = Literal["here", "asked", "answered", "late", "failed", "resting", "paused", "away", "refused"]
GroupStage = Literal["waiting", "training", "between", "ended"]
RunStage = Literal["starting", "running", "finished", "failed"]

Event = Mapping[str, Any]

LATE = "site.late"

_MOST = 1e15
"""No number in an event is larger."""

STOPPED, FAILED = "run.stopped", "run.failed"
"""Codes of runs that were stopped, and of those that ended in an unexpected way."""

_STATES: Mapping[str, Standing] = {LATE: "late", "site.paused": "paused", "site.left": "paused"}
"""Codes of an answer that tell more than that it failed."""


@dataclass
class SiteView:
    """A site as the run sees it.

    Attributes:
        name: its name.
        modality: DICOM modality code; empty while unknown.
        training_cases: as it introduced itself.
        group: its group; empty until it was asked.
        state: where it stands: ``here`` (has not been asked yet, or the run ended before it answered), ``asked`` (its
            answer is awaited), ``answered``, ``late``, ``failed``, ``resting`` (left out for a while after being late),
            ``paused`` (by its own people), ``away``, ``refused``.
        code: why, where it is late, failed or refused.
        since: when that began, seconds since the epoch.
        answered: rounds in which its answer was used.
        last_answer: when its last answer came; 0 for never.
    """

    name: str
    modality: str = ""
    training_cases: int = 0
    group: str = ""
    state: Standing = "here"
    code: str = ""
    since: float = 0.0
    answered: int = 0
    last_answer: float = 0.0

    def turn(self, state: Standing, time: float, code: str = "") -> None:
        """Note a new state."""
        self.state, self.since, self.code = state, time, code


@dataclass
class SiteRoundView:
    """What one site gave to one round: ``code`` says why nothing; ``scores`` is label → mean Dice."""

    modality: str = ""
    code: str = ""
    loss: float | None = None
    bytes_received: int = 0
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)


@dataclass
class RoundView:
    """A round of a group.

    Attributes:
        number: 1-based.
        asked: sites that were asked.
        started: when its orders went out, seconds since the epoch.
        deadline_s: seconds after that at which a site is late; 0 for unknown.
        closed: when it closed; 0 while it is open.
        loss: mean training loss of the sites.
        bytes_sent: of the models that went out.
        sites: site → what it gave; sites that are still awaited are not in it.
    """

    number: int
    asked: list[str] = field(default_factory=list)
    started: float = 0.0
    deadline_s: float = 0.0
    closed: float = 0.0
    loss: float | None = None
    bytes_sent: int = 0
    sites: dict[str, SiteRoundView] = field(default_factory=dict)

    @property
    def bytes_received(self) -> int:
        """Size of all answers."""
        return sum(site.bytes_received for site in self.sites.values())

    @property
    def answered(self) -> list[str]:
        """Sites whose answers were used."""
        return [name for name, site in self.sites.items() if not site.code]

    def dice(self) -> dict[str, dict[str, float]]:
        """Return modality → label → mean Dice over sites; of the model as it was before this round's training."""
        found: dict[str, dict[str, list[float]]] = {}
        for site in self.sites.values():
            for label, value in site.scores.items():
                found.setdefault(site.modality or "?", {}).setdefault(label, []).append(value)
        return {kind: {label: fmean(values) for label, values in labels.items()} for kind, labels in found.items()}


@dataclass
class GroupView:
    """A group of sites.

    Attributes:
        name: its name.
        rounds: rounds planned.
        stage: ``waiting`` (for sites), ``training``, ``between`` (two rounds), ``ended``.
        code: why it ended before its last round.
        words: the latest that happened, in words.
        missing: how many sites it waits for.
        open: the round that is going on.
        closed: all closed rounds, in order.
    """

    name: str
    rounds: int = 0
    stage: GroupStage = "waiting"
    code: str = ""
    words: str = ""
    missing: int = 0
    open: RoundView | None = None
    closed: list[RoundView] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Rounds closed."""
        return self.closed[-1].number if self.closed else 0


@dataclass
class RunView:
    """A run. ``time`` is that of its last event (seconds since the epoch), ``words`` what it said."""

    name: str
    stage: RunStage = "starting"
    code: str = ""
    words: str = ""
    time: float = 0.0
    groups: dict[str, GroupView] = field(default_factory=dict)
    sites: dict[str, SiteView] = field(default_factory=dict)

    def sites_of(self, group: str) -> list[SiteView]:
        """Return the sites of a group, by name."""
        return [site for _, site in sorted(self.sites.items()) if self.group_of(site) == group]

    def group_of(self, site: SiteView) -> str:
        """Return a site's group; where it was not asked yet, the one it will be in; empty if that is unknown."""
        guess = next((name for name in (site.modality, "all") if name in self.groups), "")
        return site.group or guess


class RunFold:
    """Reads a run's events as they are written and keeps the view up to date.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.view = RunView(folder.name)
        self._tail = LogTail(folder / EVENTS_FILE)

    def update(self) -> list[Event]:
        """Take in what is new and return it."""
        new = self._tail.objects()
        for event in new:
            self.take(event)
        return list(new)

    def take(self, event: Event) -> None:
        """Take in one event; kinds and entries that are not known are passed over."""
        view, kind = self.view, str(event.get("event", ""))
        if kind.startswith("release-"):
            return  # of a delivery, after the run
        if kind == "failed" and (view.code, event.get("code")) == (STOPPED, FAILED):
            return  # a process whose run was stopped fails over that
        view.time, view.words = _number(event, "time"), str(event.get("message", ""))
        view.stage, view.code = "running", ""
        if kind in ("finished", "failed"):
            view.stage, view.code = ("finished" if kind == "finished" else "failed"), str(event.get("code", ""))
            self._end()
        elif kind in ("site-joined", "site-refused", "site-left"):
            self._of_a_site(kind, event)
        elif name := str(event.get("group", "")):
            group = view.groups.setdefault(name, GroupView(name))
            group.rounds, group.words = int(_number(event, "rounds")) or group.rounds, view.words
            self._of_a_group(kind, group, event)

    def _end(self) -> None:
        """Note that no answer is awaited any more."""
        for group in self.view.groups.values():
            if group.stage == "training":
                group.stage, group.open = "between", None
        for site in self.view.sites.values():
            if site.state == "asked":
                site.turn("here", self.view.time)

    def _of_a_site(self, kind: str, event: Event) -> None:
        name = str(event.get("site", "")) or "a node without a name"
        known = name in self.view.sites
        site = self.view.sites.setdefault(name, SiteView(name))
        if kind == "site-joined":
            site.modality = str(event.get("modality", ""))
            site.training_cases = int(_number(event, "training_cases"))
            site.turn("here", self.view.time)
        elif kind == "site-left":
            site.turn("away", self.view.time)
        elif not known or site.state in ("away", "refused"):
            # somebody who comes under the name of a site that is here changes nothing about that site
            site.turn("refused", self.view.time, str(event.get("code", "")))

    def _of_a_group(self, kind: str, group: GroupView, event: Event) -> None:
        if kind == "waiting":
            group.stage, group.missing = "waiting", int(_number(event, "missing"))
        elif kind == "round-started":
            self._start(group, event)
        elif kind in ("site-answered", "site-failed"):
            self._answer(group, event, failed=kind == "site-failed")
        elif kind == "round-closed":
            self._close(group, event)
        elif kind == "round-failed":
            group.stage, group.open = "between", None
        elif kind == "group-finished":
            group.stage, group.code, group.open = "ended", str(event.get("code", "")), None

    def _start(self, group: GroupView, event: Event) -> None:
        group.stage, group.missing = "training", 0
        asked = event.get("sites")
        names = [str(name) for name in asked] if isinstance(asked, list) else []
        number, deadline_s = int(_number(event, "round")), _number(event, "deadline_s")
        group.open = RoundView(number, names, self.view.time, deadline_s)
        for name in names:
            site = self.view.sites.setdefault(name, SiteView(name))
            site.group = group.name
            site.turn("asked", self.view.time)
        for site in self.view.sites_of(group.name):
            if site.name not in names and site.state == "late":
                site.turn("resting", self.view.time, LATE)

    def _answer(self, group: GroupView, event: Event, *, failed: bool) -> None:
        name, code = str(event.get("site", "")), str(event.get("code", "")) if failed else ""
        site = self.view.sites.setdefault(name, SiteView(name))
        if group.open is not None:
            group.open.sites[name] = _site_round(event, site.modality, code)
        if failed:
            site.turn(_STATES.get(code, "failed"), self.view.time, code)
        else:
            site.turn("answered", self.view.time)
            site.last_answer = self.view.time

    def _close(self, group: GroupView, event: Event) -> None:
        number = int(_number(event, "round"))
        closed = group.open or RoundView(number, started=self.view.time)
        closed.closed, closed.loss = self.view.time, _number(event, "loss") if event.get("loss") is not None else None
        closed.bytes_sent = int(_number(event, "bytes_sent"))
        for name in closed.answered:
            self.view.sites[name].answered += 1
        # a round that was done again after a crash counts once
        group.closed = [earlier for earlier in group.closed if earlier.number < number] + [closed]
        group.stage, group.open = "between", None


def run_folders(runs: Path) -> list[Path]:
    """Return the folders of runs that have begun, the one with the latest event first."""
    begun = [path.parent for path in runs.glob(f"*/{EVENTS_FILE}")]
    return sorted(begun, key=lambda folder: (folder / EVENTS_FILE).stat().st_mtime, reverse=True)


def closed_rounds(view: RunView) -> Iterator[tuple[GroupView, RoundView]]:
    """Yield every closed round with its group."""
    for _, group in sorted(view.groups.items()):
        for closed in group.closed:
            yield group, closed


def _site_round(event: Event, modality: str, code: str) -> SiteRoundView:
    scores = event.get("scores")
    known = scores.items() if isinstance(scores, dict) else ()
    return SiteRoundView(
        modality=modality,
        code=code,
        loss=_number(event, "loss") if event.get("loss") is not None else None,
        bytes_received=int(_number(event, "payload_bytes") or _number(event, "bytes")),
        seconds=_number(event, "seconds"),
        scores={str(label): float(value) for label, value in known if _is_number(value)},
    )


def _number(event: Event, name: str) -> float:
    value = event.get(name)
    return float(value) if _is_number(value) else 0.0


def _is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value can be shown and counted: a damaged line may hold any."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST

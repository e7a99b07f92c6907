"""The coordinator's status as a page: one file without script that the browser reads again by itself."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from FedSegCore.federation.coordinator.run_view import GroupView, RunView, SiteView
from FedSegCore.federation.coordinator.status import (
    CoordinatorStatus,
    byte_words,
    duration_words,
    group_words,
    site_words,
)
from FedSegCore.federation.reason_words import code_words
from FedSegCore.reporting.html import write_report
from FedSegCore.reporting.plots import curves
from FedSegCore.reporting.sections import Block, Details, Fact, Facts, Notice, Picture, Section, Table, Text
from FedSegCore.reporting.tables import Column

REFRESH_S = 15
"""How often a browser that shows the page reads it again."""

RENEWED_S = 60.0
"""While the coordinator serves, the page is written at least this often."""

_SHOWN_ROUNDS = 12


def write_status_page(path: Path, status: CoordinatorStatus) -> None:
    """Write the page whole; its folder must exist."""
    at = datetime.fromtimestamp(status.time, UTC)
    sections = [Section("Sites", _sites(status))]
    if status.run is not None:
        sections = [Section("Where the groups stand", _groups(status.run, status.time)), *sections]
        sections += [Section("Scores", _scores(status.run)), Section("Rounds and bytes", _rounds(status.run))]
    write_report(path, f"Federation {status.federation}", sections, lead=_lead(status, at), refresh_s=REFRESH_S)


def _lead(status: CoordinatorStatus, at: datetime) -> str:
    serving = {
        True: "The coordinator is serving.",
        False: "The coordinator is not running.",
        None: "The coordinator's server answers with an error; its logs say why.",
    }[status.server.serving]
    fresh = f"While it serves, this page is renewed every {RENEWED_S:.0f} seconds: an older time means it has stopped."
    return f"As of {at:%Y-%m-%d %H:%M:%S} UTC. {serving}\n\n{fresh if status.server.serving is not False else ''}"


def _groups(run: RunView, now: float) -> list[Block]:
    blocks: list[Block] = [Text(f"Run {run.name}: {run.stage}, last event {duration_words(now - run.time)} ago.")]
    if run.stage == "failed":
        blocks = [Notice(f"The run has failed ({run.code}). {run.words}"), *blocks]
    facts = [
        Fact(f"{group.done} of {group.rounds}", f"{name}, rounds done", group_words(group, now))
        for name, group in sorted(run.groups.items())
    ]
    return [*blocks, Facts(facts)] if facts else [*blocks, Text("No group has begun; sites have yet to join.")]


def _sites(status: CoordinatorStatus) -> list[Block]:
    run = status.run
    names = {site.name for site in status.admitted} | set(run.sites if run else ())
    connected = {site.name: status.connected(site) for site in status.admitted}
    words = {True: "yes", False: "no", None: "unknown"}
    rows = []
    for name in sorted(names):
        site = run.sites.get(name) if run else None
        rows.append(
            {
                "name": name,
                "connected": words[connected[name]] if name in connected else "not admitted",
                **_site_row(run, site, status.time),
            }
        )
    columns = [
        Column("name", "site"),
        Column("connected", "connected"),
        Column("kind", "kind"),
        Column("group", "group"),
        Column("answered", "rounds answered"),
        Column("words", "where it stands"),
    ]
    table: list[Block] = [Table(columns, rows)] if rows else [Text("No site has been admitted.")]
    return [*_asking(status.requests), *_troubles(run), *table]


def _asking(names: Sequence[str]) -> list[Block]:
    return [Notice(f"Asking to be let in: {', '.join(names)}.")] if names else []


def _site_row(run: RunView | None, site: SiteView | None, now: float) -> dict[str, Any]:
    if run is None or site is None:
        return {"kind": None, "group": None, "answered": None, "words": "has not joined this run"}
    return {
        "kind": site.modality or None,
        "group": run.group_of(site) or None,
        "answered": site.answered,
        "words": site_words(site, now),
    }


def _troubles(run: RunView | None) -> list[Block]:
    bad = [site for site in run.sites.values() if site.state in ("late", "failed", "refused")] if run else []
    told = [f"{site.name}: {code_words(site.code) or 'gave nothing'} ({site.code})." for site in bad]
    return [Notice(" ".join(sorted(told)))] if told else []


def _scores(run: RunView) -> list[Block]:
    rows = [
        {"round": closed.number, "panel": f"{name}: {kind}" if name != kind else kind, "label": label, "dice": value}
        for name, group in sorted(run.groups.items())
        for closed in group.closed
        for kind, labels in closed.dice().items()
        for label, value in labels.items()
    ]
    if not rows:
        return [Text("No scores yet: no site has validation cases enough to send any.")]
    how = (
        "Mean Dice over sites, from their own validation cases. A round's scores are of the model that each site "
        "received, before that round's training. Sites with fewer cases than their minimum send none."
    )
    drawn = curves(
        rows, x="round", y="dice", panel="panel", line="label", x_label="round", y_label="Dice", y_range=(0.0, 1.0)
    )
    latest = {(row["panel"], row["label"]): row for row in rows}
    columns = [Column("panel", "modality"), Column("label", "label"), Column("dice", "Dice"), Column("round", "round")]
    return [Text(how), Picture(drawn, alternative="Dice by round"), Table(columns, list(latest.values()))]


def _rounds(run: RunView) -> list[Block]:
    blocks: list[Block] = []
    for name, group in sorted(run.groups.items()):
        if group.closed:
            rows = _round_rows(group)
            columns = [
                Column("number", "round"),
                Column("sites", "answers used"),
                Column("missing", "without an answer"),
                Column("loss", "loss", 3),
                Column("seconds", "seconds", 0),
                Column("sent", "sent"),
                Column("received", "received"),
            ]
            blocks.append(Table(columns, rows[-_SHOWN_ROUNDS:], caption=f"Group {name}: its latest rounds"))
            if len(rows) > _SHOWN_ROUNDS:
                blocks.append(Details("all rounds", [Table(columns, rows)]))
    return blocks or [Text("No round has closed yet.")]


def _round_rows(group: GroupView) -> Sequence[dict[str, Any]]:
    return [
        {
            "number": closed.number,
            "sites": f"{len(closed.answered)} of {len(closed.sites)}",
            "missing": ", ".join(f"{name} ({site.code})" for name, site in closed.sites.items() if site.code) or None,
            "loss": closed.loss,
            "seconds": closed.closed - closed.started,
            "sent": byte_words(closed.bytes_sent),
            "received": byte_words(closed.bytes_received),
        }
        for closed in group.closed
    ]

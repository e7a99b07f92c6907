"""``fedseg coordinator status``: how the federation stands, for people who would rather look than read."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from FedSegCore.cli.output import console, emit_json, stop_signals
from FedSegCore.common.errors import BadInputError

if TYPE_CHECKING:
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder, Fingerprints
    from FedSegCore.federation.coordinator.run_view import GroupView, RunFold, RunView
    from FedSegCore.federation.coordinator.status import CoordinatorStatus

_EVERY_S = 2.0
_LOOK_S = 0.1
_SHOWN_ROUNDS = 5
_COLOURS = {
    "answered": "green",
    "asked": "cyan",
    "here": "cyan",
    "late": "yellow",
    "resting": "yellow",
    "paused": "yellow",
    "failed": "red",
    "refused": "red",
    "away": "dim",
}


def status(
    folder: Annotated[Path, typer.Argument(help="The coordinator's folder.")],
    run: Annotated[str | None, typer.Option(help="Run to show; else the one in which something happened last.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Keep showing until Ctrl+C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Show rounds, sites (who is in, late, resting or refused, and why), scores and bytes.

    Works from the coordinator's files too, while nothing is served.
    """
    from FedSegCore.federation.coordinator.certificates import expiry_notice
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.run_view import RunFold, run_folders
    from FedSegCore.federation.coordinator.status import newest

    opened = CoordinatorFolder.open(folder)
    chosen = newest(run_folders(opened.runs), run)
    if run is not None and chosen is None:
        raise BadInputError("run.not-begun", f"No run called {run} has begun.", "See 'run_names' with --json.")
    fold = None if chosen is None else RunFold(chosen)
    if watch:
        _watch(opened, fold)
    seen = _look(opened, fold)
    console.print(_screen(seen))
    if notice := expiry_notice(opened.server_certificate):
        console.print(notice)
    try:
        tell_fingerprints(opened.fingerprints())
    except BadInputError as error:  # a key that cannot be used keeps nobody from looking
        console.print(f"{error.what} {error.remedy}", soft_wrap=True)
    if as_json:
        emit_json(seen.json())


def tell_fingerprints(fingerprints: "Fingerprints") -> None:
    """Print both of a coordinator's fingerprints with what each is compared for."""
    console.print(f"  {fingerprints.invitations}  of its invitations: for sites that join", soft_wrap=True)
    console.print(f"  {fingerprints.releases}  of its releases: for people who get a model as a file", soft_wrap=True)


def _look(opened: "CoordinatorFolder", fold: "RunFold | None") -> "CoordinatorStatus":
    from FedSegCore.federation.coordinator.run_view import run_folders
    from FedSegCore.federation.coordinator.status import ask_server, status_of

    if fold is not None:
        fold.update()
    names = tuple(path.name for path in run_folders(opened.runs))
    return status_of(opened, ask_server(opened), None if fold is None else fold.view, names)


def _watch(opened: "CoordinatorFolder", fold: "RunFold | None") -> None:
    """Show the status again and again until Ctrl+C; where standard error is no terminal, nothing is drawn over."""
    with stop_signals() as stopped, Live(console=console, auto_refresh=False, transient=True) as live:
        while not stopped.is_set():
            live.update(_screen(_look(opened, fold)), refresh=True)
            until = time.monotonic() + _EVERY_S
            while not stopped.is_set() and time.monotonic() < until:
                time.sleep(_LOOK_S)


def _screen(seen: "CoordinatorStatus") -> Group:
    serving = {
        True: Text("serving", "green"),
        False: Text("not running; this is from its files", "yellow"),
        None: Text("in trouble: its server answers with an error", "red"),
    }[seen.server.serving]
    parts: list[Text | Table] = [Text.assemble((seen.federation, "bold"), "  ", serving), _admitted(seen)]
    if seen.requests:
        parts.append(Text(f"asking to be let in: {', '.join(seen.requests)}", "yellow"))
    if seen.run is not None:
        parts += _run_parts(seen.run, seen.time)
    for number, entry in (seen.server.runs or {}).items():
        parts.append(Text(f"run {number} ({entry.run or 'delivery'}): {entry.outcome or entry.stage}", "dim"))
    return Group(*parts)


def _admitted(seen: "CoordinatorStatus") -> Table:
    words = {True: Text("connected", "green"), False: Text("not connected", "yellow"), None: Text("unknown", "dim")}
    table = Table("admitted site", "", box=None, pad_edge=False)
    for site in seen.admitted:
        table.add_row(site.name, words[seen.connected(site)])
    return table


def _run_parts(run: "RunView", now: float) -> list[Text | Table]:
    from FedSegCore.federation.coordinator.status import duration_words, group_words

    parts: list[Text | Table] = [
        Text.assemble(
            "\n", (f"Run {run.name}", "bold"), f"  {run.stage}; last event {duration_words(now - run.time)} ago"
        )
    ]
    if run.stage == "failed":
        parts.append(Text(f"{run.code}  {run.words}", "red"))
    for _, group in sorted(run.groups.items()):
        parts += [Text.assemble((f"{group.name}  ", "bold"), group_words(group, now)), _sites(run, group.name, now)]
        if group.closed:
            parts.append(_rounds(group))
    others = [site.name for site in run.sites.values() if run.group_of(site) not in run.groups]
    if others:
        parts.append(_sites(run, "", now))
    return parts


def _sites(run: "RunView", group: str, now: float) -> Table:
    from FedSegCore.federation.coordinator.status import site_words

    table = Table("  site", "kind", "rounds", "", box=None, pad_edge=False)
    for site in run.sites_of(group):
        words = Text(site_words(site, now), _COLOURS[site.state])
        table.add_row(f"  {site.name}", site.modality, str(site.answered), words)
    return table


def _rounds(group: "GroupView") -> Table:
    from FedSegCore.federation.coordinator.status import byte_words

    latest = group.closed[-_SHOWN_ROUNDS:]
    kinds = sorted({(kind, label) for r in latest for kind, labels in r.dice().items() for label in labels})
    heads = [f"{label} ({kind})" for kind, label in kinds]
    table = Table("  round", "sites", "loss", *heads, "out", "in", box=None, pad_edge=False)
    for closed in latest:
        dice = closed.dice()
        scores = [dice.get(kind, {}).get(label) for kind, label in kinds]
        table.add_row(
            f"  {closed.number}",
            f"{len(closed.answered)}/{len(closed.sites)}",
            "–" if closed.loss is None else f"{closed.loss:.3f}",
            *("–" if score is None else f"{score:.2f}" for score in scores),
            byte_words(closed.bytes_sent),
            byte_words(closed.bytes_received),
        )
    return table

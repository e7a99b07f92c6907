"""``fedseg site pause|resume|leave|forget|status|set``: what the site shall do, and how it stands."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from FedSegCore.cli.output import console, emit_json
from FedSegCore.common.errors import CannotDoHereError, UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Folder = Annotated[Path, typer.Argument(help="The site's folder.")]

_LEAVE_LIMIT_S = 60.0
_LOOK_S = 0.3


def pause(folder: Folder) -> None:
    """Take part in nothing until resumed; a round in training is given up and the coordinator is told so."""
    from FedSegCore.federation.site import control
    from FedSegCore.federation.site.folder import SiteFolder

    control.pause(SiteFolder.open(folder))
    console.print("The site is paused: it trains nothing and is not connected until 'fedseg site resume'.")


def resume(folder: Folder) -> None:
    """Take part again, at the hours that are set."""
    from FedSegCore.federation.site import control
    from FedSegCore.federation.site.folder import SiteFolder

    site = SiteFolder.open(folder)
    control.resume(site)
    halt = control.halt_now(site)
    console.print("The site takes part again." if halt is None else f"Not yet: {halt.words}.")


def settings(
    folder: Folder,
    hours: Annotated[str | None, typer.Option(help="Local hours to train at, as 19:00-07:00; 'any' for all.")] = None,
    cores_free: Annotated[int | None, typer.Option(help="CPU cores to leave to others.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    as_json: Json = False,
) -> None:
    """Say when and on what the site trains; also while it runs. Without options: show it."""
    from FedSegCore.federation.site import control
    from FedSegCore.federation.site.folder import SiteFolder

    site = SiteFolder.open(folder)
    given: dict[str, Any] = {"hours": hours, "cores_free": cores_free, "device": device}
    wanted = {name: None if value == "any" else value for name, value in given.items() if value is not None}
    now = control.change(site, **wanted) if wanted else control.read_control(site)
    console.print(f"Hours: {now.hours or 'any'}. Cores left free: {now.cores_free}.")
    console.print(f"Device: {control.wanted_device(site)}.")
    if as_json:
        emit_json(now.model_dump(mode="json"))


def leave(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Leave the federation for good; the journal, the key and the cases stay until 'forget'."""
    from FedSegCore.federation.site import control
    from FedSegCore.federation.site.folder import SiteFolder
    from FedSegCore.federation.site.journal_entries import Refused
    from FedSegCore.federation.site.status import is_running

    site = SiteFolder.open(folder)
    _confirm(yes, "Leave the federation? Only a new invitation brings the site back.")
    began = datetime.now(UTC)
    control.leave(site)
    deadline = time.monotonic() + _LEAVE_LIMIT_S
    while is_running(site):
        if time.monotonic() > deadline:
            raise CannotDoHereError(
                "site.still-running",
                "The site did not stop within a minute.",
                "End its process; it will not come back.",
            )
        time.sleep(_LOOK_S)
    entries = (line.entry for line in site.journal.recent(began, datetime.now(UTC)))
    told = any(isinstance(entry, Refused) and entry.code == "site.left" for entry in entries)
    if told:
        console.print("The site has left; the coordinator was told so.")
    else:
        console.print("The site has left. The coordinator sees that it is gone, but nothing was asked that could be")
        console.print("answered: tell the coordinator, who takes the key off its list ('fedseg coordinator expel').")


def forget(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete key, invitation, policy, copies of cases and logs of the federation; the journal is kept."""
    from FedSegCore.federation.site import control
    from FedSegCore.federation.site.folder import SiteFolder

    site = SiteFolder.open(folder)
    _confirm(yes, "Delete everything of this federation but the journal?")
    kept = control.forget(site)
    console.print(f"Deleted. Kept in the folder: {', '.join(kept)}. Images elsewhere were not touched.")


def status(folder: Folder, as_json: Json = False) -> None:
    """Say how the site stands, in words."""
    from FedSegCore.federation.site.state import site_state

    told = site_state(folder)
    console.print(told.words)
    if told.remedy:
        console.print(told.remedy)
    if told.set_aside:
        console.print(f"Cases that cannot be used: {told.set_aside}. 'fedseg site cohort check' says why.")
    if told.last_message is not None:
        console.print(
            f"Last message from the coordinator: {datetime.fromtimestamp(told.last_message):%Y-%m-%d %H:%M:%S}."
        )
    if as_json:
        emit_json({**asdict(told), "until": told.until.isoformat() if told.until else None})


def register(app: typer.Typer) -> None:
    """Add these commands to ``fedseg site``."""
    for command in (pause, resume, leave, forget, status):
        app.command()(command)
    app.command("set")(settings)


def _confirm(yes: bool, question: str) -> None:
    if not yes and not typer.confirm(question, err=True):
        raise UsageError("site.not-confirmed", "Nothing was done.", "Answer y, or give --yes.")

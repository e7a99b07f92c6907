"""``fedseg coordinator invite|requests|admit|expel|renew|runs``: who takes part, and what was done."""

from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.coordinator_status import tell_fingerprints
from FedSegCore.cli.output import console, emit_json

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def _say(line: str) -> None:
    console.print(line, soft_wrap=True)


def invite(
    folder: Folder,
    federation: Annotated[
        Path | None, typer.Argument(help="The federation's TOML file, for its labels, groups and privacy rules.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to send to the sites.")] = Path("invitation.json"),
    days: Annotated[int, typer.Option(help="How many days it holds.")] = 30,
    as_json: Json = False,
) -> None:
    """Write an invitation: one file that holds all a site needs to join, for any number of sites."""
    from FedSegCore.federation.config import read_federation_config
    from FedSegCore.federation.coordinator.admission import invite as make
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

    config = None if federation is None else read_federation_config(federation)
    opened = CoordinatorFolder.open(folder)
    made = make(opened, out, config, days)
    _say(f"Send {out} to the sites; it holds until {made.expires:%Y-%m-%d} and holds nothing secret.")
    _say("When they telephone, read out the fingerprint of your invitations:")
    fingerprints = opened.fingerprints()
    tell_fingerprints(fingerprints)
    if as_json:
        told = {"file": str(out), **made.model_dump(mode="json"), "fingerprint": made.fingerprint}
        emit_json({**told, "release_fingerprint": fingerprints.releases})


def requests(
    folder: Folder,
    add: Annotated[list[Path] | None, typer.Option(help="A request file that a site sent; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Show the sites that ask to be admitted, with the fingerprints they must read out."""
    from FedSegCore.federation.coordinator.admission import add_request, pending
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder

    opened = CoordinatorFolder.open(folder)
    for file in add or []:
        add_request(opened, file)
    waiting = pending(opened)
    for request in waiting:
        _say(f"  {request.site}: {request.fingerprint}, asked on {request.made:%Y-%m-%d}")
    _say(
        "Let each site read its fingerprint out by telephone, then: fedseg coordinator admit COORD NAME --fingerprint …"
        if waiting
        else "No request waits."
    )
    if as_json:
        keys = {"site", "made", "software_version", "flower"}
        told = [{**r.model_dump(mode="json", include=keys), "fingerprint": r.fingerprint} for r in waiting]
        emit_json({"requests": told})


def admit(
    folder: Folder,
    who: Annotated[str, typer.Argument(help="The site's name in 'requests', or its request file, or a key.pub.")],
    fingerprint: Annotated[str, typer.Option(help="As the site has read it out.")],
    name: Annotated[
        str | None, typer.Option(help="Its name, with the key.pub of a site that was set up without an invitation.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a site in, if the fingerprint that it has read out is that of its key."""
    from FedSegCore.federation.coordinator import admission
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    with ControlClient(opened) as control:
        if name is None:
            site = admission.admit(opened, control, who, fingerprint)
        else:
            site = admission.admit_key(opened, control, name, Path(who), fingerprint)
    _say(f"{site.name} is admitted; its key is {site.fingerprint}.")
    if as_json:
        emit_json(site.model_dump())


def expel(folder: Folder, name: Annotated[str, typer.Argument(help="The site's name.")], as_json: Json = False) -> None:
    """Shut a site out: it gets no work any more, and its key is never admitted again."""
    from FedSegCore.federation.coordinator import admission
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.runs import ControlClient

    opened = CoordinatorFolder.open(folder)
    with ControlClient(opened) as control:
        site = admission.expel(opened, control, name)
    _say(f"{site.name} is shut out; runs go on without it. To come back it joins again with --new-key.")
    if as_json:
        emit_json(site.model_dump())


def renew(
    folder: Folder,
    host: Annotated[list[str] | None, typer.Option(help="Name or address to add; may be given again.")] = None,
    as_json: Json = False,
) -> None:
    """Make a new server certificate, for more names if given; sites stay as they are."""
    from FedSegCore.federation.coordinator.certificates import certificate_end
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.renewal import RELOAD_S
    from FedSegCore.federation.coordinator.renewal import renew as make

    opened = CoordinatorFolder.open(folder)
    hosts = make(opened, host or []).hosts
    end = certificate_end(opened.server_certificate)
    _say(f"The new certificate holds until {end:%Y-%m-%d}, for {', '.join(hosts)}.")
    _say(f"A running coordinator shows it within {RELOAD_S:g} seconds; nothing has to be started again.")
    if host:
        _say("New invitations name the new addresses; a site that wants one joins again with such an invitation.")
    if as_json:
        emit_json({"hosts": list(hosts), "expires": end.isoformat()})


def runs(folder: Folder, as_json: Json = False) -> None:
    """Show all runs with their rounds, the latest first; also while nothing is served."""
    from FedSegCore.federation.coordinator.folder import CoordinatorFolder
    from FedSegCore.federation.coordinator.run_view import RunFold, run_folders

    told = []
    for run_folder in run_folders(CoordinatorFolder.open(folder).runs):
        fold = RunFold(run_folder)
        fold.update()
        view = fold.view
        groups = {name: {"closed": group.done, "rounds": group.rounds} for name, group in sorted(view.groups.items())}
        words = [f"{name} {group['closed']} of {group['rounds']} rounds" for name, group in groups.items()]
        _say(f"  {view.name}: {view.stage}; {', '.join(words) or view.words}")
        told.append({"run": view.name, "stage": view.stage, "code": view.code, "time": view.time, "groups": groups})
    if not told:
        _say("No run has begun yet.")
    if as_json:
        emit_json({"runs": told})

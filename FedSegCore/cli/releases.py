"""``fedseg releases``: look at a folder of releases, take an exported release into it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from FedSegCore.cli.output import console, emit_json

app = typer.Typer(no_args_is_help=True, help="Look at model releases, take in those that others exported.")

Releases = Annotated[Path, typer.Option("--releases", help="Folder of model releases.")]
Site = Annotated[Path | None, typer.Option(help="Site's folder, whose coordinator's releases are trusted.")]
Trusted = Annotated[Path | None, typer.Option(help="Public release key (coordinator.pub) that is trusted.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("list")
def list_(releases: Releases, site: Site = None, trusted: Trusted = None, as_json: Json = False) -> None:
    """Show what is there, newest first: kind of image, labels, who signed it, and what is refused and why."""
    from FedSegCore.common.progress import Progress
    from FedSegCore.federation.site.trust import trusted_release_keys
    from FedSegCore.worker.listing import list_for_people

    told = list_for_people(releases, None, Progress(), trusted_release_keys(site, trusted))
    table = Table("release", "for", "labels", "rounds", "signer", "trusted", box=None, pad_edge=False)
    for row in told["releases"]:
        kinds, labels = ", ".join(row["modalities"]), ", ".join(row["labels"])
        table.add_row(row["id"], kinds, labels, str(row["rounds"]), row["signer"], "yes" if row["trusted"] else "no")
    console.print(table)
    for broken in told["broken"]:
        console.print(f"{broken['name']}: {broken['code']}  {broken['cause']}", soft_wrap=True)
    if as_json:
        emit_json(told)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="An exported release: zip or folder.")],
    releases: Releases,
    site: Site = None,
    trusted: Trusted = None,
    as_json: Json = False,
) -> None:
    """Check an exported release and put it into a folder of releases."""
    from FedSegCore.federation.site.trust import trusted_release_keys
    from FedSegCore.models.export import import_release
    from FedSegCore.models.verification import PUBLIC_KEY

    taken = import_release(source, releases, trusted_release_keys(site, trusted))
    console.print(f"{taken.id} is in {releases.name}; it was signed by {taken.signer}.")
    if not taken.trusted:
        key = releases / taken.id / PUBLIC_KEY
        console.print(
            "Before you use it, compare this with the fingerprint of the coordinator's releases by telephone ('fedseg "
            "coordinator status' shows it there). "
            f"If it is the same, keep {key} and give it with --trusted from then on.",
            soft_wrap=True,
        )
    if as_json:
        emit_json({"release": taken.id, "signer": taken.signer, "trusted": taken.trusted})

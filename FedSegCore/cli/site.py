"""``fedseg site``: set up a site and take part in a federation."""

import time
from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.options import checked_options
from FedSegCore.cli.output import console, progress_bar
from FedSegCore.common.errors import CancelledError

app = typer.Typer(no_args_is_help=True, help="Take part in a federation with images that stay here.")

Folder = Annotated[Path, typer.Argument(help="The site's folder.")]

_TICK_S = 0.3


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="The site's name in the federation.")],
    coordinator: Annotated[str, typer.Option(help="The coordinator's host:port.")],
    certificate: Annotated[Path, typer.Option(help="The coordinator's ca.crt.")],
    cohort: Annotated[Path, typer.Option(help="The cohort file (JSON).")],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make a site in a new FOLDER: its own key, the certificate it trusts, its cohort."""
    from FedSegCore.federation.site.cohort_file import read_cohort_file
    from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
    from FedSegCore.federation.site.keys import public_key_fingerprint, read_public_key

    described = read_cohort_file(cohort)
    given = {"name": name, "coordinator": coordinator, "cohort": cohort.absolute(), "device": device}
    made = SiteFolder.create(folder, checked_options(SiteSettings, given), certificate)
    fingerprint = public_key_fingerprint(read_public_key(made.public_key))
    console.print(
        f"{name} is ready: {described.count('train')} cases to train on, {described.count('validation')} to score on."
    )
    console.print(f"Send the coordinator {made.public_key} and read out its fingerprint: {fingerprint}")


@app.command()
def run(folder: Folder) -> None:
    """Take part until Ctrl+C; the images stay here."""
    from FedSegCore.federation.process_group import stop_trees
    from FedSegCore.federation.site.folder import SiteFolder
    from FedSegCore.federation.site.node import SiteProcesses

    site = SiteProcesses(SiteFolder.open(folder))
    with progress_bar("Site") as progress:
        try:
            site.start_trainer()
            while site.error is None:
                for words in site.tick():
                    console.print(words)
                doing = site.progress()
                progress.update(float(doing.get("fraction", 0.0)), str(doing.get("stage", "starting")))
                time.sleep(_TICK_S)
        except CancelledError:
            console.print("Stopping.")
        finally:
            stop_trees(site.processes())
    if site.error is not None:
        raise site.error

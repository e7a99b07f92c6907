"""``fedseg site``: set up a site and take part in a federation."""

import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.options import checked_options
from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.cli.site_approve import approve
from FedSegCore.cli.site_check import check
from FedSegCore.cli.site_cohort import cohort as cohort_commands
from FedSegCore.cli.site_control import register as register_control
from FedSegCore.cli.site_joining import join
from FedSegCore.common.errors import BadInputError, CancelledError, UsageError

app = typer.Typer(no_args_is_help=True, help="Take part in a federation with images that stay here.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Folder = Annotated[Path, typer.Argument(help="The site's folder.")]

_TICK_S = 0.3

_log = logging.getLogger(__name__)


@app.command()
def init(
    folder: Folder,
    name: Annotated[str, typer.Option(help="The site's name in the federation.")],
    coordinator: Annotated[str, typer.Option(help="The coordinator's host:port.")],
    certificate: Annotated[Path, typer.Option(help="The coordinator's ca.crt.")],
    cohort: Annotated[
        Path | None, typer.Option(help="A cohort file (JSON); without, cases are added with 'fedseg site cohort add'.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    minimum_cases: Annotated[
        int | None, typer.Option(min=1, help="Patients without whom nothing leaves; else 5. See 'fedseg site policy'.")
    ] = None,
) -> None:
    """Make a site in a new FOLDER: its own key, the certificate it trusts, its cohort, its policy."""
    from FedSegCore.federation.site.cohort_file import read_cohort_file
    from FedSegCore.federation.site.folder import SiteFolder, SiteSettings
    from FedSegCore.federation.site.keys import read_public_key, short_fingerprint
    from FedSegCore.federation.site.policy import policy_for

    described = None if cohort is None else read_cohort_file(cohort)
    given: dict[str, object] = {"name": name, "coordinator": coordinator, "device": device}
    if cohort is not None:
        given["cohort"] = cohort.absolute()
    made = SiteFolder.create(folder, checked_options(SiteSettings, given), certificate, policy_for(minimum_cases))
    fingerprint = short_fingerprint(read_public_key(made.public_key))
    if described is None:
        console.print(f"{name} is ready. Add its cases with 'fedseg site cohort add'.")
    else:
        counts = described.count("train"), described.count("validation")
        console.print(f"{name} is ready: {counts[0]} cases to train on, {counts[1]} to score on.")
    console.print(f"Send the coordinator {made.public_key} and read out its fingerprint: {fingerprint}")


@app.command()
def run(folder: Folder) -> None:
    """Take part until Ctrl+C; the images stay here."""
    from FedSegCore.federation.process_log import log_to_json
    from FedSegCore.federation.site.control import read_control
    from FedSegCore.federation.site.folder import SiteFolder
    from FedSegCore.federation.site.node import SiteProcesses
    from FedSegCore.federation.site.status import ProcessesState

    opened = SiteFolder.open(folder)
    log_to_json(opened.logs, "site")
    if read_control(opened).leaving:
        raise UsageError("site.has-left", "The site has left the federation.", "Join again with a new invitation.")
    site = SiteProcesses(opened)
    site.start_trainer()
    with progress_bar("Site") as progress:
        try:
            while site.state is not ProcessesState.ENDED:
                for words in site.tick():
                    console.print(words)
                    _log.info(words)
                doing = site.progress()
                progress.update(float(doing.get("fraction", 0.0)), str(doing.get("stage", "starting")))
                time.sleep(_TICK_S)
        except CancelledError:
            console.print("Stopping.")
        finally:
            site.close()
    if site.error is not None:
        raise site.error


@app.command()
def policy(folder: Folder, as_json: Json = False) -> None:
    """Say what may leave the site and what a server may ask for; change it in the folder's policy.json."""
    from FedSegCore.federation.site.folder import SiteFolder
    from FedSegCore.federation.site.policy import policy_words

    read = SiteFolder.open(folder).policy()
    for sentence in policy_words(read):
        console.print(f"  {sentence}", soft_wrap=True)
    if as_json:
        emit_json(read.model_dump(mode="json"))


@app.command()
def journal(
    folder: Folder,
    verify: Annotated[bool, typer.Option("--verify", help="Prove it whole; exit code 3 where it is not.")] = False,
    as_json: Json = False,
) -> None:
    """Show what was asked of the site, what left it and what was refused."""
    from FedSegCore.cli.journal_table import journal_table
    from FedSegCore.federation.site.folder import SiteFolder

    # the journal outlives the site: 'fedseg site forget' keeps it
    alone = SiteFolder(folder.absolute())
    kept = alone.journal if (alone.path / "journal").is_dir() else SiteFolder.open(folder).journal
    if verify:
        checked = kept.verify()
        if as_json:
            emit_json(asdict(checked))
        if not checked.whole:
            raise BadInputError(
                "journal.broken",
                f"{checked.file or 'The journal'}, line {checked.line}: {checked.reason}.",
                "Keep a copy of the journal's folder for whoever must know, then move it away: a new one begins.",
            )
        console.print(f"The journal is whole: {checked.entries} entries.")
        if checked.unfinished:
            console.print("Its last entry was cut off by a crash; the next entry will say so.")
        return
    lines = list(kept.lines())
    console.print(journal_table(lines))
    if as_json:
        emit_json({"entries": [line.model_dump(mode="json") for line in lines]})


app.command()(check)
app.command()(approve)
app.command()(join)
app.add_typer(cohort_commands, name="cohort")
register_control(app)

"""``fedseg results``: one page about finished experiments."""

from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console


def results(
    sources: Annotated[
        list[Path], typer.Argument(help="Folders of experiments (their --out), or files that --keep wrote.")
    ],
    out: Annotated[Path, typer.Option(help="The page, in Markdown; its pictures lie in a folder beside it.")] = Path(
        "docs/results.md"
    ),
    experiments: Annotated[
        Path | None,
        typer.Option(help="Folder of experiment files, whose present words are taken; the page says what was not run."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="Write a small file per experiment here, from which the page can be made again."),
    ] = None,
) -> None:
    """Write what experiments showed: targets, tables, paired differences, curves, and what has not been run."""
    from FedSegCore.common.files import write_text
    from FedSegCore.experiments import kept
    from FedSegCore.experiments.config import read_experiment
    from FedSegCore.experiments.result_curves import curves_picture
    from FedSegCore.experiments.results_page import results_page

    planned = [read_experiment(path) for path in sorted(experiments.glob("*.toml"))] if experiments else []
    finished = [kept.brought_up_to_date(kept.read_finished(source), planned) for source in sources]
    beside = out.parent / out.stem
    beside.mkdir(parents=True, exist_ok=True)
    pictures = {}
    for one in finished:
        if drawing := curves_picture(one):
            write_text(beside / f"{one.id}.svg", drawing)
            pictures[one.id] = f"{beside.name}/{one.id}.svg"
    write_text(out, results_page(finished, planned, pictures))
    if keep is not None:
        for path in kept.keep(finished, keep):
            console.print(f"Kept {path} ({path.stat().st_size / 1000:.0f} kB).")
    console.print(f"Wrote {out}.")

"""``fedseg results``: one page about finished experiments."""

from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console


def results(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished experiments (their --out).")],
    out: Annotated[Path, typer.Option(help="The page, in Markdown.")] = Path("docs/results.md"),
) -> None:
    """Write what finished experiments showed: targets, tables, paired differences."""
    from FedSegCore.common.files import write_text
    from FedSegCore.experiments.results_page import read_finished, results_page

    page = results_page([read_finished(folder) for folder in folders])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    console.print(f"Wrote {out}.")

"""``fedseg demo``: a whole federation of generated patients on this machine, and its report."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.monai_import import import_monai
from FedSegCore.demo import ROUNDS


def demo(
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of training.")] = ROUNDS,
    seed: Annotated[int, typer.Option(min=0, max=20_000, help="Patients and training follow from it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Train five generated hospitals together over a real federation on this machine; segment; report."""
    folder = _folder_for(out)
    console.print(f"Five hospitals, one federation, {rounds} rounds. Everything goes to {folder.name}.")
    with progress_bar("Demo") as progress:
        progress.update(0.0, "starting")
        # torch takes seconds to import: only here, with Ctrl+C and the progress bar already at work.
        import_monai()
        from FedSegCore.demo.run import RELEASES, REPORT, run_demo

        done = run_demo(folder, rounds, seed, progress)
    for modality, dice in done.dice.items():
        console.print(f"  unseen {modality} patient: mean Dice {dice:.2f}")
    console.print(f"Done after {sum(done.seconds.values()) / 60:.1f} minutes. Open {folder / REPORT} in a browser.")
    if as_json:
        report, releases = str(folder / REPORT), str(folder / RELEASES)
        emit_json({"report": report, "releases": releases, "seconds": done.seconds, "dice": done.dice})


def _folder_for(out: Path) -> Path:
    """Return ``out``, or a free folder beside it where it exists: asked at a terminal, told elsewhere."""
    if not out.exists():
        return out
    number = 2
    while (free := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    if sys.stdin.isatty() and sys.stderr.isatty():
        typer.confirm(f"{out.name} exists already. Write to {free.name} instead?", default=True, abort=True, err=True)
    else:
        console.print(f"{out.name} exists already; this run goes to {free.name}.")
    return free

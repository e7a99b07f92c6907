"""``fedseg experiment``: settings compared on labelled images, resumable, with a report."""

import os
from pathlib import Path
from typing import Annotated

import typer

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.monai_import import import_monai


def experiment(
    file: Annotated[Path, typer.Argument(help="The experiment's TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder of the results; one of an unfinished run is gone on with.")],
    budget: Annotated[str, typer.Option(help="Which of the experiment's budgets.")] = "quick",
    data: Annotated[Path | None, typer.Option(help="Folder of the data sets; else the experiment's own.")] = None,
    kept: Annotated[
        Path | None, typer.Option(help="What 'fedseg results --keep' wrote of an unfinished run, to be gone on with.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; else all cores.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Run the experiment in FILE: every setting and seed, test scores per case, releases, report."""
    with progress_bar("Experiment") as progress:
        progress.update(0.0, "starting")
        # torch takes seconds to import: only here, with Ctrl+C and the progress bar already at work.
        import_monai()
        import torch

        from FedSegCore.experiments.config import read_experiment
        from FedSegCore.experiments.data import read_sites
        from FedSegCore.experiments.kept import read_finished
        from FedSegCore.experiments.report import write_experiment_report
        from FedSegCore.experiments.runner import ExperimentRun
        from FedSegCore.experiments.statistics import chosen_rows, setting_spread
        from FedSegCore.inference.devices import choose_device

        config = read_experiment(file)
        torch.set_num_threads(threads or os.cpu_count() or 1)
        root = data or file.parent / config.data_root
        run = ExperimentRun(config, read_sites(config, root), budget, out, choose_device(device))
        if kept is not None:
            console.print(f"{run.adopt(read_finished(kept))} runs were kept and are not done again.")
        results = run.run(progress.part(0.0, 0.98))
        releases = run.publish()
        report = out / "report.html"
        write_experiment_report(config, results, report)
    for modality in dict.fromkeys(row["modality"] for row in results["rows"]):
        for name, setting in config.settings.items():
            found = setting_spread(chosen_rows(results["rows"], modality=modality), name)
            if found:
                console.print(f"  {modality}  {setting.title}: mean Dice {found.mean:.3f}")
    console.print(f"Open {report} in a browser.")
    if as_json:
        emit_json({"report": str(report), "results": str(out / "results.json"), "releases": str(releases)})

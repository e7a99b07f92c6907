"""docs/results.md: what the experiments' results say, computed from their rows and nothing else."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.result_tables import (
    Finished,
    comparison_table,
    cost_table,
    label_table,
    markdown_table,
    rounds_table,
    site_table,
)
from FedSegCore.experiments.targets import Target, Verdict, judge

_HEAD = """# Results

Written by `fedseg results` from the experiments' result files; every number is computed from their rows.

* A case's Dice is the mean over its labels, each measured over the whole volume (or picture) on the image's own grid.
* Tables give mean ± standard deviation over test cases × seeds. No patient is both trained on and tested in a run.
* Differences are paired by case and seed; brackets hold the 95 % bootstrap interval over patients.
"""


@dataclass(frozen=True)
class _Judged:
    where: str
    verdict: Verdict


def read_finished(folder: Path) -> Finished:
    """Read what a finished experiment left in its folder.

    Raises:
        BadInputError: ``experiment.no-results``: it holds no finished experiment.
    """
    try:
        described = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(
            "experiment.no-results",
            f"The folder {folder.name} holds no finished experiment.",
            "Give the --out folder of an experiment that has run to its end.",
        ) from error
    entries = {key: value for key, value in described.items() if key not in ("budget", "identity")}
    return Finished(ExperimentConfig.model_validate(entries), results)


def results_page(finished: Sequence[Finished]) -> str:
    """Return the page in Markdown: targets first, then one chapter per experiment."""
    judged = [_Judged(_where(one), verdict) for one in finished for verdict in verdicts(one)]
    held = [one for one in judged if one.verdict.reached]
    missed = [one for one in judged if not one.verdict.reached]
    parts = [_HEAD, "## What held\n", _list(held), "## What did not\n", _list(missed)]
    for one in finished:
        parts += _chapter(one)
    return "\n".join(parts).rstrip() + "\n"


def verdicts(one: Finished) -> list[Verdict]:
    """Return what became of the experiment's goals under its budget."""
    config = one.config
    plain = [
        Target(
            text=f"{kind}: {config.settings[config.default].title}", setting=config.default, modality=kind, at_least=g
        )
        for kind, g in config.target.items()
    ]
    judged = (judge(target, one.rows, list(config.settings), one.budget) for target in (*plain, *config.targets))
    return [verdict for verdict in judged if verdict is not None]


def _where(one: Finished) -> str:
    return f"{one.config.name}, {one.budget}"


def _list(judged: Iterable[_Judged]) -> str:
    lines = [f"* {one.verdict.text} ({one.where}): {_outcome(one.verdict)}." for one in judged]
    return "\n".join(lines or ["* nothing"]) + "\n"


def _outcome(verdict: Verdict) -> str:
    if verdict.found is None:
        return f"not known, {verdict.words}"
    return f"{verdict.found:+.3f}, goal {verdict.goal:+.3f}; {verdict.words}"


def _chapter(one: Finished) -> list[str]:
    config, results = one.config, one.results
    seeds = ", ".join(map(str, config.seeds))
    software = ", ".join(f"{name} {version}" for name, version in results["software"].items())
    parts = [
        f"## {config.title}\n",
        " ".join(config.question.split()) + "\n",
        f"Budget `{one.budget}`; seeds {seeds}; {results['device']}, {results['threads']} threads; {software}.\n",
        _verdict_table(verdicts(one)),
    ]
    for modality in one.modalities:
        parts += [f"### {modality}\n", comparison_table(one, modality), label_table(one, modality)]
    parts += [site_table(one), rounds_table(one), cost_table(one)]
    if config.notes:
        parts += [
            "### Where this differs from the paper, and why\n",
            "\n".join(f"* {note}" for note in config.notes) + "\n",
        ]
    return [part for part in parts if part]


def _verdict_table(found: Sequence[Verdict]) -> str:
    rows: list[list[Any]] = [
        [one.text, f"{one.goal:+.3f}", "–" if one.found is None else f"{one.found:+.3f}", one.words, _word(one)]
        for one in found
    ]
    return markdown_table(["Target", "Goal", "Found", "Means", "Reached"], rows) if rows else ""


def _word(verdict: Verdict) -> str:
    return "not known" if verdict.found is None else "yes" if verdict.reached else "**no**"

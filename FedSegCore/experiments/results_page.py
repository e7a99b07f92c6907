"""docs/results.md: what the experiments' results say, computed from their rows and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.kept import SUFFIX, Finished, made_with
from FedSegCore.experiments.result_tables import (
    comparison_table,
    cost_table,
    label_table,
    markdown_table,
    rounds_table,
    site_table,
)
from FedSegCore.experiments.statistics import Difference
from FedSegCore.experiments.targets import Target, Verdict, judge

_HEAD = """# Results

Written by `fedseg results docs/results/*.json.gz --experiments experiments` from the experiments' result files; every
number is computed from their rows.

* A case's Dice is the mean over its labels, each measured over the whole volume (or picture) on the image's own grid.
* A patient's Dice is the mean over the patient's cases and the seeds they were tested with: who has many images, or was
  tested with several seeds, counts once. Tables give mean ± standard deviation over patients, and how many there are.
* No patient is both trained on and tested in a run, as far as the data set tells its patients (see the notes).
* Differences are paired by case and seed; brackets hold the 95 % bootstrap interval over patients.
* A goal is judged by the mean; where the interval of the difference holds 0, more patients could turn it round.
"""


@dataclass(frozen=True)
class _Judged:
    where: str
    verdict: Verdict


def results_page(
    finished: Sequence[Finished], planned: Sequence[ExperimentConfig] = (), pictures: Mapping[str, str] | None = None
) -> str:
    """Return the page in Markdown: targets first, then one chapter per experiment.

    Args:
        finished: the experiments that were run, also as far as they were.
        planned: all experiments there are; what was not run of them is said.
        pictures: experiment and budget (``Finished.id``) → where its curves lie, relative to the page.
    """
    judged = [_Judged(_where(one), verdict) for one in finished for verdict in verdicts(one)]
    known = [one for one in judged if one.verdict.found is not None]
    held = [one for one in known if one.verdict.reached]
    missed = [one for one in known if not one.verdict.reached]
    parts = [_HEAD, _overview(finished), "## What held\n", _list(held), "## What did not\n", _list(missed)]
    parts += ["## What has not been run\n", _not_run(finished, planned, [one for one in judged if one not in known])]
    for one in finished:
        parts += _chapter(one, (pictures or {}).get(one.id))
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
    run = {run["setting"] for run in one.results["runs"]}
    judged = (judge(target, one.rows, list(config.settings), one.budget) for target in (*plain, *config.targets))
    return [
        # The best of settings that are still to be run is not known.
        replace(verdict, found=None, reached=False, words="not all settings have been run")
        if target.kind == "near-best" and not target.against and run < config.settings.keys()
        else verdict
        for target, verdict in zip((*plain, *config.targets), judged, strict=True)
        if verdict is not None
    ]


def _where(one: Finished) -> str:
    return f"{one.config.name}, {one.budget}"


def _overview(finished: Sequence[Finished]) -> str:
    body = [
        [
            one.config.title,
            one.budget,
            f"{len(one.results['runs'])} of {len(one.results['runs']) + one.missing}",
            ", ".join(map(str, one.seeds)),
            f"{sum(one.training_seconds(run) + run['scoring_seconds'] for run in one.results['runs']) / 3600.0:.1f}",
        ]
        for one in finished
    ]
    return markdown_table(["Experiment", "Budget", "Runs", "Seeds", "Hours"], body) if body else ""


def _list(judged: Iterable[_Judged]) -> str:
    lines = [f"* {one.verdict.text} ({one.where}): {_outcome(one.verdict)}." for one in judged]
    return "\n".join(lines or ["* nothing"]) + "\n"


def _outcome(verdict: Verdict) -> str:
    if verdict.found is None:
        return f"not known, {verdict.words}"
    interval = f"; between them {_interval(verdict.gap)}" if verdict.gap else ""
    return f"{verdict.found:+.3f}, goal {verdict.goal:+.3f}; {verdict.words}{interval}"


def _interval(gap: Difference) -> str:
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _not_run(finished: Sequence[Finished], planned: Sequence[ExperimentConfig], unknown: Sequence[_Judged]) -> str:
    done = {(one.config.name, one.budget) for one in finished}
    lines = [
        f"* {one.config.title} (`{one.config.name}`, `{one.budget}`): {one.missing} of its runs."
        for one in finished
        if one.missing
    ]
    for config in planned:
        budgets = [f"`{budget}`" for budget in config.budgets if (config.name, budget) not in done]
        if budgets:
            lines.append(f"* {config.title} (`{config.name}`): budget {' and '.join(budgets)}.")
    lines += [f"* {one.verdict.text} ({one.where}): {_outcome(one.verdict)}." for one in unknown]
    return "\n".join(lines or ["* nothing"]) + "\n"


def _chapter(one: Finished, picture: str | None) -> list[str]:
    config, results = one.config, one.results
    seeds = ", ".join(map(str, one.seeds))
    made = "; or ".join(
        f"{one_way.device_words}; {', '.join(' '.join(package) for package in one_way.software)}"
        for one_way in made_with(results)
    )
    command = f"fedseg experiment experiments/{config.name}.toml --budget {one.budget}"
    parts = [
        f"## {config.title}\n",
        " ".join(config.question.split()) + "\n",
        f"`{command}`: seeds {seeds}; {made}.\n",
    ]
    if one.missing:
        parts.append(
            f"**Unfinished**: {one.missing} of {len(results['runs']) + one.missing} runs are still to be done; "
            f"`--out DIR --kept docs/results/{one.id}{SUFFIX}` goes on with them.\n"
        )
    parts.append(_verdict_table(verdicts(one)))
    parts += _bullets("What was looked into", config.findings)
    for modality in one.modalities:
        parts += [f"### {modality}\n", comparison_table(one, modality), label_table(one, modality)]
    if picture:
        parts.append(f"### Curves\n\n![{config.title}: over the rounds, mean of sites and seeds]({picture})\n")
    parts += [site_table(one), rounds_table(one), cost_table(one)]
    parts += _bullets("Where this differs from the paper, and why", config.notes)
    return [part for part in parts if part]


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return [f"### {title}\n", "\n".join(f"* {line}" for line in lines) + "\n"] if lines else []


def _verdict_table(found: Sequence[Verdict]) -> str:
    head = ["Target", "Goal", "Found", "Means", "Between them [95 % interval]", "Reached"]
    return markdown_table(head, [_verdict_row(one) for one in found]) if found else ""


def _verdict_row(one: Verdict) -> list[str]:
    if one.found is None:
        return [one.text, "–", "–", one.words, "–", "not known"]
    between = _interval(one.gap) if one.gap else "–"
    return [one.text, f"{one.goal:+.3f}", f"{one.found:+.3f}", one.words, between, _word(one)]


def _word(verdict: Verdict) -> str:
    return "yes" if verdict.reached else "**no**"

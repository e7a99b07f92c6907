"""An experiment's report: the answer first, then tables, curves and pictures, written from its results alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FedSegCore.experiments.config import ExperimentConfig
from FedSegCore.experiments.kept import made_with
from FedSegCore.experiments.statistics import Spread, chosen_rows, paired_difference, setting_spread
from FedSegCore.reporting.html import write_report
from FedSegCore.reporting.plots import curves, grouped_dots
from FedSegCore.reporting.sections import Block, Details, Fact, Facts, Notice, Picture, Section, Table, Text
from FedSegCore.reporting.tables import Column, MeanSd, cross_table

Results = Mapping[str, Any]


@dataclass(frozen=True)
class _Story:
    config: ExperimentConfig
    results: Results

    @property
    def rows(self) -> list[dict[str, Any]]:
        titles = {name: setting.title for name, setting in self.config.settings.items()}
        return [{**row, "title": titles[row["setting"]]} for row in self.results["rows"]]

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(row["modality"] for row in self.results["rows"]))

    def dice(self, setting: str, modality: str, key: str = "dice") -> Spread | None:
        """Return the spread over test patients of a case's mean Dice over labels; None without any."""
        return setting_spread(chosen_rows(self.results["rows"], modality=modality), setting, key)


def write_experiment_report(config: ExperimentConfig, results: Results, path: Path) -> None:
    """Write the report of ``results`` (as in ``results.json``) as one self-contained HTML file."""
    story = _Story(config, results)
    sections = [
        Section("What came out", [_facts(story), *_verdicts(story), *_comparison(story)]),
        Section("Structure by structure", _labels(story)),
        Section("How training went", _training(story)),
        Section("How it was done", _method(story)),
    ]
    write_report(path, config.title, sections, lead=config.question)


def _facts(story: _Story) -> Block:
    title = story.config.settings[story.config.default].title
    means = [(modality, story.dice(story.config.default, modality)) for modality in story.modalities]
    return Facts(
        [
            Fact(f"{m.mean:.3f}", f"{modality}: mean test Dice", f"{title}, {m.patients} patients")
            for modality, m in means
            if m
        ]
    )


def _verdicts(story: _Story) -> list[Block]:
    title = story.config.settings[story.config.default].title
    verdicts: list[Block] = []
    for modality, goal in story.config.target.items():
        scores = story.dice(story.config.default, modality)
        if scores is None:
            continue
        found = scores.mean
        reached = found >= goal
        words = "reaches" if reached else "does not reach"
        verdicts.append(Notice(f"{modality}: {title} {words} the goal of {goal:.2f} ({found:.3f}).", good=reached))
    return verdicts


def _comparison(story: _Story) -> list[Block]:
    references = dict.fromkeys(story.config.reference_of(modality) for modality in story.modalities)
    against = " or ".join(f"“{story.config.settings[name].title}”" for name in references)
    table = []
    for name, setting in story.config.settings.items():
        for modality in story.modalities:
            own, group = story.dice(name, modality), story.dice(name, modality, "group_dice")
            if own is None or group is None:
                continue
            table.append(
                {
                    "modality": modality,
                    "setting": setting.title,
                    "dice": MeanSd(own.mean, own.standard_deviation, own.patients),
                    "group": MeanSd(group.mean, group.standard_deviation, group.patients),
                    "difference": _difference(story, name, modality),
                }
            )
    columns = [
        Column("modality", "Images"),
        Column("setting", "Setting"),
        Column("dice", "Dice, the site's own model", 3),
        Column("group", "Dice, the group's model", 3),
        Column("difference", f"Against {against} (95 % interval)"),
    ]
    return [
        Text(
            "A case's Dice is the mean over its structures, each measured over the whole volume on the image's own "
            "grid. Tables give mean ± standard deviation over test patients, none of whom was trained on."
        ),
        Table(columns, sorted(table, key=lambda row: story.modalities.index(str(row["modality"])))),
    ]


def _difference(story: _Story, setting: str, modality: str) -> str:
    reference = story.config.reference_of(modality)
    if setting == reference:
        return "–"
    try:
        gap = paired_difference(story.results["rows"], setting, reference, modality)
    except ValueError:
        return "–"
    return f"{gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"


def _labels(story: _Story) -> list[Block]:
    blocks: list[Block] = []
    for modality in story.modalities:
        own = [row for row in story.rows if row["modality"] == modality]
        names, table = cross_table(own, row="title", column="label", value="dice", total="all")
        columns = [Column("title", "Setting"), *(Column(name, name, 3) for name in names)]
        drawing = grouped_dots(
            own, category="label", series="title", value="dice", value_label="Dice", value_range=(0.0, 1.0)
        )
        blocks += [
            Picture(drawing, f"{modality}: every dot is a test case."),
            Table(columns, table, f"{modality}, Dice"),
        ]
    return blocks


def _training(story: _Story) -> list[Block]:
    points = [
        {"round": row["round"], "loss": row["loss"], "site": row["site"], "setting": run["title"]}
        for run in story.results["runs"]
        if run["seed"] == story.config.seeds[0]
        for row in run["curves"]
    ]
    drawing = curves(
        points, x="round", y="loss", panel="setting", line="site", x_label="round", y_label="training loss", columns=2
    )
    blocks: list[Block] = [Picture(drawing, "Training loss per site, first seed.")]
    if scored := _scored(story):
        blocks.append(scored)
    table = [
        {"setting": run["title"], "seed": run["seed"], "minutes": run["training_seconds"] / 60}
        for run in story.results["runs"]
    ]
    columns = [Column("setting", "Setting"), Column("seed", "Seed"), Column("minutes", "Training (minutes)", 1)]
    words = "; ".join(made.device_words for made in made_with(story.results))
    return [*blocks, Table(columns, table, words)]


def _scored(story: _Story) -> Block | None:
    points = [
        {"round": row["round"], "dice": dice, "label": label, "setting": run["title"]}
        for run in story.results["runs"]
        for row in run["curves"]
        for label, dice in row["scores"].items()
    ]
    if not points:
        return None
    drawing = curves(
        points,
        x="round",
        y="dice",
        panel="setting",
        line="label",
        x_label="round",
        y_label="validation Dice",
        columns=2,
    )
    return Picture(drawing, "Validation Dice of each structure, mean over sites and seeds.")


def _method(story: _Story) -> list[Block]:
    sites: Sequence[Mapping[str, Any]] = [
        {
            "site": site.name,
            "modality": site.modality,
            "dataset": site.dataset,
            "test": site.test_patients,
            "validation": site.validation_patients,
        }
        for site in story.config.sites
    ]
    columns = [
        Column("site", "Site"),
        Column("modality", "Images"),
        Column("dataset", "Data set"),
        Column("validation", "Validation patients"),
        Column("test", "Test patients"),
    ]
    seeds = ", ".join(map(str, story.config.seeds))
    words = (
        f"Budget: {story.results['budget']}. Seeds: {seeds}. Every setting has the same patients and splits. "
        "No test patient influences training, schedule or choice of "
        "model: the model of the last round is tested."
    )
    packages = sorted({package for made in made_with(story.results) for package in made.software})
    software = [{"package": name, "version": version} for name, version in packages]
    versions = Table([Column("package", "Package"), Column("version", "Version")], software)
    return [Text(words), Table(columns, sites), Details("Software", [versions])]

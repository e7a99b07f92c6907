"""The demo's report: what came out first, then pictures, then how the training went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from FedSegCore.federation.outcome import FederationOutcome, GroupResult
from FedSegCore.learning.results import CaseScore
from FedSegCore.phantoms.torso import ANNOTATED, TORSO_CONTRACT
from FedSegCore.reporting.html import write_report
from FedSegCore.reporting.overlays import PlaneName, overlay_png
from FedSegCore.reporting.plots import curves
from FedSegCore.reporting.sections import (
    Block,
    Details,
    Fact,
    Facts,
    Gallery,
    Legend,
    Notice,
    Picture,
    Section,
    Table,
    Text,
)
from FedSegCore.reporting.surface3d import NothingToDrawError, render_segments
from FedSegCore.reporting.tables import Column
from FedSegCore.volumes.volume import Volume

GOAL = {"CT": 0.85, "MR": 0.85, "US": 0.75}
"""Mean Dice on unseen patients that the demo is expected to reach."""

_KIND = {"CT": "CT", "MR": "MR", "US": "ultrasound"}
_COLOURS = {label.name: label.colour for label in TORSO_CONTRACT.labels}
_LEAD = """Five hospitals trained segmentation models together without showing each other an image: two with CT, two
with MR, one with ultrasound. Only model weights, numbers of cases and scores left a hospital. Each modality then
segmented a patient that no hospital had.

The patients are generated, so the truth is known exactly. Everything else was real: separate processes for the
coordinator and every hospital, encrypted connections, hospital keys admitted one by one, signed model releases."""


@dataclass(frozen=True)
class SegmentedCase:
    """An unseen patient, segmented by a release and compared with the truth.

    Attributes:
        modality: DICOM modality code.
        release: what segmented it.
        seconds: how long that took.
        image: the image.
        truth: its labels.
        found: what the release found, on the image's grid.
        scores: per label.
    """

    modality: str
    release: str
    seconds: float
    image: Volume
    truth: Volume
    found: Volume
    scores: Sequence[CaseScore]

    @property
    def mean_dice(self) -> float:
        """Mean Dice over labels."""
        return fmean(score.dice for score in self.scores)


@dataclass(frozen=True)
class DemoFacts:
    """What the report is made from."""

    outcome: FederationOutcome
    cases: Sequence[SegmentedCase]
    seconds: Mapping[str, float]


def write_demo_report(path: Path, facts: DemoFacts) -> None:
    """Write the demo's report as one self-contained HTML file."""
    sections = [
        Section("How well unseen patients were segmented", _results(facts.cases)),
        Section("What it looks like", _pictures(facts.cases)),
        Section("How the models grew", _growth(facts.outcome)),
        Section("What was sent, and how long it took", _traffic(facts)),
    ]
    write_report(path, "A federation of five hospitals", sections, lead=_LEAD, made=datetime.now())


def _results(cases: Sequence[SegmentedCase]) -> list[Block]:
    rows = []
    for case in cases:
        volumes = {
            name: [_millilitres(labels, value) for labels in (case.truth, case.found)]
            for name, value in ((label.name, label.value) for label in TORSO_CONTRACT.labels)
        }
        rows += [
            {
                "modality": _KIND[case.modality],
                "label": score.label,
                "dice": score.dice,
                "distance": score.surface_distance_mm,
                "truth": volumes[score.label][0] if case.modality != "US" else None,
                "found": volumes[score.label][1] if case.modality != "US" else None,
            }
            for score in case.scores
        ]
    means = [Fact(f"{case.mean_dice:.2f}", f"{_KIND[case.modality]}, mean Dice", _segmented(case)) for case in cases]
    return [
        Facts(means),
        *(_verdict(case) for case in cases),
        Text(
            "Dice compares the model's segment with the truth: 1 is perfect agreement, 0 none. The surface distance "
            "is how far the two outlines are apart on average."
        ),
        Table(
            [
                Column("modality", "Image"),
                Column("label", "Structure"),
                Column("dice", "Dice"),
                Column("distance", "Surface distance (mm)", 1),
                Column("truth", "True volume (ml)", 0),
                Column("found", "Found volume (ml)", 0),
            ],
            rows,
        ),
    ]


def _segmented(case: SegmentedCase) -> str:
    return f"{case.release}, segmented in {case.seconds:.1f} s"


def _verdict(case: SegmentedCase) -> Notice:
    goal = GOAL[case.modality]
    reached = case.mean_dice >= goal
    words = "reached" if reached else "not reached"
    return Notice(f"{_KIND[case.modality]}: the goal of {goal:.2f} was {words} ({case.mean_dice:.3f}).", good=reached)


def _millilitres(labels: Volume, value: int) -> float:
    return float((labels.array == value).sum()) * labels.grid.voxel_volume_ml()


def _pictures(cases: Sequence[SegmentedCase]) -> list[Block]:
    blocks: list[Block] = [Legend(TORSO_CONTRACT)]
    for case in cases:
        panels = (("image", None), ("truth", case.truth), ("model", case.found))
        plane: PlaneName = "axial" if case.modality == "US" else "coronal"
        caption = f"{_KIND[case.modality]}, {plane} slice of a patient no hospital had."
        if case.modality == "US":
            caption = "Ultrasound picture of a patient no hospital had."
        blocks.append(Picture(overlay_png(case.image, panels, TORSO_CONTRACT, plane=plane), caption))
    solid = [case for case in cases if case.modality != "US"]
    drawn = [_solid(case, words) for case in solid for words in ("truth", "model")]
    blocks.append(Gallery([picture for picture in drawn if picture is not None]))
    if None in drawn:
        blocks.append(Text("Where a picture is missing, the model found too little to draw."))
    return blocks


def _solid(case: SegmentedCase, words: str) -> Picture | None:
    """Return the 3-D picture of the ``"truth"`` or of what the ``"model"`` found; None where there is too little."""
    labels = case.truth if words == "truth" else case.found
    try:
        return Picture(render_segments(labels, TORSO_CONTRACT, pixels=300), f"{_KIND[case.modality]}: {words}")
    except NothingToDrawError:  # a model of one round, say
        return None


def _growth(outcome: FederationOutcome) -> list[Block]:
    blocks: list[Block] = [
        Text(
            "Before training, every hospital scored the model it had received on a patient it does not train on. In "
            "FLAMES a hospital receives its own mix: more of its own weights, the rest from the others of its modality."
        )
    ]
    scores = [row for group in outcome.groups.values() for row in group.score_rows() if _annotated(group, row["label"])]
    if scores:
        drawing = curves(
            scores, x="round", y="dice", panel="site", line="label", x_label="round", y_label="Dice",
            colours=_COLOURS, y_range=(0.0, 1.0),
        )  # fmt: skip
        blocks.append(Picture(drawing, "Validation Dice per hospital and structure, round by round."))
    losses = [
        {"round": row.round_number, "site": row.site, "loss": row.loss, "group": group.group}
        for group in outcome.groups.values()
        for row in group.history
        if row.loss is not None
    ]
    if losses:
        drawing = curves(
            losses, x="round", y="loss", panel="group", line="site", x_label="round", y_label="training loss"
        )
        blocks.append(Picture(drawing, "Training loss per hospital."))
    return blocks


def _annotated(group: GroupResult, label: str) -> bool:
    return TORSO_CONTRACT.value_of(label) in ANNOTATED.get(group.group, ())


def _traffic(facts: DemoFacts) -> list[Block]:
    rows: list[dict[str, Any]] = []
    for group in facts.outcome.groups.values():
        for site, member in group.members.items():
            own = [row for row in group.history if row.site == site and not row.code]
            rows.append(
                {
                    "site": site,
                    "modality": _KIND[member.introduction.modality],
                    "cases": member.introduction.training_cases,
                    "rounds": f"{member.rounds_answered} of {group.rounds}",
                    "megabytes": sum(row.bytes_received for row in own) / 1e6,
                    "training": sum(row.seconds.get("training", 0.0) for row in own),
                }
            )
    columns = [
        Column("site", "Hospital"),
        Column("modality", "Images"),
        Column("cases", "Training cases"),
        Column("rounds", "Rounds answered"),
        Column("megabytes", "Weights sent (MB)", 1),
        Column("training", "Time spent training (s)", 0),
    ]
    stages = [{"stage": stage, "seconds": seconds} for stage, seconds in facts.seconds.items()]
    stages.append({"stage": "in all", "seconds": sum(facts.seconds.values())})
    times = Table([Column("stage", "Stage"), Column("seconds", "Seconds", 0)], stages)
    config = facts.outcome.config
    about = (
        f"Grouping: one model per modality. Aggregation: {config.aggregation.rule}. Rounds: {config.rounds}. "
        f"Seed: {config.seed}. Augmentation: spatial and GIN."
    )
    return [Table(columns, rows), times, Details("The federation's settings", [Text(about)])]

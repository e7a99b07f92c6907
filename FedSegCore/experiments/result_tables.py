"""Tables of a finished experiment, in Markdown."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from FedSegCore.experiments.kept import Finished
from FedSegCore.experiments.statistics import Row, case_values, chosen_rows, paired_difference, rounds_needed, spread


def markdown_table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers are written by the caller."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines) + "\n"


def comparison_table(one: Finished, modality: str) -> str:
    """Return setting × (Dice, group's Dice, small, large, IoU, accuracy, difference from the reference)."""
    kept = chosen_rows(one.rows, modality=modality)
    sized = modality in one.config.small_lesions
    accurate = one.config.pixel_accuracy
    head = ["Setting", "Dice, own model", "Dice, group's model"]
    head += ["DiceS", "DiceL"] * sized + ["IoU", "Pixel accuracy"] * accurate
    head += [f"Against “{one.titles[one.config.reference]}”"]
    body = []
    for name, title in one.titles.items():
        if not case_values(kept, name):
            continue
        line = [title, _mean_sd(kept, name), _mean_sd(kept, name, "group_dice")]
        if sized:
            line += [_mean_sd(chosen_rows(kept, size=size), name) for size in ("small", "large")]
        if accurate:
            line += [_mean_sd(kept, name, key) for key in ("iou", "pixel_accuracy")]
        body.append([*line, _difference(kept, name, one.config.reference)])
    threshold = (
        f"\nDiceS: true lesion A/a ≥ {one.config.small_lesions[modality]:g}; DiceL: the rest.\n" if sized else ""
    )
    return markdown_table(head, body) + threshold


def label_table(one: Finished, modality: str) -> str:
    """Return setting × label, mean ± sd of the own model's Dice; empty where there is one label only."""
    kept = chosen_rows(one.rows, modality=modality)
    labels = list(dict.fromkeys(row["label"] for row in kept))
    return _by(one, kept, "label", labels) if len(labels) > 1 else ""


def site_table(one: Finished) -> str:
    """Return setting × site, own model and group's model."""
    sites = list(dict.fromkeys(row["site"] for row in one.rows))
    own, group = _by(one, one.rows, "site", sites), _by(one, one.rows, "site", sites, "group_dice")
    return f"### Site by site\n\nThe site's own model:\n\n{own}\nThe group's model:\n\n{group}"


def rounds_table(one: Finished) -> str:
    """Return setting × rounds until validation Dice first reached the asked share of its last value."""
    share = one.config.rounds_needed
    if share is None:
        return ""
    found: dict[str, list[int]] = defaultdict(list)
    for run in one.results["runs"]:
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in run["curves"]:
            groups[row["federation"], row["group"]].append(row)
        needed = (rounds_needed(curve, share) for curve in groups.values())
        found[run["setting"]] += [one_group.rounds for one_group in needed if one_group]
    body = [
        [one.titles[name], f"{(s := spread(values)).mean:.1f} ± {s.standard_deviation:.1f}", s.cases]
        for name, values in found.items()
        if values
    ]
    head = ["Setting", f"Rounds to {100 * share:g} % of the last validation Dice", "Groups × seeds"]
    return f"### Rounds needed\n\n{markdown_table(head, body)}" if body else ""


def cost_table(one: Finished) -> str:
    """Return setting × training time: minutes a run, milliseconds a step, and how many times the reference's step."""
    minutes: dict[str, list[float]] = defaultdict(list)
    steps: dict[str, list[float]] = defaultdict(list)
    for run in one.results["runs"]:
        minutes[run["setting"]].append(one.training_seconds(run) / 60.0)
        timed = [row for row in run["curves"] if row.get("seconds") and row.get("steps")]
        if timed:
            steps[run["setting"]].append(
                1000.0 * sum(row["seconds"] for row in timed) / sum(row["steps"] for row in timed)
            )
    mean = {name: fmean(values) for name, values in steps.items()}
    reference = one.config.reference
    body = [
        [
            one.titles[name],
            f"{fmean(values):.1f}",
            f"{mean[name]:.0f}" if name in mean else "–",
            f"× {mean[name] / mean[reference]:.2f}" if name in mean and reference in mean else "–",
        ]
        for name, values in minutes.items()
    ]
    head = ["Setting", "Minutes a run", "Milliseconds a step", f"Step against “{one.titles[reference]}”"]
    return f"### Time\n\n{markdown_table(head, body)}"


def _by(one: Finished, rows: Sequence[Row], column: str, values: Sequence[str], key: str = "dice") -> str:
    body = []
    for name, title in one.titles.items():
        parts = [_mean_sd([row for row in rows if row[column] == value], name, key) for value in values]
        if any(part != "–" for part in parts):
            body.append([title, *parts])
    return markdown_table(["Setting", *values], body)


def _mean_sd(rows: Sequence[Row], setting: str, key: str = "dice") -> str:
    values = case_values(rows, setting, key)
    if not values:
        return "–"
    found = spread(values.values())
    return f"{found.mean:.3f} ± {found.standard_deviation:.3f} ({found.cases})"


def _difference(rows: Sequence[Row], setting: str, reference: str) -> str:
    if setting == reference:
        return "–"
    try:
        gap = paired_difference(rows, setting, reference, None)
    except ValueError:
        return "–"
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"

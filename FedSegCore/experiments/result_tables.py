"""Tables of a finished experiment, in Markdown."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, stdev

from FedSegCore.experiments.kept import Finished
from FedSegCore.experiments.statistics import (
    Row,
    case_of,
    case_values,
    chosen_rows,
    mean_curve,
    paired_difference,
    rounds_needed,
    setting_spread,
)


def markdown_table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    """Return a table; numbers are written by the caller."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines) + "\n"


def comparison_table(one: Finished, modality: str) -> str:
    """Return setting × (Dice, group's Dice, small, large, IoU, accuracy, difference from the reference)."""
    kept = chosen_rows(one.rows, modality=modality)
    sized = modality in one.config.small_lesions
    accurate = one.config.pixel_accuracy
    reference = one.config.reference_of(modality)
    head = ["Setting", "Dice, own model", "Dice, group's model"]
    head += ["DiceS", "DiceL"] * sized + ["IoU", "Pixel accuracy"] * accurate
    head += [f"Against “{one.titles[reference]}”"]
    body = []
    for name, title in one.titles.items():
        if not case_values(kept, name):
            continue
        line = [title, _mean_sd(kept, name), _mean_sd(kept, name, "group_dice")]
        if sized:
            line += [_mean_sd(chosen_rows(kept, size=size), name) for size in ("small", "large")]
        if accurate:
            line += [_mean_sd(kept, name, key) for key in ("iou", "pixel_accuracy")]
        body.append([*line, _difference(kept, name, reference)])
    return markdown_table(head, body) + (_size_words(one, modality, kept) if sized else "")


def _size_words(one: Finished, modality: str, rows: Sequence[Row]) -> str:
    cases = {case_of(row) for row in rows}
    without = len(cases - {case_of(row) for row in rows if row["size"] != "none"})
    return (
        f"\nDiceS: true lesion A/a ≥ {one.config.small_lesions[modality]:g}; DiceL: the other lesions. "
        f"{without} of {len(cases)} images have no lesion: they count in Dice alone, with 1 if none was found, or 0.\n"
    )


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
    """Return setting × rounds until validation Dice first reached the asked share of the reference's last value.

    The reference setting's runs of the same seed and group are what counts; runs that never get there are told.
    """
    share = one.config.rounds_needed
    if share is None:
        return ""
    curves = _scored_curves(one)
    body = []
    for name, title in one.titles.items():
        needed: list[int | None] = []
        for (setting, seed, group), own in curves.items():
            ends = [curve[max(curve)] for curve in curves.get((one.config.reference, seed, group), [])]
            if setting == name and ends:
                needed += [rounds_needed(curve, share * fmean(ends)) for curve in own]
        reached = [rounds for rounds in needed if rounds is not None]
        if needed:
            body.append([title, _mean_and_sd(reached), f"{len(reached)} of {len(needed)}"])
    rounds = f"Rounds to {100 * share:g} % of the last validation Dice of “{one.titles[one.config.reference]}”"
    table = markdown_table(["Setting", rounds, "Reached (groups × seeds)"], body)
    return f"### Rounds needed\n\n{table}" if body else ""


def _scored_curves(one: Finished) -> dict[tuple[str, int, str], list[dict[int, float]]]:
    """Return (setting, seed, group) → round → validation Dice, of each federation that has such a group."""
    found: dict[tuple[str, int, str], list[dict[int, float]]] = defaultdict(list)
    for run in one.results["runs"]:
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in run["curves"]:
            groups[row["federation"], row["group"]].append(row)
        for (_, group), rows in groups.items():
            if curve := mean_curve(rows):
                found[run["setting"], run["seed"], group].append(curve)
    return found


def _mean_and_sd(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.1f} ± {stdev(values) if len(values) > 1 else 0.0:.1f}"


def cost_table(one: Finished) -> str:
    """Return setting × training time: minutes a run, and milliseconds a step of a site."""
    minutes: dict[str, list[float]] = defaultdict(list)
    steps: dict[str, list[float]] = defaultdict(list)
    for run in one.results["runs"]:
        minutes[run["setting"]].append(one.training_seconds(run) / 60.0)
        timed = [row for row in run["curves"] if row.get("seconds") and row.get("steps")]
        if timed:
            steps[run["setting"]].append(
                1000.0 * sum(row["seconds"] for row in timed) / sum(row["steps"] for row in timed)
            )
    body = [
        [one.titles[name], f"{fmean(values):.1f}", f"{fmean(steps[name]):.0f}" if name in steps else "–"]
        for name, values in minutes.items()
    ]
    table = markdown_table(["Setting", "Minutes a run", "Milliseconds a step"], body)
    words = "Whatever else the computer did meanwhile is in these times: they do not compare settings."
    return f"### Time\n\n{words}\n\n{table}"


def _by(one: Finished, rows: Sequence[Row], column: str, values: Sequence[str], key: str = "dice") -> str:
    body = []
    for name, title in one.titles.items():
        parts = [_mean_sd([row for row in rows if row[column] == value], name, key) for value in values]
        if any(part != "–" for part in parts):
            body.append([title, *parts])
    return markdown_table(["Setting", *values], body)


def _mean_sd(rows: Sequence[Row], setting: str, key: str = "dice") -> str:
    found = setting_spread(rows, setting, key)
    return f"{found.mean:.3f} ± {found.standard_deviation:.3f} ({found.patients})" if found else "–"


def _difference(rows: Sequence[Row], setting: str, reference: str) -> str:
    if setting == reference:
        return "–"
    try:
        gap = paired_difference(rows, setting, reference, None)
    except ValueError:
        return "–"
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"

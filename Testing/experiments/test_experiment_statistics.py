"""Means, spreads and paired differences against values worked out by hand."""

import pytest

from FedSegCore.experiments.statistics import paired_difference, per_case_dice, spread


def row(setting: str, case: str, label: str, dice: float, seed: int = 0, modality: str = "CT") -> dict:
    return {"setting": setting, "seed": seed, "modality": modality, "case": case, "label": label, "dice": dice}


def test_a_case_scores_the_mean_of_its_labels() -> None:
    rows = [row("a", "p1", "liver", 0.8), row("a", "p1", "spleen", 0.6), row("a", "p2", "liver", 1.0)]
    assert per_case_dice(rows) == {("a", 0, "CT", "p1"): pytest.approx(0.7), ("a", 0, "CT", "p2"): 1.0}


def test_spread_is_the_sample_standard_deviation() -> None:
    found = spread([0.5, 0.7, 0.9])
    assert (found.mean, found.standard_deviation, found.cases) == (pytest.approx(0.7), pytest.approx(0.2), 3)
    assert spread([0.4]).standard_deviation == 0.0


def test_differences_are_paired_by_case_and_seed() -> None:
    rows = [
        row("new", "p1", "l", 0.9),
        row("old", "p1", "l", 0.7),
        row("new", "p2", "l", 0.5),
        row("old", "p2", "l", 0.4),
    ]
    rows += [row("new", "p1", "l", 0.8, seed=1), row("old", "p1", "l", 0.8, seed=1), row("new", "p9", "l", 0.1)]
    found = paired_difference(rows, "new", "old", "CT")
    # p1: mean of +0.2 and 0.0; p2: +0.1; p9 has no partner.
    assert found.mean == pytest.approx(0.1)
    assert found.cases == 2
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_no_shared_case_is_refused() -> None:
    with pytest.raises(ValueError, match="share no MR case"):
        paired_difference([row("new", "p1", "l", 0.9)], "new", "old", "MR")

"""Means, spreads and paired differences against values worked out by hand."""

from math import sqrt

import pytest

from FedSegCore.experiments.statistics import paired_difference, per_case_dice, setting_spread, spread


def row(setting: str, case: str, label: str, dice: float, seed: int = 0, patient: str | None = None) -> dict:
    return {
        "setting": setting, "seed": seed, "modality": "CT", "case": case, "label": label, "dice": dice,
        "patient": patient or case,
    }  # fmt: skip


def test_a_case_scores_the_mean_of_its_labels() -> None:
    rows = [row("a", "p1", "liver", 0.8), row("a", "p1", "spleen", 0.6), row("a", "p2", "liver", 1.0)]
    assert per_case_dice(rows) == {("a", 0, "CT", "p1"): pytest.approx(0.7), ("a", 0, "CT", "p2"): 1.0}


def test_spread_is_the_sample_standard_deviation() -> None:
    found = spread([0.5, 0.7, 0.9])
    assert (found.mean, found.standard_deviation, found.patients) == (pytest.approx(0.7), pytest.approx(0.2), 3)
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
    assert found.patients == 2
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_no_shared_case_is_refused() -> None:
    with pytest.raises(ValueError, match="share no MR case"):
        paired_difference([row("new", "p1", "l", 0.9)], "new", "old", "MR")


def test_a_patient_counts_once_however_many_images_and_seeds():
    scores = {("p", "c1", 0): 0.2, ("p", "c2", 0): 0.4, ("p", "c1", 1): 0.3, ("q", "c3", 0): 0.9}
    rows = [row("new", case, "l", dice, seed, patient) for (patient, case, seed), dice in scores.items()]
    rows += [row("old", case, "l", 0.1, seed, patient) for (patient, case, seed) in scores]
    found = setting_spread(rows, "new")
    assert found is not None
    # patients 0.3 and 0.9: mean 0.6, sd 0.6 / sqrt 2, standard error that over sqrt 2
    assert (found.mean, found.patients) == (pytest.approx(0.6), 2)
    assert found.standard_deviation == pytest.approx(0.6 / sqrt(2))
    assert found.standard_error == pytest.approx(0.3)
    gap = paired_difference(rows, "new", "old", "CT")
    # the interval is that of the mean which is told: only three draws exist, p p (0.2), p q (0.5), q q (0.8)
    assert (gap.mean, gap.low, gap.high) == (pytest.approx(0.5), pytest.approx(0.2), pytest.approx(0.8))
    assert gap.patients == 2
    assert setting_spread(rows, "nobody") is None

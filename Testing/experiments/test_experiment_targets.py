"""Targets, crossing, participation and the further statistics against values worked out by hand."""

import numpy as np
import pytest

from FedSegCore.experiments.crossing import crossed
from FedSegCore.experiments.participation import SiteParticipation
from FedSegCore.experiments.statistics import mean_curve, rounds_needed
from FedSegCore.experiments.targets import Target, judge


def row(setting: str, case: str, dice: float, *, seed: int = 0, modality: str = "CT", **more) -> dict:
    facts = {"setting": setting, "seed": seed, "site": "s", "modality": modality, "case": case, "label": "l"}
    return {**facts, "dice": dice, "group_dice": dice / 2, **more}


ROWS = [
    row("new", "p1", 0.9, size="small"),
    row("new", "p2", 0.5, size="large"),
    row("old", "p1", 0.6, size="small"),
    row("old", "p2", 0.6, size="large"),
    row("poor", "p1", 0.2, size="small"),
    row("poor", "p2", 0.2, size="none"),
    row("new", "m1", 0.1, modality="MR"),
]


@pytest.mark.parametrize(
    ("entries", "found", "reached"),
    [
        ({"at_least": 0.7}, 0.7, True),
        ({"at_least": 0.71}, 0.7, False),
        ({"kind": "difference", "against": ["old", "poor"], "at_least": 0.1}, 0.1, True),
        ({"kind": "difference", "against": ["old", "poor"], "at_least": 0.11}, 0.1, False),
        ({"kind": "relative", "against": ["poor"], "at_least": 2.4}, 2.5, True),
        ({"kind": "ratio", "against": ["old"], "at_least": 0.95}, 0.7 / 0.6, True),
        ({"kind": "difference", "against": ["old"], "size": "small", "at_least": 0.3}, 0.3, True),
        ({"measure": "group_dice", "at_least": 0.4}, 0.35, False),
        ({"sites": ["elsewhere"]}, None, False),
    ],
)
def test_targets(entries, found, reached):
    target = Target.model_validate({"text": "t", "setting": "new", "modality": "CT", **entries})
    # sums of decimals: give the last digit its due
    verdict = judge(target.model_copy(update={"at_least": target.at_least - 1e-9}), ROWS, ["new", "old", "poor"], "q")
    assert verdict is not None
    assert verdict.found == (None if found is None else pytest.approx(found))
    assert verdict.reached is reached


def test_near_best_allows_the_best_ones_standard_error():
    # best is new: 0.7 +- sd(0.9, 0.5) / sqrt(2) = 0.2; old is 0.1 short, poor 0.5
    for setting, reached in (("new", True), ("old", True), ("poor", False)):
        target = Target(text="t", setting=setting, kind="near-best", modality="CT")
        verdict = judge(target, ROWS, ["new", "old", "poor"], "q")
        assert verdict is not None
        assert verdict.goal == pytest.approx(-0.2)
        assert verdict.reached is reached


def test_a_goal_may_be_the_budgets_own():
    target = Target(text="t", setting="new", modality="CT", at_least={"full": 0.75})
    assert judge(target, ROWS, ["new"], "quick") is None
    verdict = judge(target, ROWS, ["new"], "full")
    assert verdict is not None
    assert not verdict.reached


def test_settings_are_compared_on_what_all_of_them_have():
    """An unfinished experiment has a seed of one setting that the other has not: here an easy case."""
    rows = [row("new", "c1", 0.5), row("new", "c9", 1.0, seed=1), row("old", "c1", 0.4)]
    goal = Target(text="t", setting="new", kind="difference", against=("old",), modality="CT")
    verdict = judge(goal, rows, ["new", "old"], "quick")
    assert verdict is not None
    assert verdict.found == pytest.approx(0.1)
    # a third setting has one case only: the interval between the first two is of that case too
    rows += [row("old", "c9", 0.2, seed=1), row("third", "c1", 0.3)]
    among = Target(text="t", setting="new", kind="difference", against=("old", "third"), modality="CT")
    verdict = judge(among, rows, ["new", "old", "third"], "quick")
    assert verdict is not None
    assert verdict.gap is not None
    assert (verdict.gap.mean, verdict.gap.patients) == (pytest.approx(0.1), 1)
    apart = judge(goal, [row("new", "c1", 0.5), row("old", "c2", 0.4)], ["new", "old"], "quick")
    assert apart is not None
    assert apart.found is None


def test_a_comparison_comes_with_its_paired_interval():
    rows = [row("new", "p1", 0.9), row("new", "p2", 0.5), row("old", "p1", 0.6), row("old", "p2", 0.6)]
    goal = Target(text="t", setting="new", kind="difference", against=("old",), modality="CT")
    verdict = judge(goal, rows, ["new", "old"], "quick")
    assert verdict is not None
    assert verdict.gap is not None
    # the patients' differences are 0.3 and -0.1; a resample holds one of them twice, or both
    assert verdict.gap.mean == pytest.approx(0.1)
    assert (verdict.gap.low, verdict.gap.high) == (pytest.approx(-0.1), pytest.approx(0.3))
    alone = judge(Target(text="t", setting="new", modality="CT"), rows, ["new"], "quick")
    assert alone is not None
    assert alone.gap is None


def test_a_goal_and_its_interval_are_of_the_same_mean():
    """One patient has three images, another one: neither the goal nor its interval is led by the three."""
    cases = {"a1": ("a", 0.1), "a2": ("a", 0.3), "a3": ("a", 0.2), "b1": ("b", 0.6)}
    rows = [row("new", case, gap, patient=patient) for case, (patient, gap) in cases.items()]
    rows += [row("old", case, 0.0, patient=patient) for case, (patient, _) in cases.items()]
    verdict = judge(
        Target(text="t", setting="new", kind="difference", against=("old",), modality="CT"), rows, ["new"], "quick"
    )
    assert verdict is not None
    assert verdict.gap is not None
    assert (verdict.found, verdict.gap.mean) == (pytest.approx(0.4), pytest.approx(0.4))
    assert (verdict.gap.low, verdict.gap.high) == (pytest.approx(0.2), pytest.approx(0.6))


@pytest.mark.parametrize("kind", ["ratio", "relative"])
def test_nothing_is_a_part_of_nothing(kind):
    rows = [row("new", "c1", 0.0), row("old", "c1", 0.0)]
    verdict = judge(Target(text="t", setting="new", kind=kind, against=("old",), modality="CT"), rows, ["new"], "quick")
    assert verdict is not None
    assert (verdict.found, verdict.reached) == (None, False)


def test_rounds_needed():
    def scored(number: int, site: str, dice: float | None) -> dict:
        return {"round": number, "site": site, "scores": {} if dice is None else {"l": dice}}

    curve = [scored(1, "a", 0.1), scored(1, "b", 0.1), scored(2, "a", 0.7), scored(3, "b", 0.8), scored(3, "a", None)]
    curve += [scored(4, "a", 0.8), scored(4, "b", 0.8)]
    # with the last known of each site
    means = mean_curve(curve)
    assert means == {1: pytest.approx(0.1), 2: pytest.approx(0.4), 3: pytest.approx(0.75), 4: pytest.approx(0.8)}
    assert rounds_needed(means, 0.72) == 2  # in round 3, after two rounds
    assert rounds_needed(means, 0.81) is None
    assert mean_curve([scored(1, "a", None)]) == {}


def test_missing_site_rounds_are_about_as_many_as_asked_for_and_nested():
    where = [(site, number) for site in ("a", "b", "c", "d") for number in range(1, 501)]
    few, many = (SiteParticipation(missing=share).asked(3) for share in (0.1, 0.7))
    gone_few, gone_many = ({w for w in where if not asked(*w)} for asked in (few, many))
    assert len(gone_few) / 2000 == pytest.approx(0.1, abs=0.03)
    assert len(gone_many) / 2000 == pytest.approx(0.7, abs=0.04)
    assert gone_few < gone_many
    assert {w for w in where if not SiteParticipation(missing=0.7).asked(4)(*w)} != gone_many


def test_joining_late_and_leaving():
    asked = SiteParticipation(joins={"late": 3}, leaves={"gone": 2}).asked(0)
    seen = {site: [asked(site, number) for number in range(1, 5)] for site in ("late", "gone", "other")}
    assert seen == {"late": [False, False, True, True], "gone": [True, True, False, False], "other": [True] * 4}


def test_crossing_merges_tables_and_leaves_written_settings_alone():
    raw = {
        "axes": {
            "data": {"few": {"title": "few", "training_patients": {"a": 1}}, "all": {"title": ""}},
            "rule": {"x": {"title": "X", "federation": {"rounds": 1, "training": {"batch_size": 2}}}},
        },
        "cross": [["data", "rule"]],
        "settings": {"all-x": {"title": "by hand"}},
        "other": 1,
    }
    assert crossed(raw) == {
        "other": 1,
        "settings": {
            "few-x": {
                "title": "few, X",
                "training_patients": {"a": 1},
                "federation": {"rounds": 1, "training": {"batch_size": 2}},
            },
            "all-x": {"title": "by hand"},
        },
    }
    assert crossed({"settings": {}}) == {"settings": {}}
    assert np.all([key not in crossed(raw) for key in ("axes", "cross")])

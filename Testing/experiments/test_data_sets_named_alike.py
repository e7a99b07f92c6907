"""Two data sets that name their cases and patients alike: nobody is taken for somebody else."""

from pathlib import Path

import pytest
from phantom_data import write_data_set

from FedSegCore.common.progress import Progress
from FedSegCore.experiments.config import read_experiment
from FedSegCore.experiments.data import read_sites
from FedSegCore.experiments.runner import ExperimentRun
from FedSegCore.experiments.statistics import paired_difference, per_case_dice, setting_spread
from FedSegCore.experiments.targets import Target, judge
from FedSegCore.inference.devices import choose_device

EXPERIMENT = """
name = "alike"
title = "Two data sets"
question = "Is everybody counted?"
data_root = "data"
seeds = [0]
default = "pooled"
reference = "pooled"

[[sites]]
name = "north"
modality = "CT"
dataset = "one"
patients = [0, 3]
test_patients = 1
mapping = { "liver" = [1] }

[[sites]]
name = "south"
modality = "CT"
dataset = "two"
patients = [0, 3]
test_patients = 1
validation_patients = 1
mapping = { "liver" = [1] }

[settings.pooled]
title = "one place"
pooling = "pooled"

[federation]
rounds = 1
aggregation.rule = "fedavg"
contract.labels = [
    { name = "liver", value = 1, colour = [221, 130, 101], type = { code = "10200004", meaning = "Liver" } },
]
preprocessing.CT = { modality = "CT", spacing = [8.0, 8.0, 8.0], window = [-160.0, 240.0] }
networks.default = { dimensions = 2, options = { channels = [4, 8], strides = [2], residual_units = 0 } }
training = { patch_size = [1, 48, 48], batch_size = 4, steps_per_round = 1 }
"""


def test_all_images_in_one_place_where_a_name_means_two_patients(tmp_path: Path) -> None:
    """Patient p-case0 trains at both sites; p-case1 trains at one and scores the received models at the other."""
    for number, name in enumerate(("one", "two")):
        write_data_set(tmp_path / "data" / name, "CT", "case", first_seed=80 + 10 * number, patients=3)
    (tmp_path / "alike.toml").write_text(EXPERIMENT)
    config = read_experiment(tmp_path / "alike.toml")
    sites = read_sites(config, tmp_path / "data")
    assert {case.patient for case in sites[0].training} == {"p-case0", "p-case1"}
    assert [case.patient for case in (*sites[1].training, *sites[1].validation)] == ["p-case0", "p-case1"]
    run = ExperimentRun(config, sites, "quick", tmp_path / "out", choose_device("cpu"))
    rows = run.run(Progress())["rows"]
    assert [(row["site"], row["case"]) for row in rows] == [("north", "case2"), ("south", "case2")]
    found = setting_spread(rows, "pooled")
    assert found is not None
    assert found.patients == 2


def row(setting: str, site: str, dice: float, size: str = "small") -> dict:
    return {
        "setting": setting, "seed": 0, "site": site, "modality": "US", "case": "case1", "patient": "p1",
        "label": "cyst", "dice": dice, "group_dice": dice, "size": size,
    }  # fmt: skip


def test_two_sites_cases_of_one_name_are_two_patients() -> None:
    rows = [row("new", "a", 0.9), row("old", "a", 0.5), row("new", "b", 0.3), row("old", "b", 0.5)]
    rows += [row("only-a", "a", 0.7)]
    assert sorted(per_case_dice(rows[:1] + rows[2:3]).values()) == [0.3, 0.9]
    found = setting_spread(rows, "new")
    assert found is not None
    assert (found.mean, found.patients) == (pytest.approx(0.6), 2)
    gap = paired_difference(rows, "new", "old", "US")
    # the two draws apart: +0.4 at a, -0.2 at b
    assert (gap.mean, gap.low, gap.high, gap.patients) == (
        pytest.approx(0.1), pytest.approx(-0.2), pytest.approx(0.4), 2,
    )  # fmt: skip
    # compared on what both have: the case of site a
    target = Target(text="a", setting="new", kind="difference", against=("only-a",))
    verdict = judge(target, rows, ["new", "old", "only-a"], "quick")
    assert verdict is not None
    assert verdict.found == pytest.approx(0.2)

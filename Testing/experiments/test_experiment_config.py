"""Experiment files: merging, refusals, and the files we ship."""

from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import read_experiment

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid(path: Path) -> None:
    config = read_experiment(path)
    for budget in config.budgets:
        for setting in config.settings:
            assert config.federation_of(setting, budget, 3).seed == 3


def test_settings_replace_only_what_they_name() -> None:
    config = read_experiment(EXPERIMENTS / "abdomen.toml")
    with_gin = config.federation_of("flames-gin", "quick", 0)
    without = config.federation_of("flames", "quick", 0)
    assert with_gin.augmentation.gin is not None
    assert without.augmentation.gin is None
    assert without.augmentation.spatial == with_gin.augmentation.spatial
    assert without.training == with_gin.training


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('default = "flames-gin"', 'default = "nobody"'), "nobody"),
        (('name = "ct-b"', 'name = "ct-a"'), "site names must differ"),
        (('rule = "flames"', "rule = 7"), "aggregation.rule"),
        (("seeds = [0]", "seeds = []"), "seeds"),
        (("[federation]", "[federation"), "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    text = (EXPERIMENTS / "abdomen.toml").read_text(encoding="utf-8")
    assert change[0] in text
    broken = tmp_path / "broken.toml"
    broken.write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(BadInputError) as caught:
        read_experiment(broken)
    assert says in caught.value.what
    assert caught.value.code.startswith("experiment.")

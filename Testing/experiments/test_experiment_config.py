"""Experiment files: merging, refusals, and the files we ship."""

from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import read_experiment
from FedSegCore.federation.config_checks import check_federation
from FedSegCore.federation.tasks import training_task
from FedSegCore.networks.registry import build_network

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_is_valid(path: Path) -> None:
    config = read_experiment(path)
    for budget in config.budgets:
        for setting in config.settings:
            federation = config.federation_of(setting, budget, 3)
            assert federation.seed == 3
            check_federation(federation)
            trained = {site.modality for site in config.sites if site.name in config.trained_sites(setting)}
            for modality in trained:
                task = training_task(federation, modality)
                build_network(task.network)
                assert task.network.dimensions == 3 or task.training.patch_size[0] == 1


ISSUE = {
    "fedgin": {
        f"{augmentation}-{arrangement}"
        for augmentation in ("plain", "spatial", "gin-batch", "gin-image", "gin-ipa")
        for arrangement in ("together", "modality", "local", "centralised", "ct-to-mr", "mr-to-ct")
    },
    "fedgin-limited": {
        f"mr{patients}-{augmentation}-{arrangement}"
        for patients in (1, 2, 4)
        for augmentation in ("plain", "spatial", "gin-batch", "gin-image", "gin-ipa")
        for arrangement in ("together", "alone", "centralised")
    },
    "fedgs": {"fedavg", "fedgs", "normalised", "constant", "oversampling"},
    "mixtures": {
        f"{augmentation}-{rule}"
        for augmentation in ("spatial", "gin")
        for rule in ("fedavg", "flames", "fedgs", "flames-fedgs")
    },
}


@pytest.mark.parametrize("name", ISSUE)
def test_the_shipped_comparisons_are_whole(name: str) -> None:
    config = read_experiment(EXPERIMENTS / f"{name}.toml")
    assert set(config.settings) == ISSUE[name]
    assert len(config.seeds) >= 3


def test_the_points_of_a_comparison_are_what_they_are_called() -> None:
    config = read_experiment(EXPERIMENTS / "fedgin-limited.toml")

    def gin(name: str) -> object:
        return config.federation_of(f"mr2-{name}-together", "quick", 0).augmentation

    plain, spatial, batch, image, ipa = map(gin, ("plain", "spatial", "gin-batch", "gin-image", "gin-ipa"))
    assert (plain.gin, plain.spatial) == (None, None)
    assert spatial.gin is None
    assert spatial.spatial == batch.spatial == image.spatial == ipa.spatial
    assert [(a.gin.per_batch, a.gin.ipa) for a in (batch, image, ipa)] == [(True, False), (False, False), (False, True)]
    assert config.settings["mr2-plain-together"].training_patients == {"mr-a": 2}
    alphas = read_experiment(EXPERIMENTS / "flames.toml")
    options = alphas.federation_of("alpha-mean-direct", "quick", 0).aggregation.options
    assert options == {"alpha_offset": 0.0, "sizes": "direct"}
    mixture = read_experiment(EXPERIMENTS / "mixtures.toml").federation_of("gin-flames-fedgs", "full", 0)
    assert mixture.aggregation.options == {"update": "fedgs"}
    assert mixture.training.fedgs is not None
    assert mixture.augmentation.gin is not None


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

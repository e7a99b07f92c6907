"""Experiment files: merging, refusals, and the files we ship."""

from itertools import product
from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.experiments.config import ExperimentConfig, read_experiment
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


def steps_taken(config: ExperimentConfig, setting: str, budget: str) -> int:
    """Return the optimiser steps of all sites together under a setting."""
    chosen, federation = config.settings[setting], config.federation_of(setting, budget, config.seeds[0])
    assert federation.training.steps_per_round is not None
    trained = [site for site in config.sites if site.name in config.trained_sites(setting)]
    pools = len({federation.group_of(site.modality) for site in trained})
    taking = pools if chosen.pooling == "pooled" and not chosen.steps_of_all else len(trained)
    return federation.rounds * federation.training.steps_per_round * taking


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_settings_take_the_same_shares_of_steps_under_every_budget(path: Path) -> None:
    """What a setting itself says of rounds and steps ("four times the steps") holds against what a budget says."""
    config = read_experiment(path)
    shares = []
    for budget in config.budgets:
        taken = {setting: steps_taken(config, setting, budget) for setting in config.settings}
        shares.append({setting: steps / taken[config.reference] for setting, steps in taken.items()})
    assert all(share == shares[0] for share in shares)


AUGMENTATIONS = ("plain", "spatial", "gin-batch", "gin-image", "gin-ipa")


def combined(*axes: tuple[str, ...]) -> set[str]:
    return {"-".join(points) for points in product(*axes)}


LIMITED = combined(AUGMENTATIONS, ("together", "alone", "centralised"))
FEDGS = {"fedavg", "fedgs", "normalised", "constant", "oversampling"}
MIXTURES = combined(("spatial", "gin"), ("fedavg", "flames", "fedgs", "flames-fedgs"))
MIXTURES |= {"gin-local", "gin-centralised", "gin-constant"}
ALPHAS = ("alpha-paper", "alpha-mean", "alpha-half", "alpha-strong")
ABSENCES = ("none", "missing-10", "missing-30", "missing-50", "missing-70", "late", "gone")
WHOLE = {
    "fedgin": combined(AUGMENTATIONS, ("together", "modality", "local", "centralised")) | {"gin-flames"},
    "fedgin-transfer": combined(AUGMENTATIONS, ("ct-to-mr", "mr-to-ct")),
    "fedgin-limited": LIMITED,
    "fedgin-limited-1": LIMITED,
    "fedgin-limited-4": LIMITED,
    "flames": combined(ALPHAS, ("inverse", "equal", "direct"))
    | {"fedavg-all", "fedavg-modality", "local", "centralised", "centralised-all"}
    | {"single-site", "single-site-all", "unseen-ultrasound", "unseen-mr"}
    | {"unseen-organ", "unseen-organ-fedavg", "unseen-organ-all"},
    "fedgs": FEDGS,
    "fedgs-liver": FEDGS,
    "mixtures": MIXTURES,
    "mixtures-us": MIXTURES,
    "dropout": combined(ABSENCES, ("flames", "fedavg")),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_shipped_comparisons_are_whole(name: str) -> None:
    config = read_experiment(EXPERIMENTS / f"{name}.toml")
    assert set(config.settings) == WHOLE[name]
    assert len(config.seeds) >= 3


def test_the_points_of_a_comparison_are_what_they_are_called() -> None:
    config = read_experiment(EXPERIMENTS / "fedgin-limited.toml")

    def gin(name: str) -> object:
        return config.federation_of(f"{name}-together", "quick", 0).augmentation

    plain, spatial, batch, image, ipa = map(gin, ("plain", "spatial", "gin-batch", "gin-image", "gin-ipa"))
    assert (plain.gin, plain.spatial) == (None, None)
    assert spatial.gin is None
    assert spatial.spatial == batch.spatial == image.spatial == ipa.spatial
    assert [(a.gin.per_batch, a.gin.ipa) for a in (batch, image, ipa)] == [(True, False), (False, False), (False, True)]
    for few, patients in (("fedgin-limited", 2), ("fedgin-limited-1", 1), ("fedgin-limited-4", 4)):
        limits = [one.training_patients for one in read_experiment(EXPERIMENTS / f"{few}.toml").settings.values()]
        assert limits == [{"mr-a": patients}] * 15
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


def test_a_file_may_build_on_another(tmp_path: Path) -> None:
    (tmp_path / "abdomen.toml").write_text((EXPERIMENTS / "abdomen.toml").read_text(encoding="utf-8"), encoding="utf-8")
    child = tmp_path / "child.toml"
    child.write_text(
        'base = "abdomen.toml"\nname = "child"\nseeds = [7]\n'
        '[federation]\nrounds = 3\n[settings.local]\ntitle = "alone"\n'
    )
    config, parent = read_experiment(child), read_experiment(EXPERIMENTS / "abdomen.toml")
    assert (config.name, config.seeds, config.settings["local"].title) == ("child", (7,), "alone")
    assert config.settings["local"].pooling == "local"
    assert config.sites == parent.sites
    assert parent.findings
    assert config.findings == ()  # they are of the parent's runs
    mine, theirs = (one.federation_of("flames", "quick", 0) for one in (config, parent))
    assert mine == theirs.model_copy(update={"name": "child", "rounds": 3})
    grandchild = tmp_path / "grandchild.toml"
    grandchild.write_text('base = "child.toml"\n')
    with pytest.raises(BadInputError) as caught:
        read_experiment(grandchild)
    assert caught.value.code == "experiment.base"


def test_what_sites_would_refuse_is_refused_on_reading(tmp_path: Path) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text((EXPERIMENTS / "abdomen.toml").read_text(encoding="utf-8").replace('"unet"', '"best"', 1))
    with pytest.raises(BadInputError) as caught:
        read_experiment(file)
    assert caught.value.code == "network.unknown"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('default = "flames-gin"', 'default = "nobody"'), "nobody"),
        (('name = "ct-b"', 'name = "ct-a"'), "site names must differ"),
        (('rule = "flames"', "rule = 7"), "aggregation.rule"),
        (("seeds = [0]", "seeds = []"), "seeds"),
        (('name = "ct-b"', 'name = "aux"'), "device"),
        (("[settings.local]", "[settings.nul]"), "device"),
        (
            ('[federation.preprocessing.MR]\nmodality = "MR"', '[federation.preprocessing.PRN]\nmodality = "PRN"'),
            "device",
        ),
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

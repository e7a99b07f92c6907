"""The shipped federations say what METHODS says of the papers, and can be trained."""

import json
from pathlib import Path

import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.registry import build_rule
from FedSegCore.federation.config import read_federation_config
from FedSegCore.federation.presets import preset_names, preset_path, read_preset
from FedSegCore.federation.tasks import training_task
from FedSegCore.learning.losses import build_loss
from FedSegCore.learning.schedules import Moment, learning_rate
from FedSegCore.networks.registry import build_network, parameter_count

PAPERS = ("fedgin", "flames", "fedgs")


def test_there_is_a_preset_and_a_quick_one_for_every_paper():
    assert set(preset_names()) == {*PAPERS, *(f"{name}-quick" for name in PAPERS)}
    assert preset_path("fedgin").suffix == ".toml"
    with pytest.raises(BadInputError, match=r"federation\.preset-unknown"):
        preset_path("fedsomething")


def test_the_command_lists_and_writes_presets(fedseg, tmp_path):
    listed = fedseg("coordinator", "preset", "--json")
    assert json.loads(listed.out)["presets"] == list(preset_names())
    assert all(name in listed.err for name in PAPERS)
    out = tmp_path / "liver.toml"
    assert fedseg("coordinator", "preset", "fedgin", "--out", out).code == 0
    assert read_federation_config(out) == read_preset("fedgin")
    again = fedseg("coordinator", "preset", "flames", "--out", out)
    assert (again.code, "preset.out" in again.err) == (2, True)
    assert read_federation_config(out).name == "fedgin"
    assert fedseg("coordinator", "preset", "--out", tmp_path / "x.toml").code == 2
    unknown = fedseg("coordinator", "preset", "fedsomething", "--out", tmp_path / "x.toml")
    assert (unknown.code, "federation.preset-unknown" in unknown.err) == (3, True)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_a_place_that_cannot_be_written_is_told_with_a_code(fedseg):
    done = fedseg("coordinator", "preset", "flames", "--out", "/proc/self/x.toml")
    assert (done.code, "system.refused" in done.err) == (4, True)
    assert "Traceback" not in done.err
    assert "needed with self (" in done.err


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_fits_together(name):
    config = read_preset(name)
    assert config.name == name
    build_rule(config.aggregation)
    for modality in config.preprocessing:
        task = training_task(config, modality)
        build_loss(task.training.loss, task.training.loss_options)
        assert learning_rate(task.training, Moment(1, config.rounds)) == task.training.learning_rate
        assert task.network.dimensions == 2
        assert task.training.patch_size[0] == 1


def test_fedgin_is_the_papers():
    config = read_preset("fedgin")
    training, gin = config.training, config.augmentation.gin
    assert (config.grouping, config.aggregation.rule, config.rounds) == ("together", "fedavg", 100)
    assert (training.learning_rate, training.weight_decay, training.batch_size, training.epochs) == (5e-4, 1e-4, 8, 1)
    assert (training.steps_per_round, training.loss, training.schedule) == (None, "fedgin", "fedgin_plateau")
    assert gin is not None
    assert (gin.probability, gin.per_batch, gin.layers, gin.hidden_channels) == (1.0, True, 4, 2)
    assert config.augmentation.spatial is None
    assert training.stratified
    assert (training.warm_up_steps, training.gradient_clip) == (0, None)
    count = parameter_count(build_network(training_task(config, "CT").network))
    assert count == pytest.approx(1.93e6, rel=0.01)


def test_flames_is_the_papers():
    config = read_preset("flames")
    assert (config.grouping, config.aggregation.rule, config.rounds) == ("modality", "flames", 50)
    assert config.aggregation.options == {"alpha_offset": 0.1, "sizes": "inverse"}
    assert (config.training.loss, config.training.loss_options) == ("flames", {"dice_share": 0.7})
    assert all(config.preprocessing_of(modality).in_plane_size == (240, 240) for modality in ("MR", "US"))
    assert config.augmentation.gin is None
    spatial = config.augmentation.spatial
    assert spatial is not None
    assert min(spatial.rotation_degrees, spatial.scaling, spatial.stretching, spatial.shift_fraction) > 0
    assert set(spatial.flip_axes) == {"j", "i"}
    # grey values within [0, 1], as they are
    assert not any(config.preprocessing_of(modality).standardise for modality in ("MR", "US"))
    assert (config.training.warm_up_steps, config.training.gradient_clip) == (0, None)
    # one logit more than the paper's single one: 64 weights and a shift
    count = parameter_count(build_network(training_task(config, "US").network))
    assert count - (64 + 1) == 31_264_705


def test_fedgs_is_the_papers():
    config = read_preset("fedgs")
    training = config.training
    assert (config.grouping, config.aggregation.rule, config.rounds) == ("together", "fedgs", 100)
    assert (training.learning_rate, training.batch_size, training.epochs) == (1e-4, 4, 5)
    assert (training.steps_per_round, training.schedule) == (None, "constant")
    assert training.fedgs is not None
    assert (training.fedgs.log_base, training.fedgs.threshold) == (100.0, 150.0)
    assert (training.fedgs.normalise, training.fedgs.constant_eta) == (False, False)
    assert (training.warm_up_steps, training.gradient_clip) == (0, None)
    assert config.preprocessing_of("ES").in_plane_size == (512, 512)
    network = training_task(config, "ES").network
    assert (network.name, network.in_channels) == ("utnet", 3)


@pytest.mark.parametrize("name", PAPERS)
def test_quick_variants_keep_the_method(name):
    whole, quick = read_preset(name), read_preset(f"{name}-quick")
    assert quick.rounds < whole.rounds
    assert (quick.grouping, quick.aggregation, quick.augmentation) == (
        whole.grouping,
        whole.aggregation,
        whole.augmentation,
    )
    assert (quick.training.loss, quick.training.fedgs) == (whole.training.loss, whole.training.fedgs)

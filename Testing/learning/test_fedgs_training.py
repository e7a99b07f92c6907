"""FedGS, schedules and networks with a loss of their own inside a site's round."""

import numpy as np
import pytest
import torch
from blob_cohort import CONTRACT, QUIET, blob_case, blob_cohort, blob_task

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.aggregation.fedgs import FedGs
from FedSegCore.federation.aggregation.rule import SiteUpdate
from FedSegCore.inference.weights import weights_of
from FedSegCore.learning.case import TrainingCase
from FedSegCore.learning.cohort import Cohort, PreparedCase
from FedSegCore.learning.config import FedGsConfig, OversamplingConfig, TrainingConfig
from FedSegCore.learning.fedgs import LesionSizes, small_lesion_tickets
from FedSegCore.learning.results import FEDGS_PREFIX, RoundRequest
from FedSegCore.learning.sampling import PatchSampler
from FedSegCore.learning.trainer import LocalTrainer
from FedSegCore.networks.registry import build_network
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume

FIRST = RoundRequest(round_number=1, rounds=4, seed=3)


def start_weights(task):
    torch.manual_seed(0)
    return weights_of(build_network(task.network))


def one_round(request=FIRST, cohort=None, **training):
    task = blob_task(augmentation=QUIET, validate_received=False, **training)
    start = start_weights(task)
    return start, LocalTrainer(task, cohort or blob_cohort(), site="a").train_round(start, request)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fedgs_leaves_local_training_to_the_bit(dimensions):
    _, plain = one_round(dimensions=dimensions)
    _, weighed = one_round(dimensions=dimensions, fedgs={"log_base": 5.0, "threshold": 2.0})
    assert plain.extras == {}
    assert {name.removeprefix(FEDGS_PREFIX) for name in weighed.extras} == set(plain.weights)
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(array, weighed.weights[name])
        assert weighed.extras[FEDGS_PREFIX + name].flags.c_contiguous


def test_without_small_lesions_the_rule_gives_the_sites_own_weights():
    """η ≡ 1 and no decay: the server's model moved by -C of the only site is that site's model."""
    start, result = one_round(fedgs={"threshold": 1e6}, weight_decay=0.0)
    rule = FedGs()
    rule.begin(start, {}, {})
    rule.fold(SiteUpdate("a", result.weights, result.num_examples, result.num_steps, result.extras))
    for name, array in rule.finish().group_model.items():
        np.testing.assert_allclose(array, result.weights[name], atol=1e-6)


def test_small_lesions_enlarge_the_update_up_to_threefold():
    _, plain = one_round(fedgs={"threshold": 1e6})
    _, small = one_round(fedgs={"log_base": 1.001, "threshold": 1.001}, foreground_fraction=1.0)
    _, again = one_round(fedgs={"threshold": 1e6}, foreground_fraction=1.0)
    for name, array in small.extras.items():
        np.testing.assert_allclose(array, 3.0 * again.extras[name], rtol=1e-5, atol=1e-7)
    assert plain.num_steps == small.num_steps


def test_lesion_sizes_of_slices_and_cases():
    case = blob_case(0)
    config = FedGsConfig(labels=("dim",))
    in_2d = LesionSizes.of_cohort(config, CONTRACT, [case], 2)
    in_3d = LesionSizes.of_cohort(config, CONTRACT, [case], 3)
    voxels = (case.labels == 2).sum(axis=(1, 2))
    per_slice = sorted(1024 / n for n in voxels if n)
    assert in_2d.values == (2,)
    assert in_2d.weights.threshold == pytest.approx(max(10.0, np.quantile(per_slice, 2 / 3)))
    assert in_3d.weights.threshold == pytest.approx(max(10.0, 6 * 1024 / voxels.sum()))
    assert in_2d.shares.tolist() == [n / 1024 for n in voxels]
    assert in_3d.shares.tolist() == [voxels.sum() / (6 * 1024)]
    assert LesionSizes.of_cohort(FedGsConfig(), CONTRACT, [case], 2).values == (1, 2)


@pytest.mark.parametrize(("dimensions", "patch"), [(2, (1, 8, 8)), (3, (2, 8, 8))])
def test_no_patch_makes_a_large_lesion_small(dimensions, patch):
    """One lesion of 1/13 of the image, patches much smaller than it: none of them is a small lesion's."""
    labels = np.zeros((4, 32, 32), np.uint8)
    labels[:, 10:19, 12:21] = 1
    case = PreparedCase("a", "a", np.zeros((1, 4, 32, 32), np.float16), labels, Grid((4, 32, 32)), (1, 2))
    sizes = LesionSizes.of_cohort(FedGsConfig(log_base=100.0, threshold=20.0), CONTRACT, [case], dimensions)
    generator = torch.Generator().manual_seed(0)
    shown = [
        (int((part > 0).sum()), sizes.eta(batch))
        for batch in PatchSampler([case], dimensions, patch, 0.0).batches(300, 1, generator)
        for part in batch.labels
    ]
    assert any(0 < voxels <= 0.05 * np.prod(patch) for voxels, _ in shown)
    assert {eta for _, eta in shown} == {1.0}


@pytest.mark.parametrize("dimensions", [2, 3])
def test_padding_to_a_square_makes_no_lesion_smaller(dimensions):
    """A lesion of 1/16 of a picture of 32 x 64 stays one, though the padded square is twice as large."""
    array = np.random.default_rng(0).integers(0, 200, (1, 1, 32, 64)).astype(np.uint8)
    labels = np.zeros_like(array)
    labels[0, 0, 8:24, 8:16] = 1
    grid = Grid((1, 32, 64))
    case = TrainingCase("a", "a", Volume(array, grid, "ES"), Volume(labels, grid), (1, 2))
    square = Preprocessing(modality="ES", in_plane_size=(64, 64), percentiles=(0.0, 100.0))
    cohort = Cohort.prepare([case], [], square, CONTRACT)
    sizes = LesionSizes.of_cohort(FedGsConfig(), CONTRACT, cohort.training, dimensions)
    assert sizes.shares.tolist() == [1 / 16]
    training = TrainingConfig(patch_size=(1, 64, 64), oversampling=OversamplingConfig(times=3, threshold=20.0))
    times = small_lesion_tickets(training, CONTRACT, cohort.training, dimensions)
    assert times(cohort.training[0], cohort.training[0].labels) == 1


def test_batches_say_which_slice_or_case_their_patches_are_of():
    cases = [blob_case(0), blob_case(1)]
    for dimensions, units in ((2, [part for case in cases for part in case.labels]), (3, [c.labels for c in cases])):
        patch = (1, 32, 32) if dimensions == 2 else (6, 32, 32)
        for batch in PatchSampler(cases, dimensions, patch, 0.5).batches(5, 3, torch.Generator().manual_seed(1)):
            assert len(batch.units) == len(batch.labels) == 3
            for unit, part in zip(batch.units, batch.labels, strict=True):
                np.testing.assert_array_equal(part.numpy(), units[unit])
            assert batch.first(2).units == batch.units[:2]


def test_a_site_tells_its_lesion_sizes_as_long_as_it_is_not_told_what_is_small():
    cohort = blob_cohort()
    slices = [part for case in cohort.training for part in case.labels]
    areas = [int((part > 0).sum()) for part in slices]
    inverse = np.array([1024 / area for area in areas if area])
    expected = np.bincount(np.floor(np.log2(inverse)).astype(int)).tolist()
    assert list(one_round(fedgs={})[1].lesion_counts) == expected
    assert one_round(fedgs={"threshold": 50})[1].lesion_counts == ()
    assert one_round()[1].lesion_counts == ()


def test_a_lesion_the_contract_does_not_have_is_refused():
    with pytest.raises(BadInputError) as caught:
        one_round(fedgs={"labels": ["polyp"]})
    assert caught.value.code == "fedgs.label-unknown"


def test_schedule_by_name():
    start, _ = one_round()
    moved = {}
    for number in (1, 4):
        for schedule in ("cosine", "constant"):
            _, result = one_round(
                RoundRequest(number, 4, seed=3), schedule=schedule, final_learning_rate=0.0, steps_per_round=1
            )
            moved[number, schedule] = max(np.abs(result.weights[name] - start[name]).max() for name in start)
    assert moved[1, "cosine"] == moved[1, "constant"] == pytest.approx(5e-3, rel=0.01)
    assert moved[4, "cosine"] == 0.0
    assert moved[4, "constant"] == pytest.approx(5e-3, rel=0.01)


def test_fedgins_schedule_goes_by_the_scores_of_the_models_received():
    """The same model comes back five times: no improvement, so the fifth round trains at half the rate."""
    task = blob_task(augmentation=QUIET, schedule="fedgin_plateau", steps_per_round=1, weight_decay=0.0)
    start = start_weights(task)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    moved = []
    for number in (1, 2, 3, 4, 5, 1):
        result = trainer.train_round(start, RoundRequest(number, 9, seed=3))
        moved.append(max(np.abs(result.weights[name] - start[name]).max() for name in start))
    assert moved == pytest.approx([5e-3] * 4 + [2.5e-3, 5e-3], rel=0.01)


def test_sd_utnet_trains_all_of_its_parts():
    task = blob_task(augmentation=QUIET, loss="sd_utnet", steps_per_round=1, validate_received=False, batch_size=2)
    network = task.network.model_copy(update={"name": "sd_utnet", "options": {}})
    task = task.model_copy(update={"network": network})
    start = start_weights(task)
    result = LocalTrainer(task, blob_cohort(), site="a").train_round(start, FIRST)
    still = [name for name in start if np.array_equal(start[name], result.weights[name])]
    assert still == []


def test_the_losss_own_parameters_reach_it():
    results = [one_round(loss="flames", loss_options={"dice_share": share})[1].loss for share in (0.7, 0.3)]
    assert results[0] != results[1]
    with pytest.raises(BadInputError) as caught:
        one_round(loss="flames", loss_options={"dice": 0.3})
    assert caught.value.code == "loss.options"

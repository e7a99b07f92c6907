import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from blob_cohort import QUIET, blob_case, blob_cohort, blob_task, fresh
from torch.optim.optimizer import register_optimizer_step_pre_hook

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig
from FedSegCore.common.errors import BadInputError, CancelledError, CannotDoHereError
from FedSegCore.common.progress import Progress
from FedSegCore.learning.cohort import Cohort
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.trainer import LocalTrainer


def request(number: int = 1, rounds: int = 4) -> RoundRequest:
    return RoundRequest(number, rounds, seed=11)


def distance(one, other) -> float:
    return math.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one))


def mean_dice(scores) -> float:
    return sum(score.dice for score in scores) / len(scores)


def test_rounds_teach_the_network_what_the_labels_are():
    task = blob_task(augmentation=QUIET, steps_per_round=25)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    weights = fresh(task)
    results = []
    for number in (1, 2, 3):
        results.append(trainer.train_round(weights, request(number, 3)))
        weights = results[-1].weights
    before, after = mean_dice(results[0].scores), mean_dice(trainer.score(weights, trainer.cohort.validation))
    assert before < 0.4
    assert after > 0.9
    assert results[-1].loss < 0.5 * results[0].loss
    assert results[0].num_steps == 25
    assert results[0].num_examples == 18  # three cases of six slices


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_request_gives_the_same_weights_to_the_bit_and_leaves_global_randomness_alone(dimensions):
    task = blob_task(dimensions, options={"dropout": 0.2}, steps_per_round=2)
    weights = fresh(task)
    untouched = {name: array.copy() for name, array in weights.items()}
    state = torch.get_rng_state()
    results = [LocalTrainer(task, blob_cohort(), site=site).train_round(weights, request()) for site in ("a", "a", "b")]
    assert torch.equal(state, torch.get_rng_state())
    assert all(np.array_equal(results[0].weights[name], results[1].weights[name]) for name in weights)
    assert distance(results[0].weights, results[2].weights) > 0
    assert distance(weights, untouched) == 0


def test_a_round_starts_anew_from_what_it_receives():
    task = blob_task(steps_per_round=2)
    weights = fresh(task)
    used, unused = (LocalTrainer(task, blob_cohort(), site="a") for _ in range(2))
    used.train_round(weights, request(1))
    first, second = used.train_round(weights, request(2)), unused.train_round(weights, request(2))
    assert distance(first.weights, second.weights) == 0


def test_scores_are_of_the_received_model_over_whole_cases():
    task = blob_task(steps_per_round=1)
    trainer = LocalTrainer(task, blob_cohort(validation=2), site="a")
    weights = fresh(task)
    result = trainer.train_round(weights, request())
    assert result.scores == trainer.score(weights, trainer.cohort.validation)
    assert [(s.case, s.label) for s in result.scores] == [
        (case, label) for case in ("case-3", "case-4") for label in ("bright", "dim")
    ]


def test_labels_nobody_annotated_are_not_scored():
    task = blob_task(steps_per_round=2, validate_received=True)
    cases = tuple(blob_case(seed, annotated=(1,)) for seed in range(3))
    trainer = LocalTrainer(task, Cohort(cases[:2], cases[2:]), site="a")
    result = trainer.train_round(fresh(task), request())
    assert [score.label for score in result.scores] == ["bright"]
    assert math.isfinite(result.loss)


def test_a_label_nobody_in_the_group_annotates_is_not_given_when_sites_score():
    task = blob_task(steps_per_round=1)
    cases = tuple(blob_case(seed, annotated=(1,)) for seed in range(3))
    trainer = LocalTrainer(task, Cohort(cases[:2], cases[2:]), site="a")
    weights = fresh(task)
    everything, taught = (trainer.score(weights, cases[2:], None, values) for values in (None, (1,)))
    assert everything != taught
    assert trainer.train_round(weights, request()).scores == taught
    assert trainer.train_round(weights, replace(request(), trained_values=(2,))).scores == everything


def test_validation_can_be_left_out():
    task = blob_task(steps_per_round=1, validate_received=False)
    assert LocalTrainer(task, blob_cohort(), site="a").train_round(fresh(task), request()).scores == ()


def test_epochs_count_slices_and_the_learning_rate_falls_along_a_cosine():
    task = blob_task(augmentation=QUIET, steps_per_round=None, epochs=2, batch_size=5, final_learning_rate=0.0)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    weights = fresh(task)
    result = trainer.train_round(weights, request(1))
    assert result.num_steps == 2 * 4  # 18 slices in batches of 5
    # In the last round the learning rate is 0: nothing can move.
    assert distance(trainer.train_round(weights, request(4)).weights, weights) == 0
    assert distance(result.weights, weights) > 0


def test_the_proximal_term_holds_the_weights_back():
    weights = fresh(blob_task())
    moved = [
        distance(LocalTrainer(task, blob_cohort(), site="a").train_round(weights, request()).weights, weights)
        for task in (blob_task(augmentation=QUIET, steps_per_round=25, proximal=mu) for mu in (0.0, 100.0))
    ]
    assert moved[1] < 0.7 * moved[0]


def test_ipa_trains_on_two_views():
    both = AugmentationConfig(spatial=None, gin=GinConfig(ipa=True))
    single = AugmentationConfig(spatial=None, gin=GinConfig())
    weights = fresh(blob_task())
    losses = []
    for augmentation in (both, single):
        task = blob_task(augmentation=augmentation, steps_per_round=1)
        losses.append(LocalTrainer(task, blob_cohort(), site="a").train_round(weights, request()).loss)
    assert math.isfinite(losses[0])
    assert losses[0] != losses[1]


def test_counters_come_back_as_they_were_sent():
    task = blob_task(options={"norm": "batch"}, steps_per_round=2)
    weights = fresh(task)
    counters = [name for name, array in weights.items() if array.dtype.kind == "i"]
    assert counters
    for name in counters:
        weights[name] = np.array(41, np.int64)
    result = LocalTrainer(task, blob_cohort(), site="a").train_round(weights, request())
    assert {int(result.weights[name]) for name in counters} == {41}
    means = [name for name in weights if name.endswith("running_mean")]
    assert any(not np.array_equal(result.weights[name], weights[name]) for name in means)


def without_one(weights):
    weights.pop(next(iter(weights)))


def misshapen(weights):
    name = next(iter(weights))
    weights[name] = weights[name][:1]


def of_integers(weights):
    name = next(iter(weights))
    weights[name] = np.zeros(weights[name].shape, np.int32)


def not_a_number(weights):
    next(iter(weights.values())).flat[0] = np.nan


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (without_one, "weights.names-differ"),
        (misshapen, "weights.shape-differs"),
        (of_integers, "weights.type-differs"),
        (not_a_number, "weights.not-finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(spoil, code):
    task = blob_task()
    weights = fresh(task)
    spoil(weights)
    with pytest.raises(BadInputError) as caught:
        LocalTrainer(task, blob_cohort(), site="a").train_round(weights, request())
    assert caught.value.code == code


def test_a_model_that_explodes_is_reported_not_returned():
    task = blob_task(augmentation=QUIET, steps_per_round=2, validate_received=False)
    weights = {name: np.full_like(array, 3e38) for name, array in fresh(task).items()}
    with pytest.raises(CannotDoHereError, match=r"training\.diverged"):
        LocalTrainer(task, blob_cohort(), site="a").train_round(weights, request())


def test_a_site_without_usable_cases_says_so():
    task = blob_task()
    with pytest.raises(BadInputError, match=r"cohort\.empty"):
        LocalTrainer(task, Cohort(()), site="a").train_round(fresh(task), request())


@pytest.mark.parametrize(
    "change",
    [
        lambda task: {"network": task.network.model_copy(update={"out_channels": 4})},
        lambda task: {"network": task.network.model_copy(update={"in_channels": 3})},
        lambda task: {"training": task.training.model_copy(update={"patch_size": (8, 32, 32)})},
    ],
)
def test_a_task_that_does_not_fit_together_is_refused(change):
    task = blob_task()
    with pytest.raises(BadInputError, match=r"training\.task"):
        LocalTrainer(task.model_copy(update=change(task)), blob_cohort(), site="a")


@pytest.mark.parametrize("stage", ["training step 3", "tile"])
def test_cancelling_stops_within_a_step_or_tile(stage):
    stages = []

    def report(_fraction: float, text: str) -> None:
        stages.append(text)
        if stage in text:
            progress.cancel()

    progress = Progress(report)
    task = blob_task(steps_per_round=50)
    with pytest.raises(CancelledError):
        LocalTrainer(task, blob_cohort(), site="a").train_round(fresh(task), request(), progress)
    assert stage in stages[-1]


def test_progress_goes_forward_to_the_end():
    seen: list[float] = []
    task = blob_task(steps_per_round=3)
    trainer = LocalTrainer(task, blob_cohort(validation=2), site="a")
    trainer.train_round(fresh(task), request(), Progress(lambda fraction, _stage: seen.append(fraction)))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_short_memory_makes_smaller_batches(caplog):
    task = blob_task(augmentation=QUIET, steps_per_round=4, batch_size=4, validate_received=False)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    sizes = []

    def like_a_small_card(_module, inputs):
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    trainer._network.register_forward_pre_hook(like_a_small_card)
    result = trainer.train_round(fresh(task), request())
    assert (sizes, result.num_steps) == ([4, 2, 1, 1, 1, 1], 4)
    assert "going on with 1 patches" in caplog.text


def test_too_little_memory_for_one_patch_is_said():
    task = blob_task(augmentation=QUIET, batch_size=1, validate_received=False)
    trainer = LocalTrainer(task, blob_cohort(), site="a")

    def never(_module, _inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer._network.register_forward_pre_hook(never)
    with pytest.raises(CannotDoHereError, match=r"device\.memory"):
        trainer.train_round(fresh(task), request())


def test_thick_and_thin_volumes_train_in_3d():
    cases = tuple(blob_case(seed, shape) for seed, shape in enumerate([(4, 40, 20), (20, 12, 30)]))
    task = blob_task(3, steps_per_round=2)
    result = LocalTrainer(task, Cohort(cases), site="a").train_round(fresh(task), request())
    assert (result.num_examples, result.num_steps) == (2, 2)
    assert all(array.flags.c_contiguous for array in result.weights.values())


def test_a_step_without_a_finite_loss_is_left_out_and_harms_nothing(caplog):
    task = blob_task(augmentation=QUIET, steps_per_round=4, validate_received=False)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    calls = []

    def spoil_the_second(_module, _inputs, logits):
        calls.append(1)
        return logits * math.nan if len(calls) == 2 else logits

    trainer._network.register_forward_hook(spoil_the_second)
    result = trainer.train_round(fresh(task), request())
    assert (len(calls), result.num_steps) == (4, 3)
    assert math.isfinite(result.loss)
    assert all(np.isfinite(array).all() for array in result.weights.values())
    assert "left out" in caplog.text


@pytest.mark.parametrize(
    ("warm_up", "steps", "expected"),
    [
        (0, 2, [1e-3] * 2),
        (10, 1, [1e-3]),  # a round of one step has no time to rise
        (10, 8, [0.5e-3] + [1e-3] * 7),  # a quarter of eight steps
        (4, 100, [0.25e-3, 0.5e-3, 0.75e-3] + [1e-3] * 97),
    ],
)
def test_the_rate_rises_over_the_first_steps_of_a_round(warm_up, steps, expected):
    task = blob_task(
        augmentation=QUIET, learning_rate=1e-3, warm_up_steps=warm_up, steps_per_round=steps, patch_size=(1, 8, 8)
    )
    rates = []
    hook = register_optimizer_step_pre_hook(lambda own, _args, _kwargs: rates.append(own.param_groups[0]["lr"]))
    try:
        LocalTrainer(task, blob_cohort(), site="a").train_round(fresh(task), request())
    finally:
        hook.remove()
    assert rates == pytest.approx(expected)

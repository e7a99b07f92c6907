"""Single training steps against their formulas: what the loss is, what the gradient is, what a lost step leaves."""

import math

import numpy as np
import pytest
import torch
from blob_cohort import QUIET, blob_cohort, blob_task, fresh
from torch.optim.optimizer import register_optimizer_step_pre_hook

from FedSegCore.augmentation.config import AugmentationConfig, GinConfig
from FedSegCore.learning.results import RoundRequest
from FedSegCore.learning.trainer import LocalTrainer

FIRST = RoundRequest(round_number=1, rounds=4, seed=11)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("weight", [10.0, 0.5])
def test_the_loss_of_a_step_with_ipa_by_hand(weight):
    """(L1 + L2)/2 + w · mean over both predictions and all elements of m·(log m − log p), m their average."""
    gin = GinConfig(ipa=True) if weight == 10.0 else GinConfig(ipa=True, ipa_weight=weight)
    task = blob_task(augmentation=AugmentationConfig(spatial=None, gin=gin), steps_per_round=1, validate_received=False)
    trainer = LocalTrainer(task, blob_cohort(), site="a")
    plain, seen = trainer._steps._loss, []

    def watched(logits, target, annotated):
        value = plain(logits, target, annotated)
        seen.append((logits.detach().double().numpy(), float(value.detach())))
        return value

    trainer._steps._loss = watched
    weights = fresh(task)
    # predictions of an untrained network hardly differ: sharper ones make the term large enough to be seen
    last = [name for name in weights if weights[name].ndim == 4][-1]
    weights[last] = weights[last] * 20
    loss = trainer.train_round(weights, FIRST).loss
    (one, first), (two, second) = seen
    predictions = np.stack([softmax(one), softmax(two)])
    mean = predictions.mean(axis=0)
    consistency = float((mean * (np.log(mean) - np.log(predictions))).mean())
    assert weight * consistency > 0.01
    assert loss == pytest.approx((first + second) / 2 + weight * consistency, rel=1e-4)


def test_the_proximal_gradient_of_a_step_by_hand():
    """In the second step w is no longer what was received: the gradient is longer by μ·(w − w_received)."""
    strength, found = 0.3, []

    def watch(optimiser, _args, _kwargs):
        parameters = optimiser.param_groups[0]["params"]
        found.append([(p.detach().clone(), p.grad.clone()) for p in parameters])

    hook = register_optimizer_step_pre_hook(watch)
    try:
        for proximal in (0.0, strength):
            task = blob_task(
                augmentation=QUIET, steps_per_round=2, proximal=proximal, gradient_clip=None, validate_received=False
            )
            LocalTrainer(task, blob_cohort(), site="a").train_round(fresh(task), FIRST)
    finally:
        hook.remove()
    plain_first, plain_second, first, second = found
    moved = 0.0
    for received, before, (at, without), (now, pulled) in zip(plain_first, first, plain_second, second, strict=True):
        # nothing to pull back to yet
        assert torch.equal(received[1], before[1])
        assert torch.equal(at, now)
        torch.testing.assert_close(pulled - without, strength * (now - received[0]), rtol=1e-3, atol=1e-7)
        moved = max(moved, float((now - received[0]).abs().max()))
    assert moved > 1e-3


def spoilt_image(trainer, at):
    """Give the network an image of NaN in call number ``at``."""
    calls = []

    def spoil(_module, inputs):
        calls.append(1)
        return (inputs[0] * math.nan,) if len(calls) == at else None

    trainer._network.register_forward_pre_hook(spoil)


def spoilt_gradient(trainer, at):
    """Give the network a gradient of NaN in call number ``at``."""
    calls = []

    def spoil(_module, _inputs, logits):
        calls.append(1)
        if len(calls) == at:
            logits.register_hook(lambda gradient: gradient * math.nan)

    trainer._network.register_forward_hook(spoil)


@pytest.mark.parametrize("spoil", [spoilt_image, spoilt_gradient])
def test_a_step_that_is_left_out_leaves_nothing_in_running_statistics(spoil, caplog):
    task = blob_task(augmentation=QUIET, options={"norm": "batch"}, steps_per_round=3, validate_received=False)
    weights = fresh(task)
    results = []
    for steps, at in ((3, 3), (3, 2), (2, 99)):
        settings = task.training.model_copy(update={"steps_per_round": steps})
        trainer = LocalTrainer(task.model_copy(update={"training": settings}), blob_cohort(), site="a")
        spoil(trainer, at)
        results.append(trainer.train_round(weights, FIRST))
    lost_last, lost_second, whole = results
    assert [result.num_steps for result in results] == [2, 2, 2]
    assert [result.skipped_steps for result in results] == [1, 1, 0]
    assert "1 of 3 training steps were left out" in caplog.text
    assert all(np.isfinite(array).all() for array in lost_second.weights.values())
    # a third step that is lost leaves what two steps leave, to the bit
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(lost_last.weights[name], array)
    means = [name for name in weights if name.endswith("running_mean")]
    assert any(not np.array_equal(lost_second.weights[name], whole.weights[name]) for name in means)


def test_a_step_that_memory_cut_short_counts_once_in_running_statistics():
    task = blob_task(augmentation=QUIET, options={"norm": "batch"}, steps_per_round=1, validate_received=False)
    weights = fresh(task)

    def trained(batch_size, short):
        settings = task.training.model_copy(update={"batch_size": batch_size})
        trainer = LocalTrainer(task.model_copy(update={"training": settings}), blob_cohort(), site="a")
        if short:
            fails = [True]

            def like_a_small_card(_module, _inputs, _logits):
                if fails:
                    fails.pop()
                    raise torch.OutOfMemoryError("CUDA out of memory")

            trainer._network.register_forward_hook(like_a_small_card)
        return trainer.train_round(weights, FIRST).weights

    whole, cut = trained(4, short=False), trained(4, short=True)
    name = next(name for name in weights if name.endswith("running_mean"))
    before = weights[name]
    # one update of the momentum average (0.1), not two: of half the batch it goes about as far as of all of it
    assert np.abs(cut[name] - before).max() == pytest.approx(np.abs(whole[name] - before).max(), rel=0.5)

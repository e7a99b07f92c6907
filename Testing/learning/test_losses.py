"""Losses against values worked out in NumPy, and what a site that does not annotate everything teaches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.losses import build_loss, loss_names

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(size=(2, 4, 3, 5))
TARGET = RNG.integers(0, 4, size=(2, 3, 5)).astype(np.uint8)
ALL = (1, 2, 3)


def value(name, annotated=ALL, logits=LOGITS, target=TARGET, **options):
    return float(build_loss(name, options)(torch.tensor(logits), torch.tensor(target), annotated))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def one_hot(target, labels):
    return np.stack([target == c for c in range(1, labels + 1)], axis=1).astype(float)


def soft_dice(p, g):
    return 2 * (p * g).sum() / (p.sum() + g.sum())


def test_dice_ce_by_hand():
    p, g = softmax(LOGITS), one_hot(TARGET, 3)
    ce = -np.mean(np.log(np.take_along_axis(p, TARGET[:, None].astype(int), axis=1)))
    dices = [soft_dice(p[:, c], g[:, c - 1]) for c in ALL]
    assert value("dice_ce") == pytest.approx(1 - np.mean(dices) + ce)
    assert value("dice_ce", dice_weight=0.5, ce_weight=2.0) == pytest.approx(0.5 * (1 - np.mean(dices)) + 2 * ce)
    assert value("sd_utnet") == pytest.approx(10 * (1 - np.mean(dices)))


def test_dice_ce_means_over_labels_that_occur():
    target = np.where(TARGET == 2, 0, TARGET)
    p, g = softmax(LOGITS), one_hot(target, 3)
    ce = -np.mean(np.log(np.take_along_axis(p, target[:, None].astype(int), axis=1)))
    dices = [soft_dice(p[:, c], g[:, c - 1]) for c in (1, 3)]
    assert value("dice_ce", target=target) == pytest.approx(1 - np.mean(dices) + ce)


def test_dice_ce_of_an_empty_truth_is_cross_entropy_alone():
    p = softmax(LOGITS)
    assert value("dice_ce", target=np.zeros_like(TARGET)) == pytest.approx(-np.mean(np.log(p[:, 0])))


def test_perfect_and_worst_predictions():
    right = np.concatenate([np.zeros((2, 1, 3, 5)), 80.0 * one_hot(TARGET, 3) - 40.0], axis=1)
    for name in loss_names():
        assert value(name, logits=right) == pytest.approx(0.0, abs=1e-4), name
    background = np.zeros_like(LOGITS)
    background[:, 0] = 40.0
    assert value("sd_utnet", logits=background) == pytest.approx(10.0, abs=1e-4)
    assert value("dice_ce", logits=background) == pytest.approx(1 + 40.0 * (TARGET > 0).mean(), rel=1e-4)


def test_dice_ce_merges_what_is_not_annotated_into_background():
    annotated = torch.tensor([[True, False, True], [True, True, True]])
    target = TARGET.copy()
    p, g = softmax(LOGITS), one_hot(target, 3)
    p[0, 0] += p[0, 2]
    p[0, 2] = 0
    g[0, 1] = 0  # image 0 does not say where label 2 is
    target[0][target[0] == 2] = 0
    ce = -np.mean(np.log(np.take_along_axis(p, target[:, None].astype(int), axis=1)))
    dices = [soft_dice(p[:, c], g[:, c - 1]) for c in ALL]
    assert value("dice_ce", annotated) == pytest.approx(1 - np.mean(dices) + ce)


def test_gradient_of_a_label_not_annotated_is_its_share_of_background():
    """CE of merged background: dL/dz_c = p_c - p_c / (p_0 + p_c) on background, which is <= 0: never pushed to 0."""
    logits = torch.tensor(LOGITS[:, :3], requires_grad=True)
    target = torch.zeros(2, 3, 5, dtype=torch.uint8)
    build_loss("dice_ce", {"dice_weight": 0.0})(logits, target, (1,)).backward()
    p = softmax(LOGITS[:, :3])
    expected = (p[:, 2] - p[:, 2] / (p[:, 0] + p[:, 2])) / target.numel()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[:, 2].numpy(), expected, rtol=1e-9)
    assert (logits.grad[:, 2] <= 0).all()
    # Annotated, the same voxels do push the label down.
    full = torch.tensor(LOGITS[:, :3], requires_grad=True)
    build_loss("dice_ce", {"dice_weight": 0.0})(full, target, (1, 2)).backward()
    assert full.grad is not None
    assert (full.grad[:, 2] > 0).all()


@pytest.mark.parametrize("name", ["fedgin", "flames"])
def test_sigmoid_losses_give_no_gradient_to_labels_not_annotated(name):
    logits = torch.tensor(LOGITS, requires_grad=True)
    build_loss(name)(logits, torch.tensor(TARGET), (1, 3)).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 2] == 0).all()
    assert (logits.grad[:, 1] != 0).all()


def two_disjoint_sites(name):
    """Two sites, each annotating one of two labels, train one pixel-wise model; returns what it says per pixel type."""
    images = torch.eye(3)[:, :, None].permute(2, 1, 0)  # one image whose three pixels are one-hot codes
    truth = torch.tensor([[0, 1, 2]])
    weights = torch.zeros(3, 3, requires_grad=True)
    optimiser = torch.optim.Adam([weights], lr=0.1)
    loss = build_loss(name)
    for _ in range(150):
        optimiser.zero_grad()
        for label in (1, 2):
            target = torch.where(truth == label, label, 0).to(torch.uint8)
            loss(torch.einsum("oc,ncp->nop", weights, images), target, (label,)).backward()
        optimiser.step()
    return torch.einsum("oc,ncp->nop", weights, images).argmax(dim=1)[0].tolist()


def test_sites_that_annotate_disjoint_labels_teach_the_union():
    assert two_disjoint_sites("dice_ce") == [0, 1, 2]
    assert two_disjoint_sites("fedgin") == [0, 1, 2]
    assert two_disjoint_sites("flames") == [0, 1, 2]


def bce(z, g, positive=1.0):
    p = 1 / (1 + np.exp(-z))
    return -(positive * g * np.log(p) + (1 - g) * np.log(1 - p))


def test_fedgin_by_hand():
    z, g = LOGITS[:, 1:] - LOGITS[:, :1], one_hot(TARGET, 3)
    p = 1 / (1 + np.exp(-z))
    entropy = bce(z, g, 3.0)
    focal = np.mean(0.25 * (1 - np.exp(-entropy)) ** 2 * entropy)
    axes = (2, 3)
    dice = np.mean(1 - (2 * (p * g).sum(axes) + 1e-5) / (p.sum(axes) + g.sum(axes) + 1e-5))
    assert value("fedgin") == pytest.approx(0.5 * focal + 0.5 * dice)


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_flames_by_hand(share):
    z, g = LOGITS[:, 1:] - LOGITS[:, :1], one_hot(TARGET, 3)
    p = 1 / (1 + np.exp(-z))
    mean = np.mean(bce(z, g))
    focal = 0.8 * (1 - np.exp(-mean)) ** 2 * mean
    axes = (0, 2, 3)
    dice = np.mean(1 - (2 * (p * g).sum(axes) + 1) / (p.sum(axes) + g.sum(axes) + 1))
    assert value("flames", dice_share=share) == pytest.approx(share * dice + (1 - share) * focal)
    if share == 0.7:
        assert value("flames") == value("flames", dice_share=0.7)


def test_flames_leaves_out_what_is_not_annotated():
    annotated = torch.tensor([[True, False, True], [False, False, True]])
    pairs = [(0, 0), (0, 2), (1, 2)]
    z, g = LOGITS[:, 1:] - LOGITS[:, :1], one_hot(TARGET, 3)
    p = 1 / (1 + np.exp(-z))
    mean = np.mean([bce(z, g)[n, c].mean() for n, c in pairs])
    focal = 0.8 * (1 - np.exp(-mean)) ** 2 * mean
    first = 1 - (2 * (p * g)[0, 0].sum() + 1) / (p[0, 0].sum() + g[0, 0].sum() + 1)
    third = 1 - (2 * (p * g)[:, 2].sum() + 1) / (p[:, 2].sum() + g[:, 2].sum() + 1)
    assert value("flames", annotated) == pytest.approx(0.7 * (first + third) / 2 + 0.3 * focal)


def test_one_label_sigmoid_is_the_papers_single_output():
    """With K = 1 and z_0 = 0 the score is the paper's own logit."""
    z = RNG.normal(size=(2, 1, 4, 4))
    g = (RNG.random((2, 4, 4)) < 0.3).astype(np.uint8)
    entropy = bce(z[:, 0], g, 3.0)
    p = 1 / (1 + np.exp(-z[:, 0]))
    dice = np.mean(1 - (2 * (p * g).sum((1, 2)) + 1e-5) / (p.sum((1, 2)) + g.sum((1, 2)) + 1e-5))
    expected = 0.5 * np.mean(0.25 * (1 - np.exp(-entropy)) ** 2 * entropy) + 0.5 * dice
    assert value("fedgin", (1,), np.concatenate([np.zeros_like(z), z], axis=1), g) == pytest.approx(expected)


@pytest.mark.parametrize("name", loss_names())
def test_nothing_annotated_teaches_nothing(name):
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = build_loss(name)(logits, torch.tensor(TARGET), ())
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12


@pytest.mark.parametrize("name", loss_names())
def test_bad_values_are_refused_in_words(name):
    loss = build_loss(name)
    target = torch.tensor(TARGET)
    broken = torch.tensor(LOGITS)
    broken[0, 1, 0, 0] = float("nan")
    with pytest.raises(BadInputError) as caught:
        loss(broken, target, ALL)
    assert caught.value.code == "training.not-finite"
    with pytest.raises(BadInputError) as caught:
        loss(torch.tensor(LOGITS), target + 3, ALL)
    assert caught.value.code == "training.labels"
    with pytest.raises(BadInputError) as caught:
        loss(torch.tensor(LOGITS), target[:, :2], ALL)
    assert caught.value.code == "training.shapes"
    with pytest.raises(BadInputError) as caught:
        loss(torch.tensor(LOGITS), target, torch.ones(1, 3, dtype=torch.bool))
    assert caught.value.code == "training.shapes"


def test_unknown_loss_and_options():
    with pytest.raises(BadInputError) as caught:
        build_loss("dice")
    assert caught.value.code == "loss.unknown"
    for name, options in (("flames", {"dice_share": 1.5}), ("fedgin", {"alpha": 1})):
        with pytest.raises(BadInputError) as caught:
            build_loss(name, options)
        assert caught.value.code == "loss.options"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(loss_names()), scale=st.sampled_from([0.1, 5.0, 80.0]))
def test_losses_are_finite_never_negative_and_blind_to_the_order_of_images(seed, name, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(3, 3, 4, 4, generator=generator)
    target = torch.randint(0, 3, (3, 4, 4), generator=generator).to(torch.uint8)
    annotated = torch.rand(3, 2, generator=generator) < 0.6
    found = build_loss(name)(logits.requires_grad_(), target, annotated)
    found.backward()
    found = found.detach()
    assert found >= 0
    assert torch.isfinite(logits.grad).all()
    order = [2, 0, 1]
    again = build_loss(name)(logits.detach()[order], target[order], annotated[order])
    assert float(again) == pytest.approx(float(found), rel=1e-5, abs=1e-6)


def test_half_precision_does_not_overflow():
    logits = torch.zeros(1, 2, 512, 512, dtype=torch.float16)
    target = torch.zeros(1, 512, 512, dtype=torch.uint8)
    target[0, :256] = 1
    assert float(build_loss("flames")(logits, target, (1,))) < 1.0

"""IPA: the blend map, the two blends, and the consistency loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from FedSegCore.augmentation.bspline import bspline_basis, smooth_field
from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import apply_gin, draw_gin
from FedSegCore.augmentation.ipa import consistency_loss, draw_and_apply_ipa, draw_blend_map
from FedSegCore.augmentation.seeds import sample_generator


def quadratic(t):
    """The centred quadratic B-spline, from its textbook pieces."""
    t = abs(t)
    if t <= 0.5:
        return 0.75 - t * t
    return 0.5 * (1.5 - t) ** 2 if t <= 1.5 else 0.0


@pytest.mark.parametrize(("size", "intervals"), [(8, 4), (13, 4), (1, 4), (5, 2)])
def test_basis_is_the_quadratic_b_spline(size, intervals):
    expected = [
        [quadratic((n + 0.5) / size * intervals - (c - 0.5)) for c in range(intervals + 2)] for n in range(size)
    ]
    np.testing.assert_allclose(bspline_basis(size, intervals), expected, atol=1e-12)


def test_field_is_the_product_of_its_axes():
    control = torch.randn(2, 1, 6, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    field = smooth_field(control, (3, 5, 7))
    assert field.shape == (2, 1, 3, 5, 7)
    k, j, i = (
        np.array([quadratic((n + 0.5) / size * 4 - (c - 0.5)) for c in range(6)])
        for n, size in ((2, 3), (1, 5), (4, 7))
    )
    expected = sum(
        control[1, 0, a, b, c].item() * k[a] * j[b] * i[c] for a in range(6) for b in range(6) for c in range(6)
    )
    assert field[1, 0, 2, 1, 4].item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(11, 14), (5, 8, 7)])
def test_blend_map_by_hand_from_its_control_points(shape):
    """Control points to unit length together, quadratic B-spline, exp, then from 0 to 1; the second of two images."""
    generator = sample_generator(12)
    control = [torch.randn([6] * len(shape), generator=generator).double().numpy() for _ in range(2)][1]
    field = control / np.sqrt((control**2).sum())
    for size in shape:
        basis = np.array([[quadratic((n + 0.5) / size * 4 - (c - 0.5)) for c in range(6)] for n in range(size)])
        # sums over the first axis of control points and puts the voxels last
        field = np.tensordot(field, basis, axes=([0], [1]))
    field = np.exp(field)
    expected = (field - field.min()) / (field.max() - field.min())
    found = draw_blend_map(2, shape, sample_generator(12))[1, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.lists(st.integers(2, 20), min_size=2, max_size=3), st.integers(1, 3))
def test_blend_map_runs_from_zero_to_one_in_every_image(seed, shape, count):
    blend = draw_blend_map(count, tuple(shape), sample_generator(seed))
    assert blend.shape == (count, 1, *shape)
    for image in blend:
        assert image.min() == 0.0
        assert image.max() == 1.0


def test_blend_map_is_smooth_and_differs_between_images():
    blend = draw_blend_map(2, (64, 64), sample_generator(0))
    assert blend.diff(dim=2).abs().max() < 0.15
    assert not torch.allclose(blend[0], blend[1], atol=0.1)
    assert torch.equal(draw_blend_map(1, (1, 1), sample_generator(0)), torch.full((1, 1, 1, 1), 0.5))


@pytest.mark.parametrize("shape", [(2, 1, 9, 10), (2, 3, 4, 6, 5)])
def test_blends_are_those_of_the_paper(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    one, two = draw_and_apply_ipa(images, GinConfig(), sample_generator(9))
    generator = sample_generator(9)
    g1 = apply_gin(images, draw_gin(GinConfig(), shape[1], 2, len(shape) - 2, generator))
    g2 = apply_gin(images, draw_gin(GinConfig(), shape[1], 2, len(shape) - 2, generator))
    b = draw_blend_map(2, shape[2:], generator)
    torch.testing.assert_close(one, g1 * b + g2 * (1 - b))
    torch.testing.assert_close(two, g1 * (1 - b) + g2 * b)
    torch.testing.assert_close(one + two, g1 + g2)


def test_images_that_chance_leaves_alone_stay_in_both():
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    config = GinConfig(probability=0.5)
    one, two = draw_and_apply_ipa(images, config, sample_generator(2))
    applied = draw_gin(config, 1, 40, 2, sample_generator(2)).applied
    assert 5 < int(applied.sum()) < 35
    assert torch.equal((one != images).flatten(1).any(1), applied)
    assert torch.equal((two != images).flatten(1).any(1), applied)


def test_consistency_loss_by_hand():
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    mean = (p + q) / 2
    expected = (np.sum(mean * np.log(mean / p)) + np.sum(mean * np.log(mean / q))) / 4
    first, second = (torch.tensor(np.log(values)).reshape(1, 2, 1, 1) for values in (p, q))
    assert consistency_loss(first, second).item() == pytest.approx(expected)
    assert consistency_loss(second, first).item() == pytest.approx(expected)


def test_consistency_loss_is_zero_for_equal_predictions_and_has_a_gradient():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    other = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert consistency_loss(logits, logits + 5.0).item() == pytest.approx(0.0, abs=1e-6)
    before = consistency_loss(logits, other)
    before.backward()
    assert consistency_loss(logits, (other - 5.0 * other.grad).detach()) < before

"""GIN against a network written out in NumPy and SciPy, and its promises: norm, replay, choice of images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.augmentation.gin import GinParameters, apply_gin, draw_gin
from FedSegCore.augmentation.seeds import sample_generator

SHAPES = {2: (9, 11), 3: (5, 7, 8)}


def images_of(dimensions, count=3, channels=1, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, *SHAPES[dimensions], generator=generator)


def by_hand(image, kernels, shifts, alpha):
    """METHODS §1 for one image (C, *axes) in float64, one correlation per pair of channels."""
    hidden = image.astype(np.float64)
    for layer, (kernel, shift) in enumerate(zip(kernels, shifts, strict=True)):
        hidden = np.stack(
            [
                sum(
                    correlate(h, k.astype(np.float64), mode="constant", cval=0.0)
                    for h, k in zip(hidden, row, strict=True)
                )
                + float(b)
                for row, b in zip(kernel, shift, strict=True)
            ]
        )
        if layer < len(kernels) - 1:
            hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    blended = (1 - alpha) * image + alpha * hidden
    return blended * np.sqrt((image.astype(np.float64) ** 2).sum()) / (np.sqrt((blended**2).sum()) + 1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_batch", [False, True])
def test_equals_the_formula_written_out(dimensions, channels, per_batch):
    images = images_of(dimensions, channels=channels)
    config = GinConfig(per_batch=per_batch, kernel_sizes=(1, 3, 5))
    drawn = draw_gin(config, channels, 3, dimensions, sample_generator(7, dimensions))
    got = apply_gin(images, drawn).numpy()
    for n in range(3):
        network = 0 if per_batch else n
        expected = by_hand(
            images[n].numpy(),
            [kernel[network].numpy() for kernel in drawn.kernels],
            [shift[network].numpy() for shift in drawn.shifts],
            float(drawn.alpha[n]),
        )
        np.testing.assert_allclose(got[n], expected, atol=2e-5)
        assert np.abs(got[n] - images[n].numpy()).max() > 1e-3


def test_a_network_small_enough_to_do_in_the_head():
    # x = (1, 2): layer 1 gives 2x - 3 = (-1, 1), leaky (-0.01, 1); layer 2 gives 3h + 1 = (0.97, 4).
    # α = 0.5: y = (0.985, 3); ‖x‖ = √5, ‖y‖ = √(0.985² + 9).
    drawn = GinParameters(
        kernels=(torch.full((1, 1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1, 1), 3.0)),
        shifts=(torch.tensor([[-3.0]]), torch.tensor([[1.0]])),
        alpha=torch.tensor([0.5]),
        applied=torch.tensor([True]),
    )
    got = apply_gin(torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2), drawn)
    factor = 5**0.5 / ((0.985**2 + 9) ** 0.5 + 1e-5)
    assert got.flatten().tolist() == pytest.approx([0.985 * factor, 3 * factor], rel=1e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    dimensions=st.sampled_from([2, 3]),
    channels=st.integers(1, 3),
    count=st.integers(1, 4),
    layers=st.integers(2, 6),
    hidden=st.integers(1, 4),
    per_batch=st.booleans(),
    scale=st.floats(0.01, 100.0),
)
def test_frobenius_norm_is_kept(seed, dimensions, channels, count, layers, hidden, per_batch, scale):
    config = GinConfig(layers=layers, hidden_channels=hidden, per_batch=per_batch)
    generator = sample_generator(seed)
    images = scale * torch.rand(count, channels, *SHAPES[dimensions], generator=generator)
    changed = apply_gin(images, draw_gin(config, channels, count, dimensions, generator))
    before = np.linalg.norm(images.double().reshape(count, -1).numpy(), axis=1)
    after = np.linalg.norm(changed.double().reshape(count, -1).numpy(), axis=1)
    # The rule itself gives ‖y‖ / (‖y‖ + 1e-5); ‖y‖ is small only where the image is, or where the blend cancels out.
    np.testing.assert_allclose(after, before, rtol=1e-3)


def test_norm_is_exact_on_many_voxels():
    # A float32 running sum over 4 million squares is off by more than the rule allows.
    images = torch.rand(1, 1, 2048, 2048, generator=torch.Generator().manual_seed(0))
    changed = apply_gin(images, draw_gin(GinConfig(), 1, 1, 2, sample_generator(0)))
    ratio = np.linalg.norm(changed.double().numpy().ravel()) / np.linalg.norm(images.double().numpy().ravel())
    assert ratio == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_replay_is_bit_equal_and_leaves_the_input_alone(dimensions):
    images = images_of(dimensions)
    before = images.clone()
    one = apply_gin(images, draw_gin(GinConfig(), 1, 3, dimensions, sample_generator(3, 1)))
    two = apply_gin(images, draw_gin(GinConfig(), 1, 3, dimensions, sample_generator(3, 1)))
    assert torch.equal(one, two)
    assert torch.equal(images, before)
    assert not torch.equal(one, apply_gin(images, draw_gin(GinConfig(), 1, 3, dimensions, sample_generator(3, 2))))


def test_first_images_of_a_larger_batch_are_drawn_alike():
    few = draw_gin(GinConfig(), 1, 2, 3, sample_generator(4))
    many = draw_gin(GinConfig(), 1, 5, 3, sample_generator(4)).select(torch.tensor([0, 1]))
    for mine, theirs in zip(
        (*few.kernels, *few.shifts, few.alpha), (*many.kernels, *many.shifts, many.alpha), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_per_image_draws_one_network_each_and_per_batch_one_for_all():
    alone = draw_gin(GinConfig(), 1, 4, 2, sample_generator(1))
    shared = draw_gin(GinConfig(per_batch=True), 1, 4, 2, sample_generator(1))
    assert [len(kernel) for kernel in alone.kernels] == [4] * 4
    assert [len(kernel) for kernel in shared.kernels] == [1] * 4
    assert shared.shared
    assert not alone.shared
    assert not torch.equal(alone.kernels[0][0], alone.kernels[0][1])
    assert len(set(shared.alpha.tolist())) == 4
    image = images_of(2, count=1).expand(4, -1, -1, -1)
    blends = apply_gin(image, GinParameters(shared.kernels, shared.shifts, torch.ones(4), shared.applied))
    assert torch.allclose(blends[0], blends[3], atol=1e-5)


def test_widths_and_sides_are_those_asked_for():
    drawn = draw_gin(GinConfig(layers=5, hidden_channels=4, kernel_sizes=(5,)), 3, 2, 2, sample_generator(0))
    assert [tuple(kernel.shape) for kernel in drawn.kernels] == [
        (2, 4, 3, 5, 5), (2, 4, 4, 5, 5), (2, 4, 4, 5, 5), (2, 4, 4, 5, 5), (2, 3, 4, 5, 5),
    ]  # fmt: skip
    assert [tuple(shift.shape) for shift in drawn.shifts] == [(2, 4)] * 4 + [(2, 3)]


def test_what_is_drawn_is_distributed_as_the_paper_says():
    draws = [draw_gin(GinConfig(), 1, 8, 3, sample_generator(0, n)) for n in range(300)]
    values = np.concatenate([tensor.numpy().ravel() for draw in draws for tensor in (*draw.kernels, *draw.shifts)])
    alphas = np.concatenate([draw.alpha.numpy() for draw in draws])
    sides = np.array([kernel.shape[-1] for draw in draws for kernel in draw.kernels])
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert abs(alphas.mean() - 0.5) < 0.03
    assert abs(alphas.std() - 12**-0.5) < 0.02
    assert set(sides) == {1, 3}
    assert abs((sides == 3).mean() - 0.5) < 0.06


def test_alpha_keeps_to_its_range():
    alphas = draw_gin(GinConfig(alpha=(0.25, 0.5)), 1, 500, 2, sample_generator(0)).alpha
    assert 0.25 <= float(alphas.min()) < 0.26
    assert 0.49 < float(alphas.max()) <= 0.5


def test_alpha_zero_gives_the_image_back():
    images = images_of(3)
    changed = apply_gin(images, draw_gin(GinConfig(alpha=(0.0, 0.0)), 1, 3, 3, sample_generator(0)))
    assert torch.allclose(changed, images, rtol=2e-5, atol=0)


def test_probability_decides_image_by_image():
    images = images_of(2, count=200)
    never = draw_gin(GinConfig(probability=0.0), 1, 200, 2, sample_generator(0))
    always = draw_gin(GinConfig(probability=1.0), 1, 200, 2, sample_generator(0))
    some = draw_gin(GinConfig(probability=0.3), 1, 200, 2, sample_generator(0))
    assert torch.equal(apply_gin(images, never), images)
    assert bool(always.applied.all())
    assert 35 <= int(some.applied.sum()) <= 85
    changed = (apply_gin(images, some) != images).flatten(1).any(1)
    assert torch.equal(changed, some.applied)


@pytest.mark.parametrize("slab", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_working_in_slabs_changes_nothing(dimensions, slab):
    images = torch.rand(2, 1, 13, 6, *[5] * (dimensions - 2), generator=torch.Generator().manual_seed(1))
    drawn = draw_gin(GinConfig(kernel_sizes=(3, 5)), 1, 2, dimensions, sample_generator(2))
    torch.testing.assert_close(apply_gin(images, drawn, slab=slab), apply_gin(images, drawn, slab=13))


def test_two_dimensions_equal_three_with_one_slice():
    flat = draw_gin(GinConfig(kernel_sizes=(3,)), 1, 3, 2, sample_generator(6))
    images = images_of(2)
    expected = apply_gin(images, flat)
    torch.testing.assert_close(apply_gin(images.unsqueeze(2), flat.as_3d())[:, :, 0], expected)
    # A full 3-D network whose middle slices are the 2-D kernels does the same to one slice.
    deep = draw_gin(GinConfig(kernel_sizes=(3,)), 1, 3, 3, sample_generator(8))
    middle = GinParameters(tuple(k[:, :, :, 1] for k in deep.kernels), deep.shifts, deep.alpha, deep.applied)
    torch.testing.assert_close(apply_gin(images.unsqueeze(2), deep)[:, :, 0], apply_gin(images, middle))


def test_as_3d_does_to_every_slice_what_2d_does_before_the_common_norm():
    flat = draw_gin(GinConfig(kernel_sizes=(3,), alpha=(1.0, 1.0)), 1, 1, 2, sample_generator(6))
    volume = images_of(3, count=1)
    got = apply_gin(volume, flat.as_3d())[0, 0]
    for k in range(volume.shape[2]):
        alone = apply_gin(volume[:, :, k], flat)[0, 0]
        torch.testing.assert_close(got[k] / got[k].norm(), alone / alone.norm())
    assert flat.as_3d().as_3d().dimensions == 3


def test_half_precision_comes_back_as_half_and_double_is_computed_as_double():
    images = images_of(2)
    drawn = draw_gin(GinConfig(), 1, 3, 2, sample_generator(0))
    single = apply_gin(images, drawn)
    half = apply_gin(images.half(), drawn)
    double = apply_gin(images.double(), drawn)
    assert half.dtype == torch.float16
    assert double.dtype == torch.float64
    torch.testing.assert_close(half.float(), single, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(double.float(), single, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_gin(images, drawn), single)


def test_no_gradient_is_kept():
    images = images_of(2).requires_grad_()
    assert not apply_gin(images, draw_gin(GinConfig(), 1, 3, 2, sample_generator(0))).requires_grad


@pytest.mark.parametrize("per_batch", [False, True])
def test_an_image_with_a_value_that_is_no_number_spoils_no_other(per_batch):
    images = images_of(2)
    drawn = draw_gin(GinConfig(per_batch=per_batch), 1, 3, 2, sample_generator(0))
    whole = apply_gin(images, drawn)
    images[1, 0, 4, 4] = float("nan")
    spoilt = apply_gin(images, drawn)
    assert bool(spoilt[1].isnan().any())
    assert torch.equal(spoilt[[0, 2]], whole[[0, 2]])


def test_an_empty_image_stays_empty():
    images = torch.zeros(1, 1, 8, 8)
    assert not apply_gin(images, draw_gin(GinConfig(), 1, 1, 2, sample_generator(0))).any()


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 1, 8, 8),
        torch.rand(3, 2, 8, 8),
        torch.rand(3, 1, 4, 8, 8),
        torch.ones(3, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_images_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match="do not fit"):
        apply_gin(images, draw_gin(GinConfig(), 1, 3, 2, sample_generator(0)))


@pytest.mark.parametrize(("images", "dimensions"), [(0, 2), (1, 1), (1, 4)])
def test_impossible_draws_are_refused(images, dimensions):
    with pytest.raises(ValueError, match="GIN draws for"):
        draw_gin(GinConfig(), 1, images, dimensions, sample_generator(0))


def test_seeds_differ_by_every_index_and_repeat():
    def first(*indices):
        return float(torch.rand(1, generator=sample_generator(*indices)))

    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**31, 5)]
    values = [first(*key) for key in keys]
    assert len(set(values)) == len(keys)
    assert values == [first(*key) for key in keys]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dimensions", [2, 3])
def test_gpu_gives_the_cpus_sample(dimensions):
    images = images_of(dimensions)
    drawn = draw_gin(GinConfig(), 1, 3, dimensions, sample_generator(0))
    torch.testing.assert_close(apply_gin(images.cuda(), drawn).cpu(), apply_gin(images, drawn), atol=1e-5, rtol=1e-5)

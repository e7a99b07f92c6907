"""Spatial augmentation: the geometry is the one asked for, and labels go with their image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from FedSegCore.augmentation.config import SpatialConfig
from FedSegCore.augmentation.seeds import sample_generator
from FedSegCore.augmentation.spatial import SpatialAugmentation


def ball(shape, spacing=(1.0, 1.0, 1.0), centre=(0.0, 0.0, 0.0), radius=10.0):
    """Smooth ball (k, j, i) and its mask; centre in mm along (i, j, k) from the image's middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * s - c for n, s, c in zip(shape, spacing[::-1], centre[::-1], strict=True)]
    distance = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij")))
    image = np.clip((radius + 2 - distance) / 4, 0, 1).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy((distance <= radius).astype(np.uint8))


def centroid(mask):
    return np.argwhere(mask.numpy() > 0).mean(axis=0)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_labels_move_with_their_image(dimensions, elastic):
    image, label = ball((24, 40, 48), centre=(6.0, -4.0, 0.0), radius=8.0)
    if dimensions == 2:
        image, label = image[12], label[12]
    config = SpatialConfig(probability=1.0, elastic=elastic, flip_axes=("j", "i"), rotation_degrees=30.0)
    batch = image.expand(6, 1, *image.shape)
    labels = label.expand(6, *label.shape)
    moved, moved_labels = SpatialAugmentation(config, dimensions)(batch, labels, sample_generator(1))
    assert moved_labels.dtype == torch.uint8
    assert set(moved_labels.unique().tolist()) == {0, 1}
    for n in range(6):
        bright, mask = moved[n, 0] > 0.5, moved_labels[n] > 0
        overlap = 2 * (bright & mask).sum() / (bright.sum() + mask.sum())
        assert overlap > 0.93
        assert not torch.equal(moved_labels[n], label)
    assert len({tuple(centroid(mask).round(2)) for mask in moved_labels}) == 6


def test_rotation_angles_fill_the_range_asked_for():
    # A bar through the middle: its second moments give the angle it was turned by.
    line = torch.zeros(30, 1, 101, 101)
    line[:, :, 50, :] = 1.0
    config = SpatialConfig(probability=1.0, rotation_degrees=40.0, scaling=0.0, shift_fraction=0.0)
    turned, _ = SpatialAugmentation(config, 2)(line, torch.zeros(30, 101, 101), sample_generator(3))
    j, i = torch.meshgrid(torch.arange(101.0) - 50, torch.arange(101.0) - 50, indexing="ij")
    weight = turned[:, 0] * (j**2 + i**2 < 48**2)
    ii, jj, ij = ((weight * product).sum((1, 2)) for product in (i * i, j * j, i * j))
    degrees = torch.rad2deg(0.5 * torch.atan2(2 * ij, ii - jj))
    assert -40.2 < degrees.min() < -32
    assert 32 < degrees.max() < 40.2
    np.testing.assert_allclose(weight.sum((1, 2)).numpy(), 95.0, rtol=0.02)  # as long as before


def test_rotation_keeps_shapes_in_mm_when_the_spacing_is_told():
    # A ball in the middle of thick slices stays a ball under rotation about all axes, if and only if spacing is known.
    spacing = (1.0, 1.0, 4.0)
    image, label = ball((16, 48, 40), spacing, radius=14.0)
    config = SpatialConfig(probability=1.0, rotation_degrees=60.0, scaling=0.0, shift_fraction=0.0)
    moves = SpatialAugmentation(config, 3)
    told, _ = moves(image[None, None], label[None], sample_generator(5), spacing=spacing)
    untold, _ = moves(image[None, None], label[None], sample_generator(5))
    assert (told[0, 0] - image).abs().max() < 0.35  # linear interpolation between thick slices
    assert (told[0, 0] - image).abs().mean() < 0.01
    assert (untold[0, 0] - image).abs().mean() > 3 * (told[0, 0] - image).abs().mean()


def test_zoom_and_shift_stay_within_what_was_asked():
    image, label = ball((40, 50, 60), radius=10.0)
    config = SpatialConfig(probability=1.0, rotation_degrees=0.0, scaling=0.2, shift_fraction=0.1)
    labels = label.expand(30, *label.shape)
    _, moved = SpatialAugmentation(config, 3)(image.expand(30, 1, *image.shape), labels, sample_generator(0))
    radii = [(3 * float(mask.sum()) / (4 * math.pi)) ** (1 / 3) for mask in moved]
    assert 7.9 < min(radii) < 8.8
    assert 11.2 < max(radii) < 12.2
    offsets = np.array([centroid(mask) - (19.5, 24.5, 29.5) for mask in moved])
    # Zooming about the middle also scales the shift, by no more than 1 + scaling.
    assert (np.abs(offsets) <= np.array([4.0, 5.0, 6.0]) * 1.2 + 0.3).all()
    assert (np.abs(offsets).max(axis=0) > np.array([2.5, 3.0, 3.5])).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_stretching_draws_every_axis_by_itself(dimensions):
    """A ball becomes an ellipsoid: its standard deviation along each axis tells by how much."""
    image, label = ball((44, 52, 60), radius=12.0)
    if dimensions == 2:
        image, label = image[22], label[22]
    config = SpatialConfig(probability=1.0, rotation_degrees=0.0, scaling=0.0, shift_fraction=0.0, stretching=0.3)
    labels = label.expand(30, *label.shape)
    _, moved = SpatialAugmentation(config, dimensions)(image.expand(30, 1, *image.shape), labels, sample_generator(0))
    before = np.argwhere(label.numpy()).std(axis=0)
    factors = np.array([np.argwhere(mask.numpy()).std(axis=0) for mask in moved]) / before
    assert (factors.min(axis=0) < 0.8).all()
    assert (factors.max(axis=0) > 1.2).all()
    assert 0.68 < factors.min() < factors.max() < 1.32
    assert np.abs(np.corrcoef(factors.T)[0, 1]) < 0.5
    volumes = np.array([float(mask.sum()) for mask in moved]) / float(label.sum())
    np.testing.assert_allclose(volumes, factors.prod(axis=1), rtol=0.05)


def test_draws_without_stretching_are_what_they_were():
    """The other draws of the same generator do not change where stretching is off."""
    images = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    first = SpatialAugmentation(SpatialConfig(probability=1.0), 2)(images, images[:, 0], sample_generator(4))[0]
    config = SpatialConfig(probability=1.0, stretching=1e-9)
    again = SpatialAugmentation(config, 2)(images, images[:, 0], sample_generator(4))[0]
    torch.testing.assert_close(again[0], first[0])


@pytest.mark.parametrize(("axis", "dims"), [("k", (2,)), ("j", (3,)), ("i", (4,))])
def test_flips_only_the_axes_named(axis, dims):
    images = torch.rand(20, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0] * 9).to(torch.int64)
    config = SpatialConfig(probability=0.0, flip_axes=(axis,))
    moved, moved_labels = SpatialAugmentation(config, 3)(images, labels, sample_generator(0))
    flipped = (moved != images).flatten(1).any(1)
    assert 4 <= int(flipped.sum()) <= 16
    torch.testing.assert_close(moved[flipped], images[flipped].flip(dims))
    assert torch.equal(moved_labels[flipped], labels[flipped].flip(tuple(d - 1 for d in dims)))
    assert moved_labels.dtype == torch.int64


def test_no_flip_unless_asked_and_nothing_at_probability_zero():
    images = torch.rand(10, 2, 8, 9, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0] * 9).to(torch.uint8)
    moved, moved_labels = SpatialAugmentation(SpatialConfig(probability=0.0), 2)(images, labels, sample_generator(0))
    assert torch.equal(moved, images)
    assert torch.equal(moved_labels, labels)


def test_one_slice_is_moved_only_within_its_slice():
    image, label = ball((1, 40, 40), centre=(5.0, 5.0, 0.0))
    config = SpatialConfig(probability=1.0, elastic=1.0, rotation_degrees=40.0)
    deep, deep_labels = SpatialAugmentation(config, 3)(
        image.expand(8, 1, 1, 40, 40), label.expand(8, 1, 40, 40), sample_generator(2)
    )
    # Nothing is dimmed by sampling beside the slice.
    assert deep.amax((1, 2, 3, 4)).min() > 0.999
    assert (deep_labels.flatten(1).sum(1) > 100).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 12), min_size=2, max_size=3),
    st.integers(1, 3),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_no_value_is_made_up_and_draws_repeat(seed, shape, count, probability, elastic):
    config = SpatialConfig(probability=probability, elastic=elastic, flip_axes=("k", "j", "i"))
    images = torch.rand(count, 2, *shape, generator=torch.Generator().manual_seed(seed))
    labels = (images[:, 0] * 200).to(torch.uint8)
    moves = SpatialAugmentation(config, len(shape))
    one, two = (moves(images, labels, sample_generator(seed)) for _ in range(2))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert one[0].shape == images.shape
    assert float(one[0].min()) >= -1e-6
    assert float(one[0].max()) <= float(images.max()) + 1e-5
    assert set(one[1].unique().tolist()) <= {0, *labels.unique().tolist()}


def test_shapes_that_do_not_fit_and_unknown_axes_are_refused():
    moves = SpatialAugmentation(SpatialConfig(), 2)
    with pytest.raises(ValueError, match="do not fit"):
        moves(torch.rand(1, 1, 4, 4), torch.zeros(1, 5, 4), sample_generator(0))
    with pytest.raises(ValueError, match="do not fit"):
        moves(torch.rand(1, 1, 4, 4, 4), torch.zeros(1, 4, 4, 4), sample_generator(0))
    with pytest.raises(ValueError, match="4-D"):
        SpatialAugmentation(SpatialConfig(), 4)
    with pytest.raises(ValidationError):
        SpatialConfig(flip_axes=("x",))

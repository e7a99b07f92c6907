from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from FedSegCore.common.errors import CancelledError
from FedSegCore.common.progress import Progress
from FedSegCore.inference import restoring
from FedSegCore.inference.restoring import most_probable
from FedSegCore.volumes import sampling
from FedSegCore.volumes.preparation import prepare, restore_scores
from FedSegCore.volumes.preprocessing import Preprocessing
from FedSegCore.volumes.volume import Grid, Volume

FLIPPED = (-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0)
side = st.integers(1, 14)
mm = st.floats(0.5, 6.0)
IMAGES = {
    "shape": st.tuples(side, side, side),
    "spacing": st.tuples(mm, mm, mm),
    "target": st.tuples(mm, mm, mm),
    "direction": st.sampled_from([(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), FLIPPED]),
}
"""Images and what they are prepared to, as arguments of ``given``."""


def prepared_image(shape, spacing, target, direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)):
    array = np.random.default_rng(0).integers(-500, 500, (1, *shape)).astype(np.int16)
    grid = Grid(shape, spacing, (10.0, -20.0, 30.0), direction)
    preprocessing = Preprocessing(modality="US", spacing=target, window=(0.0, 500.0))  # single slices may lie anyhow
    return prepare(Volume(array, grid, "US"), preprocessing)


@settings(max_examples=40, deadline=None)
@given(
    **IMAGES,
    slab=st.sampled_from([1, 1000, 10**9]),
)
def test_slab_by_slab_is_the_same_as_the_whole_at_once(shape, spacing, target, direction, slab):
    prepared = prepared_image(shape, spacing, target, direction)
    scores = np.random.default_rng(1).random((3, *prepared.grid.shape)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "SLAB_VOXELS", slab)
        labels, found = most_probable(scores, prepared, Progress())
    assert labels.grid == prepared.original
    whole = restore_scores(scores, prepared).array
    two_best = np.sort(whole, axis=0)[-2:]
    clear = two_best[1] - two_best[0] > 1e-5  # rounding may decide ties either way
    np.testing.assert_array_equal(labels.array[0][clear], whole.argmax(0)[clear])
    for value, sure in found.items():
        inside = labels.array[0] == value
        within = whole[value][inside].sum()
        assert sure.confidence == pytest.approx(min(1, within / inside.sum()), abs=1e-4)
        assert sure.expected_dice == pytest.approx(min(1, 2 * within / (inside.sum() + whole[value].sum())), abs=1e-4)
    assert set(found) == set(np.unique(labels.array).tolist())


def test_a_border_falls_where_probabilities_cross():
    # Voxels of 4 mm at 0, 4 mm; back on 1 mm voxels the probability of label 1 is 1, 0.8, 0.6, 0.4, 0.2:
    # the border is between the third and the fourth, not at the edge between the coarse voxels.
    prepared = prepared_image((1, 1, 8), (1.0, 1.0, 1.0), (4.0, None, None))
    assert prepared.grid.shape == (1, 1, 2)
    first, second = 1.0, 0.2
    scores = np.array([[[[1 - first, 1 - second]]], [[[first, second]]]], np.float32)
    labels, found = most_probable(scores, prepared, Progress())
    centres = prepared.grid.origin[0] - prepared.original.origin[0] + np.array([0.0, 4.0])
    expected = np.interp(np.arange(8.0), centres, [first, second])
    np.testing.assert_array_equal(labels.array[0, 0, 0], (expected > 0.5).astype(int))
    assert found[1].confidence == pytest.approx(expected[expected > 0.5].mean(), abs=1e-5)


def a_structure(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """Probabilities (2, k, j, i), float16, of the background and of a ball with a soft border."""
    away = np.linalg.norm(np.stack(np.indices(shape), -1) - np.array(centre), axis=-1)
    ball = np.clip(0.5 + (radius - away) / 4.0, 0.0, 1.0).astype(np.float16)
    return np.stack([1 - ball, ball])


@settings(max_examples=40, deadline=None)
@given(
    **IMAGES,
    centre=st.tuples(*[st.floats(0.0, 12.0)] * 3),
    radius=st.floats(0.2, 6.0),
    slab=st.sampled_from([1, 1000, 10**9]),
)
def test_a_structure_before_much_background_is_found_and_counted_as_in_the_whole(
    shape, spacing, target, direction, centre, radius, slab
):
    prepared = prepared_image(shape, spacing, target, direction)
    scores = a_structure(prepared.grid.shape, centre, radius)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restoring, "SLAB_VOXELS", slab)
        labels, found = most_probable(scores, prepared, Progress())
    whole = restore_scores(scores, prepared).array
    clear = np.abs(whole[1] - whole[0]) > 1e-5
    np.testing.assert_array_equal(labels.array[0][clear], whole.argmax(0)[clear])
    assert set(found) == set(np.unique(labels.array).tolist())
    for value, sure in found.items():
        inside = labels.array[0] == value
        within = whole[value][inside].sum(dtype=np.float64)
        anywhere = whole[value].sum(dtype=np.float64)
        assert sure.confidence == pytest.approx(min(1, within / inside.sum()), abs=1e-4)
        assert sure.expected_dice == pytest.approx(min(1, 2 * within / (inside.sum() + anywhere)), abs=1e-4)


def test_only_what_is_not_certainly_background_is_interpolated(monkeypatch):
    made = []

    def mix(*given):
        made.append(sampling.mix(*given))
        return made[-1]

    monkeypatch.setattr(restoring, "sampling", SimpleNamespace(axis_taps=sampling.axis_taps, mix=mix))
    monkeypatch.setattr(restoring, "SLAB_VOXELS", 100_000)
    prepared = prepared_image((40, 64, 64), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    labels, _ = most_probable(a_structure(prepared.grid.shape, (10, 12, 14), 4.0), prepared, Progress())
    assert (labels.array == 1).sum() > 1000
    assert sum(part.size for part in made) < 0.1 * 2 * labels.array.size


def test_it_can_be_cancelled_between_slabs(monkeypatch):
    monkeypatch.setattr(restoring, "SLAB_VOXELS", 1)
    prepared = prepared_image((6, 4, 4), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    progress = Progress(lambda fraction, _stage: progress.cancel() if fraction > 0.3 else None)
    with pytest.raises(CancelledError):
        most_probable(np.zeros((2, 6, 4, 4), np.float16), prepared, progress)

"""A network's input, and the way back onto exactly the voxels the user gave."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.geometry import (
    Orientation,
    grid_with_spacing,
    orientation_code,
    reorient,
    resample,
)
from FedSegCore.volumes.preparation import (
    prepare,
    prepare_labels,
    prepared_grid,
    restore_labels,
    restore_scores,
    standardise,
)
from FedSegCore.volumes.preprocessing import DEFAULT_PREPROCESSING, Preprocessing
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.volume import Grid, Volume

MR = Preprocessing(modality="MR", spacing=(1.5, 1.5, 2.0), percentiles=(0.0, 100.0))
SAME = Preprocessing(modality="MR", percentiles=(0.0, 100.0))
MIRROR = np.diag([1.0, 1.0, -1.0])


@st.composite
def grids(draw) -> Grid:
    shape = draw(st.tuples(*[st.integers(8, 20)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.4, 4.0)] * 3))
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    order = draw(st.permutations(range(3)))
    turn = (turn @ MIRROR if draw(st.booleans()) else turn)[:, order]
    return Grid(shape, spacing, origin, tuple(float(x) for x in turn.ravel()))


def blob(grid: Grid, radius: float | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a ball off the centre of the grid (k, j, i), its centre in LPS mm and its radius in mm."""
    k, j, i = np.indices(grid.shape)
    where = np.stack([i, j, k, np.ones_like(i)]).reshape(4, -1)
    place = (grid.affine() @ where)[:3]
    size = np.array(grid.shape[::-1])
    centre = (grid.affine() @ np.append((size - 1) * (0.45, 0.5, 0.55), 1.0))[:3]
    radius = radius or 0.3 * float((size * grid.spacing).min())
    return (np.linalg.norm(place - centre[:, None], axis=0) <= radius).reshape(grid.shape), centre, radius


def centroid(mask: np.ndarray, grid: Grid) -> np.ndarray:
    k, j, i = (axis.mean() for axis in np.nonzero(mask))
    return (grid.affine() @ (i, j, k, 1.0))[:3]


@settings(max_examples=60, deadline=None)
@given(grids(), st.sampled_from([MR, SAME, DEFAULT_PREPROCESSING["US"], DEFAULT_PREPROCESSING["MR"]]))
def test_labels_return_to_the_same_grid_and_place(grid, preprocessing):
    ball, centre, _ = blob(grid)
    volume = Volume(ball[None].astype(np.float32) + np.linspace(0, 0.1, ball.size).reshape(ball[None].shape), grid)
    prepared = prepare(volume, preprocessing)
    assert orientation_code(prepared.grid) == "LPS"
    labels = prepare_labels(Volume(ball[None].astype(np.uint8), grid), prepared)
    assert labels.shape == prepared.image.shape[1:] == prepared.grid.shape
    voxel = max(*prepared.grid.spacing, *grid.spacing)
    if labels.any():
        assert np.linalg.norm(centroid(labels, prepared.grid) - centre) <= voxel
    restored = restore_labels(labels, prepared)
    assert restored.grid == grid
    assert restored.array.dtype == np.uint8
    if restored.array.any():
        assert np.linalg.norm(centroid(restored.array[0], grid) - centre) <= voxel


@settings(max_examples=40, deadline=None)
@given(grids(), st.sampled_from(["LPS", "RAS", "PIR", "SAL"]))
def test_reorienting_moves_no_voxel_and_is_undone_exactly(grid, code):
    array = np.arange(np.prod(grid.shape)).reshape(1, *grid.shape).astype(np.int32)
    turned = reorient(Volume(array, grid), code)
    assert orientation_code(turned.grid) == code
    rng = np.random.default_rng(0)
    for _ in range(5):
        k, j, i = (int(rng.integers(n)) for n in turned.grid.shape)
        place = turned.grid.affine() @ (i, j, k, 1.0)
        old = np.rint(np.linalg.inv(grid.affine()) @ place).astype(int)
        np.testing.assert_allclose(grid.affine() @ old, place, atol=1e-6)
        assert turned.array[0, k, j, i] == array[0, old[2], old[1], old[0]]
    np.testing.assert_array_equal(Orientation.towards(grid, code).undo(turned.array), array)


@settings(max_examples=30, deadline=None)
@given(grids())
def test_without_resampling_nothing_is_lost(grid):
    array = np.random.default_rng(1).integers(0, 9, (1, *grid.shape)).astype(np.uint8)
    array.flat[:2] = 0, 8
    prepared = prepare(Volume(array, grid), SAME)
    labels = prepare_labels(Volume(array, grid), prepared)
    np.testing.assert_allclose(prepared.image[0] * 8, labels, atol=1e-5)
    np.testing.assert_array_equal(restore_labels(labels, prepared).array, array)
    np.testing.assert_array_equal(restore_scores(labels[None].astype(np.float32), prepared).array, array)


@settings(max_examples=30, deadline=None)
@given(grids())
def test_a_linear_ramp_survives_there_and_back(grid):
    """A plane stays a plane, away from the border, but for the averaging kernel's few hundredths of a voxel."""
    axis = Orientation.towards(grid).axes[0]
    ramp = np.arange(grid.shape[2 - axis], dtype=np.float32)
    shape = [1, 1, 1]
    shape[2 - axis] = -1
    array = np.broadcast_to(ramp.reshape(shape), grid.shape)[None].copy()
    finer = Preprocessing(
        modality="MR",
        spacing=tuple(s / 1.7 for s in Orientation.towards(grid).grid(grid).spacing),
        percentiles=(0, 100),
    )
    prepared = prepare(Volume(array, grid), finer)
    back = restore_scores(prepared.image * ramp[-1], prepared)
    assert back.grid == grid
    inner = (slice(None), *[slice(2, -2)] * 3)
    np.testing.assert_allclose(back.array[inner], array[inner], atol=0.08)


def test_ct_window_by_hand():
    array = np.array([-1000, -160, 40, 240, 3000], np.int16).reshape(1, 1, 1, 5)
    prepared = prepare(Volume(array, Grid((1, 1, 5))), Preprocessing(modality="CT", window=(-160.0, 240.0)))
    np.testing.assert_allclose(prepared.image.ravel(), [0, 0, 0.5, 1, 1], atol=1e-6)
    assert prepared.image.dtype == np.float32


def test_percentiles_by_hand():
    array = np.arange(101, dtype=np.float32).reshape(1, 1, 1, 101)
    prepared = prepare(Volume(array, Grid((1, 1, 101))), Preprocessing(modality="MR", percentiles=(10, 90)))
    np.testing.assert_allclose(prepared.image.ravel(), np.clip((np.arange(101) - 10) / 80, 0, 1), atol=1e-6)


def test_sparse_image_falls_back_to_its_range():
    array = np.zeros((1, 20, 20, 20), np.float32)
    array[0, 5, 5, 5] = 4.0
    prepared = prepare(Volume(array, Grid((20, 20, 20))), Preprocessing(modality="MR", percentiles=(0.5, 99.5)))
    assert prepared.image[0, 5, 5, 5] == 1.0
    assert prepared.image.sum() == 1.0


def test_averaging_where_voxels_get_fewer_by_hand():
    array = np.array([0, 0, 4, 4, 0, 0, 0, 0], np.float32).reshape(1, 1, 1, 8)
    prepared = prepare(
        Volume(array, Grid((1, 1, 8))), Preprocessing(modality="MR", spacing=(2.0, None, None), percentiles=(0, 100))
    )
    # New centres at 0.5, 2.5, 4.5, 6.5; triangle of half width 2: weights 1/8, 3/8, 3/8, 1/8 (renormalised at borders).
    np.testing.assert_allclose(prepared.image.ravel(), [1 / 7, 3 / 4, 1 / 8, 0], atol=1e-6)
    assert prepared.grid.origin == (0.5, 0.0, 0.0)


def test_slices_are_padded_to_a_square_and_come_back():
    array = np.random.default_rng(2).integers(1, 255, (1, 2, 30, 60)).astype(np.uint8)
    grid = Grid((2, 30, 60), (0.2, 0.2, 1.0))
    preprocessing = Preprocessing(modality="US", in_plane_size=(60, 60), percentiles=(0, 100))
    volume = Volume(array, grid)
    prepared = prepare(volume, preprocessing)
    assert prepared.image.shape == (1, 2, 60, 60)
    assert prepared.grid.spacing == (0.2, 0.2, 1.0)
    expected = (array[0] - float(array.min())) / float(np.ptp(array))
    np.testing.assert_allclose(prepared.image[0, :, 15:45], expected, atol=1e-6)
    np.testing.assert_allclose(prepared.image[0, :, :15], 0, atol=1e-6)
    np.testing.assert_allclose(prepared.image[0, :, 45:], 0, atol=1e-6)
    labels = prepare_labels(volume, prepared)
    np.testing.assert_array_equal(restore_labels(labels, prepared).array, array)


def test_grey_becomes_three_channels_and_colour_becomes_grey():
    grey = Volume(np.arange(16 * 16, dtype=np.uint8).reshape(1, 1, 16, 16), Grid((1, 16, 16)))
    image = prepare(grey, DEFAULT_PREPROCESSING["ES"]).image
    assert image.shape == (3, 1, 256, 256)
    np.testing.assert_array_equal(image[0], image[2])
    colour = Volume(np.stack([grey.array[0], np.zeros_like(grey.array[0]), np.zeros_like(grey.array[0])]), grey.grid)
    prepared = prepare(colour, SAME)
    assert prepared.image.shape == (1, 1, 16, 16)
    assert prepared.image.max() == pytest.approx(0.299, abs=1e-3)


def code_of(call, *args) -> str:
    with pytest.raises(BadInputError) as caught:
        call(*args)
    return caught.value.code


def test_refusals():
    ct = DEFAULT_PREPROCESSING["CT"]
    eight_bit = Volume(np.arange(64, dtype=np.uint8).reshape(1, 4, 4, 4), Grid((4, 4, 4)))
    assert code_of(prepare, eight_bit, ct) == "image.not-hounsfield"
    assert code_of(prepare, eight_bit.with_array(np.zeros((1, 4, 4, 4))), MR) == "image.constant"
    assert code_of(prepare, eight_bit.with_array(np.full((1, 4, 4, 4), np.nan)), MR) == "image.not-finite"
    assert code_of(prepared_grid, Grid((500, 500, 500), (90.0, 90.0, 90.0)), MR) == "image.too-big"
    prepared = prepare(eight_bit, MR)
    assert code_of(prepare_labels, eight_bit.with_array(np.full((1, 4, 4, 4), 0.5)), prepared) == "labels.not-integers"
    moved = Volume(eight_bit.array, Grid((4, 4, 4), origin=(0.5, 0, 0)))
    assert code_of(prepare_labels, moved, prepared) == "labels.other-grid"
    finer = Volume(eight_bit.array, Grid((4, 4, 4), (0.5, 0.5, 0.5)))
    assert code_of(prepare_labels, finer, prepared) == "labels.other-grid"


def test_flipped_and_cropped_label_map_lands_on_its_image():
    array = np.random.default_rng(5).integers(0, 5, (1, 6, 7, 8)).astype(np.uint8)
    image = Volume(array, Grid((6, 7, 8), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0)))
    prepared = prepare(image, SAME)
    cropped = Volume(array[:, 1:4], Grid((3, 7, 8), (1.0, 2.0, 3.0), (5.0, 6.0, 10.0)))
    expected = np.zeros_like(array)
    expected[:, 1:4] = array[:, 1:4]
    np.testing.assert_array_equal(prepare_labels(reorient(cropped, "RAI"), prepared), expected[0])


def test_single_slice_keeps_its_axis():
    target = prepared_grid(Grid((1, 40, 40), (0.75, 0.75, 5.0)), DEFAULT_PREPROCESSING["CT"])
    assert target.shape == (1, 20, 20)
    assert target.spacing == (1.5, 1.5, 5.0)


CORONAL = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # columns: i to the left, j to the feet, k to the back
SAGITTAL = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
ACROSS = {
    "coronal": Grid((1, 40, 60), (0.5, 0.7, 4.0), (1.0, 2.0, 3.0), tuple(CORONAL.ravel())),
    "sagittal": Grid((1, 40, 60), (0.5, 0.7, 4.0), (1.0, 2.0, 3.0), tuple(SAGITTAL.ravel())),
    "coronal, cut from a volume": Grid((40, 1, 60), (0.5, 4.0, 0.7), (1.0, 2.0, 3.0)),
    "sagittal, cut from a volume": Grid((40, 60, 1), (4.0, 0.5, 0.7), (1.0, 2.0, 3.0)),
    "oblique": Grid(
        (1, 40, 60), (0.5, 0.7, 4.0), direction=tuple(Rotation.from_euler("x", 60, True).as_matrix().ravel())
    ),
}


@pytest.mark.parametrize("grid", ACROSS.values(), ids=ACROSS.keys())
def test_a_single_slice_across_is_one_picture_or_refused(grid):
    array = np.random.default_rng(3).integers(0, 200, (1, *grid.shape)).astype(np.uint8)
    array.flat[:2] = 0, 200
    volume = Volume(array, grid)
    prepared = prepare(volume, Preprocessing(modality="US", percentiles=(0.0, 100.0)))
    np.testing.assert_allclose(prepared.image, array.reshape(1, 1, 40, 60) / np.float32(200), atol=1e-6)
    corners = [g.affine() @ [*((n - 1) / 2 for n in g.shape[::-1]), 1.0] for g in (grid, prepared.grid)]
    np.testing.assert_allclose(*corners, atol=1e-9)
    np.testing.assert_array_equal(restore_labels(prepare_labels(volume, prepared), prepared).array, array)
    assert prepare(volume, DEFAULT_PREPROCESSING["US"]).image.shape == (1, 1, 256, 256)
    for modality in ("CT", "MR"):
        signed = volume.with_array(array.astype(np.int16) - 100)
        assert code_of(prepare, signed, DEFAULT_PREPROCESSING[modality]) == "image.not-axial"


def test_spaced_grid_keeps_the_centre():
    grid = Grid((10, 21, 33), (0.7, 0.9, 3.1), (3, 4, 5), tuple(Rotation.from_euler("z", 30, True).as_matrix().ravel()))
    other = grid_with_spacing(grid, (1.0, None, 2.0))
    # 33 x 0.7 = 23.1 -> 23 voxels of 1 mm; 10 x 3.1 = 31 -> 15.5, rounded up to 16 of 2 mm.
    assert other.shape == (16, 21, 23)
    centres = [g.affine() @ [*((n - 1) / 2 for n in g.shape[::-1]), 1.0] for g in (grid, other)]
    np.testing.assert_allclose(*centres, atol=1e-9)


def test_resample_onto_a_turned_grid_agrees_with_positions():
    grid = Grid((12, 12, 12), (1.0, 1.0, 1.0))
    k, j, i = np.indices(grid.shape).astype(np.float32)
    plane = Volume((2 * i + 3 * j - k)[None], grid)
    turn = Rotation.from_euler("xyz", (20, -10, 30), degrees=True).as_matrix()
    target = Grid((3, 4, 5), (0.8, 0.9, 0.7), (4.0, 4.0, 5.0), tuple(turn.ravel()))
    kk, jj, ii = np.indices(target.shape)
    place = np.einsum("ab,b...->a...", target.affine(), np.stack([ii, jj, kk, np.ones_like(ii)]).astype(float))
    expected = 2 * place[0] + 3 * place[1] - place[2]
    np.testing.assert_allclose(resample(plane, target, "linear").array[0], expected, atol=1e-4)


def test_standardise():
    batch = torch.rand(3, 2, 4, 5, 6) * torch.tensor([1.0, 50.0, 0.0]).reshape(3, 1, 1, 1, 1) + 7
    out = standardise(batch)
    torch.testing.assert_close(out[:2].mean((1, 2, 3, 4)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[:2].std((1, 2, 3, 4), unbiased=False), torch.ones(2), atol=1e-4, rtol=0)
    assert not out[2].any()


@pytest.mark.slow
def test_a_whole_ct_takes_seconds():
    array = np.random.default_rng(0).integers(-1000, 1000, (1, 300, 512, 512), np.int16)
    volume = Volume(array, Grid((300, 512, 512), (0.7, 0.7, 2.5), direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)))
    start = time.process_time()
    prepared = prepare(volume, DEFAULT_PREPROCESSING["CT"])
    restored = restore_labels((prepared.image[0] > 0.5).astype(np.uint8), prepared)
    assert restored.grid == volume.grid
    # About two seconds of processor time on an idle machine.
    assert time.process_time() - start < 20


def test_real_label_maps_survive_there_and_back(real_data):
    folder = real_data / "mr_abdomen_chaos_t2"
    image = sorted(folder.glob("*_img.nii.gz"))[0]
    labels = read_label_map(image.with_name(image.name.replace("_img", "_seg")))
    prepared = prepare(read_volume(image, modality="MR"), DEFAULT_PREPROCESSING["MR"])
    restored = restore_labels(prepare_labels(labels, prepared), prepared)
    assert restored.grid == prepared.original
    for value in (1, 2, 3, 4):
        both = np.count_nonzero((restored.array == value) & (labels.array == value))
        total = np.count_nonzero(restored.array == value) + np.count_nonzero(labels.array == value)
        assert 2 * both / total > 0.97

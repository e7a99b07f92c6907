"""Label maps whose voxels are an image's, counted from other ends or along other axes."""

import itertools

import numpy as np
import pytest
from FedSegSlicerLib.Segments import LabelMap

pytestmark = pytest.mark.slicer

GRID = np.array([[0.0, 1.5, 0.0, -20.0], [-1.5, 0.0, 0.0, 30.0], [0.0, 0.0, 4.0, 5.0], [0.0, 0.0, 0.0, 1.0]])
TURNS = [(order, ways) for order in itertools.permutations(range(3)) for ways in itertools.product((1, -1), repeat=3)]


def placed(voxels, start, ijkToRas):
    """Return point (rounded) → value of all voxels."""
    found = {}
    for (k, j, i), value in np.ndenumerate(voxels):
        point = ijkToRas @ [i + start[0], j + start[1], k + start[2], 1.0]
        found[tuple(np.round(point[:3], 3) + 0.0)] = int(value)
    return found


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_the_same_voxels_counted_otherwise_stay_where_they_are(turn):
    order, ways = turn
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    between = np.zeros((4, 4))
    for own, (axis, way) in enumerate(zip(order, ways, strict=True)):
        between[axis, own] = way
    between[:, 3] = [7, -2, 3, 1]
    counted = LabelMap(voxels, (1, -1, 2), GRID @ between)
    found = counted.onGrid(GRID)
    assert found is not None
    assert placed(found.voxels, found.start, GRID) == placed(voxels, (1, -1, 2), GRID @ between)
    assert np.shares_memory(found.voxels, voxels)


def test_other_voxels_are_not_taken_for_the_image_s():
    voxels = np.zeros((2, 3, 4), np.uint8)
    half, finer, oblique = (np.eye(4) for _ in range(3))
    half[0, 3] = 0.5
    finer[1, 1] = 0.5
    oblique[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    for between in (half, finer, oblique):
        assert LabelMap(voxels, (0, 0, 0), GRID @ between).onGrid(GRID) is None


def test_one_without_voxels_is_on_the_grid():
    mirrored = GRID @ np.diag([1.0, 1.0, -1.0, 1.0])
    found = LabelMap(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), mirrored).onGrid(GRID)
    assert found is not None
    assert found.voxels.size == 0

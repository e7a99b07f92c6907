"""Scores of hand-made masks."""

import numpy as np
import pytest

from FedSegCore.common.errors import BadInputError
from FedSegCore.learning.metrics import (
    case_scores,
    mean_and_sd,
    pixel_accuracy,
    split_by_size,
    surface_distance_mm,
)
from FedSegCore.learning.results import CaseScore
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.volume import Grid

TERM = CodedTerm(code="10200004", meaning="Liver")
CONTRACT = LabelContract(
    labels=tuple(Label(name=name, value=v, type=TERM, colour=(1, 2, 3)) for v, name in enumerate("abc", start=1))
)


def blank(shape=(6, 8, 8)):
    return np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)


def test_dice_and_iou_of_known_masks():
    predicted, truth = blank()
    truth[1:3, 2:4, 2:4] = 1  # 8 voxels
    predicted[1:3, 2:4, 3:5] = 1  # 8 voxels, 4 shared
    truth[4, 0, 0:3] = 2  # 3 voxels, none found
    first, second, third = case_scores(predicted, truth, Grid(truth.shape), CONTRACT, (1, 2, 3), "c1")
    assert (first.case, first.label, first.dice, first.iou) == ("c1", "a", 0.5, pytest.approx(4 / 12))
    assert (second.dice, second.iou, second.surface_distance_mm) == (0.0, 0.0, None)
    assert (third.dice, third.iou, third.surface_distance_mm) == (1.0, 1.0, None)


def test_distances_are_left_out_where_nobody_asks():
    predicted, truth = blank()
    truth[1:3, 2:4, 2:4] = predicted[1:3, 2:4, 3:5] = 1
    with_distance, without = (
        case_scores(predicted, truth, Grid(truth.shape), CONTRACT, (1,), "c", distances=wanted)[0]
        for wanted in (True, False)
    )
    assert with_distance.surface_distance_mm is not None
    assert without.surface_distance_mm is None
    assert with_distance.dice == without.dice


def test_labels_not_annotated_are_left_out():
    predicted, truth = blank()
    predicted[:] = 2
    scores = case_scores(predicted, truth, Grid(truth.shape), CONTRACT, (1, 3), "c")
    assert [score.label for score in scores] == ["a", "c"]


@pytest.mark.parametrize(("axis", "millimetres"), [(0, 5.0), (1, 2.0), (2, 0.5)])
def test_distance_of_two_planes_is_in_millimetres_along_each_axis(axis, millimetres):
    """Parallel one-voxel planes three voxels apart: every surface voxel is 3 voxels from the other plane."""
    predicted, truth = blank((8, 9, 10))
    np.moveaxis(truth, axis, 0)[2] = 1
    np.moveaxis(predicted, axis, 0)[5] = 1
    grid = Grid(truth.shape, spacing=(0.5, 2.0, 5.0))
    assert surface_distance_mm(predicted > 0, truth > 0, grid) == pytest.approx(3 * millimetres)


def test_distance_of_a_grown_box_by_hand():
    """A single voxel in the middle of a 3x3x3 box: 26 surface voxels at known distances, and 1 at distance 1."""
    predicted, truth = blank((7, 7, 7))
    truth[3, 3, 3] = 1
    predicted[2:5, 2:5, 2:5] = 1
    outward = 6 * 1 + 12 * 2**0.5 + 8 * 3**0.5
    expected = (outward + 1.0) / (26 + 1)
    assert surface_distance_mm(predicted > 0, truth > 0, Grid(truth.shape)) == pytest.approx(expected, rel=1e-5)


def test_equal_masks_have_distance_zero_also_at_the_border():
    predicted, truth = blank()
    predicted[:2, :3, -3:] = truth[:2, :3, -3:] = 1
    assert surface_distance_mm(predicted > 0, truth > 0, Grid(truth.shape)) == 0.0


def test_single_slice_is_measured_in_its_plane():
    """Filled squares of sides 5 and 3 with one centre: outlines of 16 and 8 pixels."""
    predicted, truth = blank((1, 9, 9))
    truth[0, 2:7, 2:7] = 1
    predicted[0, 3:6, 3:6] = 1
    # Outer outline: 12 edge pixels at 1, 4 corners at sqrt 2; inner outline: 8 pixels at 1.
    expected = (12 + 4 * 2**0.5 + 8) / 24
    found = surface_distance_mm(predicted > 0, truth > 0, Grid(truth.shape, spacing=(2.0, 2.0, 1.0)))
    assert found == pytest.approx(2 * expected, rel=1e-5)


def test_shapes_that_do_not_belong_together():
    predicted, truth = blank()
    with pytest.raises(BadInputError) as caught:
        case_scores(predicted[1:], truth, Grid(truth.shape), CONTRACT, (1,), "c")
    assert caught.value.code == "score.shapes"


def test_mean_and_sd_per_label():
    scores = [
        CaseScore("1", "a", 0.5, 0.1, 2.0),
        CaseScore("2", "a", 0.9, 0.3, None),
        CaseScore("1", "b", 1.0, 1.0, None),
    ]
    found = mean_and_sd(scores)
    assert found["a"] == (pytest.approx(0.7), pytest.approx(0.4 / 2**0.5), 2)
    assert found["b"] == (1.0, 0.0, 1)
    assert mean_and_sd(scores, "surface_distance_mm") == {"a": (2.0, 0.0, 1)}


def test_pixel_accuracy():
    assert pixel_accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2])) == 0.75


def test_split_by_size():
    scores = [CaseScore(case, "a", 0.5, 0.5) for case in ("small", "edge", "large", "none")]
    areas = {("small", "a"): 1 / 1000, ("edge", "a"): 1 / 128, ("large", "a"): 1 / 20, ("none", "a"): 0.0}
    small, large = split_by_size(scores, areas, threshold=128)
    assert [score.case for score in small] == ["small", "edge"]
    assert [score.case for score in large] == ["large"]

"""What is usual in a cohort: patients count once, structures that the edge cuts do not count."""

import math

import numpy as np
import pytest

from FedSegCore.learning.cohort import PreparedCase
from FedSegCore.learning.cohort_usual import LOOK, measure_cohort, usual_of
from FedSegCore.volumes.usual import image_features
from FedSegCore.volumes.volume import Grid

GRID = Grid((4, 6, 6), (5.0, 5.0, 10.0))  # a voxel has 0.25 ml


def case(name: str, patient: str, voxels: int, *, value: int = 1, at_edge: bool = False, level: float = 0.1):
    labels = np.zeros(GRID.shape, np.uint8)
    inside = labels[1:3, 1:5, 1:5].reshape(-1)
    inside[:voxels] = value
    labels[1:3, 1:5, 1:5] = inside.reshape(2, 4, 4)
    if at_edge:
        labels[0, 0, 0] = value
    image = np.full((1, *GRID.shape), level, np.float16)
    return PreparedCase(name, patient, image, labels, GRID, (value,))


def test_every_patient_counts_once():
    # Anna's two images have 4 and 16 voxels: 1 and 4 ml, of which the logarithms are averaged; Bo's has 4 ml.
    measured = measure_cohort([case("a", "anna", 4), case("b", "anna", 16), case("c", "bo", 16)])
    assert measured[1] == {"anna": pytest.approx((math.log(2.0),)), "bo": pytest.approx((math.log(4.0),))}
    usual = usual_of(measured)
    assert usual.volumes[1].patients == usual.look.patients == 2
    assert usual.volumes[1].mean == pytest.approx((1.5 * math.log(2.0),))
    assert usual.volumes[1].deviation == pytest.approx((math.log(2.0) / math.sqrt(2.0),))
    assert measured[LOOK]["bo"] == pytest.approx(image_features(case("c", "bo", 16).image))


def test_what_the_edge_cuts_has_no_volume():
    measured = measure_cohort([case("a", "anna", 4, at_edge=True), case("b", "bo", 4, value=3)])
    assert set(measured) == {LOOK, 3}
    assert set(measured[LOOK]) == {"anna", "bo"}


def test_of_nothing_nothing_is_usual():
    assert usual_of(measure_cohort([])).model_dump() == {"look": None, "volumes": {}}

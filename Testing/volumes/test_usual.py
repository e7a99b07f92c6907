"""What is usual: measures, pooling and limits, against numbers worked out by hand."""

import math
import tracemalloc

import numpy as np
import pytest
from pydantic import ValidationError

from FedSegCore.volumes.usual import (
    BINS,
    FEATURES,
    CohortUsual,
    Usual,
    image_features,
    is_far,
    log_volumes,
    looks_unlike,
    values_at_the_edge,
)


def test_shares_and_roughness_by_hand():
    # One slice of 2 x 4: 0, 0, 1, 1 twice. Half of the voxels are in the first bin, half in the last; of the 6 steps
    # along i two are 1, the 4 along j are 0: 2 / 10.
    image = np.tile(np.array([0.0, 0.0, 1.0, 1.0], np.float16), (1, 1, 2, 1))
    features = image_features(image)
    assert len(features) == FEATURES
    assert features[:BINS] == pytest.approx((0.5, 0, 0, 0, 0, 0, 0, 0.5))
    assert features[BINS] == pytest.approx(0.2)


def test_the_look_is_the_same_in_half_precision_and_over_slices():
    image = np.random.default_rng(0).random((1, 5, 30, 20)).astype(np.float16)
    assert image_features(image) == pytest.approx(image_features(image.astype(np.float32)))
    whole = np.array(image_features(image))
    slices = np.mean([image_features(image[:, k : k + 1]) for k in range(5)], axis=0)
    assert whole == pytest.approx(slices)


def test_a_single_voxel_has_no_roughness():
    assert image_features(np.full((1, 1, 1, 1), 0.5, np.float32))[BINS] == 0.0


def test_volumes_in_ml():
    labels = np.zeros((4, 5, 5), np.uint8)
    labels[1:3, 1:3, 1:3] = 2  # 8 voxels of 2 x 2.5 x 10 mm = 0.05 ml each
    labels[0, 0, 0] = 5
    assert log_volumes(labels, (2.0, 2.5, 10.0)) == pytest.approx({2: math.log(0.4), 5: math.log(0.05)})
    assert values_at_the_edge(labels) == {5}
    assert log_volumes(labels[:1], (1.0, 1.0, 1.0)) == {}


def test_measuring_volumes_takes_no_memory_of_the_images_size():
    labels = np.zeros((64, 128, 128), np.uint8)
    labels[10:20] = 7
    tracemalloc.start()
    try:
        assert log_volumes(labels, (1.0, 1.0, 1.0)) == pytest.approx({7: math.log(163.84)})
        assert tracemalloc.get_traced_memory()[1] < labels.nbytes
    finally:
        tracemalloc.stop()


def test_pooling_gives_what_all_patients_together_would():
    rows = np.random.default_rng(1).normal(3.0, 2.0, (17, 3))
    pooled = Usual.pooled([Usual.of(rows[:1]), Usual.of(rows[1:6]), Usual.of(rows[6:])])
    assert pooled.patients == 17
    assert pooled.mean == pytest.approx(rows.mean(axis=0))
    assert pooled.deviation == pytest.approx(rows.std(axis=0, ddof=1))
    # By hand: 1, 3 | 8: mean 4, squares of distances 9 + 1 + 16 = 26, over 2.
    by_hand = Usual.pooled([Usual.of([[1.0], [3.0]]), Usual.of([[8.0]])])
    assert (by_hand.patients, by_hand.mean) == (3, (pytest.approx(4.0),))
    assert by_hand.deviation == (pytest.approx(math.sqrt(13.0)),)


@pytest.mark.parametrize(("patients", "reach"), [(2, 235.80), (3, 19.21), (5, 6.62), (9, 4.28), (11, 3.96), (51, 3.16)])
def test_the_reach_is_that_of_one_more_value_of_a_normal_distribution(patients, reach):
    # GUM (JCGM 100:2008), table G.2, 99.73 %, for one degree of freedom less
    usual = Usual(patients=patients, mean=(0.0,), deviation=(1.0,))
    assert usual.reach() / math.sqrt(1 + 1 / patients) == pytest.approx(reach, abs=0.006, rel=1e-4)


def test_one_patient_tells_nothing_of_what_is_unusual():
    assert not is_far(1e6, Usual(patients=1, mean=(0.0,), deviation=(0.0,)), 0.1)


def test_an_image_a_little_off_in_one_measure_is_not_unlike():
    many = Usual(patients=10**6, mean=(0.125,) * BINS + (0.05,), deviation=(0.03,) * BINS + (0.01,))
    usual = np.array(many.mean)
    assert not looks_unlike(usual, many)
    # A chi-squared variable of 9 degrees of freedom exceeds 25.26 in 0.27 % (tables): sqrt(25.26 / 9) = 1.675 on
    # average, or sqrt(25.26) = 5.03 deviations in one of nine.
    assert not looks_unlike(usual + np.eye(FEATURES)[0] * 4.9 * 0.03, many)
    assert looks_unlike(usual + np.eye(FEATURES)[0] * 5.1 * 0.03, many)
    assert not looks_unlike(usual + 1.65 * np.array(many.deviation), many)
    assert looks_unlike(usual + 1.70 * np.array(many.deviation), many)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patients": 0},
        {"mean": (math.nan,)},
        {"deviation": (-0.1,)},
        {"deviation": (0.1, 0.2)},
        {"mean": (), "deviation": ()},
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Usual.model_validate({"patients": 5, "mean": (1.0,), "deviation": (0.1,), **wrong})


def test_a_look_and_a_volume_have_their_numbers_of_measures():
    one = Usual(patients=5, mean=(1.0,), deviation=(0.1,))
    with pytest.raises(ValidationError, match="look"):
        CohortUsual(look=one)
    nine = Usual(patients=5, mean=(0.0,) * FEATURES, deviation=(0.0,) * FEATURES)
    with pytest.raises(ValidationError, match="volume"):
        CohortUsual(volumes={1: nine})
    right = CohortUsual(look=nine, volumes={3: one})
    assert CohortUsual.model_validate_json(right.model_dump_json()) == right

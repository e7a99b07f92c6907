"""What is marked for a look, and how sure a network is, against sums done by hand."""

import numpy as np
import pytest

from FedSegCore.inference.certainty import Certainty, CertaintyCounter
from FedSegCore.inference.doubts import doubts_about
from FedSegCore.phantoms.torso import TORSO_CONTRACT
from FedSegCore.volumes.usual import Usual
from FedSegCore.volumes.volume import Grid, Volume

SURE = Certainty(confidence=0.95, expected_dice=0.9)


def test_certainty_by_hand_in_one_part_and_in_several():
    # One row of four voxels, background and one label: two voxels are given the label, with 0.9 and 0.6;
    # elsewhere it still has 0.4 and 0.1.
    label = np.array([0.9, 0.6, 0.4, 0.1])
    probabilities = np.stack([1 - label, label]).reshape(2, 1, 1, 4)
    chosen = np.array([1, 1, 0, 0], np.uint8).reshape(1, 1, 4)
    whole, parts = CertaintyCounter(2), CertaintyCounter(2)
    whole.add(probabilities, chosen)
    parts.add(probabilities[..., :1], chosen[..., :1])
    parts.add(probabilities[..., 1:], chosen[..., 1:])
    for counter in (whole, parts):
        found = counter.found()[1]
        assert found.confidence == pytest.approx(1.5 / 2)
        assert found.expected_dice == pytest.approx(2 * 1.5 / (2 + 2.0))
    assert set(whole.found()) == {0, 1}


def test_a_label_without_a_voxel_has_no_certainty():
    counter = CertaintyCounter(3)
    counter.add(np.full((3, 1, 1, 2), 1 / 3), np.zeros((1, 1, 2), np.uint8))
    assert set(counter.found()) == {0}


def labels_with(*values):
    """Return a label map of 6 x 6 x 6 voxels with one inner voxel for each value."""
    array = np.zeros((1, 6, 6, 6), np.uint8)
    for number, value in enumerate(values):
        array[0, 2 + number // 4, 2, 1 + number % 4] = value
    return Volume(array, Grid((6, 6, 6)))


def test_a_whole_and_sure_result_needs_no_look():
    given = TORSO_CONTRACT.labels
    assert doubts_about(labels_with(1, 2, 3, 4, 5), given, {label.name: SURE for label in given}) == ()


def test_a_missing_organ_is_marked_and_a_missing_lesion_is_not():
    given = TORSO_CONTRACT.labels
    found = doubts_about(labels_with(1, 2, 3), given, {label.name: SURE for label in given[:3]})
    assert [(doubt.label, doubt.code) for doubt in found] == [("spleen", "not-found")]


@pytest.mark.parametrize(("dice", "codes"), [(0.69, ["low-confidence"]), (0.71, [])])
def test_an_unsure_label_is_marked(dice, codes):
    given = TORSO_CONTRACT.labels[:1]
    found = doubts_about(labels_with(1), given, {"liver": Certainty(0.6, dice)})
    assert [doubt.code for doubt in found] == codes
    assert all("unsure" in doubt.reason for doubt in found)


@pytest.mark.parametrize("place", [(0, 3, 3), (5, 3, 3), (3, 0, 3), (3, 5, 3), (3, 3, 0), (3, 3, 5)])
def test_a_structure_that_leaves_the_image_is_marked(place):
    labels = labels_with(1)
    labels.array[(0, *place)] = 1
    found = doubts_about(labels, TORSO_CONTRACT.labels[:1], {"liver": SURE})
    assert [doubt.code for doubt in found] == ["cut-off"]


def test_a_single_slice_is_not_an_edge():
    array = np.zeros((1, 1, 5, 5), np.uint8)
    array[0, 0, 2, 2] = 1
    assert doubts_about(Volume(array, Grid((1, 5, 5))), TORSO_CONTRACT.labels[:1], {"liver": SURE}) == ()


# Many patients whose livers have 1 ml, to a factor of e^0.2: three deviations are a factor of e^0.6 = 1.822.
MANY = Usual(patients=10**6, mean=(0.0,), deviation=(0.2,))


def box_of(voxels, at=1):
    """A liver of so many voxels in a row of 12, which has an inner part of 10."""
    array = np.zeros((1, 3, 3, 12), np.uint8)
    array[0, 1, 1, at : at + voxels] = 1
    return array


@pytest.mark.parametrize(
    ("cubic_mm", "codes"),
    [(182.0, []), (183.0, ["unusual-volume"]), (56.0, []), (54.0, ["unusual-volume"])],
)
def test_a_volume_beyond_three_deviations_is_marked(cubic_mm, codes):
    labels = Volume(box_of(10), Grid((3, 3, 12), (1.0, 1.0, cubic_mm)))  # 10 voxels: 1.82, 1.83, 0.56, 0.54 ml
    found = doubts_about(labels, TORSO_CONTRACT.labels[:1], {"liver": SURE}, (), {"liver": MANY})
    assert [doubt.code for doubt in found] == codes
    for doubt in found:
        assert f"{cubic_mm / 100:.1f} ml" in doubt.reason
        assert "0.5 to 1.8 ml" in doubt.reason
        assert ("larger" if cubic_mm > 100 else "smaller") in doubt.reason
    assert doubts_about(labels, TORSO_CONTRACT.labels[:1], {"liver": SURE}) == ()


def test_a_structure_that_is_cut_may_be_small_but_not_large():
    for cubic_mm, codes in ((10.0, ["cut-off"]), (300.0, ["cut-off", "unusual-volume"])):
        labels = Volume(box_of(10, at=2), Grid((3, 3, 12), (1.0, 1.0, cubic_mm)))
        found = doubts_about(labels, TORSO_CONTRACT.labels[:1], {"liver": SURE}, (), {"liver": MANY})
        assert [doubt.code for doubt in found] == codes


def test_the_spread_of_a_few_is_not_taken_for_that_of_all():
    # Five patients: Student's t for 4 degrees of freedom reaches 6.62 (GUM, table G.2, 99.73 %), times the root of 6/5.
    few = Usual(patients=5, mean=(0.0,), deviation=(0.2,))
    limit = np.exp(6.62 * np.sqrt(1.2) * 0.2)
    for factor, marked in ((0.99, False), (1.01, True)):
        labels = Volume(box_of(10), Grid((3, 3, 12), (1.0, 1.0, 100.0 * limit * factor)))
        found = doubts_about(labels, TORSO_CONTRACT.labels[:1], {"liver": SURE}, (), {"liver": few})
        assert [doubt.code for doubt in found] == (["unusual-volume"] if marked else [])

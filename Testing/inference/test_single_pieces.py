"""Structures that are one piece come out as one piece; everything else as it was found."""

import tracemalloc

import numpy as np
import pytest
from monai.transforms.utils import get_largest_connected_component_mask

from FedSegCore.inference.certainty import Certainty
from FedSegCore.inference.doubts import doubts_about
from FedSegCore.inference.single_pieces import LeftOut, keep_single_pieces
from FedSegCore.phantoms.torso import LEFT_KIDNEY, LESION, LIVER, TORSO_CONTRACT, make_patient
from FedSegCore.volumes.volume import Grid, Volume


def scattered() -> np.ndarray:
    """Liver of 8 + 2 voxels apart, left kidney of 4 that touch by a corner only, a lesion of 2 pieces."""
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[1:3, 1:3, 1:3] = LIVER
    labels[5, 6:8, 1] = LIVER
    labels[1, 4:6, 4] = LEFT_KIDNEY
    labels[2, 6, 5:7] = LEFT_KIDNEY
    labels[0, 0, 7] = labels[5, 0, 0] = LESION
    return labels


def test_only_the_largest_piece_of_a_single_structure_stays():
    labels = scattered()
    left_out = keep_single_pieces(labels, TORSO_CONTRACT)
    expected = scattered()
    expected[5, 6:8, 1] = 0
    np.testing.assert_array_equal(labels, expected)
    assert left_out == (LeftOut("liver", 2 / 10),)


def test_what_is_not_single_stays_as_it_is():
    contract = TORSO_CONTRACT.model_copy(
        update={"labels": tuple(label.model_copy(update={"single": False}) for label in TORSO_CONTRACT.labels)}
    )
    labels = scattered()
    assert keep_single_pieces(labels, contract) == ()
    np.testing.assert_array_equal(labels, scattered())


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_may_cut_a_structure_twice(axis):
    labels = np.expand_dims(np.array([[LIVER, 0, LIVER], [LIVER, 0, 0]], np.uint8), axis)
    before = labels.copy()
    assert keep_single_pieces(labels, TORSO_CONTRACT) == ()
    np.testing.assert_array_equal(labels, before)


def test_nothing_found_is_nothing_left_out():
    assert keep_single_pieces(np.zeros((3, 3, 3), np.uint8), TORSO_CONTRACT) == ()


@pytest.mark.parametrize("modality", ["CT", "MR", "US"])
def test_generated_patients_organs_are_whole(modality):
    truth = make_patient(modality, 1).labels.array[0]
    kept = truth.copy()
    keep_single_pieces(kept, TORSO_CONTRACT)
    np.testing.assert_array_equal(kept, truth)


@pytest.mark.parametrize(("share", "codes"), [(0.09, []), (0.11, ["in-pieces"])])
def test_much_left_out_is_worth_a_look(share, codes):
    array = np.zeros((1, 5, 5, 5), np.uint8)
    array[0, 2, 2, 2] = LIVER
    found = doubts_about(
        Volume(array, Grid((5, 5, 5))),
        TORSO_CONTRACT.labels[:1],
        {"liver": Certainty(0.95, 0.9)},
        (LeftOut("liver", share),),
    )
    assert [doubt.code for doubt in found] == codes
    assert all("11%" in doubt.reason for doubt in found)


def test_specks_all_over_a_large_image_are_left_out_in_bounded_memory():
    labels = LIVER * (np.random.default_rng(0).random((48, 128, 128)) < 0.005).astype(np.uint8)
    labels[10:20, 40:60, 40:60] = LIVER
    largest = get_largest_connected_component_mask(labels == LIVER)
    tracemalloc.start()
    try:
        (left_out,) = keep_single_pieces(labels, TORSO_CONTRACT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(labels == LIVER, largest)
    assert 0.4 < left_out.share < 0.6
    assert peak < 8 * labels.size  # numbers of pieces in four bytes, and masks

"""Generated patients: anatomy in its place, images as scanners make them, the same seed the same patient."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from FedSegCore.common.errors import UsageError
from FedSegCore.phantoms.torso import TORSO_CONTRACT, Phantom, make_patient

VALUES = {name: TORSO_CONTRACT.value_of(name) for name in TORSO_CONTRACT.names}
SEEDS = range(6)


def centres_lps(phantom: Phantom) -> dict[str, np.ndarray]:
    """Centre of mass of every label in LPS mm, from the grid alone."""
    grid = phantom.labels.grid
    direction = np.reshape(grid.direction, (3, 3))
    centres = {}
    for name, value in VALUES.items():
        kji = np.argwhere(phantom.labels.array[0] == value).mean(axis=0)
        centres[name] = np.asarray(grid.origin) + direction @ (kji[::-1] * np.asarray(grid.spacing))
    return centres


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_where_they_do_in_people(modality: str, seed: int) -> None:
    centres = centres_lps(make_patient(modality, seed, size="test"))
    left, posterior, superior = 0, 1, 2
    assert centres["liver"][left] < -20 < 20 < centres["spleen"][left]
    assert centres["right kidney"][left] < -30 < 30 < centres["left kidney"][left]
    assert centres["right kidney"][posterior] > centres["liver"][posterior] + 15
    assert centres["right kidney"][superior] < centres["liver"][superior] - 20
    assert centres["spleen"][superior] > centres["left kidney"][superior]


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_volumes_are_those_of_adults(modality: str) -> None:
    limits = {"liver": (900, 2000), "right kidney": (80, 230), "left kidney": (80, 230), "spleen": (70, 320)}
    for seed in SEEDS:
        labels = make_patient(modality, seed, size="test").labels
        for name, (low, high) in limits.items():
            ml = (labels.array == VALUES[name]).sum() * np.prod(labels.grid.spacing) / 1000
            assert low < ml < high, (name, ml)


def test_the_lesion_is_in_the_liver_and_not_tiny() -> None:
    for seed in SEEDS:
        labels = make_patient("CT", seed).labels
        lesion = labels.array[0] == VALUES["lesion"]
        around = ndimage.binary_dilation(lesion) & ~lesion
        in_liver = (labels.array[0][around] == VALUES["liver"]).mean()
        assert in_liver > 0.7
        # A ball of 25 mm diameter has 8.18 ml.
        assert lesion.sum() * 3.8 * 3.8 * 4.0 / 1000 > 8.18


def test_ct_numbers_are_those_of_the_tissues() -> None:
    for seed in SEEDS:
        phantom = make_patient("CT", seed)
        image, labels = phantom.image.array[0], phantom.labels.array[0]
        assert image.dtype == np.int16
        corner = np.concatenate([image[:, :8, :8].ravel(), image[:, :8, -8:].ravel()])
        assert abs(np.median(corner) + 1000) < 15
        liver = image[ndimage.binary_erosion(labels == VALUES["liver"], iterations=2)]
        assert 75 < np.median(liver) < 135
        assert 10 < liver.std() < 40
        lesion = image[labels == VALUES["lesion"]]
        assert np.median(lesion) < np.median(liver) - 10
        assert image.max() > 300  # bone
        assert (image < -700).mean() > 0.2  # air and lung


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_no_threshold_finds_an_organ(modality: str) -> None:
    """The best interval of intensities for an organ does not come near what a network reaches."""
    for seed in range(3):
        phantom = make_patient(modality, seed, size="test")
        image, labels = phantom.image.array[0], phantom.labels.array[0]
        levels = np.percentile(image, np.linspace(1, 100, 34))
        for name in ("right kidney", "spleen", "lesion"):
            truth = labels == VALUES[name]
            best = 0.0
            for low, high in itertools.combinations(levels, 2):
                found = (image >= low) & (image <= high)
                best = max(best, 2 * (found & truth).sum() / (found.sum() + truth.sum()))
            assert best < 0.6, (name, best)


def test_mr_has_bias_rician_noise_and_thick_slices() -> None:
    phantom = make_patient("MR", 3)
    image, labels = phantom.image.array[0].astype(float), phantom.labels.array[0]
    assert image.dtype == float
    assert phantom.image.grid.spacing == (3.8, 3.8, 6.0)
    air = image[:, :6, :6].ravel()
    # Rayleigh, which is what Rician noise is without signal: mean / standard deviation is 1.913.
    assert air.mean() / air.std() == pytest.approx(1.913, rel=0.03)
    liver = labels == VALUES["liver"]
    smooth = ndimage.gaussian_filter(image, 2.0)[ndimage.binary_erosion(liver, iterations=2)]
    assert smooth.max() / smooth.min() > 1.15  # the coil sees one side better than the other


def test_ultrasound_is_one_sector_with_speckle_and_shadow() -> None:
    for seed in SEEDS:
        phantom = make_patient("US", seed)
        image, labels = phantom.image.array[0, 0], phantom.labels.array[0, 0]
        assert phantom.image.array.shape == (1, 1, 160, 160)
        assert image.dtype == np.uint8
        for corner in (image[:20, :20], image[:20, -20:], image[-20:, :20], image[-20:, -20:]):
            assert not corner.any()
        assert set(np.unique(labels)) == {0, *phantom.annotated}
        assert set(phantom.annotated) == {VALUES["liver"], VALUES["right kidney"], VALUES["lesion"]}
        # What lies in black, outside the fan or in deep shadow, is not labelled.
        black = ndimage.median_filter(image, 5) == 0
        assert black.mean() > 0.3
        assert not labels[ndimage.binary_erosion(black)].any()
        inner = ndimage.binary_erosion(labels == VALUES["liver"], iterations=4)
        assert image[inner].std() > 15  # speckle
        assert (labels == VALUES["lesion"]).sum() * 1.4**2 > 300  # mm²


@pytest.mark.parametrize("modality", ["CT", "MR", "US"])
def test_a_seed_is_a_patient(modality: str) -> None:
    once, again, other = (make_patient(modality, seed, size="test") for seed in (7, 7, 8))
    np.testing.assert_array_equal(once.image.array, again.image.array)
    np.testing.assert_array_equal(once.labels.array, again.labels.array)
    assert once.image.grid == again.image.grid
    assert (once.labels.array != other.labels.array).mean() > 0.01
    assert once.labels.grid == once.image.grid
    assert once.image.modality == modality


def test_scanners_flip_and_tilt_as_real_ones_do() -> None:
    directions = [np.reshape(make_patient("MR", s, size="test").image.grid.direction, (3, 3)) for s in range(20)]
    for direction in directions:
        np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    assert {np.sign(d[0, 0]) for d in directions} == {-1.0, 1.0}
    assert {np.sign(d[2, 2]) for d in directions} == {-1.0, 1.0}
    oblique = [d for d in directions if np.abs(np.abs(d) - np.eye(3)).max() > 1e-6]
    assert 3 < len(oblique) < 17


def test_both_sizes_show_the_same_patient() -> None:
    large, small = (make_patient("CT", 4, size=size).labels for size in ("demo", "test"))
    assert small.array.size * 8 == large.array.size
    for value in VALUES.values():
        ml = [(v.array == value).sum() * v.grid.voxel_volume_ml() for v in (large, small)]
        assert ml[0] == pytest.approx(ml[1], rel=0.15)


def test_other_modalities_are_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"phantom\.modality-unknown.*CT, MR, US"):
        make_patient("PT", 0)

"""Enhanced DICOM: slices come in their own order from their own places, and what is no volume is refused."""

import random

import numpy as np
import pytest
import SimpleITK as sitk
from enhanced_mr import COLUMN, NORMAL, ROW, stored_numbers, write_enhanced

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.reading import read_volume

START = np.array([10.0, 20.0, 30.0])


def places(*steps: float) -> list[np.ndarray]:
    """Return positions at whole and broken numbers of 3 mm along the normal."""
    return [START + 3.0 * step * NORMAL for step in steps]


def refusal(path, **options) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        read_volume(path, **options)
    return caught.value


@pytest.mark.parametrize("shared", [False, True], ids=["own groups", "shared groups"])
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_one_file_is_a_volume_with_its_slices_places(tmp_path, folder, shared):
    path = write_enhanced(tmp_path / "mr" / "1.dcm", places(0, 1, 2, 3), shared=shared)
    volume = read_volume(path.parent if folder else path)
    np.testing.assert_array_equal(volume.array[0], 2 * stored_numbers(4) + 10)
    assert (volume.source, volume.modality) == ("dicom", "MR")
    np.testing.assert_allclose(volume.grid.spacing, (0.7, 0.9, 3.0), atol=1e-5)
    for k, j, i in ((0, 0, 0), (3, 7, 9), (1, 3, 5)):
        expected = START + 0.7 * i * ROW + 0.9 * j * COLUMN + 3.0 * k * NORMAL
        np.testing.assert_allclose((volume.grid.affine() @ (i, j, k, 1))[:3], expected, atol=1e-4)


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0, 3, 1)])
def test_slices_out_of_order_are_put_where_they_lie(tmp_path, order):
    volume = read_volume(write_enhanced(tmp_path / "1.dcm", places(*order)))
    np.testing.assert_array_equal(volume.array[0], 2 * stored_numbers(4)[np.argsort(order)] + 10)
    np.testing.assert_allclose(volume.grid.origin, START, atol=1e-5)
    np.testing.assert_allclose(volume.grid.spacing, (0.7, 0.9, 3.0), atol=1e-5)


@pytest.mark.parametrize("steps", [(0, 1, 2, 0, 1, 2), (0, 0, 1, 1, 2, 2)])
def test_several_pictures_of_a_slice_are_no_volume(tmp_path, steps):
    path = write_enhanced(tmp_path / "mr" / "1.dcm", places(*steps))
    assert refusal(path).code == refusal(path.parent).code == "image.four-dimensional"
    assert f"{len(steps)} pictures of {len(set(steps))} slices" in refusal(path).what


def test_slices_that_form_no_volume_are_refused(tmp_path):
    assert "3.00 to 6.00" in refusal(write_enhanced(tmp_path / "gap.dcm", places(0, 1, 3, 4))).what
    assert "where they lie" in refusal(write_enhanced(tmp_path / "unplaced.dcm", [*places(0, 1), None])).what
    tilted = [START + 3.0 * n * (NORMAL + np.tan(np.radians(15)) * COLUMN) for n in range(4)]
    assert refusal(write_enhanced(tmp_path / "tilted.dcm", tilted)).code == "dicom.gantry-tilt"
    turns = [np.concatenate([ROW, COLUMN]), np.concatenate([COLUMN, ROW])] * 2
    turned = write_enhanced(tmp_path / "turned.dcm", places(0, 1, 2, 3), orientations=turns)
    assert "tilted against each other" in refusal(turned).what


def test_slices_of_different_scales_are_refused(tmp_path):
    assert refusal(write_enhanced(tmp_path / "1.dcm", places(0, 1, 2), slopes=[2, 2, 3])).code == "dicom.scales-differ"


def test_a_series_of_several_such_files_is_refused(tmp_path):
    one = write_enhanced(tmp_path / "mr" / "1.dcm", places(0, 1, 2))
    (one.parent / "2.dcm").write_bytes(one.read_bytes().replace(b"1125.8.1", b"1125.8.2"))
    assert "2 files hold several slices each" in refusal(tmp_path / "mr").what


def test_a_file_of_many_slices_without_groups_is_read_as_itk_does(tmp_path):
    image = sitk.GetImageFromArray(stored_numbers(3))
    image.SetSpacing((0.7, 0.9, 3.0))
    image.SetMetaData("0008|0060", "CT")
    sitk.WriteImage(image, str(tmp_path / "1.dcm"))
    np.testing.assert_array_equal(read_volume(tmp_path / "1.dcm").array[0], stored_numbers(3))


def test_damage_anywhere_gives_a_volume_or_a_refusal(tmp_path):
    path = write_enhanced(tmp_path / "mr" / "1.dcm", places(0, 1, 2))
    whole, rng = path.read_bytes(), random.Random(5)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(132, len(damaged) - 480)] = rng.randrange(256)
        path.write_bytes(damaged)
        for given in (path, path.parent):
            try:
                volume = read_volume(given)
            except BadInputError:
                continue
            assert np.isfinite(volume.grid.affine()).all()

"""DICOM series: places from the slices' own positions, rescaled values, and refusals in words."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError
from FedSegCore.volumes.modality import detect_modality
from FedSegCore.volumes.reading import read_volume
from FedSegCore.volumes.writing import write_volume

ROW = np.array([0.0, 0.8, 0.6])
COLUMN = np.array([1.0, 0.0, 0.0])
NORMAL = np.cross(ROW, COLUMN)


def write_series(
    folder: Path, *, series: str = "1", positions: np.ndarray | None = None, modality: str = "CT", count: int = 5
) -> np.ndarray:
    """Write ``count`` oblique slices with slope 2 and intercept -2048, and return their values in HU (k, j, i)."""
    folder.mkdir(exist_ok=True)
    hounsfield = (-600 + 20 * (np.arange(count * 8 * 10).reshape(count, 8, 10) % 97)).astype(np.int16)
    if positions is None:
        positions = np.array([[10.0, 20.0, 30.0] + 2.5 * n * NORMAL for n in range(count)])
    # Written in another order than they lie, under names that say nothing.
    for n in np.random.default_rng(0).permutation(count):
        image = sitk.GetImageFromArray(hounsfield[n])
        image.SetSpacing((0.7, 0.9))
        tags = {
            "0008|0060": modality,
            "0010|0010": "Doe^Jane",
            "0010|0020": "4711",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": f"1.2.826.0.1.3680043.2.1125.{series}",
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.{series}.{n + 1}",
            "0020|0032": "\\".join(f"{x:.6f}" for x in positions[n]),
            "0020|0037": "\\".join(f"{x:.6f}" for x in (*ROW, *COLUMN)),
            "0020|0013": str(n + 1),
            "0028|1052": "-2048",
            "0028|1053": "2",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"s{series}_{(n * 7) % 100:03d}.dcm"))
        writer.Execute(image)
    return hounsfield


def refusal(path: Path, **kwargs) -> BadInputError:
    with pytest.raises(BadInputError) as caught:
        read_volume(path, **kwargs)
    return caught.value


def test_oblique_series(tmp_path):
    hounsfield = write_series(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.array[0], hounsfield)
    assert volume.source == "dicom"
    assert (volume.modality, detect_modality(volume).confidence) == ("CT", 1.0)
    np.testing.assert_allclose(volume.grid.spacing, (0.7, 0.9, 2.5), atol=1e-5)
    for k, j, i in ((0, 0, 0), (4, 7, 9), (2, 3, 5)):
        expected = [10.0, 20.0, 30.0] + 0.7 * i * ROW + 0.9 * j * COLUMN + 2.5 * k * NORMAL
        np.testing.assert_allclose((volume.grid.affine() @ (i, j, k, 1))[:3], expected, atol=1e-4)


def test_values_are_rescaled(tmp_path):
    write_series(tmp_path / "ct")
    path = next((tmp_path / "ct").iterdir())
    before = read_volume(path).array.astype(int)
    slope = b"\x28\x00\x53\x10\x02\x00\x00\x00"
    data = path.read_bytes()
    assert slope + b"2 " in data
    path.write_bytes(data.replace(slope + b"2 ", slope + b"4 "))
    # Stored numbers are (HU + 2048) / 2; with slope 4 they now mean 2 HU + 2048.
    np.testing.assert_array_equal(read_volume(path).array, 2 * before + 2048)


def test_one_slice_of_a_series_is_a_volume(tmp_path):
    write_series(tmp_path / "ct")
    volume = read_volume(next((tmp_path / "ct").iterdir()))
    assert volume.grid.shape == (1, 8, 10)
    np.testing.assert_allclose(np.reshape(volume.grid.direction, (3, 3))[:, 2], NORMAL, atol=1e-5)


def test_nothing_of_the_patient_is_kept(tmp_path):
    write_series(tmp_path / "ct")
    volume = read_volume(tmp_path / "ct")
    write_volume(volume, tmp_path / "out.nrrd")
    for text in (repr(volume.metadata), (tmp_path / "out.nrrd").read_bytes().decode("latin-1")):
        assert "Doe" not in text
        assert "4711" not in text


def test_several_series_are_refused_with_their_sizes(tmp_path):
    write_series(tmp_path / "both", series="1", count=5)
    write_series(tmp_path / "both", series="2", count=3)
    error = refusal(tmp_path / "both")
    assert error.code == "dicom.several-series"
    assert "5, 3" in error.what or "3, 5" in error.what


def test_missing_slice_is_refused(tmp_path):
    at = np.array([0, 1, 2, 4, 5])
    write_series(tmp_path / "ct", positions=np.array([2.5 * n * NORMAL for n in at]))
    error = refusal(tmp_path / "ct")
    assert error.code == "dicom.uneven-slices"
    assert "2.50 to 5.00" in error.what


def test_repeated_positions_are_refused(tmp_path):
    write_series(tmp_path / "ct", positions=np.zeros((5, 3)))
    assert refusal(tmp_path / "ct").code == "dicom.uneven-slices"


def test_gantry_tilt_is_refused(tmp_path):
    tilted = NORMAL + np.tan(np.radians(15)) * COLUMN
    write_series(tmp_path / "ct", positions=np.array([2.5 * n * tilted for n in range(5)]))
    error = refusal(tmp_path / "ct")
    assert error.code == "dicom.gantry-tilt"
    assert "0.67 mm" in error.what


def test_damaged_slice_is_refused_without_its_path(tmp_path, capfd):
    write_series(tmp_path / "ct")
    victim = sorted((tmp_path / "ct").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:-60])
    error = refusal(tmp_path / "ct")
    assert error.code in ("dicom.unreadable", "dicom.uneven-slices")
    assert str(tmp_path) not in str(error) + capfd.readouterr().err


def test_film_asks_for_a_frame(tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (4, 8, 10)).astype(np.uint8)
    image = sitk.GetImageFromArray(frames)
    image.SetMetaData("0008|0060", "US")
    sitk.WriteImage(image, str(tmp_path / "film.dcm"))
    error = refusal(tmp_path / "film.dcm")
    assert error.code == "image.four-dimensional"
    assert "4" in error.what
    volume = read_volume(tmp_path / "film.dcm", frame=2)
    assert volume.modality == "US"
    np.testing.assert_array_equal(volume.array[0], frames[2:3])


def change(folder: Path, edit) -> None:
    for path in folder.iterdir():
        slice_ = pydicom.dcmread(path)
        edit(slice_)
        slice_.save_as(path)


def test_slices_of_different_scales_keep_their_values(tmp_path):
    hounsfield = write_series(tmp_path / "pet")
    expected = hounsfield.astype(np.float64)

    def scale(slice_) -> None:
        number = int(slice_.InstanceNumber) - 1
        slope = 1.0 if number == 0 else 0.0004 * number
        slice_.RescaleSlope, slice_.RescaleIntercept = str(slope), "0"
        expected[number] = slice_.pixel_array * slope

    change(tmp_path / "pet", scale)
    volume = read_volume(tmp_path / "pet")
    np.testing.assert_allclose(volume.array[0], expected, rtol=1e-5)


def test_a_series_that_does_not_say_how_large_its_pixels_are_is_refused(tmp_path):
    write_series(tmp_path / "ct")
    change(tmp_path / "ct", lambda slice_: slice_.pop("PixelSpacing"))
    assert refusal(tmp_path / "ct").code == "dicom.no-spacing"


def test_slices_with_pixels_of_different_sizes_are_refused(tmp_path):
    write_series(tmp_path / "ct")

    def widen(slice_) -> None:
        if slice_.InstanceNumber == 3:
            slice_.PixelSpacing = [0.9, 1.4]

    change(tmp_path / "ct", widen)
    error = refusal(tmp_path / "ct")
    assert error.code == "dicom.uneven-slices"
    assert "one distance between voxels" in error.what


def test_doubled_images_and_several_echoes_are_told_as_such(tmp_path):
    write_series(tmp_path / "ct", count=10, positions=np.array([2.5 * (n // 2) * NORMAL for n in range(10)]))
    error = refusal(tmp_path / "ct")
    assert error.code == "dicom.uneven-slices"
    assert "10 images lie at 5 places" in error.what

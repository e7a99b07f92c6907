"""Every kind of file becomes the right volume or a coded refusal."""

import gzip
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.volumes.reading import read_label_map, read_volume

TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])


def picture(array: np.ndarray, **geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=geometry.pop("vector", False))
    image.SetSpacing(geometry.get("spacing", (0.7, 0.8, 2.5)))
    image.SetOrigin(geometry.get("origin", (10.0, -20.0, 30.0)))
    image.SetDirection(geometry.get("direction", TURN.ravel().tolist()))
    return image


def numbers(kind: str = "int16", shape=(4, 5, 6)) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 120).astype(kind)


def save(tmp_path: Path, image: sitk.Image, name: str = "image.nrrd") -> Path:
    sitk.WriteImage(image, str(tmp_path / name))
    return tmp_path / name


def patched_nifti(tmp_path: Path, offset: int, fmt: str, *values: float) -> Path:
    path = save(tmp_path, picture(numbers(), direction=np.eye(3).ravel().tolist()), "image.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + fmt, data, offset, *values)
    path.write_bytes(data)
    return path


def refusal(path: Path, **kwargs) -> str:
    with pytest.raises(BadInputError) as caught:
        read_volume(path, **kwargs)
    assert str(path.parent) not in str(caught.value)
    assert caught.value.remedy
    return caught.value.code


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_formats_keep_voxels_and_place(tmp_path, name):
    volume = read_volume(save(tmp_path, picture(numbers()), name))
    np.testing.assert_array_equal(volume.array[0], numbers())
    assert volume.array.dtype == np.int16
    assert volume.grid.shape == (4, 5, 6)
    np.testing.assert_allclose(volume.grid.spacing, (0.7, 0.8, 2.5), rtol=1e-6)
    np.testing.assert_allclose(volume.grid.origin, (10, -20, 30), rtol=1e-6)
    np.testing.assert_allclose(np.reshape(volume.grid.direction, (3, 3)), TURN, atol=1e-6)
    # Voxel i = 2, j = 3, k = 1 by hand: origin + turn @ (1.4, 2.4, 2.5).
    where = volume.grid.affine() @ (2, 3, 1, 1)
    np.testing.assert_allclose(where[:3], (10 + 1.12 - 1.44, -20 + 0.84 + 1.92, 32.5), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int32", (-1000, 3000), "int16"),
        ("uint32", (0, 200), "uint8"),
        ("int32", (0, 60000), "uint16"),
        ("int32", (-70000, 70000), "float32"),
        ("uint64", (0, 4000), "int16"),
        ("int64", (-5, 5), "int16"),
        ("int8", (-5, 5), "int16"),
        ("float64", (-1.5, 2.5), "float32"),
    ],
)
def test_number_types_are_made_small_without_changing_values(tmp_path, kind, values, expected):
    array = np.zeros((2, 3, 4), kind)
    array[0, 0, 0], array[1, 2, 3] = values
    volume = read_volume(save(tmp_path, picture(array)))
    assert volume.array.dtype == expected
    np.testing.assert_array_equal(volume.array[0].astype("float64"), array.astype("float64"))


def test_not_numbers_become_the_smallest_value(tmp_path):
    array = numbers("float32") + 7.5
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = read_volume(save(tmp_path, picture(array)))
    # Voxels 0, 1, 2 are replaced; the smallest left is voxel 3: 3 + 7.5.
    np.testing.assert_array_equal(volume.array[0, 0, 0, :5], [10.5, 10.5, 10.5, 10.5, 11.5])
    assert volume.metadata["not_finite"] == "3"


def test_mostly_not_numbers_is_refused(tmp_path):
    array = numbers("float32")
    array[:3] = np.nan
    assert refusal(save(tmp_path, picture(array))) == "image.not-finite"


def test_four_dimensions_ask_for_a_frame(tmp_path):
    parts = [picture(numbers() + n, direction=np.eye(3).ravel().tolist()) for n in range(3)]
    path = save(tmp_path, sitk.JoinSeries(parts), "four.nii.gz")
    with pytest.raises(BadInputError, match="3 volumes") as caught:
        read_volume(path)
    assert caught.value.code == "image.four-dimensional"
    np.testing.assert_array_equal(read_volume(path, frame=2).array[0], numbers() + 2)
    assert refusal(path, frame=3) == "image.no-such-frame"
    assert refusal(path, frame=-1) == "image.no-such-frame"


def test_fourth_axis_of_length_one_is_no_obstacle(tmp_path):
    path = save(tmp_path, sitk.JoinSeries([picture(numbers(), direction=np.eye(3).ravel().tolist())]), "four.nii")
    assert read_volume(path).grid.shape == (4, 5, 6)


def test_slicer_sequence_of_volumes_asks_for_a_frame(tmp_path):
    header = (
        b"NRRD0004\ntype: uchar\ndimension: 4\nspace: left-posterior-superior\nsizes: 7 6 5 4\n"
        b"space directions: none (1,0,0) (0,1,0) (0,0,1)\nkinds: list domain domain domain\n"
        b"encoding: raw\nspace origin: (0,0,0)\n\n"
    )
    frames = np.arange(7 * 120).reshape(4, 5, 6, 7).astype(np.uint8)
    path = tmp_path / "sequence.nrrd"
    path.write_bytes(header + frames.tobytes())
    assert refusal(path) == "image.four-dimensional"
    np.testing.assert_array_equal(read_volume(path, frame=4).array[0], frames[..., 4])


def test_frame_of_a_single_volume(tmp_path):
    path = save(tmp_path, picture(numbers()))
    assert read_volume(path, frame=0).grid.shape == (4, 5, 6)
    assert refusal(path, frame=1) == "image.no-such-frame"


@pytest.mark.parametrize("kind", [sitk.sitkComplexFloat32, sitk.sitkVectorFloat32, sitk.sitkVectorUInt8])
def test_complex_and_vector_are_refused(tmp_path, kind):
    components = 1 if kind == sitk.sitkComplexFloat32 else 2
    image = sitk.Image((6, 5, 4), kind, components)
    assert refusal(save(tmp_path, image)) == ("image.complex" if components == 1 else "image.vector")


def colour(shape=(20, 30)) -> np.ndarray:
    array = np.zeros((*shape, 3), np.uint8)
    array[..., 0], array[..., 1], array[..., 2] = 200, 100, 50
    array[: shape[0] // 2] //= 2
    return array


def test_palettes_transparency_and_depths(tmp_path):
    labels = (np.arange(600).reshape(20, 30) % 4).astype(np.uint8)
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "labels.png").array[0, 0], labels)
    assert read_volume(tmp_path / "labels.png").channels == 3
    Image.merge("LA", [Image.fromarray(labels * 60)] * 2).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "grey.png").array[0, 0], labels * 60)
    Image.fromarray(labels.astype(np.uint16) * 20000).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png").array[0, 0], labels.astype(int) * 20000)
    Image.fromarray(labels > 0).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "mask.png").array[0, 0], labels > 0)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pictures_are_one_slice_of_unit_spacing(tmp_path, name):
    image = sitk.GetImageFromArray(colour()[..., 0])
    image.SetSpacing((0.3, 0.3))
    volume = read_volume(save(tmp_path, image, name))
    assert volume.array.shape == (1, 1, 20, 30)
    assert volume.grid.spacing == (1.0, 1.0, 1.0)


def test_colour_pictures(tmp_path):
    path = save(tmp_path, sitk.GetImageFromArray(colour(), isVector=True), "a.png")
    kept = read_volume(path, modality="ES")
    np.testing.assert_array_equal(kept.array[:, 0], np.moveaxis(colour(), -1, 0))
    assert read_volume(path).channels == 3
    grey = read_volume(path, modality="US").array
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2; half of each is 62.1.
    assert grey.shape == (1, 1, 20, 30)
    assert set(np.unique(grey)) == {62, 124}


def test_alpha_is_dropped_and_equal_channels_become_grey(tmp_path):
    rgba = np.repeat(colour()[..., :1], 4, axis=-1)
    rgba[..., 3] = 255
    volume = read_volume(save(tmp_path, sitk.GetImageFromArray(rgba, isVector=True), "a.png"))
    np.testing.assert_array_equal(volume.array[0, 0], colour()[..., 0])


def test_colour_volumes(tmp_path):
    stack = np.stack([colour(), colour()[::-1]])
    path = save(tmp_path, sitk.GetImageFromArray(stack, isVector=True))
    assert refusal(path) == "image.colour-volume"
    assert refusal(path, modality="US") == "image.colour-volume"
    assert read_volume(path, modality="ES").array.shape == (3, 2, 20, 30)


def test_two_dimensional_scan_keeps_its_spacing(tmp_path):
    image = sitk.GetImageFromArray(numbers(shape=(5, 6)))
    image.SetSpacing((0.4, 0.5))
    volume = read_volume(save(tmp_path, image))
    assert (volume.grid.shape, volume.grid.spacing) == ((1, 5, 6), (0.4, 0.5, 1.0))


def test_constant_image_is_refused(tmp_path):
    assert refusal(save(tmp_path, picture(np.full((4, 5, 6), 7, np.int16)))) == "image.constant"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.jpg"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.7])
def test_files_cut_short_are_refused(tmp_path, name, part, capfd):
    noise = np.random.default_rng(3).integers(0, 255, (1, 90, 100)).astype(np.uint8)
    image = sitk.GetImageFromArray(noise[0]) if name[2:] in ("png", "jpg") else picture(noise)
    path = save(tmp_path, image, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert refusal(path) in ("image.truncated", "image.unreadable")
    assert str(tmp_path) not in capfd.readouterr().err


def test_damaged_gzip_is_refused(tmp_path):
    path = save(tmp_path, picture(numbers(shape=(20, 30, 40))), "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert refusal(path) in ("image.truncated", "image.unreadable")


def test_big_endian_nifti_is_checked_and_read(tmp_path):
    path = save(tmp_path, picture(numbers(), direction=np.eye(3).ravel().tolist()), "a.nii")
    little = path.read_bytes()
    fields = [(0, "i", 1), (40, "h", 8), (70, "h", 2), (76, "f", 8), (108, "f", 3), (252, "h", 2), (256, "f", 18)]
    big = bytearray(little)
    for offset, kind, count in fields:
        struct.pack_into(f">{count}{kind}", big, offset, *struct.unpack_from(f"<{count}{kind}", little, offset))
    big[352:] = np.frombuffer(little[352:], "<i2").astype(">i2").tobytes()
    path.write_bytes(big)
    np.testing.assert_array_equal(read_volume(path).array[0], numbers())
    path.write_bytes(big[:-10])
    assert refusal(path) == "image.truncated"


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.dcm", "a.txt", "a"])
def test_files_that_are_no_images_are_refused(tmp_path, name, capfd):
    (tmp_path / name).write_text("Dear colleague, this is a letter.\n" * 40)
    assert refusal(tmp_path / name) in ("image.unreadable", "image.format")
    assert str(tmp_path) not in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Windows says of such a name that there is no such file")
def test_a_file_that_the_system_refuses_is_told_without_its_path(tmp_path):
    path = tmp_path / ("a" * 300 + ".nii")  # too long a name: an OSError that even root gets
    assert refusal(path) == "image.no-access"
    with pytest.raises(BadInputError, match=r"image\.no-access"):
        read_label_map(path)


@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_voxels_that_begin_nowhere_are_refused(tmp_path, offset):
    assert refusal(patched_nifti(tmp_path, 108, "f", offset)) == "image.bad-geometry"


def test_missing_file_and_folder_without_dicom(tmp_path):
    assert refusal(tmp_path / "nothing.nii") == "image.missing"
    (tmp_path / "notes.txt").write_text("no DICOM here")
    assert refusal(tmp_path) == "dicom.none"


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (1.0, float("nan"), 1.0), (1.0, 1.0, float("inf"))])
def test_nifti_spacing_that_itk_would_repair_is_refused(tmp_path, spacing):
    assert refusal(patched_nifti(tmp_path, 80, "fff", *spacing)) == "image.bad-geometry"


def test_impossible_sizes_are_refused_before_anything_is_allocated(tmp_path):
    assert refusal(patched_nifti(tmp_path, 42, "hhh", 30000, 30000, 30000)) == "image.too-big"
    assert refusal(patched_nifti(tmp_path, 42, "hhh", -3, 20, 10)) == "image.bad-geometry"
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 30000\nencoding: raw\nendian: little\n\n"
    (tmp_path / "huge.nrrd").write_bytes(header)
    assert refusal(tmp_path / "huge.nrrd") == "image.too-big"


def sheared(tmp_path: Path, shear: float) -> Path:
    path = patched_nifti(tmp_path, 280, "12f", -1, shear, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
    data = bytearray(path.read_bytes())
    struct.pack_into("<3f", data, 80, 1, 1, 1)
    struct.pack_into("<2h", data, 252, 0, 1)
    path.write_bytes(data)
    return path


def test_slightly_skewed_sform_is_straightened(tmp_path):
    direction = np.reshape(read_volume(sheared(tmp_path, 2e-3)).grid.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    # The nearest rotation to a small shear turns by half of it.
    assert direction[0, 1] == pytest.approx(1e-3, rel=0.01)


@pytest.mark.parametrize("shear", [0.05, 0.5])
def test_skewed_axes_are_refused(tmp_path, shear):
    assert refusal(sheared(tmp_path, shear)) == "image.bad-geometry"
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
        f"space directions: (1,0,0) ({shear},1,0) (0,0,1)\nkinds: domain domain domain\nencoding: raw\n"
        "space origin: (0,0,0)\n\n"
    )
    (tmp_path / "sheared.nrrd").write_bytes(header.encode() + bytes(range(120)))
    assert refusal(tmp_path / "sheared.nrrd") == "image.bad-geometry"


def test_degenerate_direction_is_refused(tmp_path):
    path = patched_nifti(tmp_path, 280, "12f", 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
    data = bytearray(path.read_bytes())
    struct.pack_into("<2h", data, 252, 0, 1)
    path.write_bytes(data)
    assert refusal(path) == "image.bad-geometry"


def test_modality_from_file_and_from_user(tmp_path):
    image = picture(numbers())
    assert read_volume(save(tmp_path, image)).modality is None
    image.SetMetaData("Modality", "MR")
    path = save(tmp_path, image)
    assert read_volume(path).modality == "MR"
    assert read_volume(path, modality="CT").modality == "CT"
    with pytest.raises(UsageError, match="modality"):
        read_volume(path, modality="ct scan")


def test_metadata_keeps_no_free_text(tmp_path):
    image = picture(numbers())
    image.SetMetaData("PatientName", "Doe^Jane")
    volume = read_volume(save(tmp_path, image))
    assert "Doe" not in str(volume.metadata)


def test_compressed_header_only_is_truncated(tmp_path):
    path = save(tmp_path, picture(numbers()), "a.nii.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:360]))
    assert refusal(path) == "image.truncated"


def test_damage_anywhere_gives_a_volume_or_a_refusal(tmp_path, capfd):
    rng = random.Random(11)
    grey = sitk.GetImageFromArray((np.arange(900).reshape(30, 30) % 251).astype(np.uint8))
    originals = {
        path.name: path.read_bytes()
        for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.jpg")
        for path in [save(tmp_path, grey if name[2:] in ("png", "jpg") else picture(numbers()), name)]
    }
    for _ in range(150):
        name, data = rng.choice(list(originals.items()))
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(min(len(damaged), 500))] = rng.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            volume = read_volume(tmp_path / name)
        except BadInputError:
            continue
        assert np.isfinite(volume.grid.affine()).all()
        assert np.isfinite(volume.array).all()
    assert str(tmp_path) not in capfd.readouterr().err


def test_either_file_of_a_nifti_pair_is_read(tmp_path):
    save(tmp_path, picture(numbers()), "scan.img")
    one, other = (read_volume(tmp_path / f"scan.{ending}") for ending in ("hdr", "img"))
    np.testing.assert_array_equal(one.array, other.array)
    assert one.grid == other.grid
    os.truncate(tmp_path / "scan.img", 100)
    for ending in ("hdr", "img"):
        assert refusal(tmp_path / f"scan.{ending}") == "image.truncated"


@pytest.mark.parametrize(("scale", "qform", "code"), [(1.005, 0, None), (2.0, 0, "image.bad-geometry"), (2.0, 1, None)])
def test_a_nifti_matrix_of_another_spacing_is_refused_where_nothing_else_places_it(tmp_path, scale, qform, code):
    path = patched_nifti(tmp_path, 280, "12f", -0.7, 0, 0, 0, 0, -0.8, 0, 0, 0, 0, 2.5 * scale, 0)
    data = bytearray(path.read_bytes())
    struct.pack_into("<2h", data, 252, qform, 2)
    path.write_bytes(data)
    if code is None:
        assert read_volume(path).grid.spacing == pytest.approx((0.7, 0.8, 2.5))
    else:
        assert refusal(path) == code

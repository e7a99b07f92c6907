"""Segmentation files carry names, colours and codes as 3D Slicer reads them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FedSegCore.common.errors import BadInputError, CannotDoHereError, UsageError
from FedSegCore.volumes.labels import CodedTerm, Label, LabelContract
from FedSegCore.volumes.reading import read_label_map, read_volume
from FedSegCore.volumes.segmentation_file import (
    read_segments,
    segment_volumes,
    terminology_entry,
    write_segmentation,
)
from FedSegCore.volumes.volume import Grid, Volume
from FedSegCore.volumes.writing import write_volume

LIVER = Label(name="liver", value=1, type=CodedTerm(code="10200004", meaning="Liver"), colour=(221, 130, 101))
KIDNEY = Label(
    name="right kidney",
    value=2,
    type=CodedTerm(code="64033007", meaning="Kidney"),
    modifier=CodedTerm(code="24028007", meaning="Right"),
    colour=(185, 102, 83),
)
ABSENT = Label(name="spleen", value=3, type=CodedTerm(code="78961009", meaning="Spleen"), colour=(157, 108, 162))
CONTRACT = LabelContract(labels=(LIVER, KIDNEY, ABSENT))
GRID = Grid((4, 5, 6), (0.5, 2.0, 2.5), (10.0, -20.0, 30.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))


def labels() -> Volume:
    array = np.zeros((1, 4, 5, 6), np.uint8)
    array[0, 1:3, 1:4, 0:2] = 1
    array[0, 3, 4, 5] = 2
    return Volume(array, GRID)


def header(path: Path) -> dict[str, str]:
    """Return the header's fields, parsed by the NRRD format's own rules."""
    lines = path.read_bytes().split(b"\n\n", 1)[0].decode().splitlines()
    assert lines[0].startswith("NRRD")
    pairs = [line.split(":=", 1) if ":=" in line else line.split(": ", 1) for line in lines[1:] if line[0] != "#"]
    return dict(pairs)


def test_terminology_is_serialised_as_slicer_does():
    assert terminology_entry(KIDNEY) == (
        "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure~SCT^64033007^Kidney"
        "~SCT^24028007^Right~Anatomic codes - DICOM master list~^^~^^"
    )
    assert terminology_entry(LIVER).split("~")[3] == "^^"
    odd = LIVER.model_copy(update={"type": CodedTerm(code="1", meaning="a~b^c|d")})
    assert terminology_entry(odd).split("~")[2] == "SCT^1^a b c d"


def test_header_and_voxels(tmp_path):
    write_segmentation(labels(), CONTRACT.labels, tmp_path / "out.seg.nrrd")
    fields = header(tmp_path / "out.seg.nrrd")
    assert fields["space"] == "left-posterior-superior"
    assert fields["sizes"] == "6 5 4"
    vectors = [[float(x) for x in part[1:-1].split(",")] for part in fields["space directions"].split()]
    np.testing.assert_allclose(vectors, [[0.4, 0.3, 0], [-1.2, 1.6, 0], [0, 0, 2.5]], atol=1e-12)
    assert fields["Segment1_Name"] == "right kidney"
    assert fields["Segment1_LabelValue"] == "2"
    assert fields["Segment1_Layer"] == "0"
    assert fields["Segment1_Extent"] == "0 5 0 4 0 3"
    np.testing.assert_allclose([float(x) * 255 for x in fields["Segment0_Color"].split()], (221, 130, 101), atol=1e-3)
    assert fields["Segment2_Tags"] == f"TerminologyEntry:{terminology_entry(ABSENT)}|"
    assert "Segment3_ID" not in fields
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"
    raw = gzip.decompress((tmp_path / "out.seg.nrrd").read_bytes().split(b"\n\n", 1)[1])
    np.testing.assert_array_equal(np.frombuffer(raw, np.uint8), labels().array.ravel())


def test_reading_back(tmp_path):
    path = tmp_path / "out.seg.nrrd"
    write_segmentation(labels(), CONTRACT.labels, path)
    back = read_label_map(path)
    np.testing.assert_array_equal(back.array, labels().array)
    assert back.grid.close_to(GRID, 1e-9)
    assert read_segments(path)[1] == {
        "id": "Segment_2",
        "name": "right kidney",
        "value": 2,
        "layer": 0,
        "colour": (185, 102, 83),
        "terminology": terminology_entry(KIDNEY),
    }


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nii", "out.nrrd", "out.mha"])
def test_plain_label_maps(tmp_path, name):
    write_segmentation(labels(), CONTRACT.labels, tmp_path / name)
    back = read_label_map(tmp_path / name)
    np.testing.assert_array_equal(back.array, labels().array)
    assert back.grid.close_to(GRID, 1e-4)
    with pytest.raises(BadInputError) as caught:
        read_segments(tmp_path / name)
    assert caught.value.code == "segmentation.unreadable"


def test_volumes_in_millilitres():
    liver, kidney, spleen = segment_volumes(labels(), CONTRACT.labels)
    # 12 voxels of 0.5 x 2 x 2.5 mm = 2.5 mm3 each.
    assert liver == {"name": "liver", "value": 1, "code": "10200004", "voxels": 12, "volume_ml": pytest.approx(0.03),
                     "area_mm2": None, "mean_intensity": None}  # fmt: skip
    assert kidney["volume_ml"] == pytest.approx(0.0025)
    assert spleen["volume_ml"] == 0.0


@pytest.mark.parametrize(
    ("shape", "spacing", "source", "area"),
    [
        ((1, 2, 3), (0.5, 2.0, 5.0), "nifti", 2.0),
        ((2, 1, 3), (0.5, 5.0, 2.0), "nifti", 2.0),
        ((1, 2, 3), (1.0, 1.0, 1.0), "nrrd", None),  # nothing was said of its pixels
        ((1, 2, 3), (0.5, 2.0, 5.0), "png", None),
        ((1, 1, 3), (0.5, 2.0, 5.0), "nifti", None),
    ],
)
def test_a_single_slice_has_an_area_and_no_volume(shape, spacing, source, area):
    array = np.zeros((1, *shape), np.uint8)
    array.flat[:2] = 1
    image = Volume(array, Grid(shape, spacing), source=source)
    liver, kidney, _ = segment_volumes(Volume(array, image.grid), CONTRACT.labels, image)
    assert (liver["voxels"], liver["volume_ml"], liver["area_mm2"]) == (2, None, area)
    assert (kidney["voxels"], kidney["volume_ml"], kidney["area_mm2"]) == (0, None, None if area is None else 0.0)


def test_mean_intensities_are_of_the_segments_own_voxels():
    array = np.zeros((1, 1, 2, 3), np.uint8)
    array[0, 0, 0] = [1, 1, 2]
    image = Volume(np.array([[[[-100, 50, 3000], [7, 8, 9]]]], np.int16), Grid((1, 2, 3)))
    rows = segment_volumes(Volume(array, image.grid), CONTRACT.labels, image)
    assert [row["mean_intensity"] for row in rows] == [-25.0, 3000.0, None]
    colour = Volume(np.zeros((3, 1, 2, 3), np.uint8), image.grid)
    assert segment_volumes(Volume(array, image.grid), CONTRACT.labels, colour)[0]["mean_intensity"] is None


def test_means_of_small_values_keep_their_digits_and_voxels_that_are_no_numbers_do_not_count(tmp_path):
    array = np.zeros((1, 1, 2, 3), np.uint8)
    array[0, 0, 0], array[0, 0, 1, 0] = 1, 2
    diffusion = np.array([[[0.001234, 0.001236, np.nan], [np.nan, 0.0007, 0.0002]]], np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(diffusion), str(tmp_path / "adc.nrrd"))
    image = read_volume(tmp_path / "adc.nrrd")
    rows = segment_volumes(Volume(array, image.grid), CONTRACT.labels, image)
    assert [row["mean_intensity"] for row in rows] == [pytest.approx(0.001235, abs=1e-7), None, None]
    assert [row["voxels"] for row in rows] == [3, 1, 0]


def test_unwritable_places_leave_nothing(tmp_path):
    with pytest.raises(UsageError):
        write_volume(labels(), tmp_path / "out.docx")
    with pytest.raises(CannotDoHereError) as caught:
        write_volume(labels(), tmp_path / "no such folder" / "out.nrrd")
    assert caught.value.code == "file.unwritable"
    (tmp_path / "taken.nrrd").mkdir()
    with pytest.raises(CannotDoHereError):
        write_volume(labels(), tmp_path / "taken.nrrd")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.nrrd"]


@pytest.mark.slicer
def test_slicer_loads_it(tmp_path):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    path = tmp_path / "out.seg.nrrd"
    write_segmentation(labels(), CONTRACT.labels, path)
    scene = slicer.vtkMRMLScene()
    segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
    segmentations.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 3
    for label in CONTRACT.labels:
        segment = segmentation.GetSegment(f"Segment_{label.value}")
        assert segment.GetName() == label.name
        assert segment.GetLabelValue() == label.value
        np.testing.assert_allclose(np.array(segment.GetColor()) * 255, label.colour, atol=1e-3)
        value = vtk.reference("")
        assert segment.GetTag("TerminologyEntry", value)
        entry = slicer.vtkSlicerTerminologyEntry()
        assert slicer.vtkSlicerTerminologiesModuleLogic().DeserializeTerminologyEntry(value.get(), entry)
        assert entry.GetTypeObject().GetCodeValue() == label.type.code
        modifier = entry.GetTypeModifierObject()
        assert (modifier.GetCodeValue() if modifier is not None else None) == (
            label.modifier.code if label.modifier else None
        )
        image = slicer.vtkOrientedImageData()
        assert node.GetBinaryLabelmapRepresentation(f"Segment_{label.value}", image)
        points = _ras_of(image, vtk_to_numpy, vtk)
        k, j, i = np.nonzero(labels().array[0] == label.value)
        expected = (GRID.affine() @ np.stack([i, j, k, np.ones_like(i)]))[:3].T * (-1, -1, 1)
        np.testing.assert_allclose(points, expected, atol=1e-6)


def _ras_of(image, vtk_to_numpy, vtk) -> np.ndarray:
    """Return RAS mm of the non-zero voxels of a vtkOrientedImageData."""
    if image.IsEmpty():
        return np.zeros((0, 3))
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    k, j, i = np.nonzero(vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape))
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
    return (affine @ np.stack([i + i0, j + j0, k + k0, np.ones_like(i)]))[:3].T

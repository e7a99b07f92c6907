"""The See tab's parts by themselves: pictures, histograms, files, words, layouts."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import slicer
import vtk
from FedSegSlicerLib.NrrdReader import readNrrd
from FedSegSlicerLib.SampleVolumes import telling
from FedSegSlicerLib.SeePictures import (
    ORIGINAL_COLOR,
    REFERENCE_COLOR,
    SAMPLE_COLOR,
    PictureFrame,
    drawHistograms,
    writePng,
)
from FedSegSlicerLib.SeeTypes import GinSettings, Look, Sample, Scene
from FedSegSlicerLib.SeeViews import columnsFor, layoutXml, pointInView
from FedSegSlicerLib.SeeWords import measureWords, seenAsWords, settingsWords
from FedSegSlicerLib.VolumeExchange import VolumeSnapshot, writeNrrd
from see_helpers import small_outline, small_scan

pytestmark = pytest.mark.slicer

PLACE = ((2.0, 0.0, 0.0, -10.0), (0.0, 1.0, 0.0, 5.0), (0.0, 0.0, 3.0, 7.0), (0.0, 0.0, 0.0, 1.0))


def ramp(shape=(3, 21, 16)):
    return VolumeSnapshot(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), PLACE)


def test_a_picture_has_the_slices_proportions_and_gray_values():
    snapshot = ramp()
    frame = PictureFrame(snapshot, 1)
    assert frame.shape == (round(240 * 21 / 32), 240)  # 16 columns of 2 mm, 21 rows of 1 mm
    plane = snapshot.array[1]
    picture = frame.picture(plane, (plane.min(), plane.max()), [])
    assert picture.shape == (*frame.shape, 3)
    assert (picture[0, 0, 0], picture[-1, -1, 0]) == (0, 255)
    # Linear between voxels: along a row of a ramp the picture is a ramp.
    expected = np.interp(np.linspace(0, 15, 240), np.arange(16), plane[0]) - plane.min()
    np.testing.assert_allclose(picture[0, :, 1], 255 * expected / np.ptp(plane), atol=1)
    np.testing.assert_allclose(frame.pointsRAS[:3, 0, 0], (10, -5, 10))
    np.testing.assert_allclose(frame.pointsRAS[:3, -1, -1], (10 - 30, -5 - 20, 10))
    constant = frame.picture(plane, (5.0, 5.0), [])
    assert constant.dtype == np.uint8


def test_outlines_are_where_the_segment_ends():
    """A box of voxels is outlined at its own faces, in its color, whatever grid its label map has."""
    snapshot = ramp((1, 40, 40))
    frame = PictureFrame(VolumeSnapshot(snapshot.array, ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))), 0)
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy([-0.5, 0, 0, 0, 0, -0.5, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])
    labels = np.zeros((1, 80, 80), np.uint8)
    labels[0, 20:41, 30:61] = 1  # 10 to 20 mm along j, 15 to 30 mm along i
    fine = slicer.util.addVolumeFromArray(np.zeros((1, 80, 80), np.int16), ijkToRAS=matrix)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(fine)
    segment = node.GetSegmentation().AddEmptySegment("box", "box", (1.0, 0.0, 0.5))
    assert frame.outlines(node) == []
    slicer.util.updateSegmentBinaryLabelmapFromArray(labels, node, segment, fine)
    (outline,) = frame.outlines(node)
    assert outline.color == (255, 0, 128)
    rows, columns = (np.flatnonzero(outline.edge.any(axis=axis)) for axis in (1, 0))
    pixel = 39 / 239
    np.testing.assert_allclose([rows[0] * pixel, rows[-1] * pixel], (10, 20), atol=0.5)
    np.testing.assert_allclose([columns[0] * pixel, columns[-1] * pixel], (15, 30), atol=0.5)
    middle = outline.edge[(rows[0] + rows[-1]) // 2]
    assert 0 < middle.sum() <= 4  # only a border, two pixels wide on each side
    node.GetDisplayNode().SetSegmentVisibility(segment, False)
    assert frame.outlines(node) == []
    node.GetDisplayNode().SetSegmentVisibility(segment, True)
    node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    assert frame.outlines(node) == []
    assert frame.outlines(None) == []


def test_histograms_are_drawn_as_high_as_their_shares():
    flat, peak = [0.25] * 4, [0.0, 0.0, 1.0, 0.0]
    picture = drawHistograms(flat, peak, flat)
    height, width, parts = picture.shape
    assert parts == 4

    def top(color, column):
        return np.flatnonzero((picture[:, column, :3] == color).all(axis=-1) & (picture[:, column, 3] > 0)).min()

    at_peak = round(width * 2 / 3)
    assert top(SAMPLE_COLOR, at_peak) == pytest.approx(5, abs=4)
    assert top(SAMPLE_COLOR, 5) > height - 20
    assert top(REFERENCE_COLOR, 5) == pytest.approx(5 + (height - 10) / 2, abs=4)  # the root of a quarter is a half
    assert top(ORIGINAL_COLOR, 5) == pytest.approx(5 + (height - 10) / 2, abs=4)
    alone = drawHistograms(flat, None, None)
    assert not (alone[..., :3] == SAMPLE_COLOR).all(axis=-1).any()


def test_pictures_survive_their_file(tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (7, 9, 3)).astype(np.uint8)
    writePng(pixels, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5, 3)])
def test_a_volume_survives_the_workers_file(tmp_path, shape):
    place = ((0.8, -0.6, 0.0, 5.0), (0.6, 0.8, 0.0, -6.0), (0.0, 0.0, 2.5, 7.0), (0.0, 0.0, 0.0, 1.0))
    voxels = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    writeNrrd(VolumeSnapshot(voxels, place), tmp_path / "volume.nrrd")
    again = readNrrd(tmp_path / "volume.nrrd")
    np.testing.assert_array_equal(again.array, voxels)
    np.testing.assert_allclose(again.ijkToLPS, place)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("cut", "size|reshape"),
        ("empty", "no NRRD header"),
        ("text", "no NRRD header"),
        ("type", "not as the worker"),
        ("no origin", "convert"),
    ],
)
def test_a_damaged_file_is_an_error_of_value(tmp_path, damage, words):
    path = tmp_path / "volume.nrrd"
    writeNrrd(ramp(), path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[:-5],
            "empty": b"",
            "text": b"not an image at all",
            "type": whole.replace(b"type: float", b"type: short"),
            "no origin": whole.replace(b"space origin: ", b"space nothing: "),
        }[damage]
    )
    with pytest.raises(ValueError, match=words):
        readNrrd(path)


def test_the_window_leaves_out_the_rim_and_the_outliers():
    slab = np.full((1, 40, 40), 0.5, np.float32)
    slab[0, 5:35, 5:35] = np.linspace(0, 1, 900).reshape(30, 30)
    slab[:, :2] = 1000
    assert telling(slab, 5) == pytest.approx((0.005, 0.995), abs=0.01)
    assert telling(slab[:, :6, :6], 5)[1] > 1  # an image that is all rim


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 3), (8, 4), (9, 3), (12, 4)])
def test_layouts_have_a_view_for_every_picture(count, columns):
    assert columnsFor(count) == columns
    root = ET.fromstring(layoutXml(count))
    tags = [view.get("singletontag") for view in root.iter("view")]
    assert tags == [f"FedSegGin{number}" for number in range(count)]
    assert len(root.findall("item")) == -(-count // columns)


def test_the_point_a_slice_view_shows():
    volume = slicer.util.addVolumeFromArray(np.ones((3, 4, 5), np.int16))
    assert pointInView(volume) is None
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    view = logic.AddSliceNode("Test")
    view.SetOrientation("Axial")
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    view.JumpSliceByOffsetting(0, 0, 12.5)
    assert pointInView(volume)[2] == 12.5
    logic.SetMRMLScene(None)


def scene_with(reference: float | None) -> Scene:
    look = Look(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode"))
    return Scene(look, "MR", 0.66, ramp(), 0, 3, 1, [1.0], None, reference)


def test_measures_in_words():
    inverted = Sample(1, 0.5, 0.25, -0.8, 0.9, 0.3, [1.0], 0, True)
    words = measureWords(inverted, scene_with(0.7))
    assert "Sample 2</b>, strength 0.50" in words
    assert "-0.80 (dark and bright have changed places)" in words
    assert "0.90 (anatomy is where it was)" in words
    assert "0.30 SD from the reference's (the original: 0.70), closer than the original" in words
    assert "no closer" in measureWords(inverted, scene_with(0.2))
    lost = Sample(0, 1.0, 2.0, 0.1, 0.1, None, [1.0], 0, True)
    words = measureWords(lost, scene_with(None))
    assert "little of the anatomy is left" in words
    assert "reference" not in words
    assert seenAsWords(scene_with(None)) == "Prepared as MR, 66 % sure. Say above what it is if that is wrong."
    assert settingsWords(GinSettings(0.1, 0.5, 3, (1, 3), True)) == (
        "strength 0.10 to 0.50, 3 layers, kernels 1, 3, one look a batch"
    )


def test_why_no_outline_is_shown_is_told(open_see_panel):
    volume = small_scan("CT")
    outline = small_outline(volume)
    panel = open_see_panel()
    ui = panel.ui
    assert not ui.seeOutlineLabel.isVisible()
    ui.seeSegmentationSelector.setCurrentNode(outline)
    assert not ui.seeOutlineLabel.isVisible()
    outline.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    panel.tab.refresh()
    assert ui.seeOutlineLabel.isVisible()
    assert "Harden it" in ui.seeOutlineLabel.text
    outline.SetAndObserveTransformNodeID(None)
    segmentation = outline.GetSegmentation()
    assert segmentation.CreateRepresentation("Closed surface")
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    panel.tab.refresh()
    assert "contours or surfaces only" in ui.seeOutlineLabel.text
    ui.seeSegmentationSelector.setCurrentNode(None)
    assert not ui.seeOutlineLabel.isVisible()

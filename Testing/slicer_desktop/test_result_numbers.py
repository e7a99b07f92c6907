"""A result that was edited is measured again: no volume in the table is one that is no longer there."""

import numpy as np
import pytest
import slicer
from FedSegSlicerLib.ResultNumbers import Measured, SharedMap, measure
from FedSegSlicerLib.ResultPanel import measureWords
from FedSegSlicerLib.SegmentationResult import ResultRow, findResult
from FedSegSlicerLib.Segments import LabelMap
from panel_helpers import answering, outcome_to_check, segmented, show_result, table_of
from scene_helpers import load_volume, wait_until
from vtk.util.numpy_support import vtk_to_numpy

pytestmark = pytest.mark.slicer

SPACING = np.diag([-2.0, 3.0, 5.0, 1.0])  # 30 mm³ a voxel, mirrored


def test_volumes_and_means_by_hand():
    image = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    labels = np.zeros((2, 2, 3), np.uint8)
    labels[0, 0] = (1, 1, 4)
    labels[1, 1, 2] = 4
    shared = SharedMap(LabelMap(labels, (3, 1, 2), SPACING), {"a": 1, "b": 4, "empty": 3})
    outside = SharedMap(LabelMap(np.ones((1, 1, 4), np.int16), (4, 4, 3), SPACING), {"half outside": 1})
    elsewhere = SharedMap(LabelMap(np.ones((1, 1, 1), np.uint8), (-3, 0, 9), SPACING), {"elsewhere": 1})
    finer = SharedMap(LabelMap(np.ones((2, 2, 2), np.uint8), (0, 0, 0), np.diag([1.0, 1.0, 1.0, 1.0])), {"finer": 1})
    nothing = SharedMap(LabelMap(np.zeros((0, 0, 0), np.uint8), (0, 0, 0), SPACING), {"nothing": 1})
    found = measure([shared, outside, elsewhere, finer, nothing], image, SPACING)
    # voxel (k, j, i) holds 30 k + 6 j + i
    assert found["a"] == Measured(pytest.approx(0.06), (69 + 70) / 2, None, 2)
    assert found["b"] == Measured(pytest.approx(0.06), (71 + 107) / 2, None, 2)
    assert found["empty"] == found["nothing"] == Measured(0.0, None, None, 0)
    assert found["half outside"] == Measured(pytest.approx(0.12), (118 + 119) / 2, None, 4)
    assert found["elsewhere"] == Measured(pytest.approx(0.03), None, None, 1)
    assert found["finer"] == Measured(pytest.approx(0.008), None, None, 8)


@pytest.mark.parametrize(
    ("grid", "area", "words"),
    [(SPACING, 6.0, "6 mm²"), (np.diag([-1.0, -1.0, 5.0, 1.0]), None, "1 px"), (None, None, "not found")],
)
def test_a_single_slice_has_an_area_and_no_volume(grid, area, words):
    labels = np.zeros((1, 4, 5), np.uint8)
    labels[0, 1, 2] = 0 if grid is None else 1
    shared = SharedMap(LabelMap(labels, (0, 0, 0), SPACING if grid is None else grid), {"a": 1})
    found = measure([shared], np.ones((1, 4, 5)), SPACING if grid is None else grid)["a"]
    assert (found.volumeMl, found.voxels) == (None, int(labels.sum()))
    assert found.areaMm2 == (0.0 if grid is None else area)
    row = ResultRow("liver", (0, 0, 0), found.volumeMl, "Segment_1", 1.0, (), found.areaMm2, found.voxels)
    assert measureWords(row) == words


def test_a_segment_of_a_color_image_has_a_size_and_no_mean():
    shared = SharedMap(LabelMap(np.ones((1, 1, 2), np.uint8), (0, 0, 0), SPACING), {"polyp": 1})
    for image, size in (((2, 5, 6, 3), (pytest.approx(0.06), None, None, 2)), ((1, 5, 6, 3), (None, None, 12.0, 2))):
        assert measure([shared], np.ones(image, np.uint8), SPACING) == {"polyp": Measured(*size)}


def test_voxels_that_are_no_numbers_do_not_count_in_a_mean():
    image = np.full((2, 2, 2), 0.002, np.float32)
    image[0, 0] = (np.nan, -np.inf)
    labels = np.ones((2, 2, 2), np.uint8)
    labels[0] = ((2, 1), (1, 1))
    found = measure([SharedMap(LabelMap(labels, (0, 0, 0), SPACING), {"a": 1, "b": 2})], image, SPACING)
    assert found["a"] == Measured(pytest.approx(0.21), pytest.approx(0.002), None, 7)
    assert found["b"] == Measured(pytest.approx(0.03), None, None, 1)


def test_a_label_map_with_negative_values_is_refused():
    layer = SharedMap(LabelMap(np.full((1, 1, 1), -1, np.int16), (0, 0, 0), SPACING), {"a": 1})
    with pytest.raises(ValueError, match="negative"):
        measure([layer], np.zeros((1, 1, 1)), SPACING)


def erase_half(volume, segment):
    """Clear a segment in the upper half of the volume, as the editor does: in place; return the voxels left."""
    segmentation = findResult(volume).GetSegmentation()
    image = segmentation.GetSegment(segment).GetRepresentation("Binary labelmap")
    value = segmentation.GetSegment(segment).GetLabelValue()
    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    upper = voxels[len(voxels) // 2 :]
    upper[upper == value] = 0
    image.GetPointData().GetScalars().Modified()
    image.Modified()
    return int((voxels == value).sum())


def enter_again(panel):
    panel.widget.exit()
    panel.widget.enter()


def test_an_edited_result_is_measured_again_when_the_module_is_entered(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    ui, before = panel.ui, table_of(panel.ui)
    enter_again(panel)
    slicer.app.processEvents()
    assert table_of(ui) == before
    assert "dited" not in ui.resultLabel.text

    findResult(volume).GetSegmentation().GetSegment("Segment_1").SetName("Leber")
    enter_again(panel)
    assert "dited" not in ui.resultLabel.text  # another name changes no number

    left = erase_half(volume, "Segment_1")
    enter_again(panel)
    assert "being measured" in ui.resultLabel.text
    assert not ui.resultTable.isEnabled()
    wait_until(lambda: ui.resultTable.isEnabled())
    assert "Edited since, and measured again. " in ui.resultLabel.text
    after = table_of(ui)
    assert after[0] == ("Leber", f"{left * np.prod(volume.GetSpacing()) / 1000:,.1f}")
    assert after[1:] == before[1:]  # marks and all
    means = [ui.resultTable.item(row, 2).text() for row in range(len(after))]
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, bool)
    labels = findResult(volume).GetSegmentation().GetSegment("Segment_1").GetRepresentation("Binary labelmap")
    first, shape = labels.GetExtent()[::2], labels.GetDimensions()
    inside = tuple(slice(a, a + n) for a, n in zip(first[::-1], shape[::-1], strict=True))
    mask[inside] = vtk_to_numpy(labels.GetPointData().GetScalars()).reshape(shape[::-1]) == 1
    assert means[0] == f"{slicer.util.arrayFromVolume(volume)[mask].mean():,.0f}"


def test_undo_of_a_first_result_asks_before_edits_are_lost(open_panel, patients):
    """There is nothing to go back to, so the result would be gone for good; measuring it again makes no difference."""
    panel, volume = segmented(open_panel, patients)
    ui, node = panel.ui, findResult(volume)
    erase_half(volume, "Segment_1")
    answering("Cancel")
    ui.undoButton.click()
    assert findResult(volume) is node
    enter_again(panel)
    wait_until(lambda: "measured again" in ui.resultLabel.text)
    answering("Cancel")
    ui.undoButton.click()
    assert findResult(volume) is node
    assert ui.resultCollapsibleButton.isVisible()
    answering("Remove")
    ui.undoButton.click()
    assert findResult(volume) is None
    assert not ui.resultCollapsibleButton.isVisible()


def test_undo_asks_nothing_where_redo_brings_edits_back(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    panel.ui.segmentButton.click()
    panel.idle()
    left = erase_half(volume, "Segment_1")
    edited = findResult(volume).GetSegmentation()
    panel.ui.undoButton.click()
    assert findResult(volume).GetSegmentation() is not edited
    panel.ui.undoButton.click()
    assert findResult(volume).GetSegmentation() is edited
    labels = edited.GetSegment("Segment_1").GetRepresentation("Binary labelmap").GetPointData().GetScalars()
    assert int((vtk_to_numpy(labels) == edited.GetSegment("Segment_1").GetLabelValue()).sum()) == left


def test_segments_that_were_added_and_removed_are_in_the_table(open_panel, patients):
    panel, volume = segmented(open_panel, patients)
    segmentation = findResult(volume).GetSegmentation()
    copy = slicer.vtkSegment()
    copy.DeepCopy(segmentation.GetSegment("Segment_2"))
    copy.SetName("copy of the kidney")
    volumes = dict(table_of(panel.ui))
    kidney = next(volume for name, volume in volumes.items() if name.startswith("Right kidney"))
    segmentation.RemoveSegment("Segment_3")
    segmentation.AddSegment(copy, "mine")
    enter_again(panel)
    wait_until(lambda: panel.ui.resultTable.isEnabled())
    after = dict(table_of(panel.ui))
    assert not any(name.startswith("Left kidney") for name in after)
    assert after["Copy of the kidney"] == kidney


def test_what_cannot_be_measured_is_told(open_panel, patients):
    volume = load_volume(patients["CT"], "CT abdomen")
    panel = open_panel()
    panel.ready()
    outcome = outcome_to_check(volume)
    show_result(panel, outcome, volume)
    segmentation = outcome.node.GetSegmentation()
    segmentation.AddSegment(slicer.vtkSegment(), "surface")  # with no label map, like a segment of an STL file
    segmentation.GetSegment("surface").RemoveRepresentation("Binary labelmap")
    before = table_of(panel.ui)
    enter_again(panel)
    assert "cannot be measured: the table has the model's numbers" in panel.ui.resultLabel.text
    assert table_of(panel.ui) == before
    assert panel.ui.resultTable.isEnabled()
